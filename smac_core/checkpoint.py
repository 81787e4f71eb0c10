"""Checkpoints: safetensors plus JSON, written so that a crash never costs the previous one.

A run folder holds one folder per checkpoint and a text file naming the newest complete one::

    run/step_0000100000/weights.safetensors   every tensor, under a dotted name
    run/step_0000100000/checkpoint.json       format, schema, order, checksums, state
    run/latest                                "step_0000100000"

A checkpoint is written to a temporary folder beside its place, synced to the disk and renamed;
only then ``latest`` is replaced, and only then old checkpoints are removed. No pickle is ever
written or loaded: module and optimiser state dictionaries pass through :func:`flatten`.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import json
import math
import os
import random
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from smac_core.durable import sync
from smac_core.errors import InputError

SCHEMA_VERSION = 1
FORMAT = "smac-checkpoint"
WEIGHTS = "weights.safetensors"
STATE = "checkpoint.json"
LATEST = "latest"
_TEMPORARY = ".tmp"  # ".<name>.<pid>.tmp": being written
_REPLACED = ".replaced"  # ".<name>.replaced": the old one, while a new one takes its name

Generators = Mapping[str, "torch.Generator | np.random.Generator | random.Random"]


class CheckpointError(InputError):
    """A checkpoint that cannot be used; see :class:`~smac_core.errors.InputError`."""


def save(
    directory: str | Path,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    keep: int | None = None,
) -> Path:
    """Writes one checkpoint and points ``latest`` in the parent folder to it.

    Args:
        directory: the checkpoint's own folder inside the run folder. An existing checkpoint of
            that name is replaced.
        tensors: flat, under dotted names; any device, any shape. Copied to the CPU.
        state: JSON-able: configuration, counters, :func:`rng_state`, the dataset's fingerprint.
        keep: how many checkpoints of the run folder to keep, this one included; ``None``: all.

    Returns:
        ``directory``.

    Raises:
        CheckpointError: ``state`` cannot be stored (the error names the entry).
        OSError: the checkpoint could not be written, for example because the disk is full. What
            was there before is untouched, and nothing half-written stays behind.
    """
    directory = Path(directory)
    text = json.dumps(_plain(directory, "state", state))
    run = directory.parent
    run.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(run)
    order = 1 + max((_order(path) for path in checkpoints(run)), default=0)
    temporary = run / f".{directory.name}.{os.getpid()}{_TEMPORARY}"
    try:
        temporary.mkdir()
        weights = temporary / WEIGHTS
        _write_tensors(weights, tensors)
        content = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "order": order,
            "weights_sha256": _file_sha256(weights),
            "weights_bytes": weights.stat().st_size,
            "state_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "state": json.loads(text),
        }
        _write_text(temporary / STATE, json.dumps(content, indent=1))
        sync(temporary)
        _move_into_place(temporary, directory)
        _replace_text(run / LATEST, directory.name + "\n")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if keep is not None:
        prune(run, keep)
    return directory


def load(
    directory: str | Path, device: str | torch.device = "cpu"
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint, or the latest one of a run folder, and checks that it is whole.

    Args:
        directory: a checkpoint's folder, or a run folder with ``latest`` in it.
        device: where the tensors go.

    Returns:
        The tensors by name, and the state, as given to :func:`save`.

    Raises:
        CheckpointError: missing, incomplete, damaged, or of a newer schema.
    """
    directory = find(directory)
    content = _read_content(directory)
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(weights, "file", "no such file", "the checkpoint's tensors")
    size = weights.stat().st_size
    if size != content["weights_bytes"]:
        expected = f"{content['weights_bytes']}, as {STATE} says: the file is damaged"
        raise CheckpointError(weights, "size in bytes", size, expected)
    digest = _file_sha256(weights)
    if digest != content["weights_sha256"]:
        expected = f"{content['weights_sha256']}, as {STATE} says: the file is damaged"
        raise CheckpointError(weights, "sha256", digest, expected)
    try:
        tensors = load_file(weights, device=str(device))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(weights, "content", error, "a safetensors file") from error
    return tensors, content["state"]


def load_state(directory: str | Path) -> dict[str, Any]:
    """The JSON part of a checkpoint alone; cheap. Raises CheckpointError like :func:`load`."""
    return _read_content(find(directory))["state"]


def find(directory: str | Path) -> Path:
    """The checkpoint folder meant by ``directory``: itself, or a run folder's latest."""
    directory = Path(directory)
    _restore_replaced(directory)
    if not (directory / STATE).exists() and (directory / LATEST).exists():
        return latest(directory)
    return directory


def latest(run_dir: str | Path) -> Path:
    """The newest complete checkpoint of a run folder.

    Raises:
        CheckpointError: there is none, or the one that ``latest`` names is gone.
    """
    run = Path(run_dir)
    pointer = run / LATEST
    if not pointer.is_file():
        found = "no such file" if run.is_dir() else "no such folder"
        raise CheckpointError(pointer, "file", found, "a run folder with a checkpoint in it")
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    if not name or Path(name).name != name:
        raise CheckpointError(pointer, "content", repr(name), "the name of a checkpoint folder")
    _restore_replaced(run / name)
    if not (run / name / STATE).is_file():
        others = ", ".join(path.name for path in checkpoints(run)) or "none"
        expected = f"a checkpoint folder of this name (complete ones here: {others})"
        raise CheckpointError(pointer, "content", repr(name), expected)
    return run / name


def checkpoints(run_dir: str | Path) -> list[Path]:
    """The complete checkpoints of a run folder, oldest first."""
    run = Path(run_dir)
    if not run.is_dir():
        return []
    found = [path.parent for path in run.glob(f"*/{STATE}") if not path.parent.name.startswith(".")]
    return sorted(found, key=lambda path: (_order(path), path.name))


def prune(run_dir: str | Path, keep: int) -> list[Path]:
    """Removes all but the newest ``keep`` checkpoints, never the one ``latest`` names.

    Returns:
        The folders that were removed.
    """
    if keep < 1:
        raise ValueError(f"keep: found {keep}; expected at least 1")
    current = latest(run_dir)
    old = [path for path in checkpoints(run_dir)[:-keep] if path != current]
    for path in old:
        # The state goes first: a folder without it is no checkpoint, so a crash half-way through
        # leaves nothing that looks complete.
        (path / STATE).unlink()
        shutil.rmtree(path, ignore_errors=True)
    return old


def require_match(path: str | Path, field: str, found: object, expected: object) -> None:
    """Raises CheckpointError unless ``found`` (in the file) equals ``expected`` (needed here)."""
    if found != expected:
        raise CheckpointError(path, field, found, expected)


# --- nested state <-> flat tensors and JSON


def flatten(nested: Any, prefix: str = "") -> tuple[dict[str, torch.Tensor], Any]:
    """Splits nested state, such as optimisers' state dictionaries, into tensors and JSON.

    Dictionaries (also with integer keys, as in ``Optimizer.state_dict``), lists, tuples, tensors,
    numpy arrays, numbers, texts, booleans and ``None`` survive exactly.

    Args:
        nested: the state.
        prefix: first part of all tensor names.

    Returns:
        The tensors under dotted names, and the rest with ``{"$tensor": name}`` in their places,
        both as :func:`unflatten` takes them.

    Raises:
        TypeError: a value of another type; the error names its place.
        ValueError: two tensors would get the same name.
    """
    tensors: dict[str, torch.Tensor] = {}

    def place(name: str, tensor: torch.Tensor) -> None:
        if name in tensors:
            raise ValueError(f"two tensors are named {name!r}; rename a key that has a dot in it")
        tensors[name] = tensor

    def walk(name: str, value: Any) -> Any:
        def child(key: object) -> str:
            return f"{name}.{key}" if name else str(key)

        if isinstance(value, torch.Tensor):
            place(name, value.detach())
            return {"$tensor": name}
        if isinstance(value, np.ndarray):
            place(name, torch.from_numpy(np.array(value)))  # a copy: torch needs writable memory
            return {"$array": name}
        if isinstance(value, Mapping):
            plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
            pairs = [(key, walk(child(key), item)) for key, item in value.items()]
            if plain:
                return dict(pairs)
            return {"$items": [[walk(child("key"), key), item] for key, item in pairs]}
        if isinstance(value, tuple):
            return {"$tuple": [walk(child(i), item) for i, item in enumerate(value)]}
        if isinstance(value, list):
            return [walk(child(i), item) for i, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            return {"$float": repr(float(value))}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{name}: a {type(value).__name__} cannot be stored in a checkpoint")

    return tensors, walk(prefix, nested)


def unflatten(tensors: Mapping[str, torch.Tensor], structure: Any) -> Any:
    """Puts back together what :func:`flatten` took apart.

    Raises:
        KeyError: a tensor that ``structure`` names is not in ``tensors``.
    """
    if isinstance(structure, list):
        return [unflatten(tensors, item) for item in structure]
    if not isinstance(structure, Mapping):
        return structure
    if len(structure) == 1:
        kind, value = next(iter(structure.items()))
        if kind == "$tensor":
            return tensors[value]
        if kind == "$array":
            return tensors[value].numpy()
        if kind == "$float":
            return float(value)
        if kind == "$tuple":
            return tuple(unflatten(tensors, item) for item in value)
        if kind == "$items":
            return {unflatten(tensors, k): unflatten(tensors, v) for k, v in value}
    return {key: unflatten(tensors, item) for key, item in structure.items()}


# --- random number generators


def rng_state(generators: Generators | None = None) -> dict[str, Any]:
    """The state of all random number generators, JSON-able.

    Args:
        generators: the program's own, by name. The global ones of Python, numpy and torch (and of
            every CUDA device) are always included.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": _python_state(random.getstate()),
        "numpy": _encode(np.random.get_state(legacy=False)),
        "torch": _encode(torch.get_rng_state().numpy()),
        "cuda": [_encode(state.numpy()) for state in cuda],
        "generators": {name: _state_of(item) for name, item in (generators or {}).items()},
    }


def set_rng_state(state: Mapping[str, Any], generators: Generators | None = None) -> None:
    """Puts all generators back to ``state``, exactly.

    A state of a device that this machine lacks, or of a generator that lives on another device
    now, cannot be restored: a warning tells, and that generator stays as it is.

    Raises:
        ValueError: the names or kinds of ``generators`` differ from those in ``state``.
    """
    generators = generators or {}
    stored = state["generators"]
    if set(stored) != set(generators):
        raise ValueError(
            f"random generators: found {sorted(stored)} in the state; expected {sorted(generators)}"
        )
    for name, item in generators.items():
        kind, wanted = stored[name]["kind"], _state_of(item)["kind"]
        if kind.startswith("torch") and wanted.startswith("torch") and kind != wanted:
            warnings.warn(f"generator {name!r}: state of {kind} unusable on {wanted}", stacklevel=2)
        elif kind != wanted:
            raise ValueError(f"random generator {name!r}: found {kind}; expected {wanted}")
        elif isinstance(item, torch.Generator):
            item.set_state(torch.from_numpy(_decode(stored[name]["state"])))
        elif isinstance(item, random.Random):
            item.setstate(_python_tuple(stored[name]["state"]))
        else:
            item.bit_generator.state = _decode(stored[name]["state"])
    random.setstate(_python_tuple(state["python"]))
    np.random.set_state(_decode(state["numpy"]))
    torch.set_rng_state(torch.from_numpy(_decode(state["torch"])))
    cuda = [torch.from_numpy(_decode(item)) for item in state["cuda"]]
    if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
    elif cuda:
        warnings.warn(
            f"the state of {len(cuda)} CUDA generator(s) was not restored: this machine has "
            f"{torch.cuda.device_count()}",
            stacklevel=2,
        )


def _state_of(item: torch.Generator | np.random.Generator | random.Random) -> dict[str, Any]:
    if isinstance(item, torch.Generator):
        kind = f"torch {item.device.type}"
        return {"kind": kind, "state": _encode(item.get_state().numpy())}
    if isinstance(item, np.random.Generator):
        state = item.bit_generator.state
        return {"kind": f"numpy {state['bit_generator']}", "state": _encode(state)}
    if isinstance(item, random.Random):
        return {"kind": "python", "state": _python_state(item.getstate())}
    raise TypeError(f"a {type(item).__name__} is no random number generator")


def _python_state(state: tuple[Any, ...]) -> list[Any]:
    return [state[0], list(state[1]), state[2]]


def _python_tuple(state: list[Any]) -> tuple[Any, ...]:
    return state[0], tuple(state[1]), state[2]


def _encode(value: Any) -> Any:
    """Arrays inside ``value`` as base64, so that the rest is JSON."""
    if isinstance(value, np.ndarray):
        raw = base64.b64encode(value.tobytes()).decode()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "base64": raw}
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _decode(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"dtype", "shape", "base64"}:
            raw = np.frombuffer(base64.b64decode(value["base64"]), value["dtype"])
            return raw.reshape(value["shape"]).copy()
        return {key: _decode(item) for key, item in value.items()}
    return value


# --- files


def _plain(path: Path, name: str, value: Any) -> Any:
    """``value`` as JSON types only. Raises CheckpointError naming what JSON cannot hold."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise CheckpointError(path, name, f"the key {key!r}", "texts as keys")
        return {key: _plain(path, f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(path, f"{name}[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise CheckpointError(path, name, value, "a finite number (JSON has no other)")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(path, name, f"a {type(value).__name__}", "a JSON-able value")


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    seen: set[int] = set()
    ready: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        memory = tensor.untyped_storage().data_ptr()
        if memory in seen:  # safetensors refuses tensors that share memory, such as tied weights
            tensor = tensor.clone()
        seen.add(memory)
        ready[name] = tensor
    try:
        save_file(ready, path)
    except SafetensorError as error:
        # The library reports a full disk as its own error; callers wait for OSError.
        number = re.search(r"os error (\d+)", str(error))
        code = int(number.group(1)) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    path.chmod(0o644)  # the library lets nobody else read it
    sync(path)


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        _write_text(temporary, text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def _move_into_place(temporary: Path, directory: Path) -> None:
    """Renames; where ``directory`` exists it steps aside first and comes back if that fails."""
    aside = directory.with_name(f".{directory.name}{_REPLACED}")
    if directory.exists():
        os.rename(directory, aside)
    try:
        os.rename(temporary, directory)
    except BaseException:
        _restore_replaced(directory)
        raise
    sync(directory.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _restore_replaced(directory: Path) -> None:
    """Undoes a replacement that a crash cut in two."""
    aside = directory.with_name(f".{directory.name}{_REPLACED}")
    if aside.exists() and not directory.exists():
        os.rename(aside, directory)


def _clear_leftovers(run: Path) -> None:
    for path in _hidden(run, _REPLACED):
        _restore_replaced(run / path.name[1 : -len(_REPLACED)])
        shutil.rmtree(path, ignore_errors=True)
    for path in _hidden(run, _TEMPORARY):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _hidden(run: Path, suffix: str) -> Iterator[Path]:
    yield from [path for path in run.glob(f".*{suffix}") if path.name.endswith(suffix)]


def _order(directory: Path) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((directory / STATE).read_text(encoding="utf-8"))["order"])
    return 0  # unreadable: the first to go when old checkpoints are removed


def _read_content(directory: Path) -> dict[str, Any]:
    path = directory / STATE
    if not path.is_file():
        found = "no such file" if directory.is_dir() else "no such folder"
        raise CheckpointError(path, "file", found, "a checkpoint folder, or a run folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(path, "content", f"damage ({error})", "JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(path, "format", repr(found), repr(FORMAT))
    version = content.get("schema_version")
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        advice = ": the checkpoint is newer than this program; update smac_ros" if newer else ""
        raise CheckpointError(path, "schema_version", version, f"{SCHEMA_VERSION}{advice}")
    for name in ("weights_sha256", "weights_bytes", "state_sha256", "state"):
        if name not in content:
            raise CheckpointError(path, name, "nothing", "a value: the file is damaged")
    digest = hashlib.sha256(json.dumps(content["state"]).encode()).hexdigest()
    if digest != content["state_sha256"]:
        expected = f"{content['state_sha256']}: the file was damaged or edited"
        raise CheckpointError(path, "state_sha256", digest, expected)
    return content


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
