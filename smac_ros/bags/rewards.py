"""A task's rewards: of a recorded topic, of a file, of intervals of success, or of a function."""

import csv
import traceback
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from smac_core.errors import InputError
from smac_core.reward_functions import RewardFunction, reward_function
from smac_ros.bags.episodes import Episode
from smac_ros.bags.samples import Samples
from smac_ros.bags.task_file import EPOCH, LATEST, Task
from smac_ros.contract import Contract
from smac_ros.experience import Series, Transitions, assemble
from smac_ros.messages import SECOND

NANOSECONDS = 10**16  # a larger stamp in a file counts ns since 1970, not seconds


class Rewards(Protocol):
    """What labels a task's transitions in one recording."""

    def series(self, samples: Samples) -> Series | None:
        """Stamped rewards, which ``assemble`` lays beside the transitions; None: see ``label``."""

    def label(self, transitions: Transitions, samples: Samples) -> np.ndarray:
        """Rewards [n] of transitions, where there is no series."""


class TopicRewards:
    """Of a recorded topic: the newest sample in (tick, next tick]."""

    def __init__(self, index: int) -> None:
        self._index = index  # in Samples.rewards

    def series(self, samples: Samples) -> Series:
        return samples.rewards[self._index]


class FileRewards:
    """Of a CSV file, likewise. Each row: a stamp and a value."""

    def __init__(self, path: Path, time: str, start: int) -> None:
        self._stamps, values = read_csv(path)
        self._header = time == "header"
        if not self._header and len(self._stamps) and self._stamps[-1] < EPOCH * SECOND:
            self._stamps = self._stamps + start
        self._values = values[:, None]
        self._all = self._series(self._stamps)

    def series(self, samples: Samples) -> Series:
        # Received times become stamps by delays that are known around the episode only.
        return self._all if self._header else self._series(samples.stamps_at(self._stamps))

    def _series(self, stamps: np.ndarray) -> Series:
        made = Series(1)
        made.extend(stamps, self._values)
        return made


class SuccessRewards:
    """One value where a transition ends within an interval, another one elsewhere."""

    def __init__(
        self, intervals: Sequence[tuple[int, int]], inside: float, outside: float
    ) -> None:
        self._intervals = np.array(intervals, np.int64).reshape(-1, 2)  # times of receipt, ns
        self._inside, self._outside = inside, outside

    def series(self, samples: Samples) -> None:
        return None

    def label(self, transitions: Transitions, samples: Samples) -> np.ndarray:
        bounds = samples.stamps_at(self._intervals.reshape(-1)).reshape(-1, 2)
        at = transitions.next_ticks[:, None]
        within = ((bounds[:, 0] <= at) & (at <= bounds[:, 1])).any(1)
        return np.where(within, self._inside, self._outside).astype(np.float32)


class FunctionRewards:
    """Of a Python function of (observations, actions, next_observations, task)."""

    def __init__(self, function: RewardFunction, name: str, task: Task, source: Path) -> None:
        self._function, self._name, self._task, self._source = function, name, task, source

    def series(self, samples: Samples) -> None:
        return None

    def label(self, transitions: Transitions, samples: Samples) -> np.ndarray:
        arrays = (transitions.observations, transitions.actions, transitions.next_observations)
        try:
            made = self._function(*(array.copy() for array in arrays), self._task.parameters)
            rewards = np.asarray(made, np.float32)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}, line {frame.lineno}"
            raise self._refused(f"{type(error).__name__}: {error} ({place})") from error
        if rewards.shape != (len(arrays[0]),):
            raise self._refused(f"an array of shape {rewards.shape}")
        return rewards

    def _refused(self, found: str) -> InputError:
        field = f"task {self._task.name}: reward.function {self._name}"
        return InputError(self._source, field, found, "rewards [n], one a transition")


def load_function(task: Task, source: Path) -> RewardFunction | None:
    """A task's reward function, looked up also in the folder of its file; None: it has none."""
    if task.reward.function is None:
        return None
    field = f"task {task.name}: reward.function"
    return reward_function(task.reward.function, field, source, source.resolve().parent)


def read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Stamps [n] int64 ns, rising, and values [n] float64 of a file of stamp,value.

    Stamps are seconds, with as many decimals as they have, or whole nanoseconds since 1970. A
    first line of names is left out, and so are empty lines.

    Raises:
        InputError: a line that is something else.
    """
    stamps, values = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if not row:
                    continue
                try:
                    stamp, value = Decimal(row[0].strip()), float(row[1])
                    ns = int(stamp if stamp >= NANOSECONDS else stamp * SECOND)
                    if not 0 <= ns < LATEST * SECOND:
                        raise ValueError(ns)
                    stamps.append(ns)
                except (ValueError, InvalidOperation, IndexError, OverflowError):
                    if number == 1 and not _is_number(row[0]):
                        continue
                    found, expected = repr(",".join(row)[:60]), "stamp,value; s, or ns since 1970"
                    raise InputError(path, f"line {number}", found, expected) from None
                values.append(value)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, "file", error, "a CSV file: stamp,value") from None
    if not stamps:
        raise InputError(path, "rows", "none", "stamp,value")
    order = np.argsort(np.array(stamps, np.int64), kind="stable")
    return np.array(stamps, np.int64)[order], np.array(values)[order]


def _is_number(text: str) -> bool:
    try:
        Decimal(text.strip())
    except InvalidOperation:
        return False
    return True


def labelled(
    contract: Contract,
    samples: Samples,
    episode: Episode,
    rewards: Rewards,
    assembled: dict[int, tuple[Series | None, Transitions]],
) -> Transitions:
    """An episode's transitions with rewards; those without a finite one are left out.

    ``assembled`` keeps what several tasks share, for the time of one episode.
    """
    series = rewards.series(samples)
    if id(series) not in assembled:
        made = assemble(
            contract,
            samples.streams,
            samples.commands,
            start=episode.start,
            last=episode.last,
            steps=episode.steps,
            rewards=series,
        )
        assembled[id(series)] = (series, made)  # while it is kept, its id is its own
    made = assembled[id(series)][1]
    if series is not None or not len(made.ticks):
        return made
    values = rewards.label(made, samples)
    keep = np.isfinite(values)
    left_out: dict[str, Any] = dict(made.left_out)
    if not keep.all():
        left_out["not finite"] = left_out.get("not finite", 0) + int(np.count_nonzero(~keep))
    arrays = (getattr(made, name)[keep] for name in made._fields[:3])
    return Transitions(*arrays, values[keep], made.ticks[keep], made.next_ticks[keep], left_out)
