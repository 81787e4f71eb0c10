"""Multi-task replay: every task's transitions in two tensors on the training device.

A row is (s, a, r, s', terminal), so that a context (s, a, r) is the head of a row and a meta-batch
is a single gather. Observations are stored standardised (see ``Standardizer``), rewards unscaled.
"""

from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

PAGE = 256  # rows: what a task's online part grows by


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
    """Rows of every task, found by one index: first a task's offline rows, then its online ones.

    Offline rows, never overwritten, lie one task after the other in ``offline`` [sum n_i, width].
    Online rows wrap around within a task's capacity. They lie in ``online`` [pages * PAGE, width],
    which grows as tasks ask for pages: memory is what was practised, not what could be.
    ``online`` moves only in ``append`` and ``load_online_state``.

    Args:
        offline: the offline rows of each task, [n_i, width] each; n_i may differ.
        online_capacity: online rows kept per task.
    """

    def __init__(self, offline: list[Tensor], online_capacity: int, device: torch.device | str):
        sizes = [len(rows) for rows in offline]
        self.offline = torch.cat([rows.to(device) for rows in offline])
        self.offline_sizes = torch.tensor(sizes, device=device)
        self.offline_starts = self.offline_sizes.cumsum(0) - self.offline_sizes
        self.online_capacity = online_capacity
        self._clear()

    def _clear(self) -> None:
        device = self.offline.device
        self.online = self.offline.new_empty(0, self.width)
        self.pages = torch.zeros(
            self.tasks, -(-self.online_capacity // PAGE), dtype=torch.long, device=device
        )  # where a task's pages lie, in pages
        self.online_sizes = torch.zeros_like(self.offline_sizes)
        self.online_written = [0] * self.tasks  # ever, a task; kept on the host
        self._held = [0] * self.tasks  # pages

    def head(self, width: int) -> "TaskBuffer":
        """The first columns as a buffer: offline rows are shared, online rows its own."""
        other = copy(self)
        other.offline = self.offline[:, :width]
        other._clear()
        return other

    @property
    def tasks(self) -> int:
        return len(self.offline_sizes)

    @property
    def width(self) -> int:
        return self.offline.shape[-1]

    def clear(self, task: int) -> None:
        """Forget a task's online rows."""
        self.online_written[task] = 0
        self.online_sizes[task] = 0

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
        size = min(written + len(rows), self.online_capacity)
        self._reserve(task, size)
        slots = written + torch.arange(len(rows), device=self.online.device)
        places = self._places(self.pages[task], slots % self.online_capacity)
        self.online[places] = rows.to(self.online.device)
        self.online_written[task] = written + len(rows)
        self.online_sizes[task] = size

    def _reserve(self, task: int, size: int) -> None:
        """Pages for ``size`` online rows of a task; ``online`` grows by half when it is full."""
        held, needed, used = self._held[task], -(-size // PAGE), sum(self._held)
        if needed <= held:
            return
        end = used + needed - held
        if end * PAGE > len(self.online):
            rows = max(end, len(self.online) * 3 // 2 // PAGE) * PAGE
            grown = self.online.new_empty(rows, self.width)
            grown[: used * PAGE] = self.online[: used * PAGE]
            self.online = grown
        self.pages[task, held:needed] = torch.arange(used, end)
        self._held[task] = needed

    @staticmethod
    def _places(pages: Tensor, slots: Tensor) -> Tensor:
        """Rows of ``online`` where slots [..., n] of a task lie, given its pages [..., p]."""
        return pages.gather(-1, slots // PAGE) * PAGE + slots % PAGE

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
        return self.rows(tasks, self.draw(tasks, count, generator, from_online, online_window))

    def draw(
        self,
        tasks: Tensor,
        count: int,
        generator: torch.Generator | None = None,
        from_online: Tensor | None = None,
        online_window: int | None = None,
    ) -> Tensor:
        """Which rows ``sample`` takes: indices [T, count] of a task's own, offline ones first."""
        offline, online = self.offline_sizes[tasks], self.online_sizes[tasks]
        if from_online is None:
            first, size = torch.zeros_like(offline), offline + online
        else:
            from_online = from_online & (online > 0)
            first = torch.where(from_online, offline, 0)
            size = torch.where(from_online, online, offline)
        if online_window is not None and from_online is not None:
            window = torch.where(from_online, size.clamp_max(online_window), size)
            uniform = torch.rand(len(tasks), device=tasks.device, generator=generator)
            spare = size - window
            first = first + torch.minimum((uniform * (spare + 1)).long(), spare)
            size = window
        uniform = torch.rand(len(tasks), count, device=tasks.device, generator=generator)
        size = size.unsqueeze(-1)
        return first.unsqueeze(-1) + torch.minimum((uniform * size).long(), size - 1)

    def rows(self, tasks: Tensor, index: Tensor) -> Tensor:
        """Rows [T, n, width] at indices [T, n] of tasks [T], see ``draw``."""
        if not len(self.offline):  # no task has any
            return self.online[self._places(self.pages[tasks], index)]
        offline = self.offline_sizes[tasks].unsqueeze(-1)
        places = self.offline_starts[tasks].unsqueeze(-1) + torch.minimum(index, offline - 1)
        rows = self.offline[places]
        if not len(self.online):
            return rows
        places = self._places(self.pages[tasks], (index - offline).clamp_min(0))
        return torch.where((index >= offline).unsqueeze(-1), self.online[places], rows)

    def online_state(self) -> tuple[dict[str, Tensor], list[int]]:
        """What a checkpoint keeps: the online rows, task after task, and how many were written."""
        sizes = self.online_sizes.tolist()
        slots = torch.arange(max(sizes), device=self.online.device)
        places = [
            self._places(pages, slots[:size]) for pages, size in zip(self.pages, sizes, strict=True)
        ]
        return {"online": self.online[torch.cat(places)]}, list(self.online_written)

    def load_online_state(self, tensors: dict[str, Tensor], written: list[int]) -> None:
        """The inverse of ``online_state``."""
        self._clear()
        sizes = [min(count, self.online_capacity) for count in written]
        rows = tensors["online"].split(sizes) if any(sizes) else []
        for task, part in enumerate(rows):
            self.append(task, part)
        self.online_written = list(written)


class Replay:
    """A task's two buffers (PEARL's): ``rl`` for actor and critic, ``context`` for the encoder.

    ``context`` holds (s, a, r) of exploration only (z from the prior); its offline part is the RL
    data's, or ``context_rows`` [n_i, width] of each task.
    """

    def __init__(
        self,
        layout: Layout,
        rl_rows: list[Tensor],
        online_capacity: int,
        device: torch.device | str = "cpu",
        context_rows: list[Tensor] | None = None,
    ):
        self.layout = layout
        self.rl = TaskBuffer(rl_rows, online_capacity, device)
        if context_rows is None:
            self.context = self.rl.head(layout.context_width)
        else:
            heads = [rows[:, : layout.context_width] for rows in context_rows]
            self.context = TaskBuffer(heads, online_capacity, device)
        self.device = self.rl.offline.device

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
