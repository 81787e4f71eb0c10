"""A human's commands in a takeover, as the policy hears them. Knows no ROS."""

import time
from typing import Any

from smac_ros.contract import CommandReader, CommandWriter, Contract, MessageError


class HumanCommands:
    """Follows a human's commands: nobody may fall silent and leave the robot moving.

    Args:
        writer: of the policy, which goes on from what the human has commanded.
    """

    def __init__(self, contract: Contract, writer: CommandWriter, diagnostics: Any):
        self._contract, self._writer, self._diagnostics = contract, writer, diagnostics
        self._reader = CommandReader(contract)
        self._moved: list[float | None] = []  # when a command came that moves; None: it stands

    @property
    def moving(self) -> bool:
        """Whether the last command of some topic is another than the safe one."""
        return any(at is not None for at in self._moved)

    def begin(self) -> None:
        """A takeover: the human may do anything, so nothing of the past is to be repeated."""
        self._moved = [None] * len(self._contract.actions)
        self._writer.let_go()

    def hear(self, index: int, message: Any) -> None:
        """Command ``index`` on its topic; also the policy's own safe ones, which move nothing."""
        topic = self._contract.actions[index].topic
        try:
            values = self._reader.values(index, message)
        except MessageError as error:
            self._diagnostics.count("unreadable commands", f"{topic}: {error}")
            return
        if (refusal := self._reader.refusal(index, values, message)) is not None:
            self._diagnostics.count(*refusal)  # the robot does not follow it either
            return
        self._writer.follow(index, values)
        safe = self._writer.is_safe(index, values)
        self._moved[index] = None if safe else time.monotonic()

    def fallen_silent(self, now: float) -> list[int]:
        """Commands that have moved the robot and have not come again within the watchdog's time.

        Each is told once; it counts as standing from now on.
        """
        fallen = []
        for index, at in enumerate(self._moved):
            if at is not None and now - at > self._contract.watchdog:
                text = f"{self._contract.actions[index].topic}: no command of the human for "
                text += f"{now - at:.3f} s while the robot moved"
                self._diagnostics.count("takeovers fallen silent", text)
                self._moved[index] = None
                fallen.append(index)
        return fallen
