"""Meta-test: explore, adapt to the task, score (the protocol of section 6).

A meta-episode in a task is two exploration episodes, adaptation to all their transitions and true
rewards (SMAC: exploration with z from the prior, then a z of the posterior), and a last episode,
which is scored. The policy is deterministic throughout, save exploration where
``evaluation.deterministic_exploration`` says so. Evaluation from *offline* context replaces the
exploration by as many transitions of the dataset: figure 2 compares the two. From *no* context the
agent does not adapt at all, which tells what adapting is worth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from smac_core.agents.interface import Adaptation, MetaAgent
from smac_core.config import Evaluation
from smac_core.data.dataset import TaskData
from smac_core.data.trajectories import Trajectories
from smac_core.intervals import interval
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.rollout import rollout

ContextSource = Literal["online", "offline", "none"]


@dataclass(frozen=True)
class MetaTest:
    """Results of K tasks x R repeats."""

    context: ContextSource
    tasks: list[dict[str, Any]]
    returns: np.ndarray  # [K, R] of the last episode
    success: np.ndarray  # [K, R] bool, at the last step
    exploration_returns: (
        np.ndarray
    )  # [K, R], mean over exploration episodes; NaN where there are none
    kl: np.ndarray  # [K, R], D_KL(posterior || prior); NaN where there is no posterior
    decoder_error: (
        np.ndarray
    )  # [K, R], mean squared error of expected rewards, last episode; NaN where none are
    trajectories: Trajectories  # the last episodes, [K * R, H], repeats of a task adjacent
    explorations: list[Trajectories]  # likewise each exploration episode

    def summary(self) -> dict[str, Any]:
        """Means with 95 % intervals over tasks, in all and by desired behaviour."""
        behaviors = [str(task.get("behavior", "all")) for task in self.tasks]
        report: dict[str, Any] = {
            "context": self.context,
            "tasks": len(self.tasks),
            "repeats": self.returns.shape[1],
            "return": interval(self.returns.mean(1)),
            "success": interval(self.success.mean(1)),
            "exploration_return": _mean(self.exploration_returns),
            "kl": _mean(self.kl),
            "decoder_error": _mean(self.decoder_error),
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
    agent: MetaAgent,
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
    arguments = {"horizon": horizon, "generator": generator, "advance": advance}
    explored = torch.full((len(repeated),), float("nan"), device=agent.device)
    episodes: list[Trajectories] = []
    if context == "online":
        explore = agent.explorer(len(repeated), settings, generator)
        for _ in range(settings.exploration_episodes):
            episodes.append(rollout(pool, explore(), repeated, **arguments))
        explored = torch.stack([episode.returns for episode in episodes]).mean(0)
        adapted = agent.adapt(episodes, settings, generator)
    elif context == "offline":
        if offline is None or len(offline) != len(tasks):
            found = "none" if offline is None else f"data of {len(offline)}"
            raise ValueError(
                f"offline context for {len(tasks)} tasks needs each task's offline data, found "
                f"{found}"
            )
        history = agent.recall(offline * repeats, settings, horizon, generator)
        adapted = agent.adapt(history, settings, generator)
    else:
        adapted = Adaptation(agent.unadapted(len(repeated), settings, generator))
    last = rollout(pool, adapted.actor, repeated, **arguments)
    unknown = torch.full_like(explored, float("nan"))
    error = unknown
    if adapted.expected_rewards is not None:
        expected = adapted.expected_rewards(last)
        error = ((expected - last.rewards) ** 2 * last.present).sum(-1) / last.present.sum(-1)

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
        kl=by_task(unknown if adapted.kl is None else adapted.kl),
        decoder_error=by_task(error),
        trajectories=ordered(last),
        explorations=[ordered(episode) for episode in episodes],
    )


def _mean(values: np.ndarray) -> float | None:
    """The mean; None where there is nothing to average (JSON knows no NaN)."""
    return None if np.isnan(values).any() else float(values.mean())
