"""Rewards that a Python function gives: "module:function", as settings name it."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.errors import InputError

# raw arrays (s [N, ds], a [N, da], s' [N, ds]) and a task's parameters -> its rewards [N]
RewardFunction = Callable[[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]], np.ndarray]


def reward_function(
    name: str, field: str, source: str | Path | None = None, folder: Path | None = None
) -> RewardFunction:
    """The function "module:function".

    Args:
        field: the setting that names it, for errors.
        source: the file that the setting is in; None: it stands for itself.
        folder: where its module may lie, beside Python's own path.

    Raises:
        InputError: there is no such module or function, or its module does not run.
    """
    module, _, function = name.partition(":")
    try:
        with _importable(folder):
            found = getattr(importlib.import_module(module), function)
        if not callable(found):
            raise TypeError(f"{function} is a {type(found).__name__}")
    except Exception as error:  # whatever the module's code raises
        expected = "module:function, of (observations, actions, next_observations, task)"
        place = (field, name) if source is None else (source, field)
        told = error if source is None else f"{name} ({type(error).__name__}: {error})"
        raise InputError(*place, told, expected) from error
    return found


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
