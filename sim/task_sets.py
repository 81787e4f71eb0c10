"""Fixed task sets as files: written from seeds, and compared with what their seeds draw."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def text(tasks: list[dict]) -> str:
    """One task a line, so that a difference between two versions reads task by task."""
    return "[\n" + ",\n".join(json.dumps(task) for task in tasks) + "\n]\n"


def main(
    program: str,
    description: str | None,
    drawn: Iterable[tuple[Path, list[dict]]],
    arguments: Sequence[str] | None = None,
) -> int:
    """The command of a module of tasks: ``--check`` or ``--write`` every set that was drawn.

    Returns 1 where a stored set differs.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true", help="compare the stored sets with theirs")
    choice.add_argument("--write", action="store_true", help="draw the sets and store them")
    write = parser.parse_args(arguments).write
    differing = []
    for path, tasks in drawn:
        if write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text(tasks))
        elif not path.exists() or path.read_text() != text(tasks):
            differing.append(path.name)
    for name in differing:
        print(f"{name}: differs from what its seed draws; run --write", file=sys.stderr)
    return bool(differing)
