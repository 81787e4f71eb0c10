"""BOReL (Dorfman et al. 2021): a belief VAE, then SAC on states augmented by the belief.

Stage ``belief`` trains belief and reward decoder on rollouts of several episodes. Stage ``offline``
runs SAC on s+ = [s, mean, log-variance], the belief before a step, and its successor with the
belief after it, computed once when the stage begins. Rewards are scaled by ``updates.reward_scale``
in the Bellman target alone; the belief meets them unscaled. Time limits are not terminal, nor does
a value look over the end of an episode.

Reward relabelling (``borel.reward_function``; off for the comparison, in which the true reward
function is not known): a rollout's first trajectory is another task's, its rewards recomputed.
"""

from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_core.agents.borel import BeliefAgent
from smac_core.algorithms.belief import BeliefSample, Rollouts, belief_loss
from smac_core.algorithms.learner import Learner, polyak_update
from smac_core.config import Config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.replay import Batch, Layout, Replay
from smac_core.errors import InputError
from smac_core.losses import Info, critic_loss, pearl_actor_loss
from smac_core.networks import TwinQ
from smac_core.reward_functions import RewardFunction, reward_function

AT_ONCE = 256  # rollouts whose beliefs are computed together
AGREES = 0.01  # within which a reward function gives the data's rewards, absolute and relative



class Augmented(NamedTuple):
    """Every step of many rollouts, task after task: R steps."""

    places: Tensor  # [R], rows of the rollouts' data
    before: Tensor  # [R, 2 dz], the belief that the policy has when it acts
    after: Tensor  # [R, 2 dz], the belief after the step
    starts: Tensor  # [T], a task's first step
    sizes: Tensor  # [T], how many it has


class Noise(NamedTuple):
    """Standard normal draws of a gradient step of SAC, [T, N, da] each."""

    next_actions: Tensor
    actions: Tensor


class Sample(NamedTuple):
    """All that is random in a gradient step of SAC."""

    batch: Batch  # [T, N, ...], its observations augmented
    noise: Noise


class BOReL(Learner):
    """The belief first, then actor and critic with the belief frozen."""

    agent: BeliefAgent

    def __init__(self, config: Config, agent: BeliefAgent, generator: torch.Generator):
        super().__init__(config, agent, generator)
        own = self.own = config.borel
        self.critic = TwinQ(agent.state_dim, agent.action_dim, 0, own.hidden).to(agent.device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.networks |= {"critic": self.critic, "target_critic": self.target_critic}
        belief = [*agent.encoder.parameters(), *agent.decoder.parameters()]
        self.optimizer("belief", belief, own.belief_learning_rate)
        self.optimizer("policy", agent.policy.parameters(), own.learning_rate)
        self.optimizer("critic", self.critic.parameters(), own.learning_rate)
        self.rollouts: Rollouts | None = None  # from prepare
        self.augmented: Augmented | None = None  # from begin_stage

    @staticmethod
    def make_agent(config: Config, observation_dim: int, action_dim: int) -> BeliefAgent:
        return BeliefAgent(observation_dim, action_dim, config.borel)

    @property
    def offline_stages(self) -> dict[str, int]:
        """The belief's steps, and SAC's: what is left of ``offline.steps``."""
        total = self.config.offline.steps
        belief = min(self.own.belief_steps, total)
        return {"belief": belief, "offline": total - belief}

    def prepare(self, dataset: Dataset) -> None:
        """The training tasks' data on the device, with relabelled trajectories where asked for.

        Raises:
            InputError: the reward function is none, or does not give the data's rewards.
        """
        openings = None
        if self.own.reward_function is not None:
            openings = relabelled(dataset.train, self.own.reward_function)
        self.rollouts = Rollouts(
            dataset.train,
            openings,
            self.agent.standardizer,
            Layout(self.agent.observation_dim, self.agent.action_dim),
            episodes=self.own.rollout_episodes,
            horizon=dataset.horizon,
            device=self.agent.device,
        )

    def begin_stage(self, stage: str) -> None:
        """Before SAC: the belief before and after every step of the rollouts it learns from."""
        if stage == "offline":
            self.augmented = self.augment_all()

    @torch.no_grad()
    def augment_all(self) -> Augmented:
        """Beliefs along every task's rollouts (``Rollouts.orders``); the same at every call."""
        parts, sizes = [], []
        for task in range(len(self.rollouts.count)):
            trajectories = self.rollouts.orders(task, self.own.augmented_orders)
            of_task = [self._along(some) for some in trajectories.split(AT_ONCE)]
            parts += of_task
            sizes.append(sum(len(places) for places, _, _ in of_task))
        size = torch.tensor(sizes, device=self.agent.device)
        joined = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return Augmented(*joined, size.cumsum(0) - size, size)

    def _along(self, trajectories: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        places, present = self.rollouts.places(trajectories)
        batch = self.rollouts.batch(places)
        beliefs = self.agent.encoder(batch.next_observations, batch.actions, batch.rewards)
        features = beliefs.features
        return places[present], features[:, :-1][present], features[:, 1:][present]

    def belief_draw(self, replay: Replay, generator: torch.Generator) -> BeliefSample:
        """Rollouts of random tasks, and which of their posteriors reconstruct the rewards."""
        own = self.own
        tasks = replay.sample_tasks(own.belief_tasks, generator)
        trajectories = self.rollouts.draw(tasks, own.belief_rollouts, generator)
        places, present = self.rollouts.places(trajectories)
        posteriors = present.sum(-1, keepdim=True) + 1  # of each rollout
        device, count = places.device, own.belief_posteriors
        if count is None:  # all
            count = self.rollouts.steps + 1
            times = torch.arange(count, device=device).expand(len(places), -1)
            weights = (times < posteriors) / posteriors
        else:
            uniform = torch.rand(len(places), count, device=device, generator=generator)
            times = torch.minimum((uniform * posteriors).long(), posteriors - 1)
            weights = torch.full_like(uniform, 1 / count)
        shape = (len(places), count, own.latent_dim)
        noise = torch.randn(shape, device=device, generator=generator)
        return BeliefSample(self.rollouts.batch(places), present, times, weights, noise)

    def belief_loss(self, sample: BeliefSample) -> tuple[Tensor, Info]:
        agent = self.agent
        return belief_loss(agent.encoder, agent.decoder, sample, kl_weight=self.own.kl_weight)

    def offline_draw(self, replay: Replay, generator: torch.Generator) -> Sample:
        """Steps of random tasks with their augmented states."""
        own, steps = self.own, self.augmented
        tasks = replay.sample_tasks(own.meta_batch, generator)
        shape = (own.meta_batch, own.rl_batch)
        uniform = torch.rand(shape, device=self.agent.device, generator=generator)
        size = steps.sizes[tasks, None]
        index = steps.starts[tasks, None] + torch.minimum((uniform * size).long(), size - 1)
        batch = self.rollouts.batch(steps.places[index])
        batch = batch._replace(
            observations=torch.cat([batch.observations, steps.before[index]], -1),
            next_observations=torch.cat([batch.next_observations, steps.after[index]], -1),
        )
        wide = (*shape, self.agent.action_dim)
        noise = (torch.randn(wide, device=index.device, generator=generator) for _ in Noise._fields)
        return Sample(batch, Noise(*noise))

    def offline_loss(self, sample: Sample) -> tuple[Tensor, Info]:
        """SAC with a fixed alpha: equation (1) with the entropy, and its actor's loss."""
        batch, noise = sample
        policy, alpha = self.agent.policy, self.own.entropy_coefficient
        none = batch.observations[..., :0]  # z: the belief is part of the state
        critic_error, info, _ = critic_loss(
            self.critic,
            self.target_critic,
            policy,
            batch,
            none,
            noise.next_actions,
            discount=self.settings.discount,
            reward_scale=self.settings.reward_scale,
            entropy_coefficient=alpha,
        )
        distribution = policy(batch.observations, none)
        unsquashed = distribution.unsquashed(noise.actions)
        value = self.critic(batch.observations, unsquashed.tanh(), none, frozen=True).amin(0)
        actor_error, actor_info = pearl_actor_loss(
            value, distribution.log_density(unsquashed), entropy_coefficient=alpha
        )
        spread = {"policy_std": distribution.log_std.detach().exp().mean()}
        return critic_error + actor_error, info | actor_info | spread

    def follow(self) -> None:
        polyak_update(self.target_critic, self.critic, self.own.target_rate)


def relabelled(tasks: list[TaskData], function: str) -> list[TaskData]:
    """For each task, trajectories of the others with the rewards that it would have given.

    As many as it has itself, drawn at random, alike in every run.

    Raises:
        InputError: there is no such function, only one task, or it gives other rewards than the
            data have.
    """
    where = "borel.reward_function"
    rewards_of = reward_function(function, where)
    if len(tasks) < 2:
        raise InputError(where, "tasks", "one", "at least 2: another's trajectories are relabelled")
    choice, found = np.random.default_rng(0), []
    for number, task in enumerate(tasks):
        _check_agreement(rewards_of, task, where)
        others = [data for i, data in enumerate(tasks) if i != number]
        pieces = []
        for _ in task.trajectories:
            other = others[choice.integers(len(others))]
            rows = other.trajectories[choice.integers(len(other.trajectories))]
            pieces.append((other, rows))
        names = ("observations", "actions", "next_observations", "terminals", "timeouts")
        arrays = {n: np.concatenate([getattr(o, n)[r] for o, r in pieces]) for n in names}
        moved = (arrays[name] for name in ("observations", "actions", "next_observations"))
        rewards = np.asarray(rewards_of(*moved, task.task), np.float32)
        found.append(replace(task, **arrays, rewards=rewards, context=None, cut=(False, False)))
    return found


def _check_agreement(rewards_of: RewardFunction, task: TaskData, where: str) -> None:
    """Raises InputError unless a task's own rewards come out as they are in the data."""
    made = np.asarray(
        rewards_of(task.observations, task.actions, task.next_observations, task.task)
    )
    if made.shape != task.rewards.shape:
        raise InputError(where, "shape", made.shape, f"{task.rewards.shape}, a reward each row")
    if not np.allclose(made, task.rewards, rtol=AGREES, atol=AGREES):
        row = int(np.abs(made - task.rewards).argmax())
        found = f"{made[row]:.4g} in row {row} of the task {task.task}"
        raise InputError(where, "rewards", found, f"{task.rewards[row]:.4g}, as in the data")
