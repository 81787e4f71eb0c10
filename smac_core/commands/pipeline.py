"""Every stage of an experiment, each skipped where its result is there.

OUT/pipeline.json      the settings; other settings need another folder
OUT/data.h5            the offline data                         (smac collect)
OUT/smac, meta_bc ...  runs, see experiments.METHODS            (smac train, self-train, evaluate)
OUT/scores.json        the results of what is finished, and the seconds of each stage
OUT/.lock              who is at work
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from smac_core.checkpoint import load_state
from smac_core.commands.collect import collect_scripted, dataset_writer, write_recording
from smac_core.commands.evaluate import (
    CONTEXTS,
    data_scores,
    evaluate_run,
    evaluation_file,
    kept_as,
    make_pool,
    offline_data,
)
from smac_core.commands.experiments import DATA_ROW, METHODS, ONLINE_ONLY, ORACLES, Method
from smac_core.config import Config, ConfigError, differing, override_config, parse_config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.errors import InputError
from smac_core.folder_lock import locked
from smac_core.phases import ONLINE
from smac_core.presets import HAVE_PRESETS
from smac_core.provenance import command
from smac_core.tasks import held_out_tasks
from smac_core.training import self_supervised
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.meta_rl import meta_train, open_run
from smac_core.training.offline import train_offline
from smac_core.training.progress import interruptible
from smac_core.training.run import Run, write_json

EXPLORATION = ("exploration_latent", "deterministic_exploration")  # settings of an evaluation


class Interrupted(Exception):
    """Ctrl-C: the stage has saved; the same command goes on from there."""


class EvaluationJob(NamedTuple):
    """A method's last checkpoint on a set of tasks."""

    method: str
    tasks: str = "test"
    context: str = "both"
    changes: tuple[str, ...] = ()  # to the configuration


@dataclass
class Pipeline:
    """One seed of an experiment in a folder."""

    out: Path
    config: Config
    seed: int
    methods: tuple[str, ...]
    compares_contexts: bool = False  # see experiments.Figure
    trajectories: int = 0  # a training task; 0: as configured
    workers: int = 2
    device: str = "cpu"
    quiet: bool = False
    announce: Callable[[str], None] = print

    @property
    def data(self) -> Path:
        return self.out / "data.h5"

    @property
    def from_pearl(self) -> bool:
        """Whether PEARL makes the offline data."""
        return self.config.collection.source == "pearl"

    @property
    def times(self) -> Path:
        """Seconds that each stage has taken."""
        return self.out / "seconds.json"

    def claim(self) -> None:
        """Results of other settings are not to be mistaken for these.

        Raises:
            InputError: the folder holds a pipeline with other settings.
        """
        path = self.out / "pipeline.json"
        if not path.exists():
            write_json(path, self._settings())
            return
        kept = json.loads(path.read_text())
        asked = self._settings()
        kept["config"] = kept_config(kept["config"], path, asked["config"])
        others = differing(kept, asked)
        if others:
            key, found, mine = others[0]
            more = f" ({len(others) - 1} more differ)" if len(others) > 1 else ""
            expected = f"{mine}, as asked for{more}: ask for what is there, or give another --out"
            raise InputError(path, key, found, expected)
        write_json(path, asked)  # from now on with what a later version added

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "trajectories": self.trajectories,
            "config": self.config.model_dump(mode="json"),
        }

    def add_seconds(self, name: str, seconds: float) -> None:
        """A stage in several sittings takes the sum of them."""
        before = json.loads(self.times.read_text()) if self.times.exists() else {}
        write_json(self.times, before | {name: round(before.get(name, 0.0) + seconds, 1)})

    def collect(self) -> None:
        """Make the offline data, by the script or of what PEARL has recorded by now."""
        writer = dataset_writer(self.config, self.data, seed=self.seed)
        if self.from_pearl:
            write_recording(writer, self.online_run())
            return
        sizes = (self.trajectories, self.workers, self.seed)
        if not collect_scripted(self.config, writer, *sizes, self.quiet):
            raise Interrupted

    def online_run(self) -> Run:
        """PEARL, as far as it is: it makes a MuJoCo domain's data and goes on to be the oracle."""
        folder = self.out / METHODS["oracle"].run
        return open_run(folder, self.config, seed=self.seed, device=self.device)

    def offline_run(self, method: Method) -> Run:
        """The offline phase of a method, as far as it is."""
        folder = self.out / method.run
        begun = (folder / "offline" / "checkpoints" / "latest").exists()
        if begun and (folder / "run.json").exists():
            return Run.resume(folder, "offline", device=self.device, dataset_path=self.data)
        shutil.rmtree(folder, ignore_errors=True)  # killed before its first step
        return Run.create(
            folder,
            method.config(self.config),
            Dataset.load(self.data),
            algorithm=method.algorithm,
            seed=self.seed,
            device=self.device,
        )

    def second_run(self, method: Method) -> Run:
        """A method's second phase, as far as it is."""
        folder = self.out / method.run
        begun = (folder / method.phase / "checkpoints" / "latest").exists()
        if not begun:
            shutil.rmtree(folder / method.phase, ignore_errors=True)  # killed likewise
        begin = Run.resume if begun else self_supervised.begin
        return begin(folder, method.phase, device=self.device, dataset_path=self.data)

    def evaluations(self) -> list[EvaluationJob]:
        """What is to be evaluated for the table and the figures."""
        tested = bool(Dataset.load(self.data).test)
        jobs = []
        for name in self.methods:
            context = "both" if tested and name not in ONLINE_ONLY else "online"
            jobs.append(EvaluationJob(name, "test", context, METHODS[name].evaluation))
            if not self.compares_contexts:
                continue
            certain, sampled = (f"evaluation.deterministic_exploration={x}" for x in (True, False))
            for tasks, context in (("test", "both" if tested else "online"), ("train", "both")):
                jobs.append(EvaluationJob(name, tasks, context, (certain,)))
                jobs.append(EvaluationJob(name, tasks, "online", (sampled,)))
        return jobs

    def missing(self, job: EvaluationJob) -> bool:
        """Whether an evaluation of a method's last checkpoint is not there."""
        return any(self.result(job, source) is None for source in CONTEXTS[job.context])

    def result(self, job: EvaluationJob, context: str) -> dict[str, Any] | None:
        """The summary of an evaluation from ``online`` or ``offline`` context.

        None unless it is there, of the method's last step, and made with this pipeline's seed and
        protocol: anybody may have evaluated a run otherwise.
        """
        method, usual = METHODS[job.method], self.config.evaluation
        settings = override_config(self.config, list(job.changes)).evaluation
        name = kept_as(context, settings, usual)
        path = evaluation_file(self.out / method.run, method.phase, name, job.tasks)
        if not path.exists() or not path.with_suffix(".npz").exists():
            return None
        found = json.loads(path.read_text())
        # what an older file does not say was not to be chosen then: it has its default
        fields = type(settings).model_fields
        defaults = {key: f.default for key, f in fields.items() if not f.is_required()}
        protocol = defaults | found["protocol"]
        wanted = settings.model_dump(mode="json") | {"horizon": self.config.environment.horizon}
        for key in EXPLORATION if context == "offline" else ():
            wanted[key] = protocol[key]  # it explores nothing
        made = (found["step"], found["evaluation_seed"], protocol)
        last = last_step(method.config(self.config), method.phase)
        same = made == (last, self.seed, wanted)
        return found[context] if same else None

    def evaluate(self, pool: EnvironmentPool) -> None:
        """Adapt to tasks wherever a result is missing."""
        with interruptible() as stop:
            for job in self.evaluations():
                if stop.requested:
                    raise Interrupted
                if self.missing(job):
                    method = METHODS[job.method]
                    evaluate_run(
                        self.out / method.run,
                        method.phase,
                        tasks=job.tasks,
                        context=job.context,
                        dataset_path=self.data,
                        seed=self.seed,
                        device=self.device,
                        overrides=list(job.changes),
                        quiet=self.quiet,
                        pool=pool,
                    )

    def scores(self) -> dict[str, Any]:
        """The results of all that is finished, in whichever command; also in OUT/scores.json."""
        dataset = Dataset.load(self.data)
        data, label = dataset.train, "offline data (training)"
        if dataset.test and not self.from_pearl:  # the script does the same in all tasks
            data, label = offline_data(dataset, held_out_tasks(self.config)), "scripted data"
        horizon = self.config.environment.horizon
        collected = data_scores(data, horizon) | {"by_task": _by_task(data, horizon)}
        rows: dict[str, Any] = {DATA_ROW: {"label": label, "online": collected}}
        for name, method in METHODS.items():
            job = EvaluationJob(name, changes=method.evaluation)
            found = {context: self.result(job, context) for context in CONTEXTS["both"]}
            found = {context: result for context, result in found.items() if result}
            if "online" in found:  # else somebody has evaluated it otherwise since
                rows[name] = {"label": method.label} | found
        path = self.out / "scores.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        commands = before.get("commands") or [before[key] for key in ("command",) if key in before]
        scores = {
            "seed": self.seed,
            "scale": self.config.scale,
            "commands": list(dict.fromkeys([*commands, command()])),
            "stages": self.stages(dataset, rows),
            "data": dataset.summary()["splits"]["train"],
            "seconds": json.loads(self.times.read_text()),
            "rows": rows,
            "config": self.config.model_dump(mode="json"),
        }
        write_json(path, scores)
        return scores

    def stages(self, dataset: Dataset, rows: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
        """Commits and commands by stage, as the files that it made tell them.

        The data; each run of ``rows`` as it began and each of their phases as it was last saved;
        the runs' evaluations.
        """
        found: dict[str, dict[str, list[str]]] = {}

        def add(stage: str, origin: dict[str, Any]) -> None:
            known = found.setdefault(stage, {"commits": [], "commands": []})
            for values, kind in ((known["commits"], "commit"), (known["commands"], "command")):
                if origin[kind] not in values:
                    values.append(origin[kind])

        add("offline data", {"commit": dataset.git, "command": dataset.command})
        for method in (METHODS[name] for name in rows if name != DATA_ROW):
            folder = self.out / method.run
            add(method.run, json.loads((folder / "run.json").read_text()))
            phase = load_state(folder / method.phase / "checkpoints")
            add(f"{method.run}/{method.phase}", phase)
            for path in sorted((folder / "evaluations").glob(f"{method.phase}_*.json")):
                add(f"{method.run}/evaluations", json.loads(path.read_text()))
        return found


def last_step(config: Config, phase: str) -> int:
    """Where a phase ends."""
    if phase == "offline":
        return config.offline.steps
    return (config.online if phase == ONLINE else config.self_supervised).iterations


def _by_task(tasks: list[TaskData], horizon: int) -> dict[str, dict[str, Any]]:
    """The data's scores by the task's number, of tasks that have a whole trajectory."""
    found = {}
    for number, task in enumerate(tasks):
        if task.whole_trajectories:
            scores = data_scores([task], horizon)
            (behavior,) = scores["by_behavior"]
            means = {measure: scores[measure]["mean"] for measure in ("return", "success")}
            found[str(number)] = {"behavior": behavior} | means
    return found


def kept_config(config: dict[str, Any], path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a file has kept it; what there was not to be set then has its default.

    The section of an algorithm that has not run in this folder is as ``asked``.

    Raises:
        InputError: it has what this version does not know.
    """
    run = {m.algorithm for m in METHODS.values() if (path.parent / m.run / "run.json").exists()}
    config = config | {name: asked[name] for name in HAVE_PRESETS if name not in run}
    try:
        return parse_config(config, str(path)).model_dump(mode="json")
    except ConfigError as error:
        raise InputError(path, "config", error, "this version's; another --out") from None


@contextmanager
def claimed(pipelines: Sequence[Pipeline]) -> Iterator[None]:
    """Their folders to ourselves.

    Raises:
        InputError: another process is at work in one, or it holds a pipeline with other settings.
    """
    with ExitStack() as stack:
        for pipeline in pipelines:
            stack.enter_context(locked(pipeline.out))
        for pipeline in pipelines:
            pipeline.claim()
        yield


def run(pipelines: Sequence[Pipeline]) -> list[dict[str, Any]]:
    """All stages of seeds that train at once (or of one), claimed: their scores.

    Raises:
        Interrupted: Ctrl-C, or the time is up.
        InputError: the seeds are not equally far.
    """
    first = pipelines[0]
    methods = [METHODS[name] for name in first.methods]
    trained = {method.run: method for method in methods if method.phase != ONLINE}
    with make_pool(first.config, first.workers) as pool:
        unmade = [pipeline for pipeline in pipelines if not pipeline.data.exists()]
        if unmade and first.from_pearl:
            stopped = first.config.collection.iterations
            stage("PEARL, for the offline data", pipelines, _meta_train, pipelines, pool, stopped)
        for pipeline in unmade:
            stage("collecting labelled data", [pipeline], pipeline.collect)
        for method in trained.values():
            stage(f"meta-training {method.run} offline", pipelines, _train, pipelines, method)
        for method in methods:
            if method.phase not in ("offline", ONLINE):
                name = f"second phase of {method.run}: {method.phase}"
                stage(name, pipelines, _self_train, pipelines, method, pool)
        if any(name in ORACLES for name in first.methods):
            stopped = first.config.online.iterations
            stage("the online oracle, PEARL", pipelines, _meta_train, pipelines, pool, stopped)
        for pipeline in pipelines:
            stage("adapting to held-out tasks", [pipeline], pipeline.evaluate, pool)
    return [pipeline.scores() for pipeline in pipelines]


def stage(name: str, pipelines: Sequence[Pipeline], work: Callable, *arguments: Any) -> None:
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


def _meta_train(pipelines: Sequence[Pipeline], pool: EnvironmentPool, until: int) -> None:
    runs = [pipeline.online_run() for pipeline in pipelines]
    left = [run for run in runs if run.step < until]
    if left and not meta_train(*left, pool=pool, until=until, quiet=pipelines[0].quiet):
        raise Interrupted


def _train(pipelines: Sequence[Pipeline], method: Method) -> None:
    runs = [pipeline.offline_run(method) for pipeline in pipelines]
    left = [run for run in runs if run.step < run.config.offline.steps]
    if left and not train_offline(*left, quiet=pipelines[0].quiet):
        raise Interrupted


def _self_train(pipelines: Sequence[Pipeline], method: Method, pool: EnvironmentPool) -> None:
    runs = [pipeline.second_run(method) for pipeline in pipelines]
    left = [run for run in runs if run.step < run.config.self_supervised.iterations]
    if left and not self_supervised.self_train(*left, pool=pool, quiet=pipelines[0].quiet):
        raise Interrupted
