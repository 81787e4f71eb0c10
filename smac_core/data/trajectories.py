"""Episodes side by side."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_core.data.dataset import TaskData
from smac_core.data.replay import Layout


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

    @classmethod
    def side_by_side(
        cls, pieces: list[tuple[TaskData, slice]], length: int, device: torch.device | str
    ) -> "Trajectories":
        """Episodes [E, length] of a piece of a task's data each, which may have no rows."""
        names = ("observations", "actions", "rewards", "next_observations", "terminals")
        first = pieces[0][0]
        whole = [
            np.zeros((len(pieces), length, *getattr(first, name).shape[1:]), np.float32)
            for name in names
        ]
        success, present = np.zeros((2, len(pieces), length), bool)
        for episode, (data, rows) in enumerate(pieces):
            place = episode, slice(rows.stop - rows.start)
            for name, array in zip(names, whole, strict=True):
                array[place] = getattr(data, name)[rows]
            present[place] = True
        return cls(*(torch.from_numpy(array).to(device) for array in (*whole, success, present)))

    @property
    def returns(self) -> Tensor:
        """Sum of rewards [E]."""
        return self.rewards.sum(-1)

    @property
    def final_success(self) -> Tensor:
        """Whether the episode's last step was a success [E]."""
        last = self.present.sum(-1) - 1
        return self.success.gather(-1, last.unsqueeze(-1)).squeeze(-1)

    def rows(
        self, standardize: Callable[[Tensor], Tensor], layout: Layout, rewards: Tensor
    ) -> Tensor:
        """Replay rows [E, H, width], standardised, with the rewards [E, H] given."""
        before, after = standardize(torch.stack([self.observations, self.next_observations]))
        return layout.pack(before, self.actions, rewards, after, self.terminals)
