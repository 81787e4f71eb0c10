"""The contract: which topics and fields make the observation, and what the action becomes.

A YAML file in config/contracts (see doc/contract.md). Recording, conversion, simulation and
deployment all read it; its text travels in datasets, weights and checkpoints.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smac_core.config import Environment, config_directory
from smac_core.errors import InputError
from smac_ros.contract_commands import CommandReader, CommandWriter
from smac_ros.contract_schema import Action, ContractFile, Observation, Reward, parse
from smac_ros.message_paths import MessageError, Reader, compile_reader, leaves
from smac_ros.message_types import has_header, message_class

__all__ = [
    "Command",
    "CommandReader",
    "CommandWriter",
    "Contract",
    "MessageError",
    "Stream",
    "contracts",
    "load_contract",
    "message_class",
    "require_same",
]


class Stream:
    """One topic that makes the columns [start, start + width) of the observation.

    Attributes:
        topic, type, time ("header" or "receive"), align ("hold", "as_of" or "drop").
        max_age_ns: how old a sample may be, ns.
        missing: what an ``as_of`` stream reads without a sample; None: the stream is needed.
        names, units, paths: of each column.
        fields: (path, slice of the stream's columns) of each part of the message.
    """

    def __init__(self, spec: Observation | Reward, start: int) -> None:
        self.topic, self.type, self.time = spec.topic, spec.type, spec.time
        self.align = getattr(spec, "align", "as_of")
        self.max_age_ns = round(getattr(spec, "max_age", 0.0) * 1e9)
        self.missing: float | None = getattr(spec, "missing", None)
        self.names = tuple(spec.names())
        self.units = tuple(field.unit for field in spec.fields for _ in field.names)
        self.paths = tuple(leaf for f in spec.fields for leaf in leaves(spec.type, f.path))
        self.start, self.width = start, len(self.names)
        self.fields: list[tuple[str, slice]] = []
        self._readers: list[tuple[Reader, slice, float, float, tuple[float, float] | None]] = []
        column = 0
        for field in spec.fields:
            part = slice(column, column + len(field.names))
            reader = compile_reader(spec.type, field.path)
            self.fields.append((field.path, part))
            self._readers.append((reader, part, field.scale, field.offset, field.clip))
            column = part.stop

    @property
    def optional(self) -> bool:
        """Whether an observation is complete without it."""
        return self.missing is not None

    def read(self, message: object, out: np.ndarray) -> None:
        """Write ``scale * value + offset``, clipped, to the stream's columns of ``out`` [ds].

        Raises:
            MessageError: the message lacks a joint, or entries.
        """
        self.read_values(message, out[self.start : self.start + self.width])

    def read_values(self, message: object, out: np.ndarray) -> None:
        """As ``read``, with the stream's columns alone: ``out`` [width] float64."""
        for reader, part, scale, offset, clip in self._readers:
            values = out[part]
            reader(message, values)
            _adjust(values, scale, offset, clip)

    def adjust(self, rows: np.ndarray) -> None:
        """What ``read_values`` does to numbers that were read: ``rows`` [n, width] in place."""
        for _, part, scale, offset, clip in self._readers:
            _adjust(rows[:, part], scale, offset, clip)


def _adjust(
    values: np.ndarray, scale: float, offset: float, clip: tuple[float, float] | None
) -> None:
    if scale != 1.0:
        values *= scale
    if offset != 0.0:  # adding 0 would turn -0 into 0
        values += offset
    if clip is not None:
        np.maximum(values, clip[0], out=values)  # in two thirds of np.clip's time
        np.minimum(values, clip[1], out=values)


class Command:
    """One topic that the entries [start, start + width) of the action become.

    Attributes:
        topic, type, frame (header.frame_id), time ("header", or "receive" without a header).
        time_from_start_ns: of a JointTrajectory's point, else None.
        fields: (path, slice of the action vector) of each part of the message.
        names, units, paths: of each entry.
        scale, offset: value in the message = scale * action + offset, [width] float64.
        low, high: limits of the value, [width] float64, message units.
        max_change: largest change between two commands, [width] float64; inf: any.
        max_rate: likewise, a second.
        measured: column of the observation that measures the value, [width] int; -1: none.
        max_lead: largest distance of the value from what is measured, [width] float64; inf: any.
        zero: what ``safety: zeros`` sends, [width] float64; NaN: the last value.
    """

    def __init__(self, spec: Action, start: int, rate: float, columns: Sequence[str]) -> None:
        self.topic, self.type, self.frame = spec.topic, spec.type, spec.frame
        self.time = "header" if has_header(spec.type) else "receive"
        seconds = spec.time_from_start
        self.time_from_start_ns = None if seconds is None else round(seconds * 1e9)
        self.names = tuple(spec.names())
        self.units = tuple(field.unit for field in spec.fields for _ in field.names)
        self.paths = tuple(leaf for f in spec.fields for leaf in leaves(spec.type, f.path))
        self.start, self.width = start, len(self.names)
        self.fields: list[tuple[str, slice]] = []
        rows, measured = [], []
        for field in spec.fields:
            first = start + len(rows)
            self.fields.append((field.path, slice(first, first + len(field.names))))
            change = min(
                field.max_step or float("inf"), (field.max_rate or float("inf")) / rate
            )  # max_rate counts one period, also after a pause
            zero = float("nan") if field.standstill == "hold" else field.standstill
            fastest, lead = (given or float("inf") for given in (field.max_rate, field.max_lead))
            row = (field.scale, field.offset, *field.limits, change, fastest, zero, lead)
            rows += [row] * len(field.names)
            measured += [columns.index(n) for n in field.measured] or [-1] * len(field.names)
        values = np.array(rows, dtype=np.float64).T.copy()
        values.flags.writeable = False
        self.scale, self.offset, self.low, self.high = values[:4]
        self.max_change, self.max_rate, self.zero, self.max_lead = values[4:]
        self.measured = np.array(measured)


@dataclass(frozen=True, eq=False)
class Contract:
    """A validated contract. Make one with ``load_contract`` or ``from_text``."""

    text: str  # the YAML as it was read
    source: str  # where it comes from, for errors
    file: ContractFile
    observations: tuple[Stream, ...]
    actions: tuple[Command, ...]
    reward: Stream | None

    @classmethod
    def from_text(cls, text: str, source: str | Path) -> "Contract":
        """A contract of its YAML text.

        Raises:
            InputError: with the line, the key, what was found and what was expected.
        """
        file = parse(text, source)
        observations: list[Stream] = []
        actions: list[Command] = []
        for observation in file.observations:
            observations.append(Stream(observation, sum(s.width for s in observations)))
        for action in file.actions:
            columns = [name for stream in observations for name in stream.names]
            start = sum(command.width for command in actions)
            actions.append(Command(action, start, file.rate, columns))
        reward = None if file.reward is None else Stream(file.reward, 0)
        return cls(text, str(source), file, tuple(observations), tuple(actions), reward)

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def domain(self) -> str:
        return self.file.domain

    @property
    def rate(self) -> float:
        """Control steps a second, Hz."""
        return self.file.rate

    @property
    def period_ns(self) -> int:
        return round(1e9 / self.file.rate)

    @property
    def watchdog(self) -> float:
        """Seconds without a complete observation until the safe command."""
        return self.file.watchdog

    @property
    def safety(self) -> str:
        """ "hold", "zeros" or "none"."""
        return self.file.safety

    @property
    def trigger(self) -> str:
        """ "all", "timer" or the topic of a stream."""
        return self.file.trigger

    @property
    def observation_dim(self) -> int:
        return sum(stream.width for stream in self.observations)

    @property
    def action_dim(self) -> int:
        return sum(command.width for command in self.actions)

    @property
    def observation_names(self) -> list[str]:
        return [name for stream in self.observations for name in stream.names]

    @property
    def observation_units(self) -> list[str]:
        """Units after scale and offset: the domain's."""
        return [unit for stream in self.observations for unit in stream.units]

    @property
    def action_names(self) -> list[str]:
        return [name for command in self.actions for name in command.names]

    @property
    def action_units(self) -> list[str]:
        """Units of the values in the messages."""
        return [unit for command in self.actions for unit in command.units]

    def observe(self, index: int, message: object, out: np.ndarray) -> None:
        """Read stream ``index``'s message into its columns of ``out`` [ds] float64.

        Raises:
            MessageError: as ``Stream.read`` does.
        """
        self.observations[index].read(message, out)

    @property
    def lockstep_problem(self) -> tuple[str, str] | None:
        """(key, topic and type) of the first message without a stamp of its own; None: lockstep
        works."""
        for part, messages in (("observations", self.observations), ("actions", self.actions)):
            for index, message in enumerate(messages):
                if message.time != "header":
                    return f"{part}[{index}]", f"{message.topic} ({message.type})"
        return None

    def require_lockstep(self) -> None:
        """Raise InputError unless every stream and command carries the stamp it belongs to."""
        if self.lockstep_problem is not None:
            key, message = self.lockstep_problem
            raise InputError(
                self.source,
                key,
                f"{message}, known by its time of receipt",
                "a header's stamp, which tells in lockstep what a command answers; "
                "or clock real_time",
            )

    def check_domain(
        self,
        observation_names: Sequence[str],
        observation_units: Sequence[str],
        action_names: Sequence[str],
        rate: float,
        source: str | Path,
    ) -> None:
        """Raise InputError where ``source`` (a checkpoint, a domain) and this contract differ.

        Units of actions are not compared: the contract has the message's, a domain its own.
        """
        mine = _Signature(self.name)
        mine.columns("observation_names", self.observation_names)
        mine.columns("observation_units", self.observation_units)
        mine.columns("action_names", self.action_names)
        mine.value("rate", self.rate)
        other = _Signature(str(source))
        other.columns("observation_names", observation_names)
        other.columns("observation_units", observation_units)
        other.columns("action_names", action_names)
        other.value("rate", float(rate))
        mine.require_equal(other, source)

    def check_run(self, environment: Environment, stored: str | None, source: str | Path) -> None:
        """Raise InputError unless a run is of this contract's robot.

        Args:
            environment: of the run's configuration.
            stored: the contract's text that the run's data came with, if they did.
        """
        self.check_domain(
            environment.observation_names,
            environment.observation_units,
            environment.action_names,
            environment.rate,
            source,
        )
        if stored is not None:
            self.require_match(stored, source)

    def require_match(self, other_text: str, source: str | Path) -> None:
        """``require_same(self, other_text, source)``."""
        require_same(self, other_text, source)


def contracts() -> list[str]:
    """Names of the contracts that come with the package."""
    return sorted(path.stem for path in (config_directory() / "contracts").glob("*.yaml"))


def load_contract(name_or_path: str | Path) -> Contract:
    """The contract of a name in config/contracts, or of a YAML file.

    Raises:
        InputError: no such contract or file, or one that is not valid.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = config_directory() / "contracts" / f"{name_or_path}.yaml"
        if not path.is_file():
            close = difflib.get_close_matches(str(name_or_path), contracts(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = f"one of {', '.join(contracts())}, or the path of a .yaml file{hint}"
            raise InputError("contract", "name", repr(str(name_or_path)), known)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "a contract's YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "file", error, "a contract's YAML file") from None
    return Contract.from_text(text, path)


def require_same(mine: Contract, other_text: str, source: str | Path) -> None:
    """Raise InputError unless a stored contract agrees in all that matters to learning.

    That is rate, and of observations and actions the order, names, units, scales and offsets, of
    observations the clipping and the alignment besides. Topics, paths, types, limits and time-outs
    may differ: the same policy serves a remapped robot, and a slower one.

    Args:
        other_text: a contract's YAML, as a checkpoint, a dataset or weights keep it.
        source: where that text comes from.
    """
    # Types are not looked up: the other robot's messages need not be installed here.
    other = parse(other_text, source, check_types=False)
    _signature(mine.file, mine.name).require_equal(_signature(other, str(source)), source)


class _Signature:
    """Values to compare, each under a key that says where it stands."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.values: dict[str, object] = {}

    def value(self, key: str, value: object) -> None:
        self.values[key] = value

    def columns(self, key: str, values: Sequence[object]) -> None:
        for index, value in enumerate(values):
            self.values[f"{key}[{index}]"] = value
        self.values[f"number of {key}"] = len(values)

    def require_equal(self, other: "_Signature", source: str | Path) -> None:
        """Raise InputError at the first difference, in the order in which values were added."""
        for key, value in self.values.items():
            if key in other.values and other.values[key] != value:
                raise InputError(
                    source, key, repr(other.values[key]), f"{value!r}, as in contract {self.owner}"
                )


def _signature(file: ContractFile, owner: str) -> _Signature:
    signature = _Signature(owner)
    signature.value("rate", file.rate)
    for part in ("observations", "actions"):
        columns: dict[str, list[object]] = {
            key: [] for key in ("names", "unit", "scale", "offset", "clip", "align", "missing")
        }
        for message in getattr(file, part):
            for field in message.fields:
                for name in field.names:
                    columns["names"].append(name)
                    for key in ("unit", "scale", "offset", "clip"):
                        columns[key].append(getattr(field, key, None))
                    for key in ("align", "missing"):
                        columns[key].append(getattr(message, key, None))
        for key, values in columns.items():
            signature.columns(f"{part} {key}", values)
    return signature
