"""``smac demo``: the whole idea in a quarter of an hour, ending in a table and pictures."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from smac_core.commands.evaluate import percent, plain
from smac_core.commands.experiments import DATA_ROW
from smac_core.commands.pipeline import Interrupted, Pipeline, claimed, run
from smac_core.config import load_config
from smac_core.figures import draw, load_evaluations

# What the demo does less of than `smac reproduce fig5 --scale cpu`, to end within 15 minutes.
TRAJECTORIES = 20
SHORTER = ["offline.steps=8000", "evaluation.repeats=2"]
SMALL = {"width": 96, "height": 72}  # the film at scale smoke


def run_demo(out: Path, scale: str, *, workers: int, seed: int, quiet: bool) -> None:
    """Run, print the table, draw the figures and film one held-out task."""
    from smac_core.commands.render import film_run
    from smac_core.devices import resolve_device, use_threads

    console = Console(stderr=True, quiet=quiet)
    began = time.monotonic()
    pipeline = Pipeline(
        out,
        load_config("sawyer", scale, SHORTER if scale == "cpu" else []),
        seed,
        methods=("meta_bc", "offline", "control", "smac"),
        trajectories=TRAJECTORIES if scale == "cpu" else 0,
        workers=workers,
        device=resolve_device("auto"),
        quiet=quiet,
        announce=lambda stage: console.print(f"[bold cyan]{stage}[/]"),
    )
    use_threads(0, pipeline.config)
    try:
        with claimed([pipeline]):
            (scores,) = run([pipeline])
    except Interrupted:
        console.print("saved; the same command goes on from here")
        raise typer.Exit(130) from None
    show(scores)
    pictures = draw(out / "smac")
    film = out / "held_out_task.gif"
    number, size = worth_a_film(out / "smac"), SMALL if scale == "smoke" else {}
    film_run(out / "smac", "self_supervised", "test", number, film, seed=seed, **size)
    for path in [*pictures, film]:
        print(path)
    print(f"done in {(time.monotonic() - began) / 60:.1f} minutes")


def worth_a_film(run: Path) -> int:
    """The held-out task that took the longest of those that succeeded most often."""
    result = load_evaluations(run)["self_supervised", "online"]
    success, returns = result["success"].mean(1), result["returns"].mean(1)
    return int(np.where(success == success.max(), returns, np.inf).argmin())


def show(scores: dict[str, Any]) -> None:
    """The table: held-out tasks, from online and from offline context."""
    rows = scores["rows"]
    tasks = max(row["online"]["tasks"] for name, row in rows.items() if name != DATA_ROW)
    knows_success = scores["config"]["environment"]["measures_success"]
    measures = {"success": percent, "return": plain} if knows_success else {"return": plain}
    table = Table(
        title=f"{tasks} held-out tasks, the last episode; online and offline context (± 95 %)",
        box=box.SIMPLE,  # 80 columns have no room for lines between them
    )
    table.add_column("", no_wrap=True)
    for context in ("online", "offline"):
        for measure in measures:
            table.add_column(f"{context}\n{measure}", no_wrap=True)
    for row in rows.values():
        cells = []
        for context in ("online", "offline"):
            found = row.get(context)
            cells += [shown(found[m]) if found else "" for m, shown in measures.items()]
        table.add_row(row["label"], *cells)
    Console().print(table)
