"""What a PEARL run leaves as offline data (appendix C.2): parts of its two buffers, in raw units.

A replay buffer holds standardised rows and does not tell where trajectories end; so what the
dataset will have is kept beside it from the start, and no more than that.
"""

from typing import Any

import torch
from torch import Tensor

from smac_core.config import PearlCollection
from smac_core.data.dataset import TaskData
from smac_core.data.replay import Layout

TIMED_OUT, BEGINS_LATE, ENDS_EARLY = 1, 2, 4  # bits of a row's last number


class Recording:
    """The transitions of each training task that become data, and later those of held-out tasks.

    A row is a replay's and one more number, the sum of what holds of it: the clock ended the
    trajectory here (1), rows of its trajectory before it were left out (2) or ones after it (4).

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
        part = _first if self.collection.rl_part == "first" else _last
        rows = torch.cat([parts["rl"], trajectory])
        parts["rl"] = part(rows, self.collection.rl_transitions)
        if exploration and self.collection.context_transitions:
            rows = torch.cat([parts["context"], trajectory])
            parts["context"] = _last(rows, self.collection.context_transitions)

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

    def _columns(self, rows: Tensor) -> dict[str, Any]:
        batch = self.layout.unpack(rows[:, :-1])
        arrays = {name: getattr(batch, name).contiguous().numpy() for name in batch._fields}
        arrays["terminals"] = arrays["terminals"] > 0
        marks = rows[:, -1].numpy().astype(int)
        cut = (bool(marks[0] & BEGINS_LATE), bool(marks[-1] & ENDS_EARLY))
        return arrays | {"timeouts": marks & TIMED_OUT > 0, "cut": cut}

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
    rows = torch.cat([trajectory.float().cpu(), torch.zeros(len(trajectory), 1)], -1)
    if len(rows) and not _ends(rows[-1]):
        rows[-1, -1] = TIMED_OUT
    return rows


def _ends(row: Tensor) -> bool:
    """Whether a row [width + 1] is the last of a trajectory."""
    return bool(row[-2] > 0) or bool(int(row[-1]) & TIMED_OUT)


def _first(rows: Tensor, size: int) -> Tensor:
    """The first rows [size, width + 1]; the last of them ends a trajectory, if need be cut."""
    kept = rows[:size]
    if len(rows) > size and not _ends(kept[-1]):
        kept[-1, -1] += TIMED_OUT + ENDS_EARLY
    return kept


def _last(rows: Tensor, size: int) -> Tensor:
    """The last rows [size, width + 1]; the first of them tells whether its trajectory is cut."""
    kept = rows[-size:]
    if len(rows) > size and not _ends(rows[-size - 1]):
        kept[0, -1] += BEGINS_LATE
    return kept
