"""Task sets: JSON lists of task parameters, which only the environment understands."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from smac_core.errors import InputError


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
