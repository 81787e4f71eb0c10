"""The dataset file's layout: labelled trajectories of many tasks in one HDF5 file.

``dataset`` reads such files, ``dataset_writer`` writes them; both check by what is here.

Layout (schema version 2), described so that any HDF5 library can read or write it. ``N`` is the
number of transitions of a task, ``ds`` and ``da`` the sizes of observations and actions:

======================================  =================  =======================================
name                                    type               meaning
======================================  =================  =======================================
root attribute ``format``               string             ``smac-dataset``
root attribute ``schema_version``       int                2; 1 knew no group ``context``
root attribute ``domain``               string             for example ``sawyer`` or ``cheetah``
root attribute ``rate``                 float, optional    control rate in Hz
root attribute ``observation_names``    ds strings         one name per observation dimension
root attribute ``observation_units``    ds strings         their units, ``1`` where dimensionless
root attribute ``action_names``         da strings         one name per action dimension
root attribute ``action_units``         da strings         their units
root attribute ``horizon``              int                longest trajectory, in steps
root attribute ``seed``                 int                seed of the collection
root attribute ``command``              string             the command line that made the file
root attribute ``git``                  string             commit of the code, ``-dirty`` if edited
root attribute ``contract``             string, optional   text of the ROS contract
root attribute ``fingerprint``          string, optional   see :attr:`Dataset.fingerprint`
root attribute ``subset_of``            string, optional   fingerprint of the data it is a part of
group ``train/0000``, ``test/0000`` ..  group              one task each, numbered from zero
its attribute ``task``                  JSON string        the task's parameters
its array ``observations``              [N, ds] float32    s_t
its array ``actions``                   [N, da] float32    a_t, in [-1, 1] unless the domain differs
its array ``rewards``                   [N] float32        r_t
its array ``next_observations``         [N, ds] float32    s_{t+1}
its array ``terminals``                 [N] bool           the task ended here, for good
its array ``timeouts``                  [N] bool           the trajectory ended here, by the clock
its attribute ``cut``                   2 bools, optional  see below; absent: neither
its group ``context``                   group, optional    the same arrays: the task's histories
======================================  =================  =======================================

The arrays carry D4RL's names. Rows are in time order, trajectories one after the other; a
trajectory ends where ``terminals`` or ``timeouts`` is true, so the last row of a task has one.
``cut`` says whether the first trajectory lacks its beginning and whether the last lacks its end, as
where the rows are a part of a buffer: such a trajectory's return is not the policy's.
Actor and critic learn from a task's own arrays. Its histories, from which the task is inferred,
are drawn from ``context`` where there is one (PEARL's encoder buffer), else from the same arrays.
Strings are UTF-8 of fixed length; the reader also takes variable length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from smac_core.errors import InputError

SCHEMA_VERSION = 2
FORMAT = "smac-dataset"
SPLITS = ("train", "test")
ARRAYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
_FLAGS = ("terminals", "timeouts")
_BLOCK = 65_536  # rows at a time of an array that may not fit into memory

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


class DatasetError(InputError):
    """A dataset file that cannot be used; see :class:`~smac_core.errors.InputError`."""


@dataclass(frozen=True)
class TaskData:
    """All transitions of one task, trajectory after trajectory.

    Attributes:
        observations: [N, ds] float32.
        actions: [N, da] float32.
        rewards: [N] float32.
        next_observations: [N, ds] float32.
        terminals: [N] bool, the task ended for good at this step.
        timeouts: [N] bool, the trajectory ended at this step because its time was up.
        task: the task's parameters, JSON-able. A key ``behavior`` (one string, or one per
            trajectory) is counted in :meth:`Dataset.summary`.
        split: ``"train"`` or ``"test"``.
        context: the transitions that histories are drawn from, where they are others than these.
        cut: whether the first trajectory lacks its beginning, and the last its end.
    """

    observations: Floats
    actions: Floats
    rewards: Floats
    next_observations: Floats
    terminals: Flags
    timeouts: Flags
    task: dict[str, Any] = field(default_factory=dict)
    split: str = "train"
    context: TaskData | None = None
    cut: tuple[bool, bool] = (False, False)

    @property
    def history(self) -> TaskData:
        """What tells which task it is: ``context``, or these transitions."""
        return self if self.context is None else self.context

    def __len__(self) -> int:
        """Number of transitions N."""
        return len(self.rewards)

    @property
    def trajectories(self) -> list[slice]:
        """One slice over the rows per trajectory, in order."""
        ends = np.flatnonzero(self.terminals | self.timeouts) + 1
        starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        return [slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]

    @property
    def whole_trajectories(self) -> list[slice]:
        """``trajectories`` without a first or last one that is ``cut``."""
        found, (first, last) = self.trajectories, self.cut
        return found[int(first) : len(found) - int(last)]

    @property
    def returns(self) -> NDArray[np.float64]:
        """[number of whole trajectories] undiscounted sum of rewards of each of them."""
        return np.array([self.rewards[s].sum(dtype=np.float64) for s in self.whole_trajectories])


def stored(value: Any) -> Any:
    """A text, or a list of them, as HDF5 strings of fixed length; other values as they are.

    Strings of variable length, h5py's choice, lie in a heap without checksums: HDF5 may hang over
    a damaged one. Everything else in a file of version 1.10 has a checksum.
    """
    if not isinstance(value, str | list):
        return value
    encoded = np.char.encode(np.array(value, np.str_), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", encoded.itemsize))


def loaded(value: Any) -> Any:
    """The inverse of ``stored``; also takes strings of variable length."""
    if isinstance(value, np.ndarray):
        return [loaded(item) for item in value.tolist()]
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _is_text(value: object) -> bool:
    """Whether it is a string that is not empty; damaged UTF-8 comes from h5py as surrogates."""
    if not isinstance(value, str) or not value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def check_attributes(path: Path, attributes: dict[str, Any]) -> None:
    """Raises DatasetError where a root attribute is malformed."""

    def refuse(name: str, expected: str) -> None:
        raise DatasetError(path, name, repr(attributes[name]), expected)

    for name in ("domain", "command", "git"):
        if not _is_text(attributes[name]):
            refuse(name, "a text that is not empty")
    for name, what in (("contract", "contract's text"), ("subset_of", "larger data's fingerprint")):
        if attributes[name] is not None and not _is_text(attributes[name]):
            refuse(name, f"the {what}, or nothing")
    for name, least in (("horizon", 1), ("seed", 0)):
        value = attributes[name]
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            refuse(name, f"a whole number, at least {least}")
        attributes[name] = int(value)
    rate = attributes["rate"]
    if rate is not None:
        if not isinstance(rate, int | float | np.number) or not 0 < rate < np.inf:
            refuse("rate", "a positive number of Hz, or nothing")
        attributes["rate"] = float(rate)
    for kind in ("observation", "action"):
        names, units = f"{kind}_names", f"{kind}_units"
        for name in (names, units):
            value = attributes[name]
            if not value or not all(map(_is_text, value)):
                refuse(name, "a list of texts, one per dimension")
        if len(set(attributes[names])) != len(attributes[names]):
            refuse(names, "names that differ from each other")
        if len(attributes[units]) != len(attributes[names]):
            refuse(units, f"{len(attributes[names])} texts, one per entry of {names}")


def checked(path: Path, where: str, data: TaskData, attributes: dict[str, Any]) -> TaskData:
    """The same data as float32 and bool. Raises DatasetError for everything that is wrong."""
    rows = len(data.rewards) if np.ndim(data.rewards) == 1 else -1
    if rows < 1:
        found = f"shape {np.shape(data.rewards)}"
        raise DatasetError(path, f"{where}/rewards", found, "shape (N,) with N at least 1")
    cut = tuple(data.cut) if np.shape(data.cut) == (2,) else ()
    if not cut or not all(isinstance(value, bool | np.bool_) for value in cut):
        why = "two truth values: whether the first trajectory is cut, and the last"
        raise DatasetError(path, f"{where}/cut", repr(data.cut), why)
    ds, da = len(attributes["observation_names"]), len(attributes["action_names"])
    widths = {"observations": (ds,), "next_observations": (ds,), "actions": (da,)}
    arrays: dict[str, Any] = {}
    for name in ARRAYS:
        array, field_ = np.asarray(getattr(data, name)), f"{where}/{name}"
        shape = (rows, *widths.get(name, ()))
        if array.shape != shape:
            why = f"shape {shape}: one row per reward"
            if name in widths:
                why += f", one column per {'action' if name == 'actions' else 'observation'} name"
            raise DatasetError(path, field_, f"shape {array.shape}", why)
        if name in _FLAGS:
            if array.dtype != np.bool_:
                raise DatasetError(path, field_, f"type {array.dtype}", "type bool")
            arrays[name] = array
            continue
        if array.dtype.kind != "f":
            raise DatasetError(path, field_, f"type {array.dtype}", "type float32")
        with np.errstate(over="ignore"):  # an overflow becomes infinity, refused just below
            arrays[name] = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(arrays[name]).all():
            place = np.argwhere(~np.isfinite(arrays[name]))[0]
            at = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
            raise DatasetError(path, field_, f"{array[tuple(place)]} in {at}", "finite numbers")
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"]) + 1
    if not len(ends) or ends[-1] != rows:
        last = f"the last end after row {ends[-1] - 1}" if len(ends) else "no end at all"
        why = f"terminals or timeouts true in the last row, {rows - 1}: every trajectory ends"
        raise DatasetError(path, f"{where}/timeouts", last, why)
    lengths = np.diff(ends, prepend=0)
    if lengths.max() > attributes["horizon"]:
        number = int(lengths.argmax())
        found = f"trajectory {number} with {lengths[number]} steps"
        why = f"at most {attributes['horizon']} steps, the file's horizon"
        raise DatasetError(path, f"{where}/timeouts", found, why)
    check_behaviors(path, where, data.task, len(ends))
    context = data.context
    if context is not None:
        context = checked(path, f"{where}/context", replace(context, context=None), attributes)
    cut = (bool(cut[0]), bool(cut[1]))
    return TaskData(**arrays, task=data.task, split=data.split, context=context, cut=cut)


def check_behaviors(path: Path, where: str, task: dict[str, Any], trajectories: int) -> None:
    """Raises DatasetError unless a list of behaviours has one for each trajectory."""
    behavior = task.get("behavior")
    if isinstance(behavior, list) and len(behavior) != trajectories:
        found, why = f"{len(behavior)} entries", f"{trajectories}, one per trajectory, or one text"
        raise DatasetError(path, f"{where}/task/behavior", found, why)


def task_text(path: Path, where: str, task: object) -> str:
    """A task's parameters as JSON. Raises DatasetError where that is not possible."""

    def plain(value: object) -> object:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"a value of type {type(value).__name__}")

    if not isinstance(task, dict):
        raise DatasetError(path, f"{where}/task", f"type {type(task).__name__}", "a dictionary")
    try:
        return json.dumps(task, sort_keys=True, allow_nan=False, default=plain)
    except (TypeError, ValueError) as error:
        raise DatasetError(path, f"{where}/task", error, "JSON-able parameters") from error


def arrays_of(data: TaskData) -> dict[str, np.ndarray]:
    """A task's arrays by their names in its group: those of ``context`` last, if it has one."""
    found = {name: getattr(data, name) for name in ARRAYS}
    if data.context is not None:
        found |= {f"context/{name}": getattr(data.context, name) for name in ARRAYS}
    return found


def digest(arrays: Mapping[str, np.ndarray | h5py.Dataset], text: str) -> str:
    """SHA-256 of a task's parameters and arrays (``arrays_of``), in memory or in a file."""
    made = hashlib.sha256(text.encode())
    for name, array in arrays.items():
        made.update(f"{name}{array.shape}".encode())
        for rows in blocks(array):
            made.update(np.ascontiguousarray(rows).data)
    return made.hexdigest()


def blocks(array: np.ndarray | h5py.Dataset) -> Iterator[np.ndarray]:
    """An array piece by piece, so that one in a file need not fit into memory."""
    for row in range(0, len(array), _BLOCK):
        yield array[row : row + _BLOCK]


def fingerprint_of(domain: str, digests: dict[str, list[str]]) -> str:
    """Of all the data: 16 hexadecimal digits."""
    lines = [domain, *(f"{split} {item}" for split in SPLITS for item in digests[split])]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
