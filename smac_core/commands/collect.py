"""``smac collect``, ``smac data info`` and ``smac data subset``."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smac_core.config import Config, override_config
from smac_core.data.dataset import ARRAYS, Dataset, TaskData
from smac_core.data.dataset_writer import DatasetWriter
from smac_core.errors import InputError
from smac_core.provenance import command
from smac_core.tasks import held_out_tasks, training_tasks
from smac_core.training.progress import Progress, stop_requested

if TYPE_CHECKING:
    from smac_core.training.run import Run


def collect_dataset(
    config: Config,
    out: Path,
    *,
    run: Path | None = None,
    tasks: int = 0,
    trajectories: int = 0,
    workers: int = 2,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> str | None:
    """Write the offline dataset: all training tasks, and a little of each held-out task.

    The held-out tasks' data (``test/`` in the file) never train anything; they are what
    evaluation *from offline context* adapts to.

    Args:
        run: where PEARL runs, if it makes the data; None: the folder that ``pearl_folder`` names.
        tasks, trajectories: fewer training tasks, other trajectories of each; 0: as configured.
        device, threads: for PEARL; see smac_core.devices.

    Returns:
        A sentence on the training data; None where it was stopped before it had made them. The
        same call then goes on, if it is PEARL that makes them.

    Raises:
        InputError: the file exists, the folder holds another run or another process is at work in
            it, or PEARL is to make a number of trajectories.
    """
    if tasks:
        config = override_config(config, [f"tasks.train_count={tasks}"])
    writer = dataset_writer(config, out, seed=seed, overwrite=overwrite)
    if config.collection.source == "scripted":
        if run is not None:
            raise InputError("--run", "folder", run, f"none: {config.domain}'s data are scripted")
        if not collect_scripted(config, writer, trajectories, workers, seed, quiet):
            return None
    else:
        if trajectories:
            expected = "none: PEARL's data have --set collection.rl_transitions"
            raise InputError("--trajectories", "value", trajectories, expected)
        folder, where = run or pearl_folder(out), (device, threads)
        if not _collect_pearl(config, writer, folder, workers, seed, where, quiet):
            return None
    split = Dataset.load(out).summary()["splits"]["train"]
    sentence = f"{split['trajectories']} training trajectories"
    if split["return_mean"] is not None:
        sentence += f", return {split['return_mean']:.1f}"
    if split["rewarded_at_end"] is not None:
        sentence += f"; {100 * split['rewarded_steps']:.1f} % of steps rewarded, "
        sentence += f"{100 * split['rewarded_at_end']:.1f} % of trajectories at their end"
    return sentence


def pearl_folder(out: Path) -> Path:
    """Where the PEARL run is that makes a dataset file: beside it."""
    return out.with_name(f"{out.stem}_pearl")


def dataset_writer(
    config: Config, out: Path, *, seed: int, overwrite: bool = False
) -> DatasetWriter:
    """Of a domain's offline data.

    Raises:
        InputError: the file exists.
    """
    environment, collection = config.environment, config.collection
    scripted = collection.source == "scripted"
    return DatasetWriter(
        out,
        domain=config.domain,
        rate=environment.rate,
        observation_names=environment.observation_names,
        observation_units=environment.observation_units,
        action_names=environment.action_names,
        action_units=environment.action_units,
        horizon=collection.length if scripted else environment.horizon,
        seed=seed,
        command=command(),
        overwrite=overwrite,
    )


def _collect_pearl(
    config: Config,
    writer: DatasetWriter,
    directory: Path,
    workers: int,
    seed: int,
    where: tuple[str, int],
    quiet: bool,
) -> bool:
    """Train PEARL as far as the data need it, and write what it has recorded."""
    from smac_core.commands.evaluate import make_pool
    from smac_core.devices import resolve_device, use_threads
    from smac_core.training.meta_rl import meta_train, opened_run

    device, threads = where
    use_threads(threads, config)
    with opened_run(directory, config, seed=seed, device=resolve_device(device)) as run:
        with make_pool(config, workers) as pool:
            if not meta_train(run, pool=pool, until=config.collection.iterations, quiet=quiet):
                return False
        write_recording(writer, run)
    return True


def write_recording(writer: DatasetWriter, run: "Run") -> None:
    """Write what a PEARL run has recorded (appendix C.2), which is so far."""
    _tell_of_small_tasks(run)
    with writer:
        for split, chosen in (("train", training_tasks), ("test", held_out_tasks)):
            for number, task in enumerate(chosen(run.config)):
                writer.add_task(split, run.recording.data(split, task, number))


def _tell_of_small_tasks(run: "Run") -> None:
    """PEARL draws tasks at random: one that it drew seldom has less than is asked for."""
    collection = run.config.collection
    wanted = {"rl": collection.rl_transitions, "context": collection.context_transitions}
    for number, parts in enumerate(run.recording.rows["train"]):
        for name, rows in parts.items():
            if len(rows) < wanted[name]:
                found = f"{len(rows)} of {wanted[name]} {name} transitions"
                print(f"warning: training task {number} has {found}", file=sys.stderr)


class _Stopped(Exception):
    """What makes the writer leave nothing behind."""


def collect_scripted(
    config: Config,
    writer: DatasetWriter,
    trajectories: int,
    workers: int,
    seed: int,
    quiet: bool,
) -> bool:
    """Run the behaviour policy in every task, ``trajectories`` of each; 0: as configured.

    Whether it was done: where a block of ``interruptible`` around it is asked to stop, it does so
    after a task, and there is no file.
    """
    from smac_core.training.collection import collect, worker_processes

    splits = {
        "train": (training_tasks(config), trajectories or config.collection.trajectories),
        "test": (held_out_tasks(config), config.collection.test_trajectories),
    }
    total = sum(len(chosen) * count for chosen, count in splits.values())
    try:
        with (
            writer,
            Progress("collecting", total, unit="trajectories", quiet=quiet) as bar,
            worker_processes(workers) as executor,
        ):
            for split, (chosen, count) in splits.items():
                for data in collect(
                    config, chosen, split=split, trajectories=count, seed=seed, executor=executor
                ):
                    if stop_requested():
                        raise _Stopped
                    writer.add_task(split, data)
                    bar.advance(count)
    except _Stopped:
        return False
    return True


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
    """A task's first trajectories, and of its histories as many."""
    context = data.context
    if context is not None:
        context = _first(context, trajectories)
    end = data.trajectories[:trajectories][-1].stop
    behavior, task = data.task.get("behavior"), data.task
    if isinstance(behavior, list):
        task = task | {"behavior": behavior[:trajectories]}
    arrays = {name: getattr(data, name)[:end] for name in ARRAYS}
    cut = (data.cut[0], data.cut[1] and end == len(data))
    return replace(data, task=task, context=context, cut=cut, **arrays)


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
        histories = split["context_transitions"]
        table.add_row(
            name,
            str(split["tasks"]),
            str(split["trajectories"]),
            str(split["transitions"]) + (f" + {histories}" if histories else ""),
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
