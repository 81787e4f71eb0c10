"""What an operator's keys, buttons and axes do: YAML files in config/operators. Knows no ROS.

``Controls`` turn what is pressed into orders, a success that is shown or not, and the jogging of
the contract's actions.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from smac_core.config import config_directory
from smac_core.errors import InputError
from smac_ros.contract import Contract
from smac_ros.contract_errors import parse_yaml, problem

INPUTS = ("keyboard", "joystick")
NAMED_KEYS = (
    *("space", "enter", "tab", "escape", "backspace"),
    *("up", "down", "left", "right", "page_up", "page_down"),
)

Order = Literal[
    "emergency_stop",
    "release_emergency_stop",
    "pause",
    "takeover",
    "resume",
    "end_success",
    "end_failure",
]
Number = Annotated[int, Field(strict=True, ge=0)]  # of a button or an axis
Share = Annotated[float, Field(gt=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Keys(_Section):
    """Keys that exist."""

    @model_validator(mode="after")
    def _keys_exist(self) -> "_Keys":
        for name in ("press", "plus", "minus"):
            _check_key((name,), getattr(self, name, "a"))
        return self


def _check_key(at: tuple, key: str) -> None:
    if key not in NAMED_KEYS and not (len(key) == 1 and key.isprintable() and key != " "):
        expected = f"one character, or one of {', '.join(NAMED_KEYS)}"
        raise problem(at, repr(key), expected)


class KeySuccess(_Keys):
    """The key that shows success: while it is held, or until it is pressed again."""

    press: str
    how: Literal["held", "toggled"]


class KeyJog(_Keys):
    """Two keys that move one action up and down."""

    action: int | str
    plus: str
    minus: str
    speed: Share


class ButtonSuccess(_Section):
    """The button that shows success."""

    press: Number
    how: Literal["held", "toggled"]


class AxisJog(_Section):
    """An axis that moves one action."""

    action: int | str
    axis: Number
    speed: Share
    invert: bool = False


class KeyboardFile(_Section):
    """All of a keyboard's file."""

    input: Literal["keyboard"]
    orders: dict[Order, str]
    success: KeySuccess | None = None
    jog: tuple[KeyJog, ...] = ()

    @model_validator(mode="after")
    def _each_key_once(self) -> "KeyboardFile":
        for order, key in self.orders.items():
            _check_key(("orders", order), key)
        used = [(("orders", order), key) for order, key in self.orders.items()]
        used += [(("success", "press"), self.success.press)] if self.success else []
        for index, jog in enumerate(self.jog):
            used += [(("jog", index, "plus"), jog.plus), (("jog", index, "minus"), jog.minus)]
        _check_orders(self.orders)
        _check_once(used)
        return self


class JoystickFile(_Section):
    """All of a joystick's file."""

    input: Literal["joystick"]
    orders: dict[Order, Number]
    success: ButtonSuccess | None = None
    deadman: Number | None = None
    deadzone: Annotated[float, Field(ge=0, lt=1)] = 0.1
    jog: tuple[AxisJog, ...] = ()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "JoystickFile":
        used = [(("orders", order), button) for order, button in self.orders.items()]
        used += [(("success", "press"), self.success.press)] if self.success else []
        used += [(("deadman",), self.deadman)] if self.deadman is not None else []
        _check_orders(self.orders)
        _check_once(used)
        _check_once([(("jog", index, "axis"), jog.axis) for index, jog in enumerate(self.jog)])
        if self.jog and self.deadman is None:
            expected = "the button that has to be held while the robot is jogged"
            raise problem(("deadman",), "nothing", expected)
        return self


Mapping = KeyboardFile | JoystickFile


def _check_orders(orders: dict[Order, Any]) -> None:
    if "emergency_stop" not in orders:
        raise problem(("orders",), f"{', '.join(orders) or 'none'}", "emergency_stop among them")


def _check_once(used: Sequence[tuple[tuple, Any]]) -> None:
    seen: dict[Any, tuple] = {}
    for at, what in used:
        if what in seen:
            raise problem(at, f"{what!r}, as {'.'.join(map(str, seen[what]))} has", "another one")
        seen[what] = at


def mappings() -> list[str]:
    """Names of the mappings that come with the package."""
    return sorted(path.stem for path in (config_directory() / "operators").glob("*.yaml"))


def load_mapping(name_or_path: str, kind: str, contract: Contract) -> Mapping:
    """A file of config/operators by its name, or by its path; an empty name: the input's own.

    Args:
        kind: keyboard or joystick.
        contract: whose actions are jogged.

    Raises:
        InputError: no such file, one that is not valid, of the other input, or with the name of
            an action that the contract lacks.
    """
    if kind not in INPUTS:
        raise InputError("operator", "input", repr(kind), f"one of {', '.join(INPUTS)}")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = config_directory() / "operators" / f"{name_or_path or kind}.yaml"
        if not path.is_file():
            close = difflib.get_close_matches(name_or_path, mappings(), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = f"one of {', '.join(mappings())}, or the path of a .yaml file{hint}"
            raise InputError("mapping", "name", repr(name_or_path), known)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "file", error, "a YAML file of an operator's keys") from None
    model = KeyboardFile if kind == "keyboard" else JoystickFile
    mapping = parse_yaml(text, path, model, "input, orders, ...", {})
    for index, jog in enumerate(mapping.jog):
        if isinstance(jog.action, str) and jog.action not in contract.action_names:
            known = ", ".join(contract.action_names)
            expected = f"one of {known}, of contract {contract.name}, or a number from 1"
            raise InputError(path, f"jog[{index}].action", repr(jog.action), expected)
        if isinstance(jog.action, int) and jog.action < 1:
            raise InputError(path, f"jog[{index}].action", jog.action, "a number from 1, or a name")
    return mapping


def describe(mapping: Mapping, contract: Contract) -> list[tuple[str, str]]:
    """(what is pressed, what it does), for people."""
    button = "" if isinstance(mapping, KeyboardFile) else "button "
    rows = [(f"{button}{what}", order.replace("_", " ")) for order, what in mapping.orders.items()]
    if mapping.success is not None:
        how = "while held" if mapping.success.how == "held" else "on and off"
        rows.append((f"{button}{mapping.success.press}", f"success, {how}"))
    if isinstance(mapping, JoystickFile) and mapping.deadman is not None:
        rows.append((f"button {mapping.deadman}", "hold it to move the robot in a takeover"))
    for jog in mapping.jog:
        entry = _entry(jog.action, contract)
        if entry is not None:
            keys = f"{jog.plus} {jog.minus}" if isinstance(jog, KeyJog) else f"axis {jog.axis}"
            rows.append((keys, f"takeover: {contract.action_names[entry]} + -"))
    return rows


def _entry(action: int | str, contract: Contract) -> int | None:
    """Index in the action vector; None: the contract has not so many."""
    if isinstance(action, str):
        return contract.action_names.index(action)
    return action - 1 if action <= contract.action_dim else None


class Controls:
    """What the operator presses, over time (monotonic, s).

    Args:
        hold: a key counts as held so long after it was last typed, s: terminals repeat keys.
        patience: a joystick that says nothing for so long is held by nobody, s.
    """

    def __init__(self, mapping: Mapping, contract: Contract, hold: float, patience: float):
        self._mapping, self._hold, self._patience = mapping, hold, patience
        self._size = contract.action_dim
        self._orders = {what: order for order, what in mapping.orders.items()}
        self._jogs = [
            (entry, jog)
            for jog in mapping.jog
            if (entry := _entry(jog.action, contract)) is not None
        ]
        self._typed: dict[str, float] = {}  # key -> when
        self._buttons: tuple[bool, ...] | None = None
        self._axes: np.ndarray = np.zeros(0)
        self._heard = -np.inf
        self._toggled = False

    def reset(self) -> None:
        """An episode begins: nothing was a success yet."""
        self._toggled = False

    @property
    def gives_rewards(self) -> bool:
        """Whether success can be shown."""
        return self._mapping.success is not None or bool(
            {"end_success", "end_failure"} & self._mapping.orders.keys()
        )

    def type(self, key: str, now: float) -> list[Order]:
        """A key of the keyboard; the orders it gives."""
        self._typed[key] = now
        success = self._mapping.success
        if success is not None and success.how == "toggled" and key == success.press:
            self._toggled = not self._toggled
        return [self._orders[key]] if key in self._orders else []

    def hear(self, buttons: Sequence[int], axes: Sequence[float], now: float) -> list[Order]:
        """A message of the joystick; the orders of the buttons that have just been pressed.

        What is held when the first message comes was not pressed now, but for an emergency stop.
        """
        pressed = tuple(bool(button) for button in buttons)
        before = self._buttons or ()
        new = [
            number
            for number, down in enumerate(pressed)
            if down and not (number < len(before) and before[number])
        ]
        orders = [self._orders[number] for number in new if number in self._orders]
        if self._buttons is None:
            orders = [order for order in orders if order == "emergency_stop"]
        success = self._mapping.success
        if success is not None and success.how == "toggled" and success.press in new:
            self._toggled = not self._toggled
        self._buttons, self._heard = pressed, now
        self._axes = np.asarray(axes, float)
        return orders

    def silent(self, now: float) -> bool:
        """Whether the joystick, if it is one, has died."""
        return isinstance(self._mapping, JoystickFile) and now - self._heard > self._patience

    def lacks(self) -> str:
        """What the mapping names and the joystick has not; empty: nothing."""
        mapping = self._mapping
        if not isinstance(mapping, JoystickFile) or self._buttons is None:
            return ""
        buttons = [*mapping.orders.values(), -1 if mapping.deadman is None else mapping.deadman]
        buttons.append(-1 if mapping.success is None else mapping.success.press)
        axes = max((jog.axis for _, jog in self._jogs), default=-1)
        if max(buttons) >= len(self._buttons):
            return f"button {max(buttons)}: it has {len(self._buttons)}"
        return f"axis {axes}: it has {len(self._axes)}" if axes >= len(self._axes) else ""

    def shows_success(self, now: float) -> bool:
        """Whether the operator shows success."""
        success = self._mapping.success
        if success is None or self.silent(now):
            return False
        return self._toggled if success.how == "toggled" else self._held(success.press, now)

    def _held(self, what: str | int, now: float) -> bool:
        if isinstance(what, str):
            return now - self._typed.get(what, -np.inf) < self._hold
        return self._buttons is not None and what < len(self._buttons) and self._buttons[what]

    def may_move(self, now: float) -> bool:
        """Whether the dead-man button is held; keys have none."""
        if isinstance(self._mapping, KeyboardFile):
            return True
        deadman = self._mapping.deadman
        return deadman is not None and not self.silent(now) and self._held(deadman, now)

    def jog(self, now: float) -> np.ndarray:
        """[da] in [-1, 1]: how fast each action is to move."""
        speeds = np.zeros(self._size)
        if not self.may_move(now):
            return speeds
        for entry, jog in self._jogs:
            if isinstance(jog, KeyJog):
                way = float(self._held(jog.plus, now)) - float(self._held(jog.minus, now))
            else:
                way = self._axis(jog.axis) * (-1 if jog.invert else 1)
            speeds[entry] = jog.speed * way
        return speeds

    def _axis(self, number: int) -> float:
        """In [-1, 1]; from 0 on beyond the dead zone, so that nothing jumps at its edge."""
        if number >= len(self._axes) or not np.isfinite(self._axes[number]):
            return 0.0
        value, zone = float(np.clip(self._axes[number], -1, 1)), self._mapping.deadzone
        return np.sign(value) * max(abs(value) - zone, 0.0) / (1 - zone)
