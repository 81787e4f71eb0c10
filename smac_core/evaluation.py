"""Meta-test: explore, infer the task, score (the protocol of section 6).

A meta-episode in a task is two exploration episodes with z from the prior, the posterior given all
their transitions and true rewards, and a last episode with z from that posterior; the last one is
scored. The policy is deterministic throughout, save exploration where
``evaluation.deterministic_exploration`` says so. Evaluation from *offline* context replaces the
exploration by as many transitions of the dataset: figure 2 compares the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from smac_core.agent import Agent, choose
from smac_core.config import Evaluation
from smac_core.data.dataset import TaskData
from smac_core.intervals import interval
from smac_core.networks import Gaussian
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.rollout import Trajectories, rollout

ContextSource = Literal["online", "offline"]


@dataclass(frozen=True)
class MetaTest:
    """Results of K tasks x R repeats."""

    context: ContextSource
    tasks: list[dict[str, Any]]
    returns: np.ndarray  # [K, R] of the last episode
    success: np.ndarray  # [K, R] bool, at the last step
    exploration_returns: (
        np.ndarray
    )  # [K, R], mean over exploration episodes; NaN from offline context
    kl: np.ndarray  # [K, R], D_KL(posterior || prior)
    decoder_error: np.ndarray  # [K, R], mean squared error of decoded rewards, last episode
    trajectories: Trajectories  # the last episodes, [K * R, H], repeats of a task adjacent
    explorations: list[Trajectories]  # likewise each exploration episode; none: offline context

    def summary(self) -> dict[str, Any]:
        """Means with 95 % intervals over tasks, in all and by desired behaviour."""
        behaviors = [str(task.get("behavior", "all")) for task in self.tasks]
        report: dict[str, Any] = {
            "context": self.context,
            "tasks": len(self.tasks),
            "repeats": self.returns.shape[1],
            "return": interval(self.returns.mean(1)),
            "success": interval(self.success.mean(1)),
            "exploration_return": (
                float(self.exploration_returns.mean()) if self.context == "online" else None
            ),
            "kl": float(self.kl.mean()),
            "decoder_error": float(self.decoder_error.mean()),
            "by_behavior": {},
        }
        for behavior in sorted(set(behaviors)):
            rows = [i for i, name in enumerate(behaviors) if name == behavior]
            report["by_behavior"][behavior] = {
                "tasks": len(rows),
                "return": interval(self.returns[rows].mean(1)),
                "success": interval(self.success[rows].mean(1)),
            }
        return report


def meta_test(
    pool: EnvironmentPool,
    agent: Agent,
    tasks: list[dict[str, Any]],
    settings: Evaluation,
    *,
    horizon: int,
    context: ContextSource,
    offline: list[TaskData] | None = None,
    generator: torch.Generator | None = None,
    advance: Callable[[int], None] | None = None,
) -> MetaTest:
    """Adapt to each task ``settings.repeats`` times and score the last episode.

    Args:
        offline: each task's offline data; needed for ``context="offline"``.
        advance: told how many environment steps were taken, for a progress display.

    Raises:
        ValueError: offline context is asked for without a task's offline data.
    """
    repeats = settings.repeats
    # repeat-major while rolling out, so that an environment meets the same task again
    repeated = tasks * repeats
    arguments = {
        "horizon": horizon,
        "generator": generator,
        "advance": advance,
    }
    explored = torch.full((len(repeated),), float("nan"), device=agent.device)
    episodes: list[Trajectories] = []
    if context == "online":
        for _ in range(settings.exploration_episodes):
            z = None
            if settings.exploration_latent == "trajectory":
                z = agent.prior(len(repeated)).sample(generator)
            explores = settings.deterministic_exploration
            episodes.append(
                rollout(pool, agent, repeated, z, deterministic=explores, **arguments)
            )
        history = [torch.cat(parts, 1) for parts in zip(*episodes, strict=True)]
        history = Trajectories(*history)
        posterior = agent.infer(
            history.observations, history.actions, history.rewards, history.present
        )
        explored = history.returns / settings.exploration_episodes
    else:
        if offline is None or len(offline) != len(tasks):
            found = "none" if offline is None else f"data of {len(offline)}"
            raise ValueError(
                f"offline context for {len(tasks)} tasks needs each task's offline data, found "
                f"{found}"
            )
        length = settings.exploration_episodes * horizon
        posterior = infer_offline(agent, offline * repeats, length, generator)
    z = choose(posterior, settings.posterior_latent, generator)
    last = rollout(pool, agent, repeated, z, deterministic=True, **arguments)
    decoded = agent.label(last.observations, last.actions, z)
    error = ((decoded - last.rewards) ** 2 * last.present).sum(-1) / last.present.sum(-1)

    def by_task(values: Tensor) -> np.ndarray:
        return values.view(repeats, len(tasks)).T.cpu().numpy()

    order = torch.arange(len(repeated)).view(repeats, len(tasks)).T.flatten()

    def ordered(found: Trajectories) -> Trajectories:
        return Trajectories(*(part[order] for part in found))

    return MetaTest(
        context=context,
        tasks=tasks,
        returns=by_task(last.returns),
        success=by_task(last.final_success),
        exploration_returns=by_task(explored),
        kl=by_task(posterior.kl_from_standard_normal()),
        decoder_error=by_task(error),
        trajectories=ordered(last),
        explorations=[ordered(episode) for episode in episodes],
    )


def infer_offline(
    agent: Agent, data: list[TaskData], count: int, generator: torch.Generator | None = None
) -> Gaussian:
    """Posteriors [K, dz] given ``count`` transitions of each history, with replacement."""
    device = agent.device
    columns: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for task in (task.history for task in data):
        uniform = torch.rand(count, device=device, generator=generator)
        index = (uniform * len(task.rewards)).long().cpu().numpy()
        columns[0].append(torch.from_numpy(task.observations[index]))
        columns[1].append(torch.from_numpy(task.actions[index]))
        columns[2].append(torch.from_numpy(task.rewards[index]))
    return agent.infer(*(torch.stack(column).to(device) for column in columns))
