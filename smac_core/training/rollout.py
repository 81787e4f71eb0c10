"""Episodes of an agent, many at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from smac_core.agents.interface import Actor
from smac_core.data.trajectories import Trajectories
from smac_core.training.environment_pool import EnvironmentPool


@contextmanager
def one_thread() -> Iterator[None]:
    """A few rows need no second thread, which would go on spinning while environments step."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rollout(
    pool: EnvironmentPool,
    actor: Actor,
    tasks: list[dict[str, Any]],
    *,
    horizon: int,
    generator: torch.Generator | None = None,
    advance: Callable[[int], None] | None = None,
) -> Trajectories:
    """One episode in each of E tasks, those that the actor was made for.

    Args:
        generator: what the environments are seeded from.
        advance: told after every step how many environment steps were taken.
    """
    device = actor.device
    count, ds, da = len(tasks), pool.observation_dim, pool.action_dim
    shape = (count, horizon)
    observations, next_observations = np.zeros((2, *shape, ds), np.float32)
    actions = np.zeros((*shape, da), np.float32)
    rewards = np.zeros(shape, np.float32)
    terminals, success, present = np.zeros((3, *shape), bool)
    seeds = torch.randint(2**31 - 1, (count,), device=device, generator=generator).tolist()
    for start in range(0, count, pool.size):
        episodes = np.arange(start, min(start + pool.size, count))
        current = pool.reset(
            episodes - start, [tasks[e] for e in episodes], [seeds[e] for e in episodes]
        )
        for t in range(horizon):
            seen = torch.from_numpy(current).to(device)
            with one_thread():
                action = actor.act(episodes, seen)
            observations[episodes, t] = current
            actions[episodes, t] = action.cpu().numpy()
            result = pool.step(episodes - start, actions[episodes, t])
            next_observations[episodes, t] = result.observations
            rewards[episodes, t] = result.rewards
            terminals[episodes, t] = result.terminated
            success[episodes, t] = result.success
            present[episodes, t] = True
            if actor.observes:
                earned, after = (
                    torch.from_numpy(array[episodes, t]).to(device)
                    for array in (rewards, next_observations)
                )
                with one_thread():
                    actor.observe(episodes, seen, action, earned, after)
            if advance is not None:
                advance(len(episodes))
            alive = ~result.terminated
            episodes, current = episodes[alive], result.observations[alive]
            if not len(episodes):
                break
    arrays = (observations, actions, rewards, next_observations, terminals, success, present)
    return Trajectories(*(torch.from_numpy(array).to(device) for array in arrays))
