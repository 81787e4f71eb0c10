"""MuJoCo robots on topics: the domains of sim/mujoco, and any other of Gymnasium's."""

import json
import sys
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from smac_core.errors import InputError
from smac_ros.base_node import Parameter, run
from smac_ros.simulation_node import SimulationNode, simulation_parameters

FREE, BALL, SLIDE, HINGE = range(4)  # MuJoCo's mjtJoint
AXES = ("x", "y", "z")
ROTATIONS = ("rotation_x", "rotation_y", "rotation_z")
INERTIA = ("xx", "yy", "zz", "xy", "xz", "yz", "mass_x", "mass_y", "mass_z", "mass")  # cinert
SPATIAL = (*ROTATIONS, *AXES)  # MuJoCo's motions and forces: about the axes, then along them
BASE = 1  # the model's first body; 0 is the world

# Topic -> numbers of MuJoCo's data, field of the JointState that has them, what each is named by.
STREAMS = {
    "velocities": ("qvel", "velocity", "freedoms"),
    "actuator_forces": ("qfrc_actuator", "effort", "freedoms"),
    "body_inertias": ("cinert", "position", INERTIA),
    "body_velocities": ("cvel", "velocity", SPATIAL),
    "contact_forces": ("cfrc_ext", "effort", SPATIAL),
}


class MujocoSimNode(SimulationNode):
    """See doc/simulated_robots.md for its topics, parameters and services."""

    parameters = (
        *simulation_parameters("half_cheetah"),
        Parameter(
            "environment",
            "HalfCheetah-v5",
            "Name of a MuJoCo environment: Gymnasium's, or sim:smac/CheetahVel-v0 and the like.",
        ),
        Parameter("options", "", "The environment's keyword arguments as JSON; empty: none."),
    )

    def __init__(self, name: str = "mujoco_sim", **arguments: Any):
        super().__init__(name, **arguments)

    def make_world(self) -> tuple[gymnasium.Env, float]:
        name, options = self.setting("environment"), self._options()
        try:
            import mujoco

            # without a handler MuJoCo writes its warnings to a file in the working directory
            mujoco.set_mju_user_warning(self.get_logger().debug)
            # without a time limit: episodes are the manager's
            fixed = {"max_episode_steps": -1, "disable_env_checker": True}
            env = gymnasium.make(name, **options | fixed)
        except (gymnasium.error.Error, ImportError, OSError, TypeError, ValueError) as error:
            unknown = isinstance(error, (gymnasium.error.Error, ImportError))
            if options and not unknown:
                field, known = "options", f"keyword arguments of {name}"
            else:
                field, known = "environment", "a MuJoCo environment of Gymnasium"
            raise InputError(self.get_name(), field, error, known) from None
        world = env.unwrapped
        if not (hasattr(world, "model") and hasattr(world, "data")):
            env.close()
            known = "one with MuJoCo's model and data"
            raise InputError(self.get_name(), "environment", f"{name}, {type(world)}", known)
        mujoco.set_mju_user_warning(lambda text: self.diagnostics.count("MuJoCo warnings", text))
        self._kinematics = mujoco.mj_kinematics
        return env, 1 / world.dt

    def _options(self) -> dict[str, Any]:
        text = self.setting("options")
        try:
            options = json.loads(text) if text.strip() else {}
        except ValueError as error:
            raise InputError(self.get_name(), "options", error, "JSON") from None
        if not isinstance(options, dict):
            raise InputError(self.get_name(), "options", text, "an object of keyword arguments")
        return options

    def make_outputs(self) -> None:
        model = self.env.unwrapped.model
        joints = [model.joint(i) for i in range(model.njnt) if model.jnt_type[i] in (SLIDE, HINGE)]
        self._positions = [int(joint.qposadr[0]) for joint in joints]
        self._velocities = [int(joint.dofadr[0]) for joint in joints]
        names = [joint.name for joint in joints]
        self._joints = self.output("joint_states", JointState(name=names))
        self._streams: list[Callable[[Any], None]] = []
        wanted = {stream.topic for stream in self._contract.observations}
        for topic, (source, field, parts) in STREAMS.items():
            if topic in wanted:
                labels = freedoms(model) if parts == "freedoms" else bodies(model, parts)
                message = self.output(topic, JointState(name=labels))
                self._streams.append(partial(_copy, source, message, field))
        if "base_pose" in wanted:
            self._pose = self.output("base_pose", PoseStamped()).pose
            self._root = int(model.jnt_qposadr[0]) if model.jnt_type[0] == FREE else None
            self._streams.append(self._fill_pose)

    def check_task(self, task: Any) -> None:
        if self.env is None:
            return  # the reset will tell
        world = self.env.unwrapped
        if not hasattr(world, "domain"):
            raise ValueError(f"{task!r}, but {self.setting('environment')} has no tasks")
        world.domain.validate(task)

    def reset_world(self, seed: int, task: Any | None) -> None:
        if task is None and hasattr(self.env.unwrapped, "domain"):
            self.env.unwrapped.task = None  # else reset keeps the present one
        super().reset_world(seed, task)

    def cleanup(self) -> None:
        super().cleanup()
        if mujoco := sys.modules.get("mujoco"):
            mujoco.set_mju_user_warning(None)

    def fill(self) -> None:
        data = self.env.unwrapped.data
        positions, velocities = data.qpos.tolist(), data.qvel.tolist()
        self._joints.position = array("d", [positions[i] for i in self._positions])
        self._joints.velocity = array("d", [velocities[i] for i in self._velocities])
        for fill in self._streams:
            fill(data)

    def _fill_pose(self, data: Any) -> None:
        """The pose of the model's first body: its free joint's very numbers, where it has one."""
        if self._root is None:  # a step leaves the poses of its beginning
            self._kinematics(self.env.unwrapped.model, data)
            numbers = *data.xpos[BASE].tolist(), *data.xquat[BASE].tolist()
        else:
            numbers = data.qpos[self._root : self._root + 7].tolist()
        position, orientation = self._pose.position, self._pose.orientation
        position.x, position.y, position.z = numbers[:3]
        orientation.w, orientation.x, orientation.y, orientation.z = numbers[3:]


def freedoms(model: Any) -> list[str]:
    """Names of the degrees of freedom [nv]: the joint's, with what moves where it has several."""
    several = {FREE: (*AXES, *ROTATIONS), BALL: ROTATIONS}
    found: list[str] = []
    for i in range(model.njnt):
        name, parts = model.joint(i).name, several.get(int(model.jnt_type[i]))
        found += [f"{name}_{part}" for part in parts] if parts else [name]
    return found


def bodies(model: Any, parts: tuple[str, ...]) -> list[str]:
    """Names of ``parts`` of every body, the world's first [nbody * parts]."""
    names = [model.body(i).name or f"body{i}" for i in range(model.nbody)]
    return [f"{name}_{part}" for name in names for part in parts]


def _copy(source: str, message: JointState, field: str, data: Any) -> None:
    values = np.ascontiguousarray(getattr(data, source), np.float64)
    setattr(message, field, array("d", values.tobytes()))


def main() -> None:
    """Run the node."""
    run(MujocoSimNode)


if __name__ == "__main__":
    main()
