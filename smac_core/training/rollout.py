"""Episodes of an agent, many at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_core.agent import Agent
from smac_core.data.replay import Layout
from smac_core.training.environment_pool import EnvironmentPool


class Trajectories(NamedTuple):
    """E episodes of at most H steps, on the agent's device, in raw units."""

    observations: Tensor  # [E, H, ds]
    actions: Tensor  # [E, H, da]
    rewards: Tensor  # [E, H], the environment's own; 0 where absent
    next_observations: Tensor  # [E, H, ds]
    terminals: Tensor  # [E, H]
    success: Tensor  # [E, H] bool, after each step
    present: Tensor  # [E, H] bool; false after an early end

    @classmethod
    def one(
        cls,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        rewards: np.ndarray | None = None,
        terminals: np.ndarray | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> "Trajectories":
        """One whole episode of arrays [H, ds], [H, da], [H, ds], [H], [H]; None: all 0."""
        count = len(observations)
        zeros = np.zeros(count, np.float32)
        rewards, terminals = (zeros if x is None else x for x in (rewards, terminals))
        arrays = (observations, actions, rewards, next_observations, terminals)
        tensors = [torch.tensor(array, device=device).unsqueeze(0) for array in arrays]
        success = torch.zeros(1, count, dtype=torch.bool, device=device)
        return cls(*tensors, success, ~success)

    @property
    def returns(self) -> Tensor:
        """Sum of rewards [E]."""
        return self.rewards.sum(-1)

    @property
    def final_success(self) -> Tensor:
        """Whether the episode's last step was a success [E]."""
        last = self.present.sum(-1) - 1
        return self.success.gather(-1, last.unsqueeze(-1)).squeeze(-1)

    def rows(self, agent: Agent, layout: Layout, rewards: Tensor) -> Tensor:
        """Replay rows [E, H, width], standardised, with the rewards [E, H] given."""
        standardized = agent.standardizer(torch.stack([self.observations, self.next_observations]))
        return layout.pack(standardized[0], self.actions, rewards, standardized[1], self.terminals)


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
    agent: Agent,
    tasks: list[dict[str, Any]],
    z: Tensor | None,
    *,
    horizon: int,
    deterministic: bool,
    generator: torch.Generator | None = None,
    advance: Callable[[int], None] | None = None,
) -> Trajectories:
    """One episode in each of E tasks.

    Args:
        z: one latent an episode [E, dz]; None draws z_t ~ p(z) at every step (algorithm 1, line 7).
        advance: told after every step how many environment steps were taken.
    """
    count, ds, da = len(tasks), pool.observation_dim, pool.action_dim
    shape = (count, horizon)
    observations, next_observations = np.zeros((2, *shape, ds), np.float32)
    actions = np.zeros((*shape, da), np.float32)
    rewards = np.zeros(shape, np.float32)
    terminals, success, present = np.zeros((3, *shape), bool)
    seeds = torch.randint(2**31 - 1, (count,), device=agent.device, generator=generator).tolist()
    for start in range(0, count, pool.size):
        episodes = np.arange(start, min(start + pool.size, count))
        current = pool.reset(
            episodes - start, [tasks[e] for e in episodes], [seeds[e] for e in episodes]
        )
        for t in range(horizon):
            latents = agent.prior(len(episodes)).sample(generator) if z is None else z[episodes]
            with one_thread():
                action = agent.act(
                    torch.from_numpy(current).to(agent.device),
                    latents,
                    deterministic=deterministic,
                    generator=generator,
                )
            observations[episodes, t] = current
            actions[episodes, t] = action.cpu().numpy()
            result = pool.step(episodes - start, actions[episodes, t])
            next_observations[episodes, t] = result.observations
            rewards[episodes, t] = result.rewards
            terminals[episodes, t] = result.terminated
            success[episodes, t] = result.success
            present[episodes, t] = True
            if advance is not None:
                advance(len(episodes))
            alive = ~result.terminated
            episodes, current = episodes[alive], result.observations[alive]
            if not len(episodes):
                break
    arrays = (observations, actions, rewards, next_observations, terminals, success, present)
    return Trajectories(*(torch.from_numpy(array).to(agent.device) for array in arrays))
