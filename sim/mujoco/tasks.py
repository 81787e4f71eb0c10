"""Tasks of the MuJoCo domains as plain JSON: checks, and the fixed sets.

A task is a dict of what its domain's module names. The sets of the Cheetah and the Ant are the
authors' own, to the last bit (numpy's RandomState seeded with 1337, training tasks first); those of
the other three, which the authors do not publish, are drawn in the same way.

Rebuild or verify the sets with ``python -m sim.mujoco.tasks --write`` or ``--check``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from sim import task_sets

FILES = Path(__file__).parent / "task_sets"
SEED = 1337
DOMAINS = {
    "cheetah_velocity": "CheetahVelocity",
    "ant_direction": "AntDirection",
    "humanoid_direction": "HumanoidDirection",
    "walker_params": "WalkerParams",
    "hopper_params": "HopperParams",
}
SIX_AROUND = (53, 38, 60, 24, 66, 29)
# Which of the tasks drawn belong to which set. Sizes: Pong et al., table 2; the Humanoid's first
# two are PEARL's, and train50 and test5 the table's. Of the training directions, train6 is the
# nearest to 0, 60, ..., 300 degrees.
SETS = {
    "cheetah_velocity": {"train": range(100), "test": range(100, 130)},
    "ant_direction": {
        "train": range(100),
        "test": range(100, 120),
        "train6": SIX_AROUND,
    },
    "humanoid_direction": {
        "train": range(100),
        "test": range(100, 130),
        "train50": range(50),
        "train6": SIX_AROUND,
        "test5": range(100, 105),
    },
    "walker_params": {"train": range(50), "test": range(50, 55)},
    "hopper_params": {"train": range(50), "test": range(50, 55)},
}


def refuse(field: str, found: object, expected: str) -> None:
    """Raise the ValueError that every malformed task ends in."""
    raise ValueError(f"task field {field}: found {found!r}, expected {expected}")


def check_fields(task: dict, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    """`task` must be a dict with all `required` fields and no others but `optional` ones."""
    if not isinstance(task, dict):
        raise ValueError(f"task: found {type(task).__name__}, expected a dict")
    known = (*required, *optional)
    for key in task:
        if key not in known:
            refuse(key, task[key], f"no such field (there are {', '.join(known)})")
    for key in required:
        if key not in task:
            refuse(key, None, "the field to be there")


def check_number(field: str, value: object, expected: str) -> None:
    """`value` must be a finite number."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not isfinite(value):
        refuse(field, value, expected)


def make_domain(name: str, **options: Any) -> Any:
    """The domain `name` of `DOMAINS`; `options` are those of its class."""
    if name not in DOMAINS:
        raise ValueError(f"domain: found {name!r}, expected one of {', '.join(DOMAINS)}")
    return getattr(import_module(f".{name}", __package__), DOMAINS[name])(**options)


def _drawn(domain: str, options: Mapping[str, Any]) -> list[dict]:
    """All tasks of `domain`, every set's."""
    definition = make_domain(domain, **options)
    rng = np.random.RandomState(SEED)
    size = 1 + max(max(part) for part in SETS[domain].values())
    return [definition.sample_task(rng) for _ in range(size)]


def _path(domain: str, name: str) -> Path:
    if name not in SETS.get(domain, ()):
        raise ValueError(
            f"task set: found {domain!r}, {name!r}, expected one of {', '.join(DOMAINS)} and a set "
            "that it has, such as 'train' or 'test'"
        )
    return FILES / f"{domain}_{name}.json"


def draw_set(domain: str, name: str, **options: Any) -> list[dict]:
    """Draw a set anew; with the domain's `options` where they matter to its tasks."""
    _path(domain, name)
    drawn = _drawn(domain, options)
    return [drawn[index] for index in SETS[domain][name]]


def task_set(domain: str, name: str = "train") -> list[dict]:
    """Load a fixed set: a domain of `DOMAINS` and a name that it has in `SETS`."""
    return json.loads(_path(domain, name).read_text())


def _every_set() -> Iterator[tuple[Path, list[dict]]]:
    for domain in DOMAINS:
        drawn = _drawn(domain, {})
        for name, part in SETS[domain].items():
            yield _path(domain, name), [drawn[index] for index in part]


def main(arguments: Sequence[str] | None = None) -> int:
    return task_sets.main("sim.mujoco.tasks", __doc__, _every_set(), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
