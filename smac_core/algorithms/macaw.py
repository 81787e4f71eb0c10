"""MACAW, meta-actor critic with advantage weighting (Mitchell et al. 2021), for comparison.

MAML on supervised losses: policy and value function are trained so that ``macaw.inner_steps``
gradient steps on a task's transitions make good ones of them (see smac_core.agents.macaw).
"""

from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_core.agents.macaw import (
    SMALLEST_DEVIATION,
    MacawAgent,
    Transitions,
    advantage_weights,
    bootstrapped,
    discounted_returns,
    log_density,
)
from smac_core.algorithms.learner import Learner, polyak_update
from smac_core.config import Config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.replay import Replay
from smac_core.errors import InputError
from smac_core.losses import Info


class Sample(NamedTuple):
    """A meta-batch: all that is random in an update."""

    inner: Transitions  # what networks adapt to
    outer: Transitions  # what adapted networks are judged by


class Timeline(NamedTuple):
    """All transitions of all training tasks in time order, task after task: M of J trajectories."""

    observations: Tensor  # [M, ds], standardised
    actions: Tensor  # [M, da]
    returns: Tensor  # [M], Monte-Carlo, standardised
    earned: Tensor  # [M], as in Transitions
    continuation: Tensor  # [M], as in Transitions
    trajectory: Tensor  # [M], number of the trajectory
    last_observations: Tensor  # [J, ds], standardised, after each trajectory's last step
    starts: Tensor  # [tasks], a task's first row
    sizes: Tensor  # [tasks]

    def at(self, rows: Tensor) -> Transitions:
        """Those of rows [T, N]."""
        return Transitions(
            self.observations[rows],
            self.actions[rows],
            self.returns[rows],
            self.earned[rows],
            self.continuation[rows],
            self.last_observations[self.trajectory[rows]],
        )


class MACAW(Learner):
    """Outer losses of policy and value function, evaluated after the inner steps.

    A trajectory that the clock ended, or that the data cut, goes on. V's inner steps regress on
    rewards alone, cut as they are (authors' code). Everything else bootstraps: its return takes in
    discount^k V(s_T), with V adapted in the inner steps of the policy and, outside, with an adapted
    V' whose parameters are a running average of V's.

    Raises:
        InputError: bfloat16 is asked for; an inner step's gradient loses too much in it.
    """

    agent: MacawAgent

    def __init__(self, config: Config, agent: MacawAgent, generator: torch.Generator):
        super().__init__(config, agent, generator)
        if config.execution.precision == "bfloat16":
            expected = "float32 or tf32: MACAW's inner steps are not taken in bfloat16"
            raise InputError("execution.precision", "value", "bfloat16", expected)
        self.macaw = config.macaw
        self.target_value = deepcopy(agent.value).requires_grad_(False)
        self.networks["target_value"] = self.target_value
        policy, value = agent.policy, agent.value
        self.optimizer("policy", policy.meta_parameters(), self.macaw.policy_learning_rate)
        self.optimizer("value", value.meta_parameters(), self.macaw.value_learning_rate)
        rates = [*policy.raw_parameters(), *value.raw_parameters()]
        self.optimizer("rates", rates, self.macaw.rate_learning_rate)

    @staticmethod
    def make_agent(config: Config, observation_dim: int, action_dim: int) -> MacawAgent:
        return MacawAgent(observation_dim, action_dim, config.macaw, config.updates)

    def prepare(self, dataset: Dataset) -> None:
        """All transitions with their returns, on the agent's device.

        Raises:
            InputError: a task has fewer than ``macaw.inner_batch`` transitions, or rows that are
                not in time order, of which no return can be computed.
        """
        self.timeline = make_timeline(self.agent, dataset, self.macaw.inner_batch)

    def offline_draw(self, replay: Replay, generator: torch.Generator) -> Sample:
        """Transitions of random tasks: neighbours in time inside, random ones outside."""
        settings, line = self.macaw, self.timeline
        tasks = replay.sample_tasks(settings.meta_batch, generator)
        starts, sizes = line.starts[tasks].unsqueeze(-1), line.sizes[tasks].unsqueeze(-1)
        uniform = torch.rand(
            len(tasks), 1 + settings.outer_batch, device=starts.device, generator=generator
        )
        spare = sizes - settings.inner_batch
        first = starts + torch.minimum((uniform[:, :1] * (spare + 1)).long(), spare)
        inner = first + torch.arange(settings.inner_batch, device=first.device)
        outer = starts + torch.minimum((uniform[:, 1:] * sizes).long(), sizes - 1)
        return Sample(line.at(inner), line.at(outer))

    def offline_loss(self, sample: Sample) -> tuple[Tensor, Info]:
        """Value: squared error to the bootstrapped returns. Policy: advantage-weighted regression.

        Both means over the tasks, both through the inner steps; the policy's outer loss has no term
        of the advantage head.
        """
        agent, inner, outer = self.agent, sample.inner, sample.outer
        with torch.no_grad():
            later = agent.adapt_value(self.target_value, inner)
            targets = bootstrapped(self.target_value, later, outer)
        adapted = agent.adapt_value(agent.value, inner)
        values = agent.value(adapted, outer.observations)
        value_error = ((values - targets) ** 2).mean()
        with torch.no_grad():
            advantages = targets - values
            weights = advantage_weights(
                advantages, self.macaw.temperature, self.macaw.largest_weight
            )
        mean = agent.policy(agent.adapt_policy(inner, adapted), outer.observations)
        likelihood = log_density(mean, outer.actions, self.macaw.policy_deviation)
        actor_error = -(likelihood * weights).mean()
        info = {
            "critic_loss": value_error.detach(),
            "actor_loss": actor_error.detach(),
            "log_prob": likelihood.detach().mean(),
            "value": values.detach().mean(),
            "advantage": advantages.mean(),
            "advantage_std": advantages.std(),
            "advantage_weight": weights.mean(),
            "policy_rate": _mean_rate(agent.policy),
            "value_rate": _mean_rate(agent.value),
        }
        return value_error + actor_error, info

    def follow(self) -> None:
        polyak_update(self.target_value, self.agent.value, self.macaw.target_rate)


def make_timeline(agent: MacawAgent, dataset: Dataset, least: int) -> Timeline:
    """The training tasks' own transitions and, behind them, those of their histories.

    Fits the agent's scale of returns where it has none.

    Raises:
        InputError: as ``MACAW.prepare``.
    """
    parts, sizes = [], []
    for number, task in enumerate(dataset.train):
        where = f"train/{number:04d}"
        own = [(where, task)]
        if task.context is not None:
            own.append((f"{where}/context", task.context))
        for name, part in own:
            _check_order(dataset, name, part)
        parts += [part for _, part in own]
        sizes.append(sum(len(part) for _, part in own))
        if sizes[-1] < least:
            found = f"{sizes[-1]} transitions"
            expected = f"at least {least}, macaw.inner_batch; set a smaller one"
            raise InputError(dataset.path, where, found, expected)
    device = agent.device
    actions, rewards, terminals, timeouts = (
        torch.cat([torch.from_numpy(getattr(part, name)) for part in parts]).to(device)
        for name in ("actions", "rewards", "terminals", "timeouts")
    )
    observations, following = (
        torch.cat([torch.from_numpy(getattr(part, name)) for part in parts]).to(device)
        for name in ("observations", "next_observations")
    )
    ends = (terminals | timeouts).nonzero().squeeze(-1)
    rows = torch.arange(len(rewards), device=device)
    trajectory = torch.searchsorted(ends, rows)
    remaining = ends[trajectory] - rows + 1
    returns = discounted_returns(rewards.double(), remaining, agent.discount)
    if agent.return_deviation == 0:
        agent.return_mean.copy_(returns.mean())
        agent.return_deviation.copy_(returns.std(correction=0).clamp_min(SMALLEST_DEVIATION))
    continuation = agent.discount ** remaining.double() * ~terminals[ends][trajectory]
    standardized, earned = agent.standardize_returns(returns, continuation)
    sizes = torch.tensor(sizes, device=device)
    return Timeline(
        agent.standardizer(observations),
        actions,
        standardized.float(),
        earned.float(),
        continuation.float(),
        trajectory,
        agent.standardizer(following[ends]),
        sizes.cumsum(0) - sizes,
        sizes,
    )


def _check_order(dataset: Dataset, where: str, part: TaskData) -> None:
    """Whether most steps lead to the next row's observation: else rows are not in time order."""
    ends = part.terminals | part.timeouts
    if not ends[-1]:
        found, expected = "no end in the last row", "terminals or timeouts true at every end"
        raise InputError(dataset.path, f"{where}/timeouts", found, expected)
    inside = ~ends[:-1]
    if not inside.any():
        found = f"{len(part)} trajectories of one step"
        expected = "trajectories of several: MACAW learns from what follows a step"
        raise InputError(dataset.path, f"{where}/timeouts", found, expected)
    same = np.isclose(part.next_observations[:-1], part.observations[1:], 1e-3, 1e-4).all(-1)
    share = same[inside].mean()
    if share < 0.5:
        found = f"the next row's observations in {share:.0%} of the rows"
        expected = "in most: rows in time order, of which MACAW computes returns"
        raise InputError(dataset.path, f"{where}/next_observations", found, expected)


def _mean_rate(network: torch.nn.Module) -> Tensor:
    """The mean of a network's inner learning rates."""
    return torch.cat([layer.rates.detach() for layer in network.layers]).mean()
