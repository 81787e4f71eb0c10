"""Options that several commands of ``smac`` have."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from smac_core.devices import check_device

RunFolder = Annotated[Path, typer.Argument(help="A run's folder, as smac train made it.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", callback=check_device)]
Threads = Annotated[int, typer.Option(help="CPU threads of torch; 0: what suits.", min=0)]
Workers = Annotated[int, typer.Option(help="Simulation processes; 0: in this one.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
Minutes = Annotated[
    float,
    typer.Option(
        help="Save and stop after so long, with exit code 75: the same command goes on. 0: never.",
        min=0,
    ),
]
Set = Annotated[
    list[str],
    typer.Option("--set", help="Change the configuration: section.key=value. Repeatable."),
]
Phase = Annotated[
    str | None,
    typer.Option(help="offline, self_supervised, control, ...; default: the latest of two."),
]


@contextmanager
def sitting(minutes: float) -> Iterator[Callable[[], typer.Exit]]:
    """At most so many minutes of work (0: no limit); gives what to raise when it is not finished.

    Exit code 75, as of sysexits.h, where the time was up: give the command again; 130 for Ctrl-C.
    """
    from smac_core.training.progress import interruptible

    with interruptible("saving a checkpoint", seconds=60 * minutes or math.inf) as stop:
        yield lambda: typer.Exit(75 if stop.late else 130)


def print_json(content: Any) -> None:
    """What ``--json`` prints."""
    print(json.dumps(content, indent=1, allow_nan=False))
