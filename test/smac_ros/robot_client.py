"""A simulated robot's other end, for tests: listens to its topics, commands and resets it."""

import json
from collections import defaultdict

import numpy as np
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from smac_ros.base_node import reliable
from smac_ros.contract import CommandWriter, load_contract, message_class
from smac_ros.messages import stamp_ns
from smac_ros.mujoco_sim_node import MujocoSimNode
from smac_ros.sawyer_sim_node import SawyerSimNode

FULL = {
    "behavior": "move_hand",
    "side": 1,
    "bottom_drawer": {"open": False},
    "handle_drawer": {"opening": 0.0, "goal": 0.12},
    "button": True,
    "tray": [0.79, -0.12],
    "object": {"shape": "car", "position": [0.6, -0.15]},
}
EMPTY = FULL | {"side": -1, "button": False} | dict.fromkeys(
    ("bottom_drawer", "handle_drawer", "tray", "object")
)  # fmt: skip


class Client:
    """A robot's other end: listens to its topics and commands it, as its contract says."""

    def __init__(self, ros, robot: str, contract: str = "sawyer_sim", namespace: str = ""):
        self.ros, self.robot = ros, robot
        self.contract = load_contract(contract)
        self.node = ros.node("client", namespace=namespace)
        self.samples: dict = defaultdict(dict)  # by stamp and stream
        self.rewards: dict = {}  # by stamp
        self.count: dict = defaultdict(int)  # messages by topic
        self.latest = 0
        for index, stream in enumerate(self.contract.observations):
            self.listen(message_class(stream.type), stream.topic, index)
        self.listen(JointState, "reward", None)
        classes = {command.type: message_class(command.type) for command in self.contract.actions}
        self.writer = CommandWriter(self.contract, classes)
        self.publishers = [
            self.node.create_publisher(classes[command.type], command.topic, reliable(10))
            for command in self.contract.actions
        ]
        self.resetter = self.node.create_client(Trigger, f"{robot}/reset")
        self.setter = self.node.create_client(
            SetParametersAtomically, f"{robot}/set_parameters_atomically"
        )
        ros.until(lambda: all(p.get_subscription_count() for p in self.publishers), what="matched")
        ros.until(lambda: self.latest, what="the first observation")

    def listen(self, kind, topic, index):
        def receive(message):
            self.count[topic] += 1
            stamp = stamp_ns(message.header.stamp)
            if index is None:
                assert message.name == ["reward", "success", "terminated"]
                self.rewards[stamp] = tuple(message.position)
                return
            self.samples[stamp][index] = message
            if len(self.samples[stamp]) == len(self.contract.observations):
                self.latest = max(self.latest, stamp)

        self.node.create_subscription(kind, topic, receive, reliable(10))

    def observation(self, stamp):
        """The observation [ds] float32 of a stamp, when it is there."""
        streams = len(self.contract.observations)
        self.ros.until(lambda: len(self.samples[stamp]) == streams, what=f"observation at {stamp}")
        out = np.zeros(self.contract.observation_dim)
        for index, message in self.samples[stamp].items():
            self.contract.observe(index, message, out)
        return out.astype(np.float32)

    def command(self, action, stamp, only=None):
        messages = self.writer.fill(self.writer.encode(np.asarray(action, np.float32)), stamp)
        for index, message in enumerate(messages):
            if only is None or index == only:
                self.publishers[index].publish(message)

    def set(self, **values):
        parameters = [
            ParameterMessage(name=name, value=Parameter(name, value=value).get_parameter_value())
            for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=parameters)
        return self.ros.call(self.setter, request).result

    def reset(self, task=None, seed=0):
        """Stamp of the first observation."""
        assert self.set(task=json.dumps(task) if task else "", seed=seed).successful
        response = self.ros.call(self.resetter, Trigger.Request())
        assert response.success, response.message
        return json.loads(response.message)["stamp"]


def sawyer(ros, namespace=None, **parameters):
    values = {"clock": "lockstep"} | parameters
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    return ros.start(SawyerSimNode(namespace=namespace, parameter_overrides=overrides))


def mujoco(ros, **parameters):
    values = {"clock": "lockstep"} | parameters
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    return ros.start(MujocoSimNode(parameter_overrides=overrides))
