"""A robot without physics: which command moves which number of the observation. Knows no ROS.

A YAML file in config/mock_robots says it (doc/robots.md); ``mock_robot_node`` puts it on topics.
"""

import difflib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from smac_core.config import config_directory
from smac_core.errors import InputError
from smac_ros.contract import Contract, Stream
from smac_ros.contract_errors import parse_yaml, problem
from smac_ros.message_paths import FLOATS, base_type, compile_writer, prepare
from smac_ros.message_types import message_class

TOLERANCE = 1e-6  # of a step, in the message's unit: observations have travelled as float32

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(allow_inf_nan=False, ge=0)]


class Column(BaseModel):
    """One number of the observation, in its unit. What nothing moves stays at ``start``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: Finite = 0.0
    limits: tuple[Finite, Finite] | None = None  # where the mechanism ends
    integrate: str | None = None  # a velocity command, in this unit a second
    follow: str | None = None  # a position command, in this unit
    lag: NotNegative = 0.1  # s, time constant with which it follows
    rate_of: str | None = None  # the change a second of another column
    noise: NotNegative = 0.0  # standard deviation of what is read

    @model_validator(mode="after")
    def _one_mover(self) -> "Column":
        movers = ("integrate", "follow", "rate_of")
        given = [name for name in movers if getattr(self, name) is not None]
        if len(given) > 1:
            raise problem((given[1],), " and ".join(given), f"one of {', '.join(movers)}")
        if self.limits is not None and not self.limits[0] <= self.start <= self.limits[1]:
            low, high = self.limits
            raise problem(("start",), f"{self.start:g}", f"within limits [{low:g}, {high:g}]")
        return self


class MockRobotFile(BaseModel):
    """All of a mock robot's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contract: str  # the one that it is written for; others with these names fit, too
    columns: dict[str, Column]


def load_mock_robot(name_or_path: str, contract: Contract) -> MockRobotFile:
    """A file of config/mock_robots by its name, or by its path; it must fit the contract.

    Args:
        name_or_path: empty: of the contract's name.

    Raises:
        InputError: no such file, one that is not valid, or one that does not fit the contract.
    """
    path = Path(name_or_path or contract.name)
    if path.suffix not in (".yaml", ".yml"):
        folder = config_directory() / "mock_robots"
        path = folder / f"{path}.yaml"
        if not path.is_file():
            known = f"one of {', '.join(sorted(file.stem for file in folder.glob('*.yaml')))}"
            expected = f"{known}, or the path of a .yaml file"
            raise InputError("mock robot", "name", repr(path.stem), expected)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "file", error, "a mock robot's YAML file") from None
    file = parse_yaml(text, path, MockRobotFile, "contract, columns", {})
    _check_fit(file, contract, path)
    return file


def _check_fit(file: MockRobotFile, contract: Contract, path: Path) -> None:
    units = dict(zip(contract.observation_names, contract.observation_units, strict=True))
    commands = dict(zip(contract.action_names, contract.action_units, strict=True))

    def known(key: str, name: str, names: Any, what: str) -> None:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(path, key, repr(name), f"{what} of contract {contract.name}{hint}")

    for name in units:
        if name not in file.columns:
            expected = f"columns.{name}, as contract {contract.name} observes it"
            raise InputError(path, f"columns.{name}", "nothing", expected)
    for name, column in file.columns.items():
        key = f"columns.{name}"
        known(key, name, units, "an observation")
        for mover, unit in (("integrate", f"{units[name]}/s"), ("follow", units[name])):
            command = getattr(column, mover)
            if command is None:
                continue
            known(f"{key}.{mover}", command, commands, "a command")
            if commands[command] != unit:
                found = f"{command!r} in {commands[command]}"
                raise InputError(path, f"{key}.{mover}", found, f"a command in {unit}")
        if column.rate_of is not None:
            known(f"{key}.rate_of", column.rate_of, units, "an observation")


class MockRobot:
    """Kinematics: numbers that commands move.

    Attributes:
        state: of the columns, [ds] float64, in the observation's units.
    """

    def __init__(self, contract: Contract, file: MockRobotFile):
        names, actions = contract.observation_names, contract.action_names
        columns = [file.columns[name] for name in names]
        self._start = np.array([column.start for column in columns])
        limits = [column.limits or (-math.inf, math.inf) for column in columns]
        self._low, self._high = np.array(limits).T
        self._noise = np.array([column.noise for column in columns])
        self._lags = np.array([column.lag for column in columns])

        def movers(key: str, sources: list[str]) -> tuple[np.ndarray, np.ndarray]:
            pairs = [
                (index, sources.index(source))
                for index, column in enumerate(columns)
                if (source := getattr(column, key)) is not None
            ]
            return tuple(np.array(pairs, int).reshape(-1, 2).T)

        self._integrated = movers("integrate", actions)
        self._followed = movers("follow", actions)
        self._rates = movers("rate_of", names)
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Back to the start; ``seed`` of the noise."""
        self.state = self._start.copy()
        self._random = np.random.default_rng(seed)

    def step(self, values: np.ndarray, seconds: float) -> None:
        """So much later, under the commands ``values`` [da] in message units; NaN: none yet."""
        before, state = self.state.copy(), self.state
        columns, sources = self._integrated
        state[columns] += np.nan_to_num(values[sources]) * seconds
        columns, sources = self._followed
        lags = self._lags[columns]
        share = np.where(lags > 0, -np.expm1(-seconds / np.maximum(lags, 1e-9)), 1.0)
        wanted = values[sources]
        wanted = np.where(np.isnan(wanted), state[columns], wanted)
        state[columns] += share * (wanted - state[columns])
        np.clip(state, self._low, self._high, out=state)
        columns, sources = self._rates
        state[columns] = (state[sources] - before[sources]) / seconds

    def read(self) -> np.ndarray:
        """What the sensors read, [ds] float64: the state and its noise."""
        return self.state + self._random.normal(size=len(self.state)) * self._noise


class StreamWriter:
    """A stream's messages, of columns of the observation: the way of ``Stream.read`` back.

    Raises:
        InputError: the stream reads numbers that are no floats.
    """

    def __init__(self, stream: Stream, contract: Contract, make: Callable[[str], Any]):
        spec = next(one for one in contract.file.observations if one.topic == stream.topic)
        self.message = make(stream.type)
        self._parts: list[tuple[Callable, slice, float, float]] = []
        column = stream.start
        for field in spec.fields:
            if base_type(stream.type, field.path) not in FLOATS:
                found = f"{stream.topic}: {field.path}, which is no float"
                raise InputError(contract.source, "observations", found, "floats, for a mock robot")
            prepare(self.message, stream.type, field.path, make)
            part = slice(column, column + len(field.names))
            write = compile_writer(stream.type, field.path)
            self._parts.append((write, part, field.scale, field.offset))
            column = part.stop

    def fill(self, observation: np.ndarray) -> Any:
        """The message, the same object each time, of an observation [ds]."""
        for write, part, scale, offset in self._parts:
            write(self.message, ((observation[part] - offset) / scale).tolist())
        return self.message


def stream_writers(contract: Contract) -> list[StreamWriter]:
    """One a stream of the contract."""
    return [
        StreamWriter(stream, contract, lambda name: message_class(name)())
        for stream in contract.observations
    ]


class CommandRecord:
    """What a robot was told: the largest values and steps, to prove that limits were kept.

    A step counts from the command before, or from what the contract says measures the value, where
    a new episode begins; the smaller of the two. Stopping, at ``zero``, may be immediate.

    Attributes:
        count: commands of each topic.
        lowest, highest, largest_step: of each entry of the action [da], in message units.
        violations: what was outside the contract's limits, in words; at most ``MOST``.
        outside: how many commands were.
    """

    MOST = 20

    def __init__(self, contract: Contract):
        self._contract = contract
        size = contract.action_dim
        self.count = [0] * len(contract.actions)
        self.lowest, self.highest = np.full(size, math.inf), np.full(size, -math.inf)
        self.largest_step = np.zeros(size)
        self.outside = 0
        self.violations: list[str] = []
        self._last = np.full(size, math.nan)

    def add(self, index: int, values: np.ndarray, state: np.ndarray) -> None:
        """A message of command ``index``: ``values`` [width], while columns were ``state`` [ds]."""
        command = self._contract.actions[index]
        part = slice(command.start, command.start + command.width)
        self.count[index] += 1
        np.fmin(self.lowest[part], values, out=self.lowest[part])
        np.fmax(self.highest[part], values, out=self.highest[part])
        last, self._last[part] = self._last[part].copy(), values
        measured = np.where(command.measured >= 0, state[command.measured], math.nan)
        step = np.fmin(np.abs(values - last), np.abs(values - measured))
        rest = np.abs(values - command.zero)  # a robot that was told nothing stands there
        step = np.where(np.isnan(last), np.fmin(step, rest), step)
        step[np.isnan(step) | (values == command.zero)] = 0.0
        np.fmax(self.largest_step[part], step, out=self.largest_step[part])
        within = (values >= command.low) & (values <= command.high)  # false for NaN
        if not (within & (step <= command.max_change + TOLERANCE)).all():
            self.outside += 1
            if len(self.violations) < self.MOST:
                found = f"{command.topic}: found {values.tolist()} after {last.tolist()}"
                self.violations.append(f"{found}; expected within limits and max_rate")

    def report(self) -> dict[str, Any]:
        """As plain data: commands, and of each entry of the action what was seen and allowed."""
        values = {}
        for command in self._contract.actions:
            for column, name in enumerate(command.names):
                at = command.start + column
                seen = self.count[self._contract.actions.index(command)] > 0
                change = command.max_change[column]
                values[name] = {
                    "lowest": float(self.lowest[at]) if seen else None,
                    "highest": float(self.highest[at]) if seen else None,
                    "limits": [float(command.low[column]), float(command.high[column])],
                    "largest_step": float(self.largest_step[at]),
                    "max_step": float(change) if math.isfinite(change) else None,
                    "unit": command.units[column],
                }
        return {"commands": sum(self.count), "outside": self.outside, "values": values}
