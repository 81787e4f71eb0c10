"""Who commands the robot: its policy, nobody, or a human. Knows no ROS.

An emergency stop outranks a takeover, a takeover a pause. Whatever is over leaves a pause behind:
nothing but ``resume`` lets the policy act again, and an emergency stop must be released before.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from smac_core.errors import InputError

State = Literal["policy", "paused", "human", "emergency_stop"]
STATES: tuple[State, ...] = ("policy", "paused", "human", "emergency_stop")
_WORDS = {"paused": "paused", "human": "taken over", "emergency_stop": "emergency stop"}


@dataclass(frozen=True)
class Order:
    """What a human wants; ``by`` whom or what it was told, ``since`` when, s since the epoch."""

    by: str
    since: float

    def __str__(self) -> str:
        return f"by {self.by}, since {time.strftime('%H:%M:%S', time.localtime(self.since))}"


class Authority:
    """Orders of humans to one policy.

    Args:
        name: of the node, for errors.
        clock: s since the epoch.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.time):
        self._name, self._clock = name, clock
        self._orders: dict[State, Order] = {}
        self._stop_said = self._takeover_said = False  # the last words on the two topics

    @property
    def state(self) -> State:
        """Who commands."""
        return next((state for state in reversed(STATES) if state in self._orders), "policy")

    @property
    def reason(self) -> str:
        """The state with by whom and since when; empty: the policy commands."""
        state = self.state
        return "" if state == "policy" else f"{_WORDS[state]} {self._orders[state]}"

    def _order(self, state: State, by: str) -> None:
        """The first who asks for it is remembered."""
        self._orders.setdefault(state, Order(by, self._clock()))

    def stop(self, by: str) -> None:
        """An emergency stop, until ``release``."""
        self._order("emergency_stop", by)
        self._order("paused", by)

    def hear_stop(self, said: bool, by: Callable[[], str]) -> None:
        """A word on the topic of emergency stops; false releases nothing."""
        self._stop_said = said
        if said and "emergency_stop" not in self._orders:
            self.stop(by())

    def release(self) -> None:
        """The emergency stop is over; what remains is a takeover that was going on, or a pause.

        Raises:
            InputError: there is none, or the topic's last word is true.
        """
        if "emergency_stop" not in self._orders:
            raise InputError(self._name, "emergency stop", "none", "one to release")
        if self._stop_said:
            expected = "false: let go of the button first"
            raise InputError("emergency_stop", "last message", "true", expected)
        del self._orders["emergency_stop"]

    def pause(self, by: str) -> None:
        self._order("paused", by)

    def take_over(self, by: str) -> None:
        self._order("human", by)
        self._order("paused", by)

    def hear_takeover(self, said: bool, by: Callable[[], str]) -> None:
        """A word on the topic of takeovers; false ends what true has begun: a pause remains."""
        before, self._takeover_said = self._takeover_said, said
        if said and "human" not in self._orders:
            self.take_over(by())
        elif before and not said:
            self._orders.pop("human", None)

    def resume(self) -> None:
        """The policy commands again.

        Raises:
            InputError: an emergency stop, or the topic of takeovers still says true.
        """
        if "emergency_stop" in self._orders:
            expected = "none: ~/release_emergency_stop first"
            raise InputError(self._name, "resume", self.reason, expected)
        if self._takeover_said:
            raise InputError("takeover", "last message", "true", "false: give the robot back first")
        self._orders.clear()
