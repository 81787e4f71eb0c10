"""What a command refuses before torch is loaded, so that a mistake is answered at once.

What passes here is looked at again, and thoroughly, by what uses it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from smac_core.deployment.folders import exported_configuration
from smac_core.deployment.hub import CONFIG, hub_phase
from smac_core.errors import InputError
from smac_core.phases import ONLINE, PHASES
from smac_core.presets import HAVE_PRESETS, PRESETS

ALGORITHMS = ("smac", "meta_bc", "macaw", "borel")  # smac_core.algorithms.OFFLINE, without torch
CONTEXTS = ("none", "online", "offline", "both", "all")
EVALUATED = ("evaluation", "environment", "tasks")  # sections that an evaluation reads
FILMS = (".gif", ".mp4", ".png")
HDF5 = b"\x89HDF\r\n\x1a\n"  # how such a file starts


def check_choice(option: str, found: str, choices: Sequence[str]) -> None:
    """Raises InputError unless ``found`` is one of ``choices``."""
    if found not in choices:
        raise InputError(option, "name", found, " or ".join(choices))


def check_preset(preset: str | None, algorithm: str, resume: bool) -> None:
    """Raises InputError where ``--preset`` is none, or the run has none to choose."""
    if preset is None:
        return
    check_choice("--preset", preset, PRESETS)
    if resume:
        raise InputError("--preset", "value", f"{preset} beside --resume", "a run keeps its own")
    if algorithm not in HAVE_PRESETS:
        expected = f"--algorithm {' or '.join(HAVE_PRESETS)}: others have one set"
        raise InputError("--preset", "algorithm", algorithm, expected)


def check_dataset(path: Path) -> None:
    """Raises InputError unless there is an HDF5 file."""
    expected = "a dataset file (`smac collect` makes one)"
    if not path.is_file():
        raise InputError(path, "file", "a folder" if path.is_dir() else "no such file", expected)
    with path.open("rb") as file:
        start = file.read(len(HDF5))
    if start != HDF5:
        raise InputError(path, "file", f"a file that starts with {start!r}", expected)


def check_run(run: Path, phase: str) -> None:
    """Raises InputError unless a run has checkpoints of a phase."""
    place = run / phase / "checkpoints"
    if place.exists():
        return
    done = [name for name in (*PHASES, ONLINE) if (run / name / "checkpoints").exists()]
    if done:
        raise InputError(place, "folder", "no such folder", f"a phase of: {', '.join(done)}")
    found = "no such folder"
    if run.is_dir():
        kind = "one" if exported_configuration(run) is None else "an export"
        found = f"{kind} without checkpoints"
    raise InputError(run, "folder", found, "a run's folder, as smac train makes it")


def check_agent(run: Path, phase: str) -> None:
    """``check_run``, and a hub folder of the phase will do: it has an agent that acts."""
    found = hub_phase(run)
    if found is None:
        check_run(run, phase)
    elif found != phase:
        raise InputError(run / CONFIG, "phase", found, phase)


def check_new_run(folder: Path) -> None:
    """Raises InputError where a folder holds a run already."""
    if (folder / "run.json").exists():
        expected = "a new folder, or --resume to go on with it"
        raise InputError(folder, "run.json", "an earlier run", expected)


def check_seeds(seeds: str, seed: int | None = None) -> list[int]:
    """The numbers in "0,1,2"; raises InputError where they are none, or ``seed`` is given too."""
    if seed is not None:
        raise InputError("--seeds", "value", f"{seeds} beside --seed {seed}", "one of the two")
    parts = seeds.split(",")
    numbers = [int(part) for part in parts if part.isdecimal() and int(part) < 2**32]
    if len(set(numbers)) < len(parts):
        expected = "different numbers below 2^32 with commas between: 0,1,2"
        raise InputError("--seeds", "numbers", seeds, expected)
    return numbers


def check_same(folder: Path, run, asked: dict[str, object]) -> None:
    """Raises InputError where a resumed run is not what was asked for; None asks for nothing."""
    kept = {"algorithm": run.algorithm, "scale": run.config.scale, "seed": run.seed}
    for name, wanted in asked.items():
        if wanted not in (None, kept[name]):
            raise InputError(folder, name, kept[name], f"{wanted}, as asked: train a new run")


def check_new_phases(runs: Sequence[Path], phase: str) -> None:
    """Raises InputError where a run has the phase already, before any of them begins it."""
    for folder in runs:
        if (folder / phase).exists():
            expected = "--resume, or remove it"
            raise InputError(folder / phase, "folder", "an earlier run of this phase", expected)


def check_distinct(runs: Sequence[Path]) -> None:
    """Raises InputError where a run is named twice."""
    if len({folder.resolve() for folder in runs}) < len(runs):
        raise InputError("RUN", "folders", ", ".join(map(str, runs)), "each once")


def check_changes(run: Path, phase: str, changes: list[str]) -> None:
    """Raises ConfigError where ``--set`` does not fit a run's configuration."""
    from smac_core.config import override_config, parse_config

    if not changes:
        return
    place = run / phase / "checkpoints"
    try:
        path = place / (place / "latest").read_text().strip() / "checkpoint.json"
        tree = json.loads(path.read_text())["state"]["config"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # damaged: what loads it knows best how to tell
    override_config(parse_config(tree, str(path)), changes)


def check_resumed(changes: list[str]) -> None:
    """Raises InputError where ``--set`` has what only a new run can be given."""
    for change in changes:
        key = change.partition("=")[0].strip()
        if key in ("macaw.steps", "borel.steps", "borel.belief_steps"):
            expected = "offline.steps, which a run goes on to; or a new run"
            raise InputError("--set", "key", f"{key} beside --resume", expected)


def check_evaluated(changes: list[str]) -> None:
    """Raises InputError where ``--set`` has what a trained agent keeps, or never looks at."""
    for change in changes:
        key = change.partition("=")[0].strip()
        if key.partition(".")[0] not in EVALUATED:
            expected = f"a key of {', '.join(EVALUATED)}: an agent keeps what it was trained with"
            raise InputError("--set", "key", key, expected)


def check_tasks(name: str) -> None:
    """Raises InputError unless ``--tasks`` is a set's name or a readable list."""
    from smac_core.tasks import load_tasks

    if name not in ("test", "train"):
        load_tasks(name)


def check_film(out: Path) -> None:
    """Raises InputError unless a film can be written in the format that ``out`` asks for."""
    if out.suffix not in FILMS:
        raise InputError(out, "format", out.suffix or "none", " or ".join(FILMS))
