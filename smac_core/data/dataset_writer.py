"""Writing a dataset file, whole or not at all: task by task, or trajectory by trajectory.

Layout: ``dataset_format``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from smac_core.data.dataset_format import (
    ARRAYS,
    FORMAT,
    SCHEMA_VERSION,
    SPLITS,
    DatasetError,
    TaskData,
    arrays_of,
    check_attributes,
    check_behaviors,
    checked,
    digest,
    fingerprint_of,
    stored,
    task_text,
)
from smac_core.data.hdf5_stream import Stream
from smac_core.durable import sync
from smac_core.provenance import git_revision

_CHUNK_BYTES = 256 * 1024  # a few chunks per array: quick to read whole, still seekable
_GROWING_BYTES = 32 * 1024  # of arrays whose length is not known yet, many of which may be open
_HELD_BYTES = 256 * 1024  # of a task's trajectories that wait to be written together
_ANY_HORIZON = 2**62


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
        horizon: longest trajectory, in steps; ``None``: of those that will be written.
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
        horizon: int | None,
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
            "horizon": _ANY_HORIZON if horizon is None else horizon,
            "seed": seed,
            "command": command,
            "contract": contract,
            "git": git if git is not None else git_revision(),
            "subset_of": subset_of,
        }
        check_attributes(self.path, self.attributes)
        self._horizon_given, self._longest = horizon is not None, 0
        self._digests: dict[str, list[str]] = {split: [] for split in SPLITS}
        self._growing: list[TaskWriter] = []
        self._stream: Stream | None = None
        self._file: h5py.File | None = None
        self._temporary: Path | None = None
        self._refuse_existing()

    def __enter__(self) -> DatasetWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".tmp"
        )
        self._temporary = Path(name)
        self._stream = Stream(handle)
        try:
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(handle, 0o666 & ~umask)  # mkstemp's 0600 would stay on the finished file
            self._file = h5py.File(self._stream, "w", libver=("v110", "v112"))
            for name, value in self.attributes.items():
                if value is not None and (name != "horizon" or self._horizon_given):
                    self._file.attrs[name] = stored(value)
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
        where = self._next_place(split)
        if data.split != split:
            raise DatasetError(self.path, f"{where}/split", repr(data.split), repr(split))
        text = task_text(self.path, where, data.task)
        data = checked(self.path, where, data, self.attributes)
        with self._explained():
            group = self._file.create_group(where)
            group.attrs["task"] = stored(text)
            _write_arrays(group, data)
            if data.context is not None:
                _write_arrays(group.create_group("context"), data.context)
        self._note_lengths(data)
        self._digests[split].append(digest(arrays_of(data), text))

    def open_task(self, split: str, task: dict[str, Any]) -> TaskWriter:
        """A task whose trajectories come one after another, also in turn with other tasks'.

        It is numbered as ``add_task`` numbers. It has to have a trajectory when the block ends.

        Raises:
            DatasetError: the task's parameters are not JSON-able.
            OSError: the disk is full.
        """
        where = self._next_place(split)
        text = task_text(self.path, where, task)
        with self._explained():
            group = self._file.create_group(where)
            group.attrs["task"] = stored(text)
        self._digests[split].append("")  # known when all trajectories are there
        self._growing.append(TaskWriter(self, group, split, task, text))
        return self._growing[-1]

    def _next_place(self, split: str) -> str:
        """Where the next task of a split goes."""
        if self._file is None:
            raise RuntimeError("tasks belong inside the writer's with block")
        if split not in SPLITS:
            raise DatasetError(self.path, "split", repr(split), " or ".join(map(repr, SPLITS)))
        return f"{split}/{len(self._digests[split]):04d}"

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """A full disk explains whatever HDF5 complains about."""
        try:
            yield
        except BaseException:
            self._stream.check(self.path)
            raise
        self._stream.check(self.path)

    def _note_lengths(self, data: TaskData) -> None:
        for part in (data, data.context):
            if part is not None:
                lengths = (rows.stop - rows.start for rows in part.trajectories)
                self._longest = max(self._longest, *lengths)

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
        with self._explained():
            for task in self._growing:
                number = int(task.where.rpartition("/")[2])
                self._digests[task.split][number] = task.finish()
        if not self._horizon_given:
            self.attributes["horizon"] = self._longest
            self._file.attrs["horizon"] = self._longest
        fingerprint = fingerprint_of(self.attributes["domain"], self._digests)
        self._file.attrs["fingerprint"] = stored(fingerprint)
        self._file.close()
        self._stream.sync(self.path)
        self._refuse_existing()
        os.replace(self._temporary, self.path)
        sync(self.path.parent)

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


class TaskWriter:
    """One task of a ``DatasetWriter`` (its ``open_task``), trajectory by trajectory.

    Attributes:
        where: its group in the file, such as ``train/0000``.
        trajectories, transitions: how many there are so far.
    """

    def __init__(
        self, writer: DatasetWriter, group: h5py.Group, split: str, task: dict[str, Any], text: str
    ) -> None:
        self._writer, self._group, self._task, self._text = writer, group, task, text
        self.where, self.split = group.name.lstrip("/"), split
        self.trajectories = self.transitions = 0
        self._arrays: dict[str, h5py.Dataset] = {}
        self._held: list[TaskData] = []
        self._held_bytes = 0

    def add(self, data: TaskData) -> None:
        """Append whole trajectories; of ``data`` the arrays alone count.

        Raises:
            DatasetError: as of ``DatasetWriter.add_task``; the file is as it was before.
            OSError: the disk is full.
        """
        writer = self._writer
        if data.context is not None or any(data.cut):
            found = "a context, or a trajectory that is cut"
            raise DatasetError(writer.path, self.where, found, "whole trajectories alone")
        data = checked(writer.path, self.where, replace(data, task={}), writer.attributes)
        self._held.append(data)
        self._held_bytes += sum(getattr(data, name).nbytes for name in ARRAYS)
        self.transitions += len(data)
        self.trajectories += len(data.trajectories)
        writer._note_lengths(data)
        if self._held_bytes >= _HELD_BYTES:
            self._write()

    def finish(self) -> str:
        """The digest of all that was added. Raises DatasetError where nothing was."""
        path = self._writer.path
        if not self.transitions:
            raise DatasetError(path, self.where, "no trajectories", "at least one")
        check_behaviors(path, self.where, self._task, self.trajectories)
        self._write()
        return digest(self._arrays, self._text)

    def _write(self) -> None:
        """Append what is held to the file."""
        with self._writer._explained():
            for name in ARRAYS:
                parts = [getattr(data, name) for data in self._held]
                if not parts:
                    continue
                if name not in self._arrays:
                    own = (self._group, name, parts[0][:0], _GROWING_BYTES)
                    self._arrays[name] = _create(*own, growing=True)
                array, rows = self._arrays[name], np.concatenate(parts)
                end = len(array) + len(rows)
                array.resize(end, axis=0)
                array[end - len(rows) :] = rows
        self._held, self._held_bytes = [], 0


def _write_arrays(group: h5py.Group, data: TaskData) -> None:
    for name in ARRAYS:
        _create(group, name, getattr(data, name), _CHUNK_BYTES)
    if any(data.cut):
        group.attrs["cut"] = np.array(data.cut)


def _create(
    group: h5py.Group, name: str, array: np.ndarray, chunk_bytes: int, growing: bool = False
) -> h5py.Dataset:
    rows = max(1, chunk_bytes // (array.itemsize * (array.shape[1:] or (1,))[0]))
    return group.create_dataset(
        name,
        data=array,
        chunks=(rows if growing else min(len(array), rows), *array.shape[1:]),
        maxshape=(None, *array.shape[1:]) if growing else None,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,
    )
