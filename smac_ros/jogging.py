"""A human's jogging as commands within the contract's limits. Knows no ROS."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from smac_ros.contract import CommandReader, CommandWriter, Contract, MessageError


class Jogging:
    """Moves the contract's commands at the speeds that an operator asks for.

    Velocities are commanded as such, from their ``zero``; positions (``zero: hold``) go on from
    where the robot is: from what is ``measured``, else from the command that was sent last. Where
    neither is known they are not commanded.

    Args:
        classes: of the commands' messages, by type.
    """

    def __init__(self, contract: Contract, classes: Mapping[str, Callable[[], Any]]):
        self.contract = contract
        self._writer = CommandWriter(contract, classes)
        self._reader = CommandReader(contract)
        columns = [
            np.concatenate([getattr(command, key) for command in contract.actions])
            for key in ("scale", "offset", "low", "high", "zero", "measured")
        ]
        self._scale, self._offset, self._low, self._high, self._zero, self._measured = columns
        self._held = np.isnan(self._zero)
        self._heard = np.full(contract.action_dim, np.nan)  # what was commanded last, by anyone
        self._parts = [slice(c.start, c.start + c.width) for c in contract.actions]
        self._target = np.full(contract.action_dim, np.nan)
        self.started = False

    def hear(self, index: int, message: Any) -> None:
        """Command ``index`` of whoever commands; raises MessageError."""
        values = self._reader.values(index, message)
        if not np.isfinite(values).all():
            raise MessageError(self.contract.actions[index].topic, "NaN or infinity")
        self._heard[self._parts[index]] = values

    def begin(self) -> None:
        """A takeover: nothing is commanded until the operator jogs."""
        self.started = False

    def _start(self, observation: np.ndarray) -> None:
        measured = np.where(self._measured >= 0, observation[self._measured], np.nan)
        told = np.where(self._held, self._heard, self._zero)
        self._target = np.where(np.isnan(measured), told, measured)
        for index, part in enumerate(self._parts):
            self._writer.follow(index, self._target[part])
        self.started = True

    @property
    def unknown(self) -> list[str]:
        """Actions that cannot be jogged: nothing tells where they are."""
        lost = np.isnan(self._target)
        return [n for n, missing in zip(self.contract.action_names, lost, strict=True) if missing]

    def _known(self, messages: list[Any | None]) -> list[Any | None]:
        """Without the commands of which a part is not known."""
        return [
            None if np.isnan(self._target[part]).any() else message
            for part, message in zip(self._parts, messages, strict=True)
        ]

    def move(
        self, speeds: np.ndarray, observation: np.ndarray, elapsed: float, stamp: int
    ) -> list[Any | None]:
        """Messages of one control step, None for those that are not to be sent.

        Args:
            speeds: [da] in [-1, 1]: of a velocity's limit; of a position's range, a second.
            observation: [ds] float64, the newest of every column; NaN: none yet.
            elapsed: since the last step, s.
            stamp: ns.
        """
        if not self.started:
            if not speeds.any():
                return [None] * len(self._parts)
            self._start(observation)
        speeds = speeds * np.sign(self._scale)  # of the values: an action may count downwards
        reach = np.where(speeds > 0, self._high - self._zero, self._zero - self._low)
        moved = self._target + speeds * (self._high - self._low) * elapsed
        wanted = np.where(self._held, moved, self._zero + speeds * np.nan_to_num(reach))
        lost = np.isnan(wanted)
        action = (np.where(lost, self._low, wanted) - self._offset) / self._scale
        values = self._writer.encode(action, elapsed, observation)
        messages = self._writer.fill(values, stamp)
        self._target = np.where(lost, np.nan, values)
        return self._known(messages)

    def stand(self, stamp: int) -> list[Any | None]:
        """The safe command, at once; None for what was not commanded."""
        if not self.started:
            return [None] * len(self._parts)
        return self._known(self._writer.fill_safe(stamp))
