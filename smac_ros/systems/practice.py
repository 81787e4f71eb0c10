"""A robot that practises without rewards, and is tested on held-out tasks."""

import math
import time
from typing import Any

from smac_ros.systems.runs import check_agent, configuration, is_run
from smac_ros.systems.specification import NodeSpec


def practice_nodes(values: dict[str, Any], robot: NodeSpec) -> list[NodeSpec]:
    """The robot, and what practises with it and tests it."""
    values = values | _iterations(values)
    check_agent(values["checkpoint"], practises=values["iterations"] > 0)
    run = values["run"] or time.strftime(f"runs/{robot.name}_%Y%m%d_%H%M%S")
    clock, contract, seed = (values[name] for name in ("clock", "contract", "seed"))
    checkpoint = values["checkpoint"]
    common = {"contract": contract, "checkpoint": checkpoint}
    numbers = ("tasks_per_iteration", "exploration_trajectories", "adapted_trajectories", "horizon")
    labeler = common | {
        "phase": "offline",
        "dataset": values["dataset"],
        "clock": clock,
        "seed": seed,
    }
    learner = common | {
        "run": run,
        "dataset": values["dataset"],
        "device": values["device"],
        "threads": values["threads"],
        "seed": seed,
        "set": _changes(values),
    }
    manager = common | {
        "clock": clock,
        "seed": seed,
        "robot": robot.name,
        "results": values["results"] or f"{run}/meta_test",
        "start": values["start"],
        **{name: values[name] for name in (*numbers, "iterations", "meta_test")},
        **{name: values[name] for name in ("meta_test_tasks", "meta_test_repeats")},
    }
    phase = "offline" if is_run(checkpoint) else ""  # an export has its own
    nodes = [robot, policy_spec(values, phase)]
    if values["iterations"]:
        nodes += [
            NodeSpec("reward_labeler_node", "reward_labeler", labeler),
            NodeSpec("learner_node", "learner", learner),
        ]
    elif not values["results"]:
        manager["results"] = ""  # without practice there is no run to put them into
    nodes.append(NodeSpec("episode_manager_node", "episode_manager", manager, main=True))
    return nodes


def policy_spec(values: dict[str, Any], phase: str) -> NodeSpec:
    """The policy's node; ``phase`` of the run, empty: the furthest."""
    parameters = {
        "contract": values["contract"],
        "clock": values["clock"],
        "checkpoint": values["checkpoint"] or "shipped",
        "phase": phase,
    }
    return NodeSpec("policy_node", "policy", parameters)


def _iterations(values: dict[str, Any]) -> dict[str, int]:
    """What ``episodes`` of practice are in iterations and, for less than one, in tasks."""
    episodes = values["episodes"]
    if not episodes:
        return {}
    practice = configuration(values["checkpoint"])["self_supervised"]
    tasks = values["tasks_per_iteration"] or practice["tasks_per_iteration"]
    explored = values["exploration_trajectories"] or practice["exploration_trajectories"]
    adapted = values["adapted_trajectories"]
    each = explored + (practice["adapted_trajectories"] if adapted < 0 else adapted)
    tasks = min(tasks, math.ceil(episodes / each))
    return {"iterations": math.ceil(episodes / (tasks * each)), "tasks_per_iteration": tasks}


def _changes(values: dict[str, Any]) -> list[str]:
    """What practice has otherwise than the run's configuration, as the learner is told."""
    sections = {
        "self_supervised": ("tasks_per_iteration", "exploration_trajectories"),
        "environment": ("horizon",),
    }
    changes = [
        f"{section}.{name}={values[name]}"
        for section, names in sections.items()
        for name in names
        if values[name]
    ]
    if values["adapted_trajectories"] >= 0:
        changes.append(f"self_supervised.adapted_trajectories={values['adapted_trajectories']}")
    return changes or [""]  # ROS does not know the type of an empty list
