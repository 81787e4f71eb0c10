"""Multi-task replay: every task's transitions in one preallocated tensor on the training device.

A row is (s, a, r, s', terminal), so that a context (s, a, r) is the head of a row and a meta-batch
is a single gather. Observations are stored standardised (see ``Standardizer``), rewards unscaled.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Transitions of T tasks, N a task (views of one gathered tensor)."""

    observations: Tensor  # [T, N, ds]
    actions: Tensor  # [T, N, da]
    rewards: Tensor  # [T, N]
    next_observations: Tensor  # [T, N, ds]
    terminals: Tensor  # [T, N], 1 where the episode really ended


class Layout(NamedTuple):
    """Where the parts of a transition lie in a row."""

    observation_dim: int
    action_dim: int

    @property
    def context_width(self) -> int:
        return self.observation_dim + self.action_dim + 1

    @property
    def width(self) -> int:
        return self.context_width + self.observation_dim + 1

    def pack(
        self,
        observations: Tensor,
        actions: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
        terminals: Tensor,
    ) -> Tensor:
        """Rows [..., width] of arrays [..., d] and [...]."""
        columns = [
            observations,
            actions,
            rewards[..., None],
            next_observations,
            terminals[..., None],
        ]
        return torch.cat([column.float() for column in columns], -1)

    def unpack(self, rows: Tensor) -> Batch:
        """Views of rows [..., width]."""
        ds, da = self
        observations, actions, rewards, next_observations, terminals = rows.split(
            [ds, da, 1, ds, 1], -1
        )
        return Batch(
            observations, actions, rewards.squeeze(-1), next_observations, terminals.squeeze(-1)
        )


class TaskBuffer:
    """Rows of every task: [tasks, capacity, width].

    The offline rows of a task come first and are never overwritten; online rows follow and wrap
    around within the rest.

    Args:
        offline: the offline rows of each task, [n_i, width] each; n_i may differ.
        online_capacity: online rows kept per task.
    """

    def __init__(self, offline: list[Tensor], online_capacity: int, device: torch.device | str):
        width = offline[0].shape[-1]
        self.offline_capacity = max(len(rows) for rows in offline)
        self.online_capacity = online_capacity
        capacity = self.offline_capacity + online_capacity
        self.rows = torch.zeros(len(offline), capacity, width, device=device)
        for task, rows in enumerate(offline):
            self.rows[task, : len(rows)] = rows
        self.offline_sizes = torch.tensor([len(rows) for rows in offline], device=device)
        self.online_sizes = torch.zeros_like(self.offline_sizes)
        self.online_written = [0] * len(offline)  # ever, a task; kept on the host

    @property
    def tasks(self) -> int:
        return self.rows.shape[0]

    @property
    def width(self) -> int:
        return self.rows.shape[-1]

    def append(self, task: int, rows: Tensor) -> None:
        """Add online rows [L, width] of one task, over its oldest when full.

        Raises:
            ValueError: rows of another width, more rows than fit at once, or numbers not finite.
        """
        if rows.dim() != 2 or rows.shape[-1] != self.width:
            raise ValueError(f"rows have shape {tuple(rows.shape)}, expected [L, {self.width}]")
        if len(rows) > self.online_capacity:
            raise ValueError(f"{len(rows)} rows at once, capacity is {self.online_capacity} a task")
        if not torch.isfinite(rows).all():
            raise ValueError(f"online rows for task {task} hold NaN or infinity; nothing was added")
        written = self.online_written[task]
        slots = (written + torch.arange(len(rows), device=self.rows.device)) % self.online_capacity
        self.rows[task, self.offline_capacity + slots] = rows.to(self.rows.device)
        self.online_written[task] = written + len(rows)
        self.online_sizes[task] = min(self.online_written[task], self.online_capacity)

    def sample(
        self,
        tasks: Tensor,
        count: int,
        generator: torch.Generator | None = None,
        from_online: Tensor | None = None,
        online_window: int | None = None,
    ) -> Tensor:
        """Rows [T, count, width] of tasks [T], uniformly with replacement.

        Rows come from all that a task has or, where ``from_online`` [T] is given, from its online
        rows (true) or its offline rows (false) alone; a task without online rows gives offline
        ones. ``online_window`` then draws a task's online rows from one random run of that many
        neighbours: a few trajectories, as a context at meta-test time is.
        """
        offline, online = self.offline_sizes[tasks], self.online_sizes[tasks]
        if from_online is None:
            first, size = torch.zeros_like(offline), offline + online
        else:
            from_online = from_online & (online > 0)
            first = torch.where(from_online, offline, 0)
            size = torch.where(from_online, online, offline)
        if online_window is not None and from_online is not None:
            window = torch.where(from_online, size.clamp_max(online_window), size)
            uniform = torch.rand(len(tasks), device=self.rows.device, generator=generator)
            spare = size - window
            first = first + torch.minimum((uniform * (spare + 1)).long(), spare)
            size = window
        uniform = torch.rand(len(tasks), count, device=self.rows.device, generator=generator)
        size = size.unsqueeze(-1)
        index = first.unsqueeze(-1) + torch.minimum((uniform * size).long(), size - 1)
        # positions count a task's offline rows, then its online rows: skip the gap between them
        gap = (self.offline_capacity - offline).unsqueeze(-1)
        index = index + torch.where(index >= offline.unsqueeze(-1), gap, 0)
        return self.rows[tasks.unsqueeze(-1), index]

    def online_state(self) -> tuple[dict[str, Tensor], list[int]]:
        """What a checkpoint keeps: the online rows, and how many were ever written."""
        kept = max(self.online_sizes.max().item(), 1)
        start = self.offline_capacity
        return {"online": self.rows[:, start : start + kept].contiguous()}, list(
            self.online_written
        )

    def load_online_state(self, tensors: dict[str, Tensor], written: list[int]) -> None:
        """The inverse of ``online_state``."""
        rows = tensors["online"].to(self.rows.device)
        start = self.offline_capacity
        self.rows[:, start : start + rows.shape[1]] = rows
        self.online_written = list(written)
        sizes = [min(count, self.online_capacity) for count in written]
        self.online_sizes.copy_(torch.tensor(sizes))


class Replay:
    """A task's two buffers (PEARL's): ``rl`` for actor and critic, ``context`` for the encoder.

    ``context`` holds (s, a, r) of exploration only (z from the prior); its offline part is the RL
    data's.
    """

    def __init__(
        self,
        layout: Layout,
        rl_rows: list[Tensor],
        online_capacity: int,
        device: torch.device | str = "cpu",
    ):
        self.layout = layout
        width = layout.context_width
        self.rl = TaskBuffer(rl_rows, online_capacity, device)
        self.context = TaskBuffer([rows[:, :width] for rows in rl_rows], online_capacity, device)
        self.device = self.rl.rows.device

    @property
    def tasks(self) -> int:
        return self.rl.tasks

    def sample_tasks(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Task indices [count], uniform, without replacement where there are enough tasks."""
        if count <= self.tasks:
            order = torch.rand(self.tasks, device=self.device, generator=generator).argsort()
            return order[:count]
        return torch.randint(self.tasks, (count,), device=self.device, generator=generator)

    def append(self, task: int, rows: Tensor, *, exploration: bool) -> None:
        """Add a labelled trajectory [L, width]; only exploration feeds the encoder's buffer."""
        self.rl.append(task, rows)
        if exploration:
            self.context.append(task, rows[:, : self.layout.context_width])
