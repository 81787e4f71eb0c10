"""TASKS.yaml: which tasks a dataset gets, from which episodes of which recordings, and rewards.

Keys: doc/bags.md. Errors tell file, line, key, found and expected.
"""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from smac_core.errors import InputError
from smac_ros.contract import Contract, Stream
from smac_ros.contract_errors import is_number, listed, one_of, parse_yaml, problem
from smac_ros.contract_schema import Number, Positive, Reward, Text
from smac_ros.message_paths import leaves
from smac_ros.message_types import PathError, has_header
from smac_ros.messages import SECOND

EPOCH = 10**8  # seconds: a larger number is a date since 1970, a smaller one counts from a start
LATEST = 9 * 10**9  # seconds: a larger number counts something smaller
_TIME = "seconds from the recording's start, seconds since 1970, or 2026-05-01T10:00:00Z"


class Moment(NamedTuple):
    """A time in a recording, by the clock that stamped its messages when they were received."""

    ns: int
    absolute: bool  # since 1970; else from the recording's start

    def at(self, start: int) -> int:
        """Nanoseconds since 1970, in a recording that starts at ``start``."""
        return self.ns if self.absolute else start + self.ns

    def __str__(self) -> str:
        if not self.absolute:
            return f"{self.ns / SECOND:g} s"
        date = datetime.fromtimestamp(self.ns // SECOND, UTC).replace(tzinfo=None)
        return f"{date.isoformat()}.{self.ns % SECOND // 10**6:03}Z"


class Interval(NamedTuple):
    start: Moment
    end: Moment


class PerBag(NamedTuple):
    """A value for every recording, or one for each of those that patterns name."""

    values: dict[str, Any]  # pattern -> value; "" for every recording
    folder: Path

    def of(self, bag: Path) -> Any:
        """A recording's value; None: it has none."""
        found = [v for p, v in self.values.items() if not p or matches(p, bag, self.folder)]
        return found[0] if found else None


def matches(pattern: str, bag: Path, folder: Path) -> bool:
    """Whether a pattern, relative to ``folder`` or a bare name, is of that recording."""
    whole = bag.resolve()
    names = [Path(os.path.relpath(whole, folder.resolve())).as_posix()]
    if "/" not in pattern:
        names += [whole.name, whole.stem, *([whole.parent.name] if whole.is_file() else [])]
    return any(fnmatchcase(name, os.path.normpath(pattern)) for name in names)


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class MarkerChoice(_Section):
    """Which of the marked episodes: of which purposes, and of which tasks' index (empty: any).

    Without a word, practice alone, which is what the reward labeler takes: episodes of a meta-test
    are of tasks that are held out.
    """

    purpose: Annotated[
        tuple[Literal["exploration", "adapted", "meta_test"], ...],
        Field(min_length=1),
        BeforeValidator(_one_or_more),
    ] = ("exploration", "adapted")
    task: Annotated[
        tuple[Annotated[int, Field(strict=True)], ...], BeforeValidator(_one_or_more)
    ] = ()


class Episodes(_Section):
    """Where episodes begin and end."""

    markers: MarkerChoice | None = None
    gaps: Positive | None = None  # s of silence between two of them
    intervals: Any = None  # PerBag of [Interval, ...]
    shortest: Annotated[int, Field(strict=True, ge=1)] = 1  # transitions

    @field_validator("markers", mode="before")
    @classmethod
    def _all_markers(cls, markers: object) -> object:
        if markers == "all":
            return {"purpose": ("exploration", "adapted", "meta_test")}
        return {} if markers is None else markers

    @field_validator("gaps")
    @classmethod
    def _a_gap_is_a_gap(cls, gaps: float | None, info: ValidationInfo) -> float | None:
        shortest = 1.5 * info.context.contract.period_ns / 1e9
        if gaps is not None and gaps <= shortest:
            raise problem((), f"{gaps:g} s", f"more than 1.5 control periods, {shortest:g} s")
        return gaps

    @field_validator("intervals", mode="before")
    @classmethod
    def _intervals(cls, intervals: object, info: ValidationInfo) -> PerBag:
        return _per_bag(intervals, info.context, _interval_list)

    @model_validator(mode="after")
    def _one_kind(self) -> "Episodes":
        _require_one(self, ("markers", "gaps", "intervals"))
        return self


class RewardSource(_Section):
    """Where a task's rewards come from."""

    topic: Text | None = None
    type: Text | None = None
    path: Text | None = None
    scale: Number = 1.0
    offset: Number = 0.0
    csv: Any = None  # PerBag of Path
    time: Literal["header", "receive"] = "header"  # of the topic's or the file's stamps
    success: Any = None  # PerBag of [Interval, ...]
    inside: Number = 1.0
    outside: Number = 0.0
    function: Text | None = None

    @field_validator("csv", mode="before")
    @classmethod
    def _files(cls, csv: object, info: ValidationInfo) -> PerBag:
        return _per_bag(csv, info.context, _file)

    @field_validator("success", mode="before")
    @classmethod
    def _intervals(cls, success: object, info: ValidationInfo) -> PerBag:
        return _per_bag(success, info.context, _interval_list)

    @model_validator(mode="after")
    def _one_kind(self, info: ValidationInfo) -> "RewardSource":
        kind = _require_one(self, ("topic", "csv", "success", "function"))
        belongs = {
            **dict.fromkeys(("type", "path", "scale", "offset"), ("topic",)),
            **dict.fromkeys(("inside", "outside"), ("success",)),
            "time": ("topic", "csv"),
        }
        for key, kinds in belongs.items():
            if key in self.model_fields_set and kind not in kinds:
                raise problem((key,), f"{key} beside {kind}", f"it with {' or '.join(kinds)} only")
        if kind == "topic":
            self.stream(info.context.contract)
        return self

    @property
    def key(self) -> str | None:
        """Tells rewards of topics apart; None: of something else."""
        own = (self.topic, self.type, self.path, self.scale, self.offset, self.time)
        return None if self.topic is None else repr(own)

    def stream(self, contract: Contract) -> Stream:
        """Of a topic: the contract's reward stream, or the one that is described here."""
        if self.type is None and self.path is None:
            if contract.reward is not None and contract.reward.topic == self.topic:
                return contract.reward
            known = "none" if contract.reward is None else contract.reward.topic
            found = f"{self.topic!r} without type and path"
            expected = f"both, or the topic of the contract's reward, which is {known}"
            raise problem(("topic",), found, expected)
        for key in ("type", "path"):
            if getattr(self, key) is None:
                raise problem((), f"no {key}", f"{key}, as there is no contract for this topic")
        try:
            stamped, found = has_header(self.type), leaves(self.type, self.path)
        except PathError as error:
            raise problem((), error.found, error.expected) from None
        if len(found) != 1:
            raise problem(("path",), listed(found), "one number")
        if self.time == "header" and not stamped:
            raise problem(("time",), "header", f"receive: {self.type} carries no stamp")
        field = {"path": self.path, "names": ["reward"], "unit": "1"}
        field |= {"scale": self.scale, "offset": self.offset}
        tree = {"topic": self.topic, "type": self.type, "time": self.time, "fields": [field]}
        return Stream(Reward.model_validate(tree, context={"check_types": True}), 0)


class Task(_Section):
    """One task of the dataset."""

    name: Text
    split: Literal["train", "test"] = "train"
    task: dict[str, Any] | None = None
    bags: Annotated[tuple[Text, ...], BeforeValidator(_one_or_more)] = ()
    episodes: Episodes = Field(default=Episodes.model_construct(markers=MarkerChoice()))
    reward: RewardSource = Field(description="topic, csv, success or function")

    @field_validator("bags")
    @classmethod
    def _bags_are_there(cls, patterns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for index, pattern in enumerate(patterns):
            _require_a_bag(pattern, info.context, (index,))
        return patterns

    @field_validator("episodes", mode="before")
    @classmethod
    def _markers(cls, episodes: object) -> object:
        return {"markers": {}} if episodes == "markers" else episodes

    @model_validator(mode="after")
    def _seconds_are_of_one_recording(self, info: ValidationInfo) -> "Task":
        context = info.context
        own = [bag for bag in context.bags if self.has(bag, context.folder)]
        for at in (("episodes", "intervals"), ("reward", "success")):
            intervals = getattr(getattr(self, at[0]), at[1])
            of_all = intervals.values.get("", ()) if intervals is not None else ()
            if len(own) > 1 and not all(interval.start.absolute for interval in of_all):
                found = f"seconds from the start of each of {len(own)} recordings"
                expected = "the recording's name before them, or dates: {BAG: [[start, end]]}"
                raise problem(at, found, expected)
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """What reset(options={"task": ...}) takes."""
        return {"name": self.name} if self.task is None else self.task

    def has(self, bag: Path, folder: Path) -> bool:
        """Whether a recording serves it."""
        if self.bags and not any(matches(pattern, bag, folder) for pattern in self.bags):
            return False
        intervals = self.episodes.intervals
        return intervals is None or intervals.of(bag) is not None


class TaskFile(_Section):
    tasks: tuple[Task, ...] = Field(min_length=1, description="a list of tasks")

    @model_validator(mode="after")
    def _names_differ(self) -> "TaskFile":
        seen: set[str] = set()
        for index, task in enumerate(self.tasks):
            if task.name in seen:
                raise problem(("tasks", index, "name"), f"{task.name!r} again", "each name once")
            seen.add(task.name)
        return self


class _Context(NamedTuple):
    """What the validators look things up in."""

    contract: Contract
    bags: Sequence[Path]
    folder: Path


def load_tasks(path: str | Path, contract: Contract, bags: Sequence[Path]) -> tuple[Task, ...]:
    """The tasks of a file, for the recordings that were given.

    Raises:
        InputError: with every problem found, each with its line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "a YAML file of tasks") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "file", error, "a YAML file of tasks") from None
    context = _Context(contract, bags, path.resolve().parent)
    return parse_yaml(text, path, TaskFile, "tasks", context).tasks


def parse_moment(value: object) -> Moment:
    """A number of seconds, a date and time with its zone, or an ISO text of one."""
    if is_number(value):
        if not 0 <= value < LATEST:
            raise problem((), value, _TIME)
        return Moment(round(value * SECOND), value >= EPOCH)
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise problem((), f"{value!r} ({error})", _TIME) from None
    if not isinstance(value, datetime):
        raise problem((), repr(value), _TIME)
    if value.tzinfo is None:
        found = f"{value.isoformat(' ')} without a time zone"
        raise problem((), found, "one, such as Z (UTC) or +02:00 at its end")
    return Moment(int(value.timestamp()) * SECOND + value.microsecond * 1000, True)


def _interval_list(value: object, context: _Context, at: tuple) -> tuple[Interval, ...]:
    if not isinstance(value, list) or not value:
        raise problem(at, repr(value), "a list of [start, end]")
    intervals = []
    for index, pair in enumerate(value):
        place = (*at, index)
        if not isinstance(pair, list) or len(pair) != 2:
            raise problem(place, repr(pair), "[start, end]")
        try:
            interval = Interval(*(parse_moment(moment) for moment in pair))
        except Exception as error:
            found = getattr(error, "context", {"found": error, "expected": _TIME})
            raise problem(place, found["found"], found["expected"]) from None
        if interval.start.absolute != interval.end.absolute:
            raise problem(place, pair, "both from the recording's start, or both since 1970")
        if interval.start.ns >= interval.end.ns:
            raise problem(place, pair, "[start, end] with start before end")
        intervals.append(interval)
    return tuple(intervals)


def _file(value: object, context: _Context, at: tuple) -> Path:
    if not isinstance(value, str) or not value:
        raise problem(at, repr(value), "the name of a CSV file")
    path = context.folder / value
    if not path.is_file():
        raise problem(at, f"{value!r}, no such file in {context.folder}", "a CSV file: stamp,value")
    return path


def _per_bag(value: object, context: _Context, parse: Any) -> PerBag:
    if not isinstance(value, dict):
        return PerBag({"": parse(value, context, ())}, context.folder)
    found = {}
    for pattern, inner in value.items():
        alike = _require_a_bag(str(pattern), context, (pattern,))
        if len(alike) > 1 and not set("*?[") & set(str(pattern)):
            names = ", ".join(map(str, alike))
            raise problem((pattern,), f"{len(alike)} recordings: {names}", "a path that tells one")
        found[str(pattern)] = parse(inner, context, (pattern,))
    return PerBag(found, context.folder)


def _require_a_bag(pattern: str, context: _Context, at: tuple) -> list[Path]:
    found = [bag for bag in context.bags if matches(pattern, bag, context.folder)]
    if not found:
        names = [bag.resolve().name for bag in context.bags]
        raise problem(at, f"{pattern!r}, none of the recordings", one_of(pattern, names))
    return found


def _require_one(section: BaseModel, kinds: tuple[str, ...]) -> str:
    given = [kind for kind in kinds if getattr(section, kind) is not None]
    if len(given) != 1:
        raise problem((), " and ".join(given) or "none of them", f"one of {', '.join(kinds)}")
    return given[0]
