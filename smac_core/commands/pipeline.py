"""Every stage of an experiment, each skipped where its result is there.

OUT/pipeline.json      the settings; other settings need another folder
OUT/data.h5            the offline data                    (smac collect)
OUT/smac, OUT/meta_bc  runs                                (smac train, self-train, evaluate)
OUT/scores.json        what the table and the figure show
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smac_core import checkpoint
from smac_core.commands.collect import collect_dataset
from smac_core.commands.evaluate import (
    data_scores,
    evaluate_run,
    evaluation_file,
    make_pool,
    offline_data,
)
from smac_core.config import Config, load_config
from smac_core.data.dataset import Dataset
from smac_core.errors import InputError
from smac_core.phases import PHASES
from smac_core.provenance import command, git_revision
from smac_core.tasks import load_tasks
from smac_core.training import self_supervised
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.offline import train_offline
from smac_core.training.run import Run, write_json

# row of the table: (run's folder, phase)
ROWS = {
    "meta-BC": ("meta_bc", "offline"),
    "SMAC, offline phase": ("smac", "offline"),
    "control: no new data": ("smac", "control"),
    "SMAC, self-supervised": ("smac", "self_supervised"),
    "oracle: true rewards": ("smac", "true_rewards"),
    "SMAC, in the test scenes": ("smac", "test_scenes"),
}


class Interrupted(Exception):
    """Ctrl-C: the stage has saved; the same command goes on from there."""


@dataclass
class Pipeline:
    """One seed of an experiment in a folder."""

    out: Path
    config: Config
    seed: int
    phases: tuple[str, ...] = PHASES[1:]
    trajectories: int = 0  # a training task; 0: as configured
    workers: int = 2
    device: str = "cpu"
    quiet: bool = False
    announce: Callable[[str], None] = print

    @property
    def data(self) -> Path:
        return self.out / "data.h5"

    @property
    def times(self) -> Path:
        """Seconds that each stage has taken."""
        return self.out / "seconds.json"

    def _claim(self) -> None:
        """Results of other settings are not to be mistaken for these."""
        path = self.out / "pipeline.json"
        mine = {
            "seed": self.seed,
            "trajectories": self.trajectories,
            "config": self.config.model_dump(mode="json"),
        }
        if not path.exists():
            write_json(path, mine)
            return
        found = _flat(json.loads(path.read_text()))
        differing = [key for key, value in _flat(mine).items() if found.get(key) != value]
        if differing:
            more = " ..." if len(differing) > 4 else ""
            raise InputError(
                path,
                "settings",
                f"another {', '.join(differing[:4])}{more}",
                "the same ones to go on with it, or another --out",
            )

    def prepare(self) -> None:
        """Claim the folder, and make the offline data where there are none."""
        self._claim()
        if not self.data.exists():
            stage("collecting labelled data with the scripted policy", [self], self._collect)

    def add_seconds(self, name: str, seconds: float) -> None:
        """A stage in several sittings takes the sum of them."""
        before = json.loads(self.times.read_text()) if self.times.exists() else {}
        write_json(self.times, before | {name: round(before.get(name, 0.0) + seconds, 1)})

    def _collect(self) -> None:
        collect_dataset(
            self.config,
            self.data,
            trajectories=self.trajectories,
            workers=self.workers,
            seed=self.seed,
            quiet=self.quiet,
        )

    def offline_run(self, algorithm: str) -> Run:
        """The offline phase of an algorithm, as far as it is."""
        folder = self.out / algorithm
        if (folder / "offline" / "checkpoints" / "latest").exists():
            return Run.resume(folder, "offline", device=self.device, dataset_path=self.data)
        return Run.create(
            folder,
            self.config,
            Dataset.load(self.data),
            algorithm=algorithm,
            seed=self.seed,
            device=self.device,
        )

    def second_run(self, phase: str) -> Run:
        """A second phase of SMAC, as far as it is."""
        folder = self.out / "smac"
        begun = (folder / phase / "checkpoints" / "latest").exists()
        begin = Run.resume if begun else self_supervised.begin
        return begin(folder, phase, device=self.device, dataset_path=self.data)

    def evaluate(self, pool: EnvironmentPool) -> None:
        for name, phase in ROWS.values():
            run = self.out / name
            if not (run / phase).exists():
                continue
            files = [evaluation_file(run, phase, context) for context in ("online", "offline")]
            step = checkpoint.load_state(run / phase / "checkpoints")["step"]
            if not all(f.exists() and json.loads(f.read_text())["step"] == step for f in files):
                evaluate_run(
                    run,
                    phase,
                    context="both",
                    dataset_path=self.data,
                    seed=self.seed,
                    device=self.device,
                    quiet=self.quiet,
                    pool=pool,
                )

    def scores(self) -> dict[str, Any]:
        dataset = Dataset.load(self.data)
        held_out = offline_data(dataset, load_tasks(self.config.tasks.test))
        horizon = self.config.environment.horizon
        rows: dict[str, Any] = {"scripted data": {"online": data_scores(held_out, horizon)}}
        for row, (name, phase) in ROWS.items():
            for context in ("online", "offline"):
                result = evaluation_file(self.out / name, phase, context)
                if result.exists():
                    rows.setdefault(row, {})[context] = json.loads(result.read_text())[context]
        scores = {
            "seed": self.seed,
            "scale": self.config.scale,
            "command": command(),
            "commit": git_revision(),
            "data": dataset.summary()["splits"]["train"],
            "seconds": json.loads(self.times.read_text()),
            "rows": rows,
            "config": self.config.model_dump(mode="json"),
        }
        write_json(self.out / "scores.json", scores)
        return scores


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def run(pipelines: list[Pipeline]) -> list[dict[str, Any]]:
    """All stages of seeds that train at once (or of one): their scores, also in OUT/scores.json.

    Raises:
        Interrupted: Ctrl-C, or the time is up.
        InputError: a folder holds a pipeline with other settings, or the seeds are not equally far.
    """
    first = pipelines[0]
    for pipeline in pipelines:
        pipeline.prepare()
    for algorithm in ("meta_bc", "smac"):
        stage(f"meta-training {algorithm} offline", pipelines, _train, pipelines, algorithm)
    with make_pool(first.config, first.workers) as pool:
        for phase in first.phases:
            stage(f"second phase: {phase}", pipelines, _self_train, pipelines, phase, pool)
        for pipeline in pipelines:
            stage("adapting to held-out tasks", [pipeline], pipeline.evaluate, pool)
    return [pipeline.scores() for pipeline in pipelines]


def stage(name: str, pipelines: list[Pipeline], work: Callable, *arguments: Any) -> None:
    """Announce and time a stage of some seeds."""
    seeds = ", ".join(str(pipeline.seed) for pipeline in pipelines)
    pipelines[0].announce(f"seed {seeds}: {name}")
    began = time.monotonic()
    try:
        work(*arguments)
    finally:
        together = f" ({len(pipelines)} seeds at once)" if len(pipelines) > 1 else ""
        for pipeline in pipelines:
            pipeline.add_seconds(name + together, time.monotonic() - began)


def _train(pipelines: list[Pipeline], algorithm: str) -> None:
    runs = [pipeline.offline_run(algorithm) for pipeline in pipelines]
    left = [run for run in runs if run.step < run.config.offline.steps]
    if left and not train_offline(*left, quiet=pipelines[0].quiet):
        raise Interrupted


def _self_train(pipelines: list[Pipeline], phase: str, pool: EnvironmentPool) -> None:
    runs = [pipeline.second_run(phase) for pipeline in pipelines]
    left = [run for run in runs if run.step < run.config.self_supervised.iterations]
    if left and not self_supervised.self_train(*left, pool=pool, quiet=pipelines[0].quiet):
        raise Interrupted


def run_seed(
    domain: str, scale: str, out: Path, seed: int, overrides: list[str], **arguments: Any
) -> dict[str, Any]:
    """One seed of a domain at a scale in its own folder."""
    return run([Pipeline(out, load_config(domain, scale, overrides), seed, **arguments)])[0]
