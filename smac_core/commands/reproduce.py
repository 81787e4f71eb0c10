"""``smac reproduce``: the paper's experiments over several seeds, resumable.

OUT/DOMAIN_SCALE/seed_0, seed_1 ...  one pipeline each (data seeds too), shared by all figures
RESULTS/table.csv, differences.csv   one row a method, context and behaviour; what is gained
RESULTS/table.md                     both for readers
RESULTS/fig5.png, .svg, .csv         a figure and what it draws
RESULTS/experiment.json              commands, seeds, commits, machine and time behind them
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smac_core.commands.experiments import FIGURES, choose_methods
from smac_core.commands.paper_figures import DATA, DRAWINGS
from smac_core.commands.pipeline import Pipeline, claimed, run
from smac_core.commands.tables import (
    differences,
    load,
    markdown,
    measures,
    oracle_share,
    table,
    write_csv,
)
from smac_core.config import Config
from smac_core.errors import InputError
from smac_core.figures import save
from smac_core.folder_lock import locked
from smac_core.positions import shows_position
from smac_core.training.run import write_json


def reproduce(
    figure: str,
    config: Config,
    base: Path,
    seeds: Sequence[int],
    *,
    methods: str = "",
    at_once: int = 1,
    results: Path | None = None,
    finished: Callable[[dict[str, Any]], None] = lambda scores: None,
    **arguments: Any,
) -> Path:
    """Run a figure's methods for the seeds; the folder with table and figures.

    Args:
        base: holds a folder for each seed.
        methods: names with commas between; "": all of the figure.
        at_once: seeds that train at once.
        results: where tables and figures go; None: in ``base``.
        finished: told the scores of each seed.
        arguments: the pipelines', see ``Pipeline``.

    Raises:
        InputError: another process is at work on a seed, a folder holds other settings, or the
            figure does not suit the domain.
        Interrupted: Ctrl-C, or the time is up; the same call goes on.
    """
    if figure in ("fig6", "fig7") and not shows_position(config.environment):
        raise InputError("--domain", figure, config.domain, "one whose observations show positions")
    chosen = choose_methods(figure, methods, config)
    compares = FIGURES[figure].compares_contexts
    pipelines = [
        Pipeline(base / f"seed_{seed}", config, seed, chosen, compares, **arguments)
        for seed in seeds
    ]
    place = results or base / "results"
    with claimed(pipelines):
        for first in range(0, len(pipelines), at_once):
            for scores in run(pipelines[first : first + at_once]):
                finished(scores)
            write_results(figure, chosen, base, config, place)
    return place


def write_results(
    figure: str, methods: Sequence[str], base: Path, config: Config, results: Path
) -> list[Path]:
    """Tables of all seeds, and a figure of those that have finished its methods: their folders.

    Each file is replaced at once, so that a reader never sees half of one; processes that finish
    together take turns.
    """
    with locked(base, wait=True):
        folders = complete(base, methods, config, FIGURES[figure].compares_contexts)
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=results, prefix=".") as temporary:
            _write_tables(complete(base, (), config), Path(temporary))
            _draw(figure, folders, Path(temporary))
            for path in sorted(Path(temporary).iterdir()):
                os.replace(path, results / path.name)
    return folders


def complete(
    base: Path, methods: Sequence[str], config: Config, compares_contexts: bool = False
) -> list[Path]:
    """The folders of seeds with these settings that have results of these methods.

    ``compares_contexts``: also those evaluations that figure 2 needs.
    """
    wanted = config.model_dump(mode="json")
    found = []
    for path in sorted(base.glob("seed_*/scores.json"), key=lambda path: _seed(path.parent)):
        scores = json.loads(path.read_text())
        if scores["config"] != wanted or not set(methods) <= scores["rows"].keys():
            continue
        seed = Pipeline(path.parent, config, scores["seed"], tuple(methods), compares_contexts)
        if not compares_contexts or not any(map(seed.missing, seed.evaluations())):
            found.append(path.parent)
    return found


def _seed(folder: Path) -> int:
    return int(folder.name.removeprefix("seed_"))


def _scores(folders: list[Path]) -> list[dict[str, Any]]:
    return [json.loads((folder / "scores.json").read_text()) for folder in folders]


def _draw(figure: str, folders: list[Path], out: Path) -> None:
    scores = _scores(folders)
    drawn = DATA[figure](figure, folders, scores)
    write_csv(out / f"{figure}.csv", drawn)
    save(DRAWINGS[figure](figure, drawn, scores), out / figure)


def _write_tables(folders: list[Path], out: Path) -> None:
    scores = _scores(folders)
    found = load(folders, scores)
    rows, gains = table(found, scores), differences(found, measures(scores))
    share = oracle_share(found)
    write_csv(out / "table.csv", rows)
    write_csv(out / "differences.csv", gains)
    (out / "table.md").write_text(markdown(rows, gains, share))
    write_json(
        out / "experiment.json",
        {
            "commands": [score["command"] for score in scores],
            "seeds": [score["seed"] for score in scores],
            "commits": sorted({score["commit"] for score in scores}),
            "scale": scores[0]["scale"],
            "machine": {"processor": processor(), "cores": os.cpu_count()},
            "seconds": [score["seconds"] for score in scores],
            "offline data": [score["data"] for score in scores],
            "share of the oracle's gain": share,
            "config": scores[0]["config"],
        },
    )


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()
