"""Recordings to one dataset, and the report of it."""

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from smac_core.config import Config
from smac_core.data.dataset_writer import DatasetWriter
from smac_core.errors import InputError
from smac_core.provenance import command
from smac_core.training.progress import Progress
from smac_ros.bags.one_bag import ENDS, MARKERS, BagConversion, overlaps
from smac_ros.bags.reading import Bag
from smac_ros.bags.report import reasons
from smac_ros.bags.rewards import load_function, read_csv
from smac_ros.bags.task_file import EPOCH, Moment, Task, load_tasks
from smac_ros.bags.topics import Names
from smac_ros.contract import Contract, require_same
from smac_ros.messages import SECOND


class Refused(InputError):
    """A conversion that is not written, though all was read: ``report`` tells why."""

    report: dict[str, Any]

    @classmethod
    def with_report(cls, report: dict[str, Any], *arguments: Any) -> "Refused":
        error = cls(*arguments)
        error.report = report
        return error


def convert(
    bags: Sequence[Path],
    contract: Contract,
    tasks_file: Path,
    out: Path,
    *,
    names: Names | None = None,
    config: Config | None = None,
    horizon: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write a dataset of recordings, and its report beside it (``report_path``).

    Args:
        config: of the domain, whose units the actions get; None: those of the contract.
        horizon: longer episodes are cut there, as by a time limit; None: none is.
        strict: warnings are errors.

    Returns:
        The report.

    Raises:
        InputError: an input cannot be used; Refused: with a report.
        Stopped: a block of ``interruptible`` around this was asked to stop.
    """
    tasks, names = load_tasks(tasks_file, contract, bags), names or Names()
    streams = [*contract.observations, *contract.actions, contract.reward]
    rewards = [task.reward.topic for task in tasks if task.reward.topic is not None]
    names.require_used([*(s.topic for s in streams if s), *rewards, MARKERS, ENDS])
    functions = [load_function(task, tasks_file) for task in tasks]
    writer = DatasetWriter(
        out,
        domain=contract.domain,
        rate=contract.rate,
        **_columns(contract, config),
        horizon=horizon,
        seed=0,
        command=command(),
        contract=contract.text,
        overwrite=overwrite,
    )
    folder = tasks_file.resolve().parent
    served = [path for path in bags if any(task.has(path, folder) for task in tasks)]
    with ExitStack() as stack:
        opened, recordings, errors = [], [], []
        for path in served:
            try:
                bag = stack.enter_context(Bag(path))
                one = BagConversion(bag, contract, tasks, functions, tasks_file, names)
            except InputError as error:
                errors.append(error)
                continue
            opened.append(bag)
            recordings.append(one)
            bag.release()  # there may be more of them than files can be open
        if errors:
            first, others = errors[0], dict.fromkeys(map(str, errors[1:]))
            expected = "\n".join([first.expected, *others])
            raise InputError(first.path, first.field, first.found, expected)
        _require_used_intervals(tasks, tasks_file, opened)
        _require_own_files(tasks, tasks_file, opened)
        total = sum(recording.messages for recording in recordings)
        with writer, Progress("converting", total, unit="messages", quiet=quiet) as bar:
            rows = [writer.open_task(task.split, task.parameters) for task in tasks]
            for bag, recording in zip(opened, recordings, strict=True):
                recording.convert(rows, horizon, bar.advance)
                bag.release()
            reports = [recording.report for recording in recordings]
            report = {
                "dataset": str(out),
                "contract": contract.name,
                "tasks": str(tasks_file),
                "bags": [one.content() for one in reports],
                "warnings": [text for one in reports for text in one.warnings()]
                + [f"{path}: no task has it" for path in bags if path not in served]
                + _twins(opened),
            }
            for task, written in zip(tasks, rows, strict=True):
                if not written.transitions:
                    own = [one for bag in reports for one in bag.tasks if one.name == task.name]
                    found = f"no transitions{reasons(own)}"
                    place = (tasks_file, f"task {task.name}", found)
                    raise Refused.with_report(report, *place, "at least one")
            if strict and report["warnings"]:
                found = f"{len(report['warnings'])} warnings; nothing is written"
                raise Refused.with_report(report, out, "--strict", found, "none")
    _write_report(report_path(out), report)
    return report


def recorded_contract(bags: Sequence[Path]) -> Contract:
    """The contract that recordings carry, as ``smac record`` writes it.

    Raises:
        InputError: one carries none, or another one than the first does.
    """
    found: Contract | None = None
    for path in bags:
        with Bag(path) as bag:
            text = bag.contract_text
        if text is None:
            raise InputError(path, "contract", "none in the recording", "--contract NAME or FILE")
        own = Contract.from_text(text, f"{path}: its contract")
        found = found or own
        if own.file != found.file:
            require_same(found, text, f"{path}: its contract")  # tells what differs in learning
            expected = f"the one in {bags[0]}, or --contract NAME or FILE"
            raise InputError(path, "contract", "other topics, paths, ages or limits", expected)
    assert found is not None, "no recordings"
    return found


def report_path(out: Path) -> Path:
    """Where a dataset's report lies: beside it."""
    return out.with_suffix(".report.json")


def _columns(contract: Contract, config: Config | None) -> dict[str, list[str]]:
    """Names and units of the dataset's columns."""
    columns = {
        "observation_names": contract.observation_names,
        "observation_units": contract.observation_units,
        "action_names": contract.action_names,
    }
    if config is not None:
        environment, source = config.environment, f"domain {config.domain}"
        contract.check_domain(
            environment.observation_names,
            environment.observation_units,
            environment.action_names,
            environment.rate,
            source,
        )
        if config.domain != contract.domain:
            raise InputError(source, "domain", config.domain, f"{contract.domain}, the contract's")
        return columns | {"action_units": environment.action_units}
    units = []
    for action in contract.actions:
        for unit, scale, offset in zip(action.units, action.scale, action.offset, strict=True):
            scaled = unit if scale == 1 else f"{scale:g} {unit}"
            units.append(scaled if offset == 0 else f"{scaled} {offset:+g}")
    return columns | {"action_units": units}


def _require_used_intervals(tasks: Sequence[Task], tasks_file: Path, bags: Sequence[Bag]) -> None:
    """Raise InputError where an interval of episodes or of success lies in no recording."""
    folder = tasks_file.resolve().parent
    for task in tasks:
        for key, source in (
            ("episodes.intervals", task.episodes.intervals),
            ("reward.success", task.reward.success),
        ):
            for pattern, own in source.values.items() if source is not None else ():
                theirs = [b for b in bags if task.has(b.path, folder) and source.of(b.path) is own]
                for number, interval in enumerate(own):
                    if theirs and not any(overlaps(interval, bag) for bag in theirs):
                        place = f"{key}.{pattern}" if pattern else key
                        field = f"task {task.name}: {place}[{number}]"
                        expected = f"times in {', '.join(map(_times, theirs))}"
                        found = f"{interval.start} to {interval.end}, outside the recordings"
                        raise InputError(tasks_file, field, found, expected)


def _require_own_files(tasks: Sequence[Task], tasks_file: Path, bags: Sequence[Bag]) -> None:
    """Raise InputError where stamps of one CSV file would count from each of several starts."""
    folder = tasks_file.resolve().parent
    for task in tasks:
        path = task.reward.csv.values.get("") if task.reward.csv is not None else None
        count = sum(task.has(bag.path, folder) for bag in bags)
        if path is not None and count > 1 and read_csv(path)[0][0] < EPOCH * SECOND:
            found = f"{path.name} with stamps that are no dates, for {count} recordings"
            field, expected = f"task {task.name}: reward.csv", "a file for each: {BAG: FILE}"
            raise InputError(tasks_file, field, found, expected)


def _twins(bags: Sequence[Bag]) -> list[str]:
    """Recordings whose messages were given twice: a copy, or a folder and a file of it."""
    first: dict[object, Bag] = {}
    found = []
    for bag in bags:
        if not bag.message_count:
            continue
        keys = [*(file.resolve() for file in bag.files), (bag.start, bag.stop, bag.message_count)]
        one = next((first[key] for key in keys if key in first), None)
        if one is not None:
            found.append(f"{bag.path}: the same messages as {one.path}, or a part of them")
        first |= dict.fromkeys(keys, bag)
    return found


def _times(bag: Bag) -> str:
    """When a recording was made, as TASKS.yaml has it."""
    start, stop = Moment(bag.start, True), Moment(bag.stop, True)
    return f"{bag.path.name} ({start} to {stop}, 0 to {bag.duration:.3f} s)"


def _write_report(path: Path, report: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
