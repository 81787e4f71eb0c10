"""Any of Gymnasium's MuJoCo environments as a robot with joints: states out, efforts in."""

import sys
from array import array
from typing import Any

import gymnasium
from sensor_msgs.msg import JointState

from smac_core.errors import InputError
from smac_ros.base_node import Parameter, run
from smac_ros.simulation_node import SimulationNode, simulation_parameters

SLIDE, HINGE = 2, 3  # MuJoCo's mjtJoint: joints of one number, as a JointState has them


class MujocoSimNode(SimulationNode):
    """See doc/simulated_robots.md for its topics, parameters and services."""

    parameters = (
        *simulation_parameters("half_cheetah"),
        Parameter("environment", "HalfCheetah-v5", "Gymnasium's name of a MuJoCo environment."),
    )

    def __init__(self, name: str = "mujoco_sim", **arguments: Any):
        super().__init__(name, **arguments)

    def make_world(self) -> tuple[gymnasium.Env, float]:
        name = self.setting("environment")
        try:
            import mujoco

            # without a handler MuJoCo writes its warnings to a file in the working directory
            mujoco.set_mju_user_warning(self.get_logger().debug)
            # without a time limit: episodes are the manager's
            env = gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True)
        except (gymnasium.error.Error, ImportError) as error:
            known = "a MuJoCo environment of Gymnasium"
            raise InputError(self.get_name(), "environment", error, known) from None
        world = env.unwrapped
        if not (hasattr(world, "model") and hasattr(world, "data")):
            env.close()
            known = "one with MuJoCo's model and data"
            raise InputError(self.get_name(), "environment", f"{name}, {type(world)}", known)
        mujoco.set_mju_user_warning(lambda text: self.diagnostics.count("MuJoCo warnings", text))
        return env, 1 / world.dt

    def make_outputs(self) -> None:
        model = self.env.unwrapped.model
        joints = [model.joint(i) for i in range(model.njnt) if model.jnt_type[i] in (SLIDE, HINGE)]
        self._positions = [int(joint.qposadr[0]) for joint in joints]
        self._velocities = [int(joint.dofadr[0]) for joint in joints]
        names = [joint.name for joint in joints]
        self._joints = self.output("joint_states", JointState(name=names))

    def check_task(self, task: Any) -> None:
        if self.env is not None and not hasattr(self.env.unwrapped, "task"):
            raise ValueError(f"{task!r}, but {self.setting('environment')} has no tasks")

    def cleanup(self) -> None:
        super().cleanup()
        if mujoco := sys.modules.get("mujoco"):
            mujoco.set_mju_user_warning(None)

    def fill(self) -> None:
        data = self.env.unwrapped.data
        positions, velocities = data.qpos.tolist(), data.qvel.tolist()
        self._joints.position = array("d", [positions[i] for i in self._positions])
        self._joints.velocity = array("d", [velocities[i] for i in self._velocities])


def main() -> None:
    """Run the node."""
    run(MujocoSimNode)


if __name__ == "__main__":
    main()
