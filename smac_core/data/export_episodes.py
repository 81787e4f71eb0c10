"""A dataset as what other formats know: episodes one after the other, each with its task."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from smac_core import __version__
from smac_core.data.dataset import Dataset, TaskData


class Episode(NamedTuple):
    """One trajectory of n transitions.

    Attributes:
        split: train or test.
        task: the task's number in its split.
        part: ``rl``, what actor and critic learn from, or ``context``, histories alone.
        parameters: of the task.
        cut: whether it lacks its beginning, and its end.
        data: the arrays that it is part of, at ``rows``.
    """

    split: str
    task: int
    part: str
    parameters: dict[str, Any]
    cut: tuple[bool, bool]
    data: TaskData
    rows: slice

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start

    def array(self, name: str) -> np.ndarray:
        """One of the dataset's arrays, this episode's rows of it."""
        return getattr(self.data, name)[self.rows]

    @property
    def follows(self) -> bool:
        """Whether each observation but the first is the one that the step before led to."""
        observations, followers = self.array("observations"), self.array("next_observations")
        return np.array_equal(observations[1:], followers[:-1])

    @property
    def task_text(self) -> str:
        """JSON that names the task: equal for the episodes of one."""
        told = {"split": self.split, "task": self.task, "part": self.part}
        return json.dumps(told | {"parameters": self.parameters}, sort_keys=True)


def episodes(dataset: Dataset) -> Iterator[Episode]:
    """All of them: split after split, task after task, a task's context after its own."""
    for split in ("train", "test"):
        for number, data in enumerate(getattr(dataset, split)):
            for part, found in (("rl", data), ("context", data.context)):
                if found is None:
                    continue
                slices = found.trajectories
                for index, rows in enumerate(slices):
                    cut = (
                        index == 0 and found.cut[0],
                        index == len(slices) - 1 and found.cut[1],
                    )
                    yield Episode(split, number, part, data.task, cut, found, rows)


def described(dataset: Dataset) -> dict[str, Any]:
    """What the file says of itself, JSON-able."""
    names = ("domain", "rate", "horizon", "seed", "command", "git", "contract", "fingerprint")
    names += ("subset_of", "observation_names", "observation_units", "action_names", "action_units")
    told = {name: getattr(dataset, name) for name in names}
    return told | {"smac_ros": __version__}
