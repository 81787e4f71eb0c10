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
from smac_core.data.dataset import Dataset, git_revision
from smac_core.errors import InputError
from smac_core.tasks import load_tasks
from smac_core.training import self_supervised
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.offline import train_offline
from smac_core.training.run import PHASES, Run, command, write_json

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

    def run(self) -> dict[str, Any]:
        """All stages; the scores, also in OUT/scores.json.

        Raises:
            Interrupted: Ctrl-C.
            InputError: the folder holds a pipeline with other settings.
        """
        self._claim()
        if not self.data.exists():
            self._stage("collecting labelled data with the scripted policy", self._collect)
        for algorithm in ("meta_bc", "smac"):
            self._stage(f"meta-training {algorithm} offline", self._train, algorithm)
        with make_pool(self.config, self.workers) as pool:
            for phase in self.phases:
                self._stage(f"second phase: {phase}", self._self_train, phase, pool)
            self._stage("adapting to held-out tasks", self._evaluate, pool)
        return self._scores()

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

    def _stage(self, name: str, work: Callable, *arguments: Any) -> None:
        self.announce(name)
        began = time.monotonic()
        try:
            work(*arguments)
        finally:  # a stage in several sittings takes the sum of them
            before = json.loads(self.times.read_text()) if self.times.exists() else {}
            total = before.get(name, 0.0) + time.monotonic() - began
            write_json(self.times, before | {name: round(total, 1)})

    def _collect(self) -> None:
        collect_dataset(
            self.config,
            self.data,
            trajectories=self.trajectories,
            workers=self.workers,
            seed=self.seed,
            quiet=self.quiet,
        )

    def _train(self, algorithm: str) -> None:
        folder = self.out / algorithm
        if (folder / "offline" / "checkpoints" / "latest").exists():
            run = Run.resume(folder, "offline", device=self.device, dataset_path=self.data)
        else:
            dataset = Dataset.load(self.data)
            run = Run.create(
                folder,
                self.config,
                dataset,
                algorithm=algorithm,
                seed=self.seed,
                device=self.device,
            )
        if run.step < self.config.offline.steps and not train_offline(run, quiet=self.quiet):
            raise Interrupted

    def _self_train(self, phase: str, pool: EnvironmentPool) -> None:
        folder = self.out / "smac"
        arguments = {"device": self.device, "dataset_path": self.data}
        if (folder / phase / "checkpoints" / "latest").exists():
            run = Run.resume(folder, phase, **arguments)
        else:
            run = self_supervised.begin(folder, phase, **arguments)
        done = run.step >= run.config.self_supervised.iterations
        if not done and not self_supervised.self_train(run, pool, quiet=self.quiet):
            raise Interrupted

    def _evaluate(self, pool: EnvironmentPool) -> None:
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

    def _scores(self) -> dict[str, Any]:
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


def run_seed(
    domain: str, scale: str, out: Path, seed: int, overrides: list[str], **arguments: Any
) -> dict[str, Any]:
    """One seed of a domain at a scale in its own folder."""
    return Pipeline(out, load_config(domain, scale, overrides), seed, **arguments).run()
