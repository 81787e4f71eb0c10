"""A real robot's nodes, beside its driver or with a mock robot in its place."""

import time
from typing import Any

from smac_core.errors import InputError
from smac_ros.systems.arguments import META_TEST, PRACTICE
from smac_ros.systems.practice import policy_spec, practice_nodes
from smac_ros.systems.runs import check_agent, contract_domain
from smac_ros.systems.specification import SHIPPED, Argument, NodeSpec

REAL_ROBOT = (
    Argument("contract", "sawyer_arm", "A name in config/contracts, or your robot's .yaml file."),
    Argument(
        "checkpoint",
        "",
        "Run folder, or an export's; empty: the shipped one, for domain sawyer.",
        kind="run",
    ),
    Argument("phase", "", "Of the run; empty: the furthest."),
    Argument(
        "mode", "explore", "What the policy does without practice.", ("explore", "adapt", "exploit")
    ),
    Argument(
        "start",
        "false",
        "Move as soon as the robot is found to fit; else ~/start begins.",
        ("true", "false"),
        "boolean",
    ),
    Argument("mock", "false", "A mock robot in its place.", ("true", "false"), "boolean"),
    Argument(
        "kinematics",
        "",
        "The mock robot's: a name in config/mock_robots, or a .yaml file; empty: the contract's.",
    ),
    Argument(
        "operator",
        "none",
        "joystick: a human's, from the topic joy. A keyboard wants a terminal: smac operator.",
        ("none", "joystick"),
    ),
    Argument(
        "teleoperation",
        "operator",
        "Nodes, with commas between, that may publish commands beside the policy: they do so in "
        "takeovers only.",
    ),
    Argument("seconds", "3.0", "To listen to the robot before.", kind="number", low=0.1),
    Argument("patience", "15.0", "Seconds to wait until it is there.", kind="number", low=0.0),
    Argument("iterations", "0", "Of practice without rewards; 0: none.", kind="integer", low=0),
    Argument(
        "reset_by",
        "",
        "Name of the node whose ~/reset sets up the scene between episodes of practice; empty: "
        "someone does, and calls the manager's ~/start.",
    ),
    *(
        argument
        for argument in PRACTICE
        if argument.name
        in (
            *("tasks_per_iteration", "exploration_trajectories", "adapted_trajectories"),
            *("seed", "run", "dataset", "device", "threads", "namespace", "record"),
        )
    ),
    next(argument for argument in META_TEST if argument.name == "horizon"),
)


def real_robot(values: dict[str, Any]) -> list[NodeSpec]:
    """Nodes beside a robot's driver. The policy stays inactive until the robot is seen to fit."""
    contract, checkpoint = values["contract"], values["checkpoint"]
    domain = contract_domain(contract)
    if checkpoint in ("", SHIPPED) and domain != "sawyer":
        expected = f"a run's folder: none is shipped for domain {domain}"
        raise InputError("argument", "checkpoint", repr(checkpoint), expected)
    values = values | {"clock": "real_time"}
    check_agent(checkpoint)
    _check_kinematics(values)
    mocked = {name: values[name] for name in ("contract", "kinematics", "seed")}
    mock = NodeSpec("mock_robot_node", "mock_robot", mocked)
    name = "mock_robot" if values["mock"] else values["reset_by"]
    if values["iterations"]:
        practice = {"meta_test": "none", "meta_test_tasks": 0, "meta_test_repeats": 1}
        practice |= {"results": "", "episodes": 0}
        practice["run"] = values["run"] or time.strftime("runs/robot_%Y%m%d_%H%M%S")
        by_service = {"reset": "service" if name else "manual"}
        robot = mock._replace(name=name or "robot")
        _, policy, *others = practice_nodes(values | practice, robot)
        # a person may take long between two episodes: no iteration ends for that
        more = {"learner": {"patience": 0.0}, "episode_manager": by_service}
        others = [n._replace(parameters=n.parameters | more.get(n.name, {})) for n in others]
    else:
        policy, others = policy_spec(values, values["phase"]), []
        policy = policy._replace(parameters=policy.parameters | {"mode": values["mode"]})
    humans = {"teleoperation": [name.strip() for name in values["teleoperation"].split(",")]}
    policy = policy._replace(parameters=policy.parameters | humans | {"autostart": False})
    looks = {name: values[name] for name in ("contract", "seconds", "patience")} | humans
    starts = values["start"] and not values["iterations"]  # else the manager begins
    preflight = NodeSpec("preflight_node", "preflight", looks | {"start": starts})
    if values["operator"] != "none":
        human = {"contract": contract, "input": values["operator"]}
        others.append(NodeSpec("operator_node", "operator", human))
    nodes = [mock] if values["mock"] else []
    return [*nodes, policy, preflight, *others]


def _check_kinematics(values: dict[str, Any]) -> None:
    """Raises InputError unless there are such a mock robot's, where one is wanted."""
    kinematics = values["kinematics"]
    if not values["mock"]:
        if kinematics:
            raise InputError("argument", "kinematics", kinematics, "it only with mock:=true")
        return
    from smac_ros.contract import load_contract
    from smac_ros.mock_robot import load_mock_robot

    load_mock_robot(kinematics, load_contract(values["contract"]))
