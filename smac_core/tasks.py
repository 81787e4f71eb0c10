"""Task sets: JSON lists of task parameters, which only the environment understands."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from smac_core.config import Config
from smac_core.errors import InputError


def training_tasks(config: Config) -> list[dict[str, Any]]:
    """The tasks to train in, as many of their list's first as configured; errors as load_tasks."""
    return _first(config.tasks.train, "train_count", config.tasks.train_count)


def held_out_tasks(config: Config) -> list[dict[str, Any]]:
    """The tasks that nothing is trained in, likewise."""
    return _first(config.tasks.test, "test_count", config.tasks.test_count)


def _first(name: str, field: str, count: int | None) -> list[dict[str, Any]]:
    tasks = load_tasks(name)
    if count is not None and count > len(tasks):
        raise InputError(name, f"tasks.{field}", count, f"at most {len(tasks)}, all of the list's")
    return tasks[:count]


def load_tasks(name: str) -> list[dict[str, Any]]:
    """The tasks of a JSON file: a path, or "package:path" for one that a package carries.

    Raises:
        InputError: no such file, or not a JSON list of objects with at least one of them.
    """
    package, colon, inside = name.partition(":")
    try:
        source = resources.files(package).joinpath(inside) if colon else Path(name)
        tasks = json.loads(source.read_text())
    except (OSError, ModuleNotFoundError) as error:
        raise InputError(name, "file", error, "a JSON list of tasks") from None
    except UnicodeDecodeError:
        raise InputError(name, "content", "no text", "a JSON list of tasks") from None
    except json.JSONDecodeError as error:
        raise InputError(name, f"line {error.lineno}", error.msg, "JSON") from None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(t, dict) for t in tasks):
        raise InputError(name, "content", type(tasks).__name__, "a non-empty list of JSON objects")
    return tasks
