"""The dataset file: labelled trajectories of many tasks in one HDF5 file.

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

import contextlib
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from smac_core.errors import InputError
from smac_core.provenance import git_revision

SCHEMA_VERSION = 2
FORMAT = "smac-dataset"
SPLITS = ("train", "test")
ARRAYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
_FLAGS = ("terminals", "timeouts")
_CHUNK_BYTES = 256 * 1024  # a few chunks per array: quick to read whole, still seekable

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


class DatasetWriter:
    """Writes a dataset file, whole or not at all.

    A context manager: tasks go to a temporary file beside ``path``, which takes the name ``path``
    when the block ends without an exception. After an exception, Ctrl-C or a full disk the
    temporary file is removed and a file that was at ``path`` before is still there, unchanged.

    Args:
        path: the file to make.
        domain: name of the domain.
        rate: control rate in Hz, ``None`` where time has no meaning.
        observation_names, observation_units: ds strings each.
        action_names, action_units: da strings each.
        horizon: longest trajectory, in steps.
        seed: the seed that the collection ran with.
        command: the command line that makes this file again.
        contract: text of the ROS contract that the vectors follow.
        overwrite: replace an existing file.
        git: commit of the code; found out when not given.
        subset_of: fingerprint of the dataset that the tasks are a part of.

    Raises:
        DatasetError: a field is malformed, or the file exists and ``overwrite`` is false.
        OSError: the folder cannot be written to, the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        domain: str,
        rate: float | None,
        observation_names: Sequence[str],
        observation_units: Sequence[str],
        action_names: Sequence[str],
        action_units: Sequence[str],
        horizon: int,
        seed: int,
        command: str,
        contract: str | None = None,
        overwrite: bool = False,
        git: str | None = None,
        subset_of: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self.attributes: dict[str, Any] = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "domain": domain,
            "rate": rate,
            "observation_names": list(observation_names),
            "observation_units": list(observation_units),
            "action_names": list(action_names),
            "action_units": list(action_units),
            "horizon": horizon,
            "seed": seed,
            "command": command,
            "contract": contract,
            "git": git if git is not None else git_revision(),
            "subset_of": subset_of,
        }
        _check_attributes(self.path, self.attributes)
        self._digests: dict[str, list[str]] = {split: [] for split in SPLITS}
        self._stream: _Stream | None = None
        self._file: h5py.File | None = None
        self._temporary: Path | None = None
        self._refuse_existing()

    def __enter__(self) -> DatasetWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".tmp"
        )
        self._temporary = Path(name)
        self._stream = _Stream(handle)
        try:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(handle, 0o666 & ~umask)  # mkstemp's 0600 would stay on the finished file
            self._file = h5py.File(self._stream, "w", libver=("v110", "v112"))
            for name, value in self.attributes.items():
                if value is not None:
                    self._file.attrs[name] = _stored(value)
            self._stream.check(self.path)
        except BaseException:
            self._discard()
            raise
        return self

    def add_task(self, split: str, data: TaskData) -> None:
        """Adds one task; the file numbers the tasks of a split in the order of these calls.

        Floating-point arrays of any width are stored as float32.

        Raises:
            DatasetError: an array has the wrong shape or type or holds NaN or infinity (the error
                names the row), a trajectory has no end or is longer than ``horizon``, or the
                task's parameters are not JSON-able.
            OSError: the disk is full.
        """
        if self._file is None or self._stream is None:
            raise RuntimeError("add_task belongs inside the writer's with block")
        if split not in SPLITS:
            raise DatasetError(self.path, "split", repr(split), " or ".join(map(repr, SPLITS)))
        where = f"{split}/{len(self._digests[split]):04d}"
        if data.split != split:
            raise DatasetError(self.path, f"{where}/split", repr(data.split), repr(split))
        text = _task_text(self.path, where, data.task)
        data = _checked(self.path, where, data, self.attributes)
        try:
            group = self._file.create_group(where)
            group.attrs["task"] = _stored(text)
            _write_arrays(group, data)
            if data.context is not None:
                _write_arrays(group.create_group("context"), data.context)
        except BaseException:
            self._stream.check(self.path)  # a full disk explains whatever HDF5 complains about
            raise
        self._stream.check(self.path)
        self._digests[split].append(_digest(data, text))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        assert self._file is not None and self._stream is not None and self._temporary is not None
        if not any(self._digests.values()):
            raise DatasetError(self.path, "tasks", "none", "at least one task")
        fingerprint = _fingerprint(self.attributes["domain"], self._digests)
        self._file.attrs["fingerprint"] = _stored(fingerprint)
        self._file.close()
        self._stream.sync(self.path)
        self._refuse_existing()
        os.replace(self._temporary, self.path)
        _sync_folder(self.path.parent)

    def _refuse_existing(self) -> None:
        if self.path.is_dir():
            raise DatasetError(self.path, "path", "a folder", "a file's name")
        if self.path.exists() and not self.overwrite:
            raise DatasetError(
                self.path, "path", "an existing file", "a new name, or permission to overwrite it"
            )

    def _discard(self) -> None:
        if self._file is not None and self._stream is not None:
            self._stream.muted = True  # HDF5 flushes while closing; nobody needs those bytes
            with contextlib.suppress(Exception):  # it may trip over what a full disk swallowed
                self._file.close()
        if self._stream is not None:
            os.close(self._stream.handle)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
        self._file = self._stream = self._temporary = None


def _write_arrays(group: h5py.Group, data: TaskData) -> None:
    for name in ARRAYS:
        array = getattr(data, name)
        rows = max(1, _CHUNK_BYTES // (array.itemsize * (array.shape[1:] or (1,))[0]))
        group.create_dataset(
            name,
            data=array,
            chunks=(min(len(array), rows), *array.shape[1:]),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
        )
    if any(data.cut):
        group.attrs["cut"] = np.array(data.cut)


class _Stream:
    """A file for HDF5 that keeps its first write error to itself until asked.

    HDF5 that meets a full disk inside its own flush cannot be closed any more and takes the
    process down at exit. Here it never sees the failure: the writer asks after every task.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.muted = False
        self.error: OSError | None = None
        self.position = self.size = 0  # as HDF5 believes; the real file ends where it broke

    def read(self, size: int = -1) -> bytes:
        """Never called: h5py takes an object for a file if it has this, then uses readinto."""
        raise NotImplementedError

    def readinto(self, buffer: memoryview) -> int:
        view = memoryview(buffer).cast("B")
        data = b"" if self.muted else os.pread(self.handle, len(view), self.position)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        self.position += len(view)
        return len(view)

    def write(self, data: memoryview) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and not self.muted:
            try:
                done += os.pwrite(self.handle, view[done:], self.position + done)
            except OSError as error:
                self.error, self.muted = error, True
        self.position += len(view)
        self.size = max(self.size, self.position)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def truncate(self, size: int) -> int:
        if not self.muted:
            try:
                os.ftruncate(self.handle, size)
            except OSError as error:
                self.error, self.muted = error, True
        self.size = size
        return size

    def flush(self) -> None:
        """Nothing to do: every write goes through at once."""

    def check(self, path: Path) -> None:
        """Raises the OSError that a write met, with the name of the file that was wanted."""
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror, str(path)) from self.error

    def sync(self, path: Path) -> None:
        self.check(path)
        os.fsync(self.handle)


@dataclass(frozen=True)
class Dataset:
    """A dataset file in memory.

    Attributes:
        path: where it came from.
        domain, rate, observation_names, observation_units, action_names, action_units, horizon,
            seed, command, git, contract, subset_of: as written; see the module's table.
        train, test: the tasks of each split, in order.
        fingerprint: 16 hexadecimal digits of a SHA-256 over domain, tasks and arrays. Two files
            with equal fingerprints hold the same data.
    """

    path: Path
    domain: str
    rate: float | None
    observation_names: list[str]
    observation_units: list[str]
    action_names: list[str]
    action_units: list[str]
    horizon: int
    seed: int
    command: str
    git: str
    contract: str | None
    train: list[TaskData]
    test: list[TaskData]
    fingerprint: str
    subset_of: str | None = None

    @property
    def observation_dim(self) -> int:
        return len(self.observation_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Reads a whole file and checks all of it.

        Raises:
            DatasetError: the file is missing, truncated, damaged, of another kind or of a newer
                schema, or its content is unusable. The error names the field.
        """
        path = Path(path)
        digests: dict[str, list[str]] = {}
        splits: dict[str, list[TaskData]] = {}
        with _open(path) as file, _damage_reported(path, "content"):
            attributes = _read_attributes(path, file)
            for split in SPLITS:
                tasks = _read_split(path, file, split, attributes)
                splits[split] = [task for task, _ in tasks]
                digests[split] = [_digest(task, text) for task, text in tasks]
        if not any(splits.values()):
            raise DatasetError(path, "tasks", "none", "at least one task in train/ or test/")
        fingerprint = _fingerprint(attributes["domain"], digests)
        stored = attributes.pop("fingerprint") or fingerprint
        if stored != fingerprint:
            raise DatasetError(
                path,
                "fingerprint",
                f"{fingerprint} over the arrays in the file",
                f"{stored} as stored: the file was damaged, or edited after it was written",
            )
        for name in ("format", "schema_version"):
            attributes.pop(name)
        return cls(path=path, fingerprint=fingerprint, **attributes, **splits)

    def summary(self) -> dict[str, Any]:
        """What the file holds, as a JSON-able dictionary.

        ``splits`` has, per split, the number of tasks, transitions and trajectories, transitions
        that are kept for histories alone, mean and standard deviation of the whole trajectories'
        returns (``None`` where none is whole) and, where the rewards are sparse (at most two values
        in all the file), the share of successful steps and of whole trajectories whose last step is
        successful: reward 0 of {-1, 0}, or 1 of {0, 1}; ``None`` otherwise.
        ``observations`` has name, unit, minimum, mean and maximum per dimension, and ``behaviors``
        the number of trajectories of each behaviour where the tasks tell.
        """
        tasks = self.train + self.test
        values = np.unique(np.concatenate([np.unique(task.rewards) for task in tasks]))
        threshold = None
        if len(values) <= 2:
            threshold = float(values[-1]) if values[0] >= 0 and values[-1] > 0 else 0.0
        rows = sum(len(task) for task in tasks)
        low = np.min([task.observations.min(axis=0) for task in tasks], axis=0)
        high = np.max([task.observations.max(axis=0) for task in tasks], axis=0)
        mean = sum(task.observations.sum(axis=0, dtype=np.float64) for task in tasks) / rows
        named = zip(self.observation_names, self.observation_units, low, mean, high, strict=True)
        return {
            "path": str(self.path),
            "domain": self.domain,
            "rate": self.rate,
            "horizon": self.horizon,
            "observation_dim": self.observation_dim,
            "action_dim": self.action_dim,
            "seed": self.seed,
            "command": self.command,
            "git": self.git,
            "contract": self.contract is not None,
            "fingerprint": self.fingerprint,
            "subset_of": self.subset_of,
            "splits": {split: _split_summary(getattr(self, split), threshold) for split in SPLITS},
            "observations": [
                {"name": n, "unit": u, "min": float(a), "mean": float(m), "max": float(b)}
                for n, u, a, m, b in named
            ],
            "behaviors": dict(sum((_behaviors(task) for task in tasks), Counter())),
        }


def _split_summary(tasks: list[TaskData], threshold: float | None) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "tasks": len(tasks),
        "transitions": sum(len(task) for task in tasks),
        "trajectories": sum(len(task.trajectories) for task in tasks),
        "context_transitions": sum(len(t.context) for t in tasks if t.context is not None),
        "return_mean": None,
        "return_std": None,
        "rewarded_steps": None,
        "rewarded_at_end": None,
    }
    whole = any(task.whole_trajectories for task in tasks)
    if whole:
        returns = np.concatenate([task.returns for task in tasks])
        summary["return_mean"] = float(returns.mean())
        summary["return_std"] = float(returns.std())
    if tasks and threshold is not None:
        hits = np.concatenate([task.rewards for task in tasks]) >= threshold
        summary["rewarded_steps"] = float(hits.mean())
    if whole and threshold is not None:
        last = [task.rewards[rows.stop - 1] for task in tasks for rows in task.whole_trajectories]
        summary["rewarded_at_end"] = float((np.array(last) >= threshold).mean())
    return summary


def _behaviors(task: TaskData) -> Counter[str]:
    behavior = task.task.get("behavior")
    if behavior is None:
        return Counter()
    if isinstance(behavior, str):
        return Counter({behavior: len(task.trajectories)})
    return Counter(str(item) for item in behavior)


# --- checks shared by the writer and the reader


def _stored(value: Any) -> Any:
    """A text, or a list of them, as HDF5 strings of fixed length; other values as they are.

    Strings of variable length, h5py's choice, lie in a heap without checksums: HDF5 may hang over
    a damaged one. Everything else in a file of version 1.10 has a checksum.
    """
    if not isinstance(value, str | list):
        return value
    encoded = np.char.encode(np.array(value, np.str_), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", encoded.itemsize))


def _loaded(value: Any) -> Any:
    """The inverse of ``_stored``; also takes strings of variable length."""
    if isinstance(value, np.ndarray):
        return [_loaded(item) for item in value.tolist()]
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _is_text(value: object) -> bool:
    """Whether it is a string that is not empty; damaged UTF-8 comes from h5py as surrogates."""
    if not isinstance(value, str) or not value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _check_attributes(path: Path, attributes: dict[str, Any]) -> None:
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


def _checked(path: Path, where: str, data: TaskData, attributes: dict[str, Any]) -> TaskData:
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
    behavior = data.task.get("behavior")
    if isinstance(behavior, list) and len(behavior) != len(ends):
        found, why = f"{len(behavior)} entries", f"{len(ends)}, one per trajectory, or one text"
        raise DatasetError(path, f"{where}/task/behavior", found, why)
    context = data.context
    if context is not None:
        context = _checked(path, f"{where}/context", replace(context, context=None), attributes)
    cut = (bool(cut[0]), bool(cut[1]))
    return TaskData(**arrays, task=data.task, split=data.split, context=context, cut=cut)


def _task_text(path: Path, where: str, task: object) -> str:
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


def _digest(data: TaskData, text: str) -> str:
    digest = hashlib.sha256(text.encode())
    parts = [("", data)] if data.context is None else [("", data), ("context/", data.context)]
    for prefix, part in parts:
        for name in ARRAYS:
            array = getattr(part, name)
            digest.update(f"{prefix}{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _fingerprint(domain: str, digests: dict[str, list[str]]) -> str:
    lines = [domain, *(f"{split} {item}" for split in SPLITS for item in digests[split])]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


# --- reading


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise DatasetError(path, "file", found, "a dataset file (`smac collect` makes one)")
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            start = file.read(8)
        found = f"a file that starts with {start!r}" if start else "an empty file"
        raise DatasetError(path, "file", found, "an HDF5 dataset file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        size = f"{path.stat().st_size} bytes"
        raise DatasetError(
            path, "file", f"{size} that HDF5 cannot open ({error})", "a complete HDF5 file"
        ) from error


@contextlib.contextmanager
def _damage_reported(path: Path, name: str) -> Iterator[None]:
    """Turns what h5py raises over a damaged file, which is a wide choice, into a DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise DatasetError(path, name, f"damage ({error})", "an undamaged file") from error


def _read_attributes(path: Path, file: h5py.File) -> dict[str, Any]:
    def read(name: str, required: bool) -> Any:
        if name not in file.attrs:
            if required:
                raise DatasetError(path, name, "nothing", "a root attribute of this name")
            return None
        with _damage_reported(path, name):
            return _loaded(file.attrs[name])

    kind = read("format", required=False)
    if kind != FORMAT:
        found = "an HDF5 file without the attribute" if kind is None else repr(kind)
        raise DatasetError(path, "format", found, f"{FORMAT!r}, as `smac collect` writes it")
    version = read("schema_version", required=True)
    if not isinstance(version, int | np.integer) or not 1 <= version <= SCHEMA_VERSION:
        newer = isinstance(version, int | np.integer) and version > SCHEMA_VERSION
        advice = ": the file is newer than this program; update smac_ros" if newer else ""
        raise DatasetError(path, "schema_version", version, f"{SCHEMA_VERSION}{advice}")
    attributes = {"format": kind, "schema_version": version}
    for name in ("domain", "observation_names", "observation_units", "action_names"):
        attributes[name] = read(name, required=True)
    for name in ("action_units", "horizon", "seed", "command", "git"):
        attributes[name] = read(name, required=True)
    for name in ("rate", "contract", "fingerprint", "subset_of"):
        attributes[name] = read(name, required=False)
    _check_attributes(path, attributes)
    return attributes


def _read_split(
    path: Path, file: h5py.File, split: str, attributes: dict[str, Any]
) -> list[tuple[TaskData, str]]:
    """The tasks of one split with their parameters as JSON text."""
    if split not in file:
        return []
    if not isinstance(file[split], h5py.Group):
        raise DatasetError(path, split, "an array", "a group of tasks")
    names = list(file[split])
    expected = [f"{index:04d}" for index in range(len(names))]
    if set(names) != set(expected):
        wrong = sorted(set(names) - set(expected))
        raise DatasetError(path, split, f"a member {wrong[0]!r}", "tasks 0000, 0001, ...")
    return [_read_task(path, file, split, name, attributes) for name in expected]


def _read_task(
    path: Path, file: h5py.File, split: str, name: str, attributes: dict[str, Any]
) -> tuple[TaskData, str]:
    where = f"{split}/{name}"
    group = file[where]
    arrays = _read_arrays(path, group, where)
    context = None
    if "context" in group:
        context = TaskData(**_read_arrays(path, group["context"], f"{where}/context"), split=split)
    try:
        text = _loaded(group.attrs["task"])
        task = json.loads(text)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DatasetError(path, f"{where}/task", error, "an attribute with JSON") from error
    if not isinstance(task, dict):
        raise DatasetError(path, f"{where}/task", repr(task), "a JSON object")
    data = TaskData(**arrays, task=task, split=split, context=context)
    return _checked(path, where, data, attributes), text


def _read_arrays(path: Path, group: h5py.Group | h5py.Dataset, where: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for array in ARRAYS:
        node = group.get(array) if isinstance(group, h5py.Group) else None
        if not isinstance(node, h5py.Dataset):
            raise DatasetError(path, f"{where}/{array}", "nothing", "an array of this name")
        with _damage_reported(path, f"{where}/{array}"):
            arrays[array] = node[()]
    with _damage_reported(path, f"{where}/cut"):
        arrays["cut"] = group.attrs.get("cut", (False, False))
    return arrays


def _sync_folder(folder: Path) -> None:
    """Makes a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
