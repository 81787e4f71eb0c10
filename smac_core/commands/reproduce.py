"""``smac reproduce``: the paper's experiments over several seeds, resumable.

OUT/DOMAIN_SCALE/seed_0, seed_1 ...  one pipeline each (data seeds too), shared by all figures
RESULTS/table.csv, differences.csv   one row a method, context and behaviour; what is gained
RESULTS/table.md                     both for readers
RESULTS/fig5.png, .svg, .csv         a figure and what it draws
RESULTS/experiment.json              commands, seeds, commits by stage, machine and time
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smac_core.commands import tables
from smac_core.commands.evaluate import CONTEXTS
from smac_core.commands.experiments import FIGURES, METHODS, choose_methods
from smac_core.commands.paper_figures import DRAWINGS, ROWS
from smac_core.commands.pipeline import EvaluationJob, Pipeline, claimed, kept_config, run
from smac_core.config import Config, differing
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
        found = f"none in {config.domain}"
        expected = "a domain whose observations show it: ant_direction, humanoid_direction, sawyer"
        raise InputError(figure, "position in the plane", found, expected)
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
    lacking = left_out(base, (), config)
    for name, reason in (left_out(base, chosen, config, compares) | lacking).items():
        of = f"the tables and {figure}" if name in lacking else figure
        pipelines[0].announce(f"{name} is left out of {of}: {reason}")
    return place


def write_results(
    figure: str, methods: Sequence[str], base: Path, config: Config, results: Path
) -> list[Path]:
    """Tables of all seeds, and a figure of those that have finished its methods: their folders.

    Each file is replaced at once, so that a reader never sees half of one; processes that finish
    together take turns. The tables are there also where the figure cannot be drawn.
    """
    with locked(base, wait=True):
        folders = complete(base, methods, config, FIGURES[figure].compares_contexts)
        with _replacing(results) as temporary:
            _write_tables(base, config, temporary)
        with _replacing(results) as temporary:
            _draw(figure, folders, temporary)
    return folders


@contextmanager
def _replacing(results: Path) -> Iterator[Path]:
    """A new folder, whose files go to ``results`` when they are all there."""
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results, prefix=".") as temporary:
        yield Path(temporary)
        for path in sorted(Path(temporary).iterdir()):
            os.replace(path, results / path.name)


def complete(
    base: Path, methods: Sequence[str], config: Config, compares_contexts: bool = False
) -> list[Path]:
    """The folders of seeds with these settings that have results of these methods.

    ``compares_contexts``: also those evaluations that figure 2 needs.
    """
    lacking = left_out(base, methods, config, compares_contexts)
    return [folder for folder in _scored(base) if folder.name not in lacking]


def left_out(
    base: Path, methods: Sequence[str], config: Config, compares_contexts: bool = False
) -> dict[str, str]:
    """The seeds with scores that are not ``complete``, by folder: why."""
    arguments = (tuple(methods), config, compares_contexts)
    reasons = {folder.name: _lacks(folder, *arguments) for folder in _scored(base)}
    return {name: reason for name, reason in reasons.items() if reason}


def _lacks(
    folder: Path, methods: tuple[str, ...], config: Config, compares_contexts: bool
) -> str:
    path = folder / "scores.json"
    scores = json.loads(path.read_text())
    asked = config.model_dump(mode="json")
    try:
        found = kept_config(scores["config"], path, asked)
    except InputError as error:
        return str(error)
    others = differing(found, asked)
    if others:
        key, is_there, wanted = others[0]
        return f"it has {key} {is_there}, not {wanted}"
    missing = [name for name in methods if name not in scores["rows"]]
    if missing:
        return f"no results yet of {', '.join(missing)}"
    seed = Pipeline(folder, config, scores["seed"], methods, compares_contexts)
    for name in scores["rows"].keys() & METHODS.keys():
        job = EvaluationJob(name, changes=METHODS[name].evaluation)
        for context in scores["rows"][name].keys() & set(CONTEXTS["both"]):
            if seed.result(job, context) is None:
                return f"{name} has been evaluated otherwise since; run the seed again"
    if compares_contexts and any(map(seed.missing, seed.evaluations())):
        return "evaluations are missing; run it for this figure"
    return ""


def _scored(base: Path) -> list[Path]:
    """Seeds' folders with scores, in the order of their numbers."""
    return sorted((path.parent for path in base.glob("seed_*/scores.json")), key=_seed)


def _seed(folder: Path) -> int:
    return int(folder.name.removeprefix("seed_"))


def _scores(folders: list[Path]) -> list[dict[str, Any]]:
    return [json.loads((folder / "scores.json").read_text()) for folder in folders]


def _draw(figure: str, folders: list[Path], out: Path) -> None:
    scores = _scores(folders)
    drawn = ROWS[figure](figure, folders, scores)
    tables.write_csv(out / f"{figure}.csv", drawn)
    save(DRAWINGS[figure](figure, drawn, scores), out / figure)


def _write_tables(base: Path, config: Config, out: Path) -> None:
    folders = complete(base, (), config)
    scores = _scores(folders)
    found = tables.load(folders, scores)
    rows = tables.table(found, scores)
    gains = tables.differences(found, tables.measures(scores))
    share = tables.oracle_share(found)
    tables.write_csv(out / "table.csv", rows)
    tables.write_csv(out / "differences.csv", gains)
    (out / "table.md").write_text(tables.markdown(rows, gains, share))
    write_json(
        out / "experiment.json",
        {
            "commands": [score.get("commands") or [score["command"]] for score in scores],
            "seeds": [score["seed"] for score in scores],
            "left out": left_out(base, (), config),
            "commits": _commits(scores),
            "scale": scores[0]["scale"],
            "machine": {"processor": processor(), "cores": os.cpu_count()},
            "seconds": [score["seconds"] for score in scores],
            "offline data": [score["data"] for score in scores],
            "share of the oracle's gain": share,
            "config": scores[0]["config"],
        },
    )


def _commits(scores: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Of all seeds by stage; scores that an earlier version wrote tell only who wrote them."""
    found: dict[str, list[str]] = {}
    for score in scores:
        stages = score.get("stages") or {"scores": {"commits": [score["commit"]]}}
        for stage, made in stages.items():
            found[stage] = sorted({*found.get(stage, []), *made["commits"]})
    return found


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()
