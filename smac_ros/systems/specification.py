"""What a system is: its arguments, the processes they make, and what every system understands."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smac_core.errors import InputError

SHIPPED = "shipped"


class Argument(NamedTuple):
    """``name:=value`` of a system.

    ``kind``: text, integer, number, boolean, name (of ROS), the path of a file that exists, or run:
    that of a folder that exists, or "shipped". ``low`` is the least number. An empty text or path
    stands for what the description says.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    kind: str = "text"
    low: float = -math.inf

    def parse(self, text: str) -> Any:
        """The value.

        Raises:
            InputError: not of the kind, not among the choices.
        """
        expected = f"one of {', '.join(self.choices)}" if self.choices else self.kind
        try:
            value = _PARSE[self.kind](text)
        except (ValueError, KeyError):
            raise InputError("argument", self.name, repr(text), expected) from None
        if self.choices and text not in self.choices:
            raise InputError("argument", self.name, repr(text), expected)
        if self.kind in ("integer", "number") and not self.low <= value < math.inf:
            raise InputError("argument", self.name, text, f"at least {self.low:g}")
        if self.kind == "file" and text and not Path(text).is_file():
            raise InputError("argument", self.name, f"no file {text}", "one that exists")
        if self.kind == "run" and text not in ("", SHIPPED) and not Path(text).is_dir():
            raise InputError("argument", self.name, f"no folder {text}", "one that exists")
        return value


def _name(text: str) -> str:
    stripped = text.strip("/")
    if stripped and not all(part.isidentifier() for part in stripped.split("/")):
        raise ValueError
    return stripped


_PARSE: dict[str, Callable[[str], Any]] = {
    "text": str,
    "run": str,
    "file": str,
    "name": _name,
    "integer": int,
    "number": float,
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
}


class NodeSpec(NamedTuple):
    """One process of a system.

    Attributes:
        executable: its file in lib/<package>, and its module in the package.
        main: the system ends when it ends, with its exit code.
        required: the system cannot do without it.
    """

    executable: str
    name: str
    parameters: dict[str, Any] = {}
    remappings: Sequence[tuple[str, str]] = ()
    main: bool = False
    namespace: str = ""
    package: str = "smac_ros"
    arguments: Sequence[str] = ()
    required: bool = True


SMOKE = {
    "iterations": "1",
    "tasks_per_iteration": "2",
    "exploration_trajectories": "2",
    "adapted_trajectories": "2",
    "meta_test_tasks": "3",
}


class System(NamedTuple):
    """What can be started by one name."""

    description: str
    arguments: tuple[Argument, ...]
    nodes: Callable[[dict[str, Any]], list[NodeSpec]]  # given an argument's value by its name

    def build(self, arguments: Mapping[str, str]) -> list[NodeSpec]:
        """The system's nodes; arguments that are not given have their defaults.

        Raises:
            InputError: an unknown argument, or a value that cannot be used.
        """
        known = [argument.name for argument in self.arguments]
        for name in arguments:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise InputError("argument", name, "unknown", f"one of {', '.join(known)}{hint}")
        texts = {a.name: arguments.get(a.name, a.default) for a in self.arguments}
        if texts.get("scale") == "smoke":  # ros2 launch gives every argument: a default is no wish
            defaults = {a.name: a.default for a in self.arguments}
            texts |= {n: t for n, t in SMOKE.items() if texts.get(n) == defaults.get(n, ...)}
        values = {a.name: a.parse(texts[a.name]) for a in self.arguments}
        nodes = self.nodes(values)
        if values.get("record"):
            nodes = _recorded(nodes, values["record"])
        if values.get("clock") == "real_time" and values["factor"] != 1:
            nodes = [_on_simulated_time(node) for node in nodes]
        return [node._replace(namespace=values.get("namespace", "")) for node in nodes]


def _recorded(nodes: list[NodeSpec], folder: str) -> list[NodeSpec]:
    """With a recorder of the robot, for whom the episode manager waits."""
    require_new("record", folder)
    contract = next(n.parameters["contract"] for n in nodes if "contract" in n.parameters)
    recorder = NodeSpec(
        "recorder_node", "recorder", {"contract": contract, "out": folder}, required=False
    )
    waits = {"episode_manager": {"recorder": recorder.name}}
    others = [n._replace(parameters=n.parameters | waits.get(n.name, {})) for n in nodes]
    return [recorder, *others]


def require_new(name: str, folder: str) -> None:
    if folder and Path(folder).exists():
        expected = "a new one; nothing is overwritten"
        raise InputError("argument", name, f"the folder {folder}", expected)


def _on_simulated_time(node: NodeSpec) -> NodeSpec:
    """A robot whose seconds are not the clock's publishes its own, and the others go by it."""
    clock = "publish_clock" if node.executable.endswith("sim_node") else "use_sim_time"
    return node._replace(parameters=node.parameters | {clock: True})
