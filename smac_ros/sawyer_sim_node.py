"""The simulated Sawyer at its table, on the topics of a real one."""

import importlib
from array import array
from typing import Any

import gymnasium
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from sim.sawyer.arm import ASSETS, JOINT_NAMES
from sim.sawyer.environment import SawyerEnv
from sim.sawyer.scene import CONTROL_PERIOD
from sim.sawyer.tasks import validate
from smac_ros.base_node import latched, reliable, run
from smac_ros.sawyer_view import SceneMarkers, link_transforms, set_pose
from smac_ros.simulation_node import SimulationNode, simulation_parameters

ABSENT = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))  # pose of what the task does not have


class SawyerSimNode(SimulationNode):
    """See doc/simulated_robots.md for its topics, parameters and services."""

    parameters = simulation_parameters("sawyer_sim")
    rest = (0.0, 0.0, 0.0, -1.0)  # the hand stands, the gripper is open

    def __init__(self, name: str = "sawyer_sim", **arguments: Any):
        super().__init__(name, **arguments)

    def make_world(self) -> tuple[gymnasium.Env, float]:
        env = SawyerEnv()
        self.scene = env.scene
        return env, 1 / CONTROL_PERIOD

    def make_outputs(self) -> None:
        self._hand = self.output("endpoint_pose", PoseStamped()).pose
        self._gripper = self.output("gripper/state", JointState(name=["opening"], position=[0.0]))
        self._items = {
            name: self.output(f"objects/{name}", PoseStamped()).pose
            for name in ("object", "lego", "bottom_drawer", "handle", "button")
        }
        self._joints = self.output("joint_states", JointState(name=list(JOINT_NAMES)))
        description = self.publisher(String, "robot_description", latched())
        description.publish(String(data=(ASSETS / "sawyer.urdf").read_text(encoding="utf-8")))
        self._markers = SceneMarkers(self.scene, self.header)
        self._marker_publisher = self.publisher(MarkerArray, "markers", reliable(1))
        self._tf, self._tf_wanted = None, False
        try:  # a ROS distribution has it, the wheels from PyPI do not
            self._tf_type = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            return
        self._tf = self.publisher(self._tf_type, "tf", reliable(100))

    def check_task(self, task: Any) -> None:
        validate(task)

    def reset_world(self, seed: int, task: Any | None) -> None:
        if task is None:
            self.env.task = None  # else reset keeps the present one
        super().reset_world(seed, task)
        present = self.scene.present()
        bodies = {"bottom_drawer": "bottom_drawer", "handle": "handle_drawer", "button": "button"}
        for item, pose in self._items.items():  # what of them moves is overwritten at every step
            body = bodies.get(item)
            set_pose(pose, *(self.scene.pose(body) if body in present else ABSENT))
        self._has_lego = "lego" in present

    def fill(self) -> None:
        """The numbers of the observation, and what a real robot would tell besides."""
        scene, items = self.scene, self._items
        values = scene.observe()
        set_pose(self._hand, values[:3], scene.arm.orientation())
        self._gripper.position[0] = values[3]
        if scene.graspable:
            set_pose(items["object"], values[4:7], scene.pose(scene.graspable)[1])
        if self._has_lego:
            set_pose(items["lego"], values[7:10], scene.pose("lego")[1])
        items["bottom_drawer"].position.x = values[10]
        items["handle"].position.y = values[11]
        items["button"].position.z = values[12]
        positions, velocities = scene.arm.joint_states()
        self._joints.position = array("d", positions)
        self._joints.velocity = array("d", velocities)

    def view(self, due: bool) -> None:
        if due:
            self._tf_wanted = self._tf is not None and self._tf.get_subscription_count() > 0
            if self._marker_publisher.get_subscription_count() > 0:
                self._marker_publisher.publish(self._markers.message(self.env.task))
        if self._tf_wanted:
            transforms = link_transforms(self.scene, self.header)
            self._tf.publish(self._tf_type(transforms=transforms))


def main() -> None:
    """Run the node."""
    run(SawyerSimNode)


if __name__ == "__main__":
    main()
