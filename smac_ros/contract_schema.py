"""The YAML of a contract as pydantic models, and its errors: file, line, key, found, expected.

What every key means: doc/contract.md. Use ``smac_ros.contract``; this module only parses.
"""

import difflib
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from smac_core.errors import InputError
from smac_ros.message_paths import base_type, leaves, named_arrays
from smac_ros.message_types import PathError, has_header

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
NotNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Text = Annotated[str, Field(min_length=1)]

_TOPIC = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*")
# To command 0 to a position is to send the robot somewhere, not to stop it.
_POSITION = re.compile(r"\b(pose|positions?|orientation)\b")
_POSITION_UNITS = ("m", "cm", "mm", "rad", "deg")
_WITH_TIME_FROM_START = "trajectory_msgs/msg/JointTrajectory"


def _problem(at: Sequence[str | int], found: object, expected: str) -> PydanticCustomError:
    """An error at a key inside the model that raises it."""
    context = {"at": tuple(at), "found": str(found), "expected": expected}
    return PydanticCustomError("contract", "{found}", context)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Numbers(_Section):
    """Numbers of a message: where, what they are called, and their unit."""

    path: Text
    names: tuple[Text, ...] = Field(min_length=1)
    unit: Text
    scale: Number = 1.0
    offset: Number = 0.0

    @field_validator("scale")
    @classmethod
    def _scale_keeps_information(cls, scale: float) -> float:
        if scale == 0:
            raise _problem((), scale, "any number but 0")
        return scale


class ObservationField(_Numbers):
    """Observation = scale * value in the message + offset, within ``clip``."""

    clip: tuple[float, float] | None = None  # in the observation's unit

    @field_validator("clip", mode="before")
    @classmethod
    def _clip_is_ordered(cls, clip: object) -> object:
        return None if clip is None else _ordered(clip)


class ActionField(_Numbers):
    """Value in the message = scale * action + offset, then the limits. All in message units."""

    limits: tuple[float, float]
    max_step: Positive | None = None  # largest change between two commands
    max_rate: Positive | None = None  # likewise, a second
    zero: float | Literal["hold"] | None = None  # what `safety: zeros` sends
    measured: tuple[Text, ...] = ()  # observations from which the first command's change counts

    @field_validator("limits", mode="before")
    @classmethod
    def _limits_are_ordered(cls, limits: object) -> object:
        return _ordered(limits)

    @field_validator("zero", mode="before")
    @classmethod
    def _zero_is_a_value(cls, zero: object) -> object:
        if zero not in ("hold", None) and not _is_number(zero):
            raise _problem((), repr(zero), "a number, or hold")
        return zero

    @property
    def standstill(self) -> float | Literal["hold"]:
        """``zero``, or its default: 0, but the last value of what is a position."""
        if self.zero is not None:
            return self.zero
        return "hold" if _POSITION.search(self.path) or self.unit in _POSITION_UNITS else 0.0

    @model_validator(mode="after")
    def _standstill_is_allowed(self) -> "ActionField":
        low, high = self.limits
        if self.standstill != "hold" and not low <= self.standstill <= high:
            given = self.zero is not None
            raise _problem(
                ("zero",) if given else (),
                f"zero {self.standstill:g}" + ("" if given else ", its default"),
                f"zero: a value within limits [{low:g}, {high:g}], or hold",
            )
        return self


class _Message(_Section):
    """One topic's messages."""

    topic: str
    type: str
    fields: tuple[_Numbers, ...] = Field(min_length=1)

    @field_validator("topic")
    @classmethod
    def _topic_is_a_name(cls, topic: str) -> str:
        if not _TOPIC.fullmatch(topic):
            raise _problem((), repr(topic), "a topic's name, such as gripper/state")
        return topic

    @model_validator(mode="after")
    def _fields_fit_the_type(self, info: ValidationInfo) -> "_Message":
        if not info.context["check_types"]:
            return self
        try:
            has_header(self.type)
        except PathError as error:
            raise _problem(("type",), error.found, error.expected) from None
        for index, field in enumerate(self.fields):
            try:
                found = leaves(self.type, field.path)
            except PathError as error:
                raise _problem(("fields", index, "path"), error.found, error.expected) from None
            if len(found) != len(field.names):
                raise _problem(
                    ("fields", index, "names"),
                    f"{_count(len(field.names), 'name')}: {', '.join(field.names)}",
                    f"{len(found)}, one for each of {_enumerate(found)}",
                )
        return self

    def names(self) -> list[str]:
        return [name for field in self.fields for name in field.names]


class _Stamped(_Message):
    time: Literal["header", "receive"]

    @model_validator(mode="after")
    def _header_time_needs_a_header(self, info: ValidationInfo) -> "_Stamped":
        if self.time == "header" and info.context["check_types"] and not has_header(self.type):
            raise _problem(("time",), "header", f"receive: {self.type} carries no stamp")
        return self


class Observation(_Stamped):
    """A stream that makes some columns of the observation."""

    align: Literal["hold", "as_of", "drop"]
    max_age: NotNegative  # s
    missing: Number | None = None
    fields: tuple[ObservationField, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _missing_belongs_to_as_of(self) -> "Observation":
        if self.align == "as_of" and self.missing is None:
            raise _problem(
                ("align",), "as_of without missing", "missing: what to read without a sample"
            )
        if self.align != "as_of" and self.missing is not None:
            raise _problem(
                ("missing",), f"{self.missing:g} beside align {self.align}", "align: as_of"
            )
        if self.align == "as_of" and self.max_age == 0:
            raise _problem(("max_age",), 0, "more than 0 s for align as_of: no sample would do")
        return self


class Reward(_Stamped):
    """Where true rewards come from when somebody gives them."""

    fields: tuple[ObservationField, ...] = Field(min_length=1, max_length=1)

    @model_validator(mode="after")
    def _one_number(self) -> "Reward":
        if len(self.names()) != 1:
            raise _problem(("fields", 0, "names"), ", ".join(self.names()), "one name: a number")
        return self


class Action(_Message):
    """A command that some entries of the action vector become."""

    frame: str = ""  # header.frame_id
    time_from_start: Positive | None = None  # s, of a JointTrajectory's point
    fields: tuple[ActionField, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _command_is_whole(self, info: ValidationInfo) -> "Action":
        if not info.context["check_types"]:
            return self
        if self.frame and not has_header(self.type):
            raise _problem(("frame",), self.frame, f"no frame: {self.type} has no header")
        trajectory = self.type == _WITH_TIME_FROM_START
        if trajectory and self.time_from_start is None:
            raise _problem((), "no time_from_start", "time_from_start of the point, s")
        if not trajectory and self.time_from_start is not None:
            raise _problem(
                ("time_from_start",), self.time_from_start, f"it only with {_WITH_TIME_FROM_START}"
            )
        written: dict[str, int] = {}
        for index, field in enumerate(self.fields):
            base = base_type(self.type, field.path)
            if base != "float64":
                raise _problem(
                    ("fields", index, "path"),
                    f"{field.path}, a {base}",
                    "a float64, from which the action can be read back exactly",
                )
            for leaf in leaves(self.type, field.path):
                if leaf in written:
                    raise _problem(
                        ("fields", index, "path"), f"{leaf}, written twice", "each number once"
                    )
                written[leaf] = index
        self._no_number_is_left_unset(written)
        return self

    def _no_number_is_left_unset(self, written: dict[str, int]) -> None:
        """A joint or an array's entry beside written ones would be commanded to 0, unasked."""
        joints: dict[str, dict[str, list[str]]] = {}  # list of names -> array -> joints
        entries: dict[str, list[int]] = {}
        for field in self.fields:
            if named := named_arrays(self.type, field.path):
                names, array, these = named
                joints.setdefault(names, {}).setdefault(array, []).extend(these)
        for leaf in written:
            if match := re.fullmatch(r"(.+)\[(\d+)\]", leaf):
                entries.setdefault(match[1], []).append(int(match[2]))
        for arrays in joints.values():
            (first, wanted), *rest = arrays.items()
            for array, found in rest:
                if set(found) != set(wanted):
                    raise _problem(
                        ("fields",),
                        f"{array} for {', '.join(found)}",
                        f"the joints of {first}: {', '.join(wanted)}",
                    )
        for array, found in entries.items():
            if lacking := set(range(max(found))) - set(found):
                raise _problem(
                    ("fields",),
                    f"{array}[{max(found)}] without {array}[{min(lacking)}]",
                    "every entry up to the last one",
                )


class ContractFile(_Section):
    """All of a contract's file."""

    name: Text
    domain: Text
    rate: Positive  # Hz
    trigger: str = "all"
    watchdog: Positive  # s
    safety: Literal["hold", "zeros", "none"]
    observations: tuple[Observation, ...] = Field(min_length=1)
    actions: tuple[Action, ...] = Field(min_length=1)
    reward: Reward | None = None

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "ContractFile":
        for part in ("observations", "actions"):
            _refuse_duplicates(part, getattr(self, part))
        if self.watchdog < 1 / self.rate:
            raise _problem(
                ("watchdog",), f"{self.watchdog:g} s", f"at least one period, {1 / self.rate:g} s"
            )
        topics = [stream.topic for stream in self.observations]
        if self.trigger not in ("all", "timer", *topics):
            raise _problem(
                ("trigger",), repr(self.trigger), _one_of(self.trigger, ["all", "timer", *topics])
            )
        fields = [field for stream in self.observations for field in stream.fields]
        observed = {name: field.unit for field in fields for name in field.names}
        for index, action in enumerate(self.actions):
            for place, field in enumerate(action.fields):
                at = ("actions", index, "fields", place, "measured")
                for name in field.measured:
                    if name not in observed:
                        raise _problem(at, repr(name), _one_of(name, list(observed)))
                    if observed[name] != field.unit:
                        found = f"{name!r} in {observed[name]}"
                        raise _problem(at, found, f"an observation in {field.unit}")
                if len(field.measured) not in (0, len(field.names)):
                    found = _count(len(field.measured), "observation")
                    raise _problem(at, found, f"{len(field.names)}, one for each name, or none")
        if self.trigger == "all" and all(s.missing is not None for s in self.observations):
            raise _problem(("trigger",), "all", "timer: every stream may be missing (align as_of)")
        return self


def parse(text: str, source: str | Path, *, check_types: bool = True) -> ContractFile:
    """Validate a contract's YAML.

    Args:
        source: where the text comes from, for errors.
        check_types: look message types and paths up; False where the types of another robot may
            be unknown here.

    Raises:
        InputError: with every problem found, each with its line.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        tree = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "text"
        raise InputError(source, place, getattr(error, "problem", error), "YAML") from None
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else type(tree).__name__
        raise InputError(source, "line 1", kind, "a mapping of keys: name, domain, rate, ...")
    problems = _repeated_keys(node, ())
    try:
        contract = ContractFile.model_validate(tree, context={"check_types": check_types})
    except ValidationError as error:
        problems += [_explain(details, node) for details in _telling(error.errors())]
    if problems:
        (field, found, expected), *rest = (
            (f"line {line}: {key}", found, expected)
            for line, key, found, expected in sorted(problems)
        )
        for other, other_found, other_expected in rest:
            expected += f"\n{source}: {other}: found {other_found}; expected {other_expected}"
        raise InputError(source, field, found, expected)
    return contract


def _refuse_duplicates(part: str, messages: Sequence[_Message]) -> None:
    topics: set[str] = set()
    names: set[str] = set()
    for index, message in enumerate(messages):
        if message.topic in topics:
            raise _problem(
                (part, index, "topic"),
                f"{message.topic!r} again",
                "each topic once, with all its fields",
            )
        topics.add(message.topic)
        for place, field in enumerate(message.fields):
            for name in field.names:
                if name in names:
                    raise _problem(
                        (part, index, "fields", place, "names"),
                        f"{name!r} again",
                        f"each name once in {part}",
                    )
                names.add(name)


# Explaining pydantic's errors

_EXPECTED = {
    "tuple_type": "a list",
    "float_type": "a number",
    "string_type": "text (quote it if it looks like a number)",
    "string_too_short": "some text",
    "finite_number": "a finite number",
    "too_short": "at least one entry",
    "too_long": "one entry",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}


def _telling(errors: list[Any]) -> Iterator[dict[str, Any]]:
    """Errors without those that follow from another one."""
    unknown: dict[tuple, list[str]] = {}  # section -> keys
    for details in errors:
        if details["type"] == "extra_forbidden":
            unknown.setdefault(details["loc"][:-1], []).append(str(details["loc"][-1]))
    for details in errors:
        *section, key = details["loc"] or ("",)
        misspelt = unknown.get(tuple(section), [])
        if details["type"] == "missing" and difflib.get_close_matches(str(key), misspelt, n=1):
            continue
        if details["type"] == "too_short" and details["input"]:
            continue  # of a list with an entry that is wrong itself
        yield details


def _explain(details: dict[str, Any], root: yaml.Node) -> tuple[int, str, str, str]:
    """(line, key, found, expected) of one of pydantic's errors."""
    kind, context = details["type"], details.get("ctx", {})
    location = (*details["loc"], *context.get("at", ()))
    found, expected = repr(details["input"]), _EXPECTED.get(kind, details["msg"])
    if kind == "contract":
        found, expected = context["found"], context["expected"]
    elif kind == "missing":
        section = _section(location[:-1])
        what = section.model_fields[location[-1]].description if section else None
        found, expected = "nothing", what or "this key"
    elif kind == "extra_forbidden":
        found = f"the unknown key {location[-1]!r}"
        expected = _one_of(str(location[-1]), list(_section(location[:-1]).model_fields))
    elif kind == "literal_error":
        options = [option.strip("' ") for option in re.split(", | or ", context["expected"])]
        expected = _one_of(details["input"], options)
    elif kind == "greater_than":
        expected = f"a number above {context['gt']:g}"
    elif kind == "greater_than_equal":
        expected = f"a number not below {context['ge']:g}"
    elif kind == "float_type" and _reads_as_number(details["input"]):
        expected = "a number (YAML takes 1e-3 for text: write 1.0e-3)"
    return _line(root, location), _key(location), found, expected


def _section(location: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that a location is in."""
    section: type[BaseModel] = ContractFile
    for part in location:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        options = [annotation, *typing.get_args(annotation)]
        models = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not models:
            return None
        section = models[0]
    return section


def _line(node: yaml.Node, location: Sequence[str | int]) -> int:
    """Line, from 1, of a key's value, or of the nearest part that is there."""
    line = node.start_mark.line
    for part in location:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(part)]
            if not pairs:
                break
            key, node = pairs[-1]
            line = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and part in range(len(node.value)):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return line + 1


def _repeated_keys(
    node: yaml.Node, location: tuple[str | int, ...]
) -> list[tuple[int, str, str, str]]:
    """Keys that a mapping has twice: YAML would silently take the last."""
    problems = []
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            problems += _repeated_keys(child, (*location, index))
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            place = (*location, str(key.value))
            if key.value in seen:
                line = key.start_mark.line + 1
                problems.append((line, _key(place), "the key a second time", "each key once"))
            seen.add(key.value)
            problems += _repeated_keys(child, place)
    return problems


def _key(location: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "contract"


def _one_of(found: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(found), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"one of {', '.join(known)}{hint}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _enumerate(parts: Sequence[str]) -> str:
    return ", ".join(parts) if len(parts) <= 6 else f"{', '.join(parts[:5])}, ..., {parts[-1]}"


def _ordered(pair: object) -> tuple[float, float]:
    numbers = isinstance(pair, (list, tuple)) and [_is_number(number) for number in pair]
    if numbers != [True, True] or pair[0] >= pair[1]:
        raise _problem((), pair, "[low, high]: two finite numbers, low < high")
    return float(pair[0]), float(pair[1])


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < float("inf")
    )


def _reads_as_number(value: object) -> bool:
    try:
        return isinstance(value, str) and _is_number(float(value))
    except ValueError:
        return False
