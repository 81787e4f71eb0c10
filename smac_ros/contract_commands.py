"""Actions to command messages, with the safety limits, and command messages back to actions.

Use them through ``smac_ros.contract``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from smac_ros.message_paths import compile_reader, compile_writer, prepare
from smac_ros.message_types import has_header, message_class

if TYPE_CHECKING:
    from smac_ros.contract import Command, Contract

REPEATED = 1.0  # s for which a stop repeats what it holds, in case a message was lost


class CommandWriter:
    """The action vector's way into messages; one per policy, its messages are reused.

    Args:
        message_classes: of every command's type, by name: anything that, called without
            arguments, gives an empty message. Types of parts (a trajectory's points) may be left
            out where they are installed.

    Attributes:
        limited: how many values were held back by limits, max_step, max_rate or max_lead so far.
    """

    def __init__(
        self, contract: Contract, message_classes: Mapping[str, Callable[[], Any]]
    ) -> None:
        self.contract = contract
        commands = contract.actions
        self._scale, self._offset, self._low, self._high = (
            np.concatenate([getattr(command, key) for command in commands])
            for key in ("scale", "offset", "low", "high")
        )
        self._change, self._rate, self._zero = (
            np.concatenate([getattr(command, key) for command in commands])
            for key in ("max_change", "max_rate", "zero")
        )
        self._period = 1 / contract.rate
        self._messages = [_template(command, message_classes) for command in commands]
        self._writers = [
            [(compile_writer(command.type, path), part) for path, part in command.fields]
            for command in commands
        ]
        self._stamps = [
            message.header.stamp if command.time == "header" else None
            for command, message in zip(commands, self._messages, strict=True)
        ]
        self.limited = 0
        self._held = np.isnan(self._zero)
        measured = np.concatenate([command.measured for command in commands])
        self._start = np.flatnonzero(measured >= 0)
        self._measured = measured[self._start]
        self._lead = np.concatenate([command.max_lead for command in commands])[self._start]
        self._led = bool(np.isfinite(self._lead).any())
        self._last = np.full_like(self._zero, np.nan)  # NaN: unknown
        self._sent = np.zeros(len(self._zero), bool)  # what may be repeated
        self.reset()

    def reset(self, observation: np.ndarray | None = None) -> None:
        """A new episode, which starts at ``observation`` [ds]: nothing was commanded yet.

        The first command's change is counted from what is ``measured``; else from ``zero``, at
        which a robot that is told nothing stands; else (``zero: hold``) from the last command, if
        there was one, and without one the value may be anywhere within its limits.
        """
        np.copyto(self._last, self._zero, where=~self._held)
        if observation is not None:
            self._last[self._start] = observation[self._measured]
        self._sent[:] = False

    def let_go(self) -> None:
        """Others may move the robot from now on: nothing of the past is to be repeated.

        ``encode`` counts the next change from what is ``measured``, if it is told.
        """
        self._sent[:] = False

    def follow(self, index: int, values: np.ndarray) -> None:
        """Others have sent ``values`` [width] as command ``index``: go on from there."""
        command = self.contract.actions[index]
        part = slice(command.start, command.start + command.width)
        self._last[part], self._sent[part] = values, True

    def encode(
        self,
        action: np.ndarray,
        elapsed: float | None = None,
        observation: np.ndarray | None = None,
    ) -> np.ndarray:
        """Message values [da] float64 of an action [da]: scale * action + offset, within limits.

        The change is limited against the values that ``fill`` sent last, ``elapsed`` seconds ago;
        ``max_rate`` counts at most one period, also after a pause. ``observation`` [ds]: with it
        values stay within ``max_lead`` of what is ``measured``; where the last one is farther off,
        for the robot did not follow, the change counts from the edge.

        Raises:
            ValueError: another shape, or numbers that are not finite.
        """
        if action.shape != self._scale.shape:
            raise ValueError(f"action has shape {action.shape}, expected {self._scale.shape}")
        if not math.isfinite(np.add.reduce(action)):
            raise ValueError(f"action is not finite: {action.tolist()}")
        wanted = np.multiply(action, self._scale, dtype=np.float64)
        wanted += self._offset
        values = np.minimum(np.maximum(wanted, self._low), self._high)
        change = self._change
        if elapsed is not None and elapsed < self._period:
            change = np.minimum(change, self._rate * max(elapsed, 1e-9))
        last, led = self._last, self._start
        looks = observation is not None and (self._led or not self._sent.all())
        if looks:
            measured = observation[self._measured].astype(np.float64)
            lowest, highest = measured - self._lead, measured + self._lead
            near = np.where(self._sent[led], last[led], measured)
            last = last.copy()
            last[led] = np.fmin(np.fmax(near, lowest), highest)
        # fmin and fmax leave values alone where the last one is unknown, NaN
        np.fmin(values, last + change, out=values)
        np.fmax(values, last - change, out=values)
        if looks:
            values[led] = np.fmin(np.fmax(values[led], lowest), highest)
        self.limited += int(np.count_nonzero(values != wanted))
        return values

    def fill(self, values: np.ndarray, stamp_ns: int) -> list[Any]:
        """The messages of values [da], one per command, with stamp and frame set.

        They are the same objects each time: publish them before the next call.

        Raises:
            ValueError: numbers that are not finite.
        """
        numbers = values.tolist()
        if not math.isfinite(sum(numbers)):
            raise ValueError(f"command is not finite: {numbers}")
        np.copyto(self._last, values)
        self._sent[:] = True
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        for message, writers, stamp in zip(
            self._messages, self._writers, self._stamps, strict=True
        ):
            for write, part in writers:
                write(message, numbers[part])
            if stamp is not None:
                stamp.sec, stamp.nanosec = seconds, nanoseconds
        return self._messages

    def fill_safe(self, stamp_ns: int) -> list[Any | None]:
        """As ``fill``, with the values that stop the robot, by the contract's ``safety``.

        None for a command that is not to be sent: safety is "none", or it repeats values of which
        none were sent since the last ``reset``. ``max_step``, ``max_rate`` and ``max_lead`` do not
        apply: a stop is immediate.
        """
        values = self._safe()
        if values is None:
            return [None] * len(self._messages)
        unknown, last, sent = np.isnan(values), self._last.copy(), self._sent.copy()
        messages = self.fill(np.where(unknown, self._low, values), stamp_ns)
        np.copyto(self._last, last, where=unknown)
        np.copyto(self._sent, sent, where=unknown)
        parts = [slice(c.start, c.start + c.width) for c in self.contract.actions]
        return [
            None if unknown[part].any() else message
            for part, message in zip(parts, messages, strict=True)
        ]

    def is_safe(self, index: int, values: np.ndarray) -> bool:
        """Whether the safe command would change nothing after command ``index``, [width]."""
        command, safe = self.contract.actions[index], self._safe()
        if safe is None:
            return True
        part = safe[command.start : command.start + command.width]
        return np.array_equal(np.where(np.isnan(part), values, part), values)

    def _safe(self) -> np.ndarray | None:
        """Safe values [da], NaN where they would repeat what is not known; None: send none."""
        if self.contract.safety == "none":
            return None
        repeated = np.where(self._sent, self._last, np.nan)
        if self.contract.safety == "hold":
            return repeated
        return np.where(np.isnan(self._zero), repeated, self._zero)


class CommandReader:
    """Command messages back to the action vector: for robots, and to label what was recorded."""

    def __init__(self, contract: Contract) -> None:
        self._commands = contract.actions
        self._readers = [
            [
                (compile_reader(command.type, path), slice(part.start - start, part.stop - start))
                for path, part in command.fields
            ]
            for command in contract.actions
            for start in (command.start,)
        ]
        self._scale = np.concatenate([command.scale for command in contract.actions])
        self._offset = np.concatenate([command.offset for command in contract.actions])

    def values(self, index: int, message: Any) -> np.ndarray:
        """The numbers [width] float64 in a message of command ``index``, in message units.

        Raises:
            MessageError: the message lacks some.
        """
        out = np.empty(self._commands[index].width)
        for read, part in self._readers[index]:
            read(message, out[part])
        return out

    def refusal(self, index: int, values: np.ndarray, message: Any) -> tuple[str, str] | None:
        """Why a robot must not follow command ``index``: what to count, and the cause; or None."""
        command = self._commands[index]
        if not np.isfinite(values).all():
            found = f"{command.topic}: found {values.tolist()}, expected finite numbers"
            return "unreadable commands", found
        if command.frame and message.header.frame_id != command.frame:
            found = f"frame {message.header.frame_id!r}, expected {command.frame!r}"
            return "commands in another frame", f"{command.topic}: {found}"
        return None

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Actions [..., da] float32 of message values [..., da]: (value - offset) / scale.

        The very action that ``encode`` was given, where no limit held it back. With an offset,
        actions nearer to 0 than about 1e-8 * |offset / scale| lose bits in the sum; they come
        back within 1e-15 * |offset / scale|.
        """
        return ((values - self._offset) / self._scale).astype(np.float32)


def _template(command: Command, message_classes: Mapping[str, Callable[[], Any]]) -> Any:
    def make(type_name: str) -> Any:
        if type_name in message_classes:
            return message_classes[type_name]()
        return message_class(type_name)()

    message = make(command.type)
    for path, _ in command.fields:
        prepare(message, command.type, path, make)
    if has_header(command.type):
        message.header.frame_id = sys.intern(command.frame)
    if command.time_from_start_ns is not None:
        duration = message.points[0].time_from_start
        duration.sec, duration.nanosec = divmod(command.time_from_start_ns, 1_000_000_000)
    return message
