"""The simulated Sawyer: practice, and the meta-test alone."""

from pathlib import Path
from typing import Any

from smac_core.config import config_directory
from smac_core.errors import InputError
from smac_ros.systems.arguments import (
    CHECKPOINT,
    CLOCK,
    CONTRACT,
    FACTOR,
    META_TEST,
    NAMESPACE,
    PRACTICE,
    RECORD,
    SCALE,
    SEED,
)
from smac_ros.systems.practice import policy_spec, practice_nodes
from smac_ros.systems.runs import check_agent, check_contract
from smac_ros.systems.specification import Argument, NodeSpec

_RVIZ = Argument("rviz", "false", "Open RViz.", ("true", "false"), "boolean")
_OPERATOR = Argument(
    "operator",
    "none",
    "Who rewards held-out tasks, and may stop and take over, in real_time; keyboard: by smac "
    "operator in a terminal of its own; none: the robot rewards.",
    ("none", "keyboard", "joystick"),
)
SAWYER = (CHECKPOINT, *PRACTICE, CONTRACT, _RVIZ, _OPERATOR)
SAWYER_TEST = (
    CHECKPOINT,
    SCALE,
    Argument("phase", "", "Of the run; empty: the furthest."),
    *META_TEST,
    SEED,
    Argument("results", "", "Folder for the meta-test's JSON; empty: none."),
    CLOCK,
    FACTOR,
    CONTRACT,
    NAMESPACE,
    _RVIZ,
    _OPERATOR,
    RECORD,
)


def sawyer_sim(values: dict[str, Any]) -> list[NodeSpec]:
    return _operated(practice_nodes(values, _robot(values)), values) + _rviz(values)


def meta_test(values: dict[str, Any]) -> list[NodeSpec]:
    names = ("contract", "checkpoint", "clock", "seed", "horizon", "results")
    manager = {name: values[name] for name in names} | {
        "robot": "sawyer_sim",
        "iterations": 0,
        "meta_test": "before",
        "meta_test_tasks": values["meta_test_tasks"],
        "meta_test_repeats": values["meta_test_repeats"],
    }
    main = NodeSpec("episode_manager_node", "episode_manager", manager, main=True)
    nodes = [_robot(values), policy_spec(values, values["phase"]), main]
    return _operated(nodes, values) + _rviz(values)


def _operated(nodes: list[NodeSpec], values: dict[str, Any]) -> list[NodeSpec]:
    """With an operator, whose rewards are the meta-test's; a keyboard's runs in a terminal."""
    device = values["operator"]
    if device == "none":
        return nodes
    if values["clock"] != "real_time":
        raise InputError("argument", "operator", device, "none, or clock:=real_time: for humans")
    *others, manager = nodes
    manager = manager._replace(parameters=manager.parameters | {"rewards": "operator"})
    if device == "joystick":
        human = {"contract": values["contract"], "input": device}
        others.append(NodeSpec("operator_node", "operator", human))
    return [*others, manager]


def _robot(values: dict[str, Any]) -> NodeSpec:
    check_contract(values["contract"])
    check_agent(values["checkpoint"])
    parameters = {name: values[name] for name in ("contract", "clock", "factor")}
    return NodeSpec("sawyer_sim_node", "sawyer_sim", parameters)


def _rviz(values: dict[str, Any]) -> list[NodeSpec]:
    if not values["rviz"]:
        return []
    view = _rviz_view()
    if not view.is_file():
        raise InputError(view, "file", "nothing", "what RViz is to show, or rviz:=false")
    own_frames = (("/tf", "tf"), ("/tf_static", "tf_static"))  # of the robot in the namespace
    return [
        NodeSpec(
            "rviz2",
            "rviz2",
            package="rviz2",
            arguments=("-d", str(view)),
            remappings=own_frames,
            required=False,
        )
    ]


def _rviz_view() -> Path:
    return config_directory() / "rviz" / "sawyer.rviz"
