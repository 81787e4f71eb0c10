"""What a PEARL run leaves as offline data (appendix C.2): parts of its two buffers, in raw units.

A replay buffer holds standardised rows and does not tell where trajectories end; so what the
dataset will have is kept beside it from the start, and no more than that.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from smac_core.config import PearlCollection
from smac_core.data.dataset import TaskData
from smac_core.data.replay import Layout


class Recording:
    """The transitions of each training task that become data, and later those of held-out tasks.

    A row is a replay's and one more number, 1 where the clock ended the trajectory.

    Args:
        collection: which part of the RL buffer, and how many transitions of each.
        layout: of a replay's rows.
        tasks: how many training tasks.
    """

    def __init__(self, collection: PearlCollection, layout: Layout, tasks: int):
        self.collection, self.layout = collection, layout
        nothing = torch.empty(0, layout.width + 1)
        self.rows: dict[str, list[dict[str, Tensor]]] = {
            "train": [{"rl": nothing, "context": nothing} for _ in range(tasks)],
            "test": [],
        }

    @property
    def complete(self) -> bool:
        """Whether held-out tasks are in it, which ends it: later practice leaves it as it is."""
        return bool(self.rows["test"])

    def add(self, task: int, trajectory: Tensor, *, exploration: bool) -> None:
        """Take in a trajectory [L, width], raw, of a training task; ``exploration``: z ~ p(z)."""
        if self.complete:
            return
        parts, trajectory = self.rows["train"][task], _ended(trajectory)
        size = self.collection.rl_transitions
        if self.collection.rl_part == "first":
            parts["rl"] = _cut(torch.cat([parts["rl"], trajectory[: size - len(parts["rl"])]]))
        else:
            parts["rl"] = torch.cat([parts["rl"], trajectory])[-size:]
        if exploration and self.collection.context_transitions:
            context = torch.cat([parts["context"], trajectory])
            parts["context"] = context[-self.collection.context_transitions :]

    def finish(self, held_out: list[tuple[list[Tensor], list[Tensor]]]) -> None:
        """Take in the held-out tasks' exploration and adapted trajectories [L, width] each, raw."""
        for exploration, adapted in held_out:
            explored = torch.cat([_ended(trajectory) for trajectory in exploration])
            everything = torch.cat([explored, *(_ended(trajectory) for trajectory in adapted)])
            context = explored if self.collection.context_transitions else explored[:0]
            self.rows["test"].append({"rl": everything, "context": context})

    def data(self, split: str, task: dict[str, Any], number: int) -> TaskData:
        """The offline data of the split's task of this number, whose parameters are ``task``."""
        parts = {
            name: self._columns(rows)
            for name, rows in self.rows[split][number].items()
            if len(rows)
        }
        context = TaskData(**parts["context"], split=split) if "context" in parts else None
        return TaskData(**parts["rl"], task=task, split=split, context=context)

    def _columns(self, rows: Tensor) -> dict[str, np.ndarray]:
        batch = self.layout.unpack(rows[:, :-1])
        arrays = {name: getattr(batch, name).contiguous().numpy() for name in batch._fields}
        arrays["terminals"] = arrays["terminals"] > 0
        return arrays | {"timeouts": rows[:, -1].numpy() > 0}

    def state(self) -> tuple[dict[str, Tensor], dict[str, list[list[int]]]]:
        """What a checkpoint keeps: all rows, and how many each task has of both parts."""
        tensors, sizes = {}, {}
        for split, tasks in self.rows.items():
            sizes[split] = [[len(parts["rl"]), len(parts["context"])] for parts in tasks]
            rows = [parts[name] for parts in tasks for name in ("rl", "context")]
            tensors[f"recording.{split}"] = torch.cat(rows) if rows else torch.empty(0)
        return tensors, sizes

    def load_state(self, tensors: dict[str, Tensor], sizes: dict[str, list[list[int]]]) -> None:
        """The inverse of ``state``."""
        for split, counts in sizes.items():
            flat = [count for pair in counts for count in pair]
            parts = tensors[f"recording.{split}"].cpu().split(flat) if flat else []
            pairs = zip(parts[::2], parts[1::2], strict=True)
            self.rows[split] = [{"rl": rl, "context": context} for rl, context in pairs]


def _ended(trajectory: Tensor) -> Tensor:
    """Rows [L, width] with one more column: the last one timed out unless it is terminal."""
    timeouts = torch.zeros(len(trajectory), 1)
    return _cut(torch.cat([trajectory.float().cpu(), timeouts], -1))


def _cut(rows: Tensor) -> Tensor:
    """The rows [n, width + 1], the last of which ends a trajectory."""
    if len(rows) and not rows[-1, -2]:
        rows[-1, -1] = 1.0
    return rows
