"""``smac evaluate``: meta-test a run and keep the results in its folder.

RUN/evaluations/<phase>_<tasks>_<context>.json   the summary, and how it was made
RUN/evaluations/<phase>_<tasks>_<context>.npz    the arrays behind it: all that figures need
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from smac_core.config import Config, Environment, Evaluation, override_config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.evaluation import MetaTest, meta_test
from smac_core.intervals import interval
from smac_core.positions import paths, shows_position
from smac_core.provenance import command, git_revision
from smac_core.tasks import held_out_tasks, load_tasks, training_tasks
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.progress import Progress
from smac_core.training.run import load_agent, load_dataset, write_json

SOURCES = ("none", "online", "offline")
CONTEXTS = {source: (source,) for source in SOURCES} | {
    "both": ("online", "offline"),
    "all": SOURCES,
}
STOCHASTIC = "online_stochastic"  # online context from a policy that explores by sampling


def evaluate_run(
    directory: Path,
    phase: str,
    *,
    tasks: str = "test",
    context: str = "online",
    dataset_path: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 2,
    overrides: list[str] = (),
    quiet: bool = False,
    pool: EnvironmentPool | None = None,
) -> dict[str, Any]:
    """Results by context, JSON-able; also in the run's folder, see ``evaluation_file``.

    Raises:
        InputError: unknown context, no such tasks, or no offline data for them.
        CheckpointError: the phase has no usable checkpoint.
    """
    if context not in CONTEXTS:
        raise InputError("--context", "name", context, " or ".join(CONTEXTS))
    agent, config, state = load_agent(directory, phase, device=device)
    usual, config = config.evaluation, override_config(config, overrides)
    chosen = choose_tasks(config, tasks)
    offline = None
    if "offline" in CONTEXTS[context]:
        offline = offline_data(load_dataset(directory, state, dataset_path), chosen)
    settings, horizon = config.evaluation, config.environment.horizon
    sources = CONTEXTS[context]
    episodes = {"online": settings.exploration_episodes + 1, "offline": 1, "none": 1}
    total = sum(episodes[s] for s in sources) * len(chosen) * settings.repeats * horizon
    origin: dict[str, Any] = {
        "run": directory.resolve().name,
        "phase": phase,
        "step": state["step"],
        "algorithm": state["algorithm"],
        "tasks": tasks,
        "training_seed": state["seed"],
        "evaluation_seed": seed,
        "protocol": settings.model_dump(mode="json") | {"horizon": horizon},
        "measures_success": config.environment.measures_success,
        "commit": git_revision(),
        "command": command(),
    }
    results = dict(origin)
    own = pool is None
    if own:
        pool = make_pool(config, workers, size=len(chosen))
    try:
        with Progress(f"evaluating {phase}", total, unit="steps", quiet=quiet) as bar:
            for source in sources:
                result = meta_test(
                    pool,
                    agent,
                    chosen,
                    settings,
                    horizon=horizon,
                    context=source,
                    offline=offline,
                    generator=torch.Generator(device).manual_seed(seed),
                    advance=bar.advance,
                )
                results[source] = result.summary() | {"adaptation": agent.adapts_to[source]}
                place = evaluation_file(directory, phase, kept_as(source, settings, usual), tasks)
                keep(place, result, config.environment)
                write_json(place, origin | {source: results[source]})
    finally:
        if own:
            pool.close()
    return results


def evaluation_file(directory: Path, phase: str, context: str, tasks: str = "test") -> Path:
    """Where a run keeps an evaluation's summary; the arrays behind it are the .npz beside it.

    ``context``: as ``kept_as`` names it.
    """
    name = tasks if tasks in ("test", "train") else f"tasks-{Path(tasks).stem}"
    return directory / "evaluations" / f"{phase}_{name}_{context}.json"


def kept_as(context: str, settings: Evaluation, usual: Evaluation) -> str:
    """An evaluation's context by name: online, online_stochastic, offline or none.

    Exploration otherwise than ``usual``, in the run's own configuration, has a name of its own:
    online_trajectory, one z a trajectory in place of one a step; online_after_1, one episode (and
    offline_after_1, a history as long).
    """
    name = context
    if context == "online":
        name = context if settings.deterministic_exploration else STOCHASTIC
        if settings.exploration_latent != usual.exploration_latent:
            name += f"_{settings.exploration_latent}"
    if context != "none" and settings.exploration_episodes != usual.exploration_episodes:
        name += f"_after_{settings.exploration_episodes}"
    return name


def make_pool(config: Config, workers: int, size: int = 60) -> EnvironmentPool:
    """Environments of the configuration's domain."""
    environment = config.environment
    return EnvironmentPool(
        environment.id,
        size,
        workers=workers,
        horizon=environment.horizon,
        kwargs=environment.kwargs,
    )


def choose_tasks(config: Config, name: str) -> list[dict[str, Any]]:
    """``test``: all of them; ``train``: as many as configured, at random; else a JSON list's."""
    if name == "test":
        return held_out_tasks(config)
    if name == "train":
        tasks = training_tasks(config)
        count = min(config.evaluation.train_tasks, len(tasks))
        return [tasks[i] for i in np.random.default_rng(0).permutation(len(tasks))[:count]]
    return load_tasks(name)


def offline_data(dataset: Dataset, tasks: list[dict[str, Any]]) -> list[TaskData]:
    """Each task's data in a dataset's splits.

    Raises:
        InputError: the dataset lacks one of the tasks.
    """
    by_task = [(data.task, data) for data in [*dataset.train, *dataset.test]]
    found = []
    for number, task in enumerate(tasks):
        data = next((data for known, data in by_task if known == task), None)
        if data is None:
            raise InputError(
                dataset.path,
                "tasks",
                f"no data of task {number}",
                "data of every evaluated task; evaluate from online context, or collect them",
            )
        found.append(data)
    return found


def data_scores(tasks: list[TaskData], horizon: int) -> dict[str, Any]:
    """The behaviour policy's return and final success over ``horizon`` steps.

    Of whole trajectories, and of the tasks that have one: a cut one's return is another.
    Success is read off the rewards, as the data keep nothing else: not negative at the last step
    (sparse rewards of -1 and 0, or 0 and 1).

    Raises:
        InputError: no trajectory is whole.
    """
    tasks = [data for data in tasks if data.whole_trajectories]
    if not tasks:
        raise InputError("the data", "trajectories", "none that is whole", "at least one")
    returns, success = [], []
    for data in tasks:
        rewards = [data.rewards[rows][:horizon] for rows in data.whole_trajectories]
        returns.append(np.mean([r.sum() for r in rewards]))
        success.append(np.mean([r[-1] >= 0 for r in rewards]))
    report: dict[str, Any] = {
        "tasks": len(tasks),
        "return": interval(np.array(returns)),
        "success": interval(np.array(success)),
        "by_behavior": {},
    }
    behaviors = np.array([str(data.task.get("behavior", "all")) for data in tasks])
    for behavior in sorted(set(behaviors)):
        mine = behaviors == behavior
        report["by_behavior"][behavior] = {
            "tasks": int(mine.sum()),
            "return": interval(np.array(returns)[mine]),
            "success": interval(np.array(success)[mine]),
        }
    return report


def keep(summary: Path, result: MetaTest, environment: Environment) -> None:
    """The arrays behind a summary, for figures: an .npz without pickles beside it.

    Of K tasks x R repeats: ``returns``, ``success``, ``exploration_returns``, ``kl`` and
    ``decoder_error`` [K, R]; ``behaviors`` [K]; where the domain shows positions, ``paths``
    [K, R, H + 1, 2] of the last episodes and ``exploration_paths`` [K, R, episodes, H + 1, 2], in
    m, NaN after an early end.
    """
    summary.parent.mkdir(parents=True, exist_ok=True)
    stem = summary.with_suffix("")
    fields = ("returns", "success", "exploration_returns", "kl", "decoder_error")
    arrays = {name: getattr(result, name) for name in fields}
    if shows_position(environment):
        shape = result.returns.shape
        arrays["paths"] = _paths(environment, result.trajectories, shape)
        explored = [_paths(environment, episode, shape) for episode in result.explorations]
        if explored:
            arrays["exploration_paths"] = np.stack(explored, 2)
    arrays["behaviors"] = np.array([str(t.get("behavior", "all")) for t in result.tasks])
    temporary = stem.with_name(f".{stem.name}.tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(summary.with_suffix(".npz"))


def _paths(environment: Environment, found: Trajectories, shape: tuple[int, int]) -> np.ndarray:
    arrays = (found.observations, found.next_observations, found.present)
    walked = paths(environment, *(array.cpu().numpy() for array in arrays))
    return walked.reshape(*shape, *walked.shape[1:])


def show_results(results: dict[str, Any]) -> None:
    """One row a context and behaviour."""
    from rich.console import Console
    from rich.table import Table

    measures = ["success"] if results["measures_success"] else []
    table = Table(
        "context",
        "behaviour",
        "tasks",
        *measures,
        "return",
        title=f"{results['run']}, {results['phase']}: last episode after adaptation (mean ± 95 %)",
    )
    found = [source for source in SOURCES if source in results]
    for context in found:
        summary = results[context]
        rows = {"all": summary, **summary["by_behavior"]}
        for name, row in rows.items():
            cells = [percent(row[measure]) for measure in measures]
            table.add_row(context, name, str(row["tasks"]), *cells, plain(row["return"]))
    console = Console()
    console.print(table)
    for context in found:
        console.print(f"{context}: {results[context]['adaptation']}", style="dim")


def percent(value: dict[str, float | None]) -> str:
    """An interval as a percentage."""
    half = value["half_width_95"]
    return f"{100 * value['mean']:.0f}{'' if half is None else f' ± {100 * half:.0f}'} %"


def plain(value: dict[str, float | None]) -> str:
    """An interval as numbers."""
    half = value["half_width_95"]
    return f"{value['mean']:.1f}{'' if half is None else f' ± {half:.1f}'}"
