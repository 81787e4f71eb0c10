"""A dataset file in memory: reading one, checking all of it, and what it holds.

Layout: ``dataset_format``.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
    checked,
    digest,
    fingerprint_of,
    loaded,
)

__all__ = ["ARRAYS", "SCHEMA_VERSION", "Dataset", "DatasetError", "TaskData"]


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
                digests[split] = [digest(arrays_of(task), text) for task, text in tasks]
        if not any(splits.values()):
            raise DatasetError(path, "tasks", "none", "at least one task in train/ or test/")
        fingerprint = fingerprint_of(attributes["domain"], digests)
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
            return loaded(file.attrs[name])

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
    check_attributes(path, attributes)
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
        text = loaded(group.attrs["task"])
        task = json.loads(text)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise DatasetError(path, f"{where}/task", error, "an attribute with JSON") from error
    if not isinstance(task, dict):
        raise DatasetError(path, f"{where}/task", repr(task), "a JSON object")
    data = TaskData(**arrays, task=task, split=split, context=context)
    return checked(path, where, data, attributes), text


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
