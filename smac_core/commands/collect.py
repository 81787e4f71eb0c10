"""``smac collect``, ``smac data info`` and ``smac data subset``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from smac_core.config import Config
from smac_core.data.dataset import ARRAYS, Dataset, DatasetWriter, TaskData
from smac_core.provenance import command
from smac_core.tasks import load_tasks
from smac_core.training.progress import Progress


def collect_dataset(
    config: Config,
    out: Path,
    *,
    tasks: int = 0,
    trajectories: int = 0,
    workers: int = 2,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> str:
    """Write the offline dataset: all training tasks, and a little of each held-out task.

    The held-out tasks' data (``test/`` in the file) never train anything; they are what
    evaluation *from offline context* adapts to. Returns a sentence on the training data.
    """
    from smac_core.training.collection import collect, worker_processes

    environment, collection = config.environment, config.collection
    train = load_tasks(config.tasks.train)[: tasks or None]
    splits = {
        "train": (train, trajectories or collection.trajectories),
        "test": (load_tasks(config.tasks.test), collection.test_trajectories),
    }
    total = sum(len(chosen) * count for chosen, count in splits.values())
    with (
        DatasetWriter(
            out,
            domain=config.domain,
            rate=environment.rate,
            observation_names=environment.observation_names,
            observation_units=environment.observation_units,
            action_names=environment.action_names,
            action_units=environment.action_units,
            horizon=collection.length,
            seed=seed,
            command=command(),
            overwrite=overwrite,
        ) as writer,
        Progress("collecting", total, unit="trajectories", quiet=quiet) as bar,
        worker_processes(workers) as executor,
    ):
        for split, (chosen, count) in splits.items():
            for data in collect(
                config, chosen, split=split, trajectories=count, seed=seed, executor=executor
            ):
                writer.add_task(split, data)
                bar.advance(count)
    split = Dataset.load(out).summary()["splits"]["train"]
    sentence = f"{split['trajectories']} training trajectories, return {split['return_mean']:.1f}"
    if split["rewarded_steps"] is not None:
        sentence += f"; {100 * split['rewarded_steps']:.1f} % of steps rewarded, "
        sentence += f"{100 * split['rewarded_at_end']:.1f} % of trajectories at their end"
    return sentence


def write_subset(source: Path, out: Path, trajectories: int, *, overwrite: bool = False) -> None:
    """Write the first ``trajectories`` of each training task: a history small enough to ship.

    Runs that were trained on ``source`` take the file in its place. Held-out tasks are left out.

    Raises:
        DatasetError: no such dataset, or ``out`` exists.
    """
    dataset = Dataset.load(source)
    names = ("domain", "rate", "horizon", "seed", "contract", "git")
    columns = [
        f"{kind}_{what}" for kind in ("observation", "action") for what in ("names", "units")
    ]
    with DatasetWriter(
        out,
        **{name: getattr(dataset, name) for name in (*names, *columns)},
        command=f"{dataset.command} && {command()}",
        subset_of=dataset.subset_of or dataset.fingerprint,
        overwrite=overwrite,
    ) as writer:
        for task in dataset.train:
            writer.add_task("train", _first(task, trajectories))


def _first(data: TaskData, trajectories: int) -> TaskData:
    """A task's first trajectories."""
    end = data.trajectories[:trajectories][-1].stop
    behavior, task = data.task.get("behavior"), data.task
    if isinstance(behavior, list):
        task = task | {"behavior": behavior[:trajectories]}
    return replace(data, task=task, **{name: getattr(data, name)[:end] for name in ARRAYS})


def show_dataset(summary: dict[str, Any]) -> None:
    """A dataset's summary as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"[bold]{summary['path']}[/bold]  domain {summary['domain']}")
    console.print(f"made by: {summary['command']}  (commit {summary['git']})")
    if summary["subset_of"]:
        console.print(f"a part of the data {summary['subset_of']}")
    table = Table(
        "split", "tasks", "trajectories", "transitions", "return", "rewarded", "at the end"
    )
    for name, split in summary["splits"].items():
        table.add_row(
            name,
            str(split["tasks"]),
            str(split["trajectories"]),
            str(split["transitions"]),
            _number(split["return_mean"]),
            _percent(split["rewarded_steps"]),
            _percent(split["rewarded_at_end"]),
        )
    console.print(table)
    table = Table("observation", "unit", "minimum", "mean", "maximum")
    for row in summary["observations"]:
        numbers = (_number(row[key]) for key in ("min", "mean", "max"))
        table.add_row(row["name"], row["unit"], *numbers)
    console.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
