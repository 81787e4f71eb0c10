"""The YAML of a contract as pydantic models. Errors tell file, line, key, found and expected.

What every key means: doc/contract.md. Use ``smac_ros.contract``; this module only parses.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from smac_ros.contract_errors import (
    counted,
    is_number,
    listed,
    one_of,
    ordered,
    parse_yaml,
    problem,
)
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
            raise problem((), scale, "any number but 0")
        return scale


class ObservationField(_Numbers):
    """Observation = scale * value in the message + offset, within ``clip``."""

    clip: tuple[float, float] | None = None  # in the observation's unit

    @field_validator("clip", mode="before")
    @classmethod
    def _clip_is_ordered(cls, clip: object) -> object:
        return None if clip is None else ordered(clip)


class ActionField(_Numbers):
    """Value in the message = scale * action + offset, then the limits. All in message units."""

    limits: tuple[float, float]
    max_step: Positive | None = None  # largest change between two commands
    max_rate: Positive | None = None  # likewise, a second
    zero: float | Literal["hold"] | None = None  # what `safety: zeros` sends
    measured: tuple[Text, ...] = ()  # observations from which the first command's change counts
    max_lead: Positive | None = None  # largest distance from what is measured

    @field_validator("limits", mode="before")
    @classmethod
    def _limits_are_ordered(cls, limits: object) -> object:
        return ordered(limits)

    @field_validator("zero", mode="before")
    @classmethod
    def _zero_is_a_value(cls, zero: object) -> object:
        if zero not in ("hold", None) and not is_number(zero):
            raise problem((), repr(zero), "a number, or hold")
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
            raise problem(
                ("zero",) if given else (),
                f"zero {self.standstill:g}" + ("" if given else ", its default"),
                f"zero: a value within limits [{low:g}, {high:g}], or hold",
            )
        return self

    @model_validator(mode="after")
    def _a_lead_is_measured(self) -> "ActionField":
        if self.max_lead is not None and not self.measured:
            raise problem(("max_lead",), f"{self.max_lead:g} without measured", "measured, too")
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
            raise problem((), repr(topic), "a topic's name, such as gripper/state")
        return topic

    @model_validator(mode="after")
    def _fields_fit_the_type(self, info: ValidationInfo) -> "_Message":
        if not info.context["check_types"]:
            return self
        try:
            has_header(self.type)
        except PathError as error:
            raise problem(("type",), error.found, error.expected) from None
        for index, field in enumerate(self.fields):
            try:
                found = leaves(self.type, field.path)
            except PathError as error:
                raise problem(("fields", index, "path"), error.found, error.expected) from None
            if len(found) != len(field.names):
                raise problem(
                    ("fields", index, "names"),
                    f"{counted(len(field.names), 'name')}: {', '.join(field.names)}",
                    f"{len(found)}, one for each of {listed(found)}",
                )
        return self

    def names(self) -> list[str]:
        return [name for field in self.fields for name in field.names]


class _Stamped(_Message):
    time: Literal["header", "receive"]

    @model_validator(mode="after")
    def _header_time_needs_a_header(self, info: ValidationInfo) -> "_Stamped":
        if self.time == "header" and info.context["check_types"] and not has_header(self.type):
            raise problem(("time",), "header", f"receive: {self.type} carries no stamp")
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
            raise problem(
                ("align",), "as_of without missing", "missing: what to read without a sample"
            )
        if self.align != "as_of" and self.missing is not None:
            raise problem(
                ("missing",), f"{self.missing:g} beside align {self.align}", "align: as_of"
            )
        if self.align == "as_of" and self.max_age == 0:
            raise problem(("max_age",), 0, "more than 0 s for align as_of: no sample would do")
        return self


class Reward(_Stamped):
    """Where true rewards come from when somebody gives them."""

    fields: tuple[ObservationField, ...] = Field(min_length=1, max_length=1)

    @model_validator(mode="after")
    def _one_number(self) -> "Reward":
        if len(self.names()) != 1:
            raise problem(("fields", 0, "names"), ", ".join(self.names()), "one name: a number")
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
            raise problem(("frame",), self.frame, f"no frame: {self.type} has no header")
        trajectory = self.type == _WITH_TIME_FROM_START
        if trajectory and self.time_from_start is None:
            raise problem((), "no time_from_start", "time_from_start of the point, s")
        if not trajectory and self.time_from_start is not None:
            raise problem(
                ("time_from_start",), self.time_from_start, f"it only with {_WITH_TIME_FROM_START}"
            )
        written: dict[str, int] = {}
        for index, field in enumerate(self.fields):
            base = base_type(self.type, field.path)
            if base != "float64":
                raise problem(
                    ("fields", index, "path"),
                    f"{field.path}, a {base}",
                    "a float64, from which the action can be read back exactly",
                )
            for leaf in leaves(self.type, field.path):
                if leaf in written:
                    raise problem(
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
                    raise problem(
                        ("fields",),
                        f"{array} for {', '.join(found)}",
                        f"the joints of {first}: {', '.join(wanted)}",
                    )
        for array, found in entries.items():
            if lacking := set(range(max(found))) - set(found):
                raise problem(
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
            raise problem(
                ("watchdog",), f"{self.watchdog:g} s", f"at least one period, {1 / self.rate:g} s"
            )
        topics = [stream.topic for stream in self.observations]
        if self.trigger not in ("all", "timer", *topics):
            raise problem(
                ("trigger",), repr(self.trigger), one_of(self.trigger, ["all", "timer", *topics])
            )
        fields = [field for stream in self.observations for field in stream.fields]
        observed = {name: field.unit for field in fields for name in field.names}
        optional = {
            name
            for stream in self.observations
            if stream.align == "as_of"
            for name in stream.names()
        }
        for index, action in enumerate(self.actions):
            for place, field in enumerate(action.fields):
                at = ("actions", index, "fields", place, "measured")
                for name in field.measured:
                    if name not in observed:
                        raise problem(at, repr(name), one_of(name, list(observed)))
                    if observed[name] != field.unit:
                        found = f"{name!r} in {observed[name]}"
                        raise problem(at, found, f"an observation in {field.unit}")
                    if name in optional:  # `missing` would be taken for where the robot is
                        found = f"{name!r}, which may be missing"
                        raise problem(at, found, "an observation with align: hold or drop")
                if len(field.measured) not in (0, len(field.names)):
                    found = counted(len(field.measured), "observation")
                    raise problem(at, found, f"{len(field.names)}, one for each name, or none")
        if self.trigger == "all" and all(s.missing is not None for s in self.observations):
            raise problem(("trigger",), "all", "timer: every stream may be missing (align as_of)")
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
    keys, context = "name, domain, rate, ...", {"check_types": check_types}
    return parse_yaml(text, source, ContractFile, keys, context)


def _refuse_duplicates(part: str, messages: Sequence[_Message]) -> None:
    topics: set[str] = set()
    names: set[str] = set()
    for index, message in enumerate(messages):
        if message.topic in topics:
            raise problem(
                (part, index, "topic"),
                f"{message.topic!r} again",
                "each topic once, with all its fields",
            )
        topics.add(message.topic)
        for place, field in enumerate(message.fields):
            for name in field.names:
                if name in names:
                    raise problem(
                        (part, index, "fields", place, "names"),
                        f"{name!r} again",
                        f"each name once in {part}",
                    )
                names.add(name)
