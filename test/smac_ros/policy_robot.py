"""Robot, learner, labeler and manager of one policy, played by a plain node."""

import array
import itertools
import time

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String, UInt8MultiArray
from std_srvs.srv import Trigger

from smac_core.agents.context import Agent
from smac_core.config import Networks
from smac_ros.base_node import latched, reliable
from smac_ros.contract import CommandReader, load_contract
from smac_ros.messages import (
    Begin,
    End,
    Trajectory,
    pack_trajectory,
    pack_weights,
    parse_marker,
    set_stamp,
    stamp_ns,
)
from smac_ros.policy_node import PolicyNode

DS, DA = 3, 2
PERIOD = 50_000_000  # ns
FIRST = 10**9  # ns, of a lockstep robot
NETWORKS = {
    "latent_dim": 4,
    "policy_hidden": [16, 16],
    "critic_hidden": [4],
    "encoder_hidden": [16],
    "decoder_hidden": [8],
    "encoder_scale": "variance",
    "encoder_prior_factor": False,
    "standardize": "none",
}
CONTRACT = """
name: bench
domain: bench
rate: 20.0
trigger: {trigger}
watchdog: {watchdog}
safety: zeros
observations:
  - topic: joint_states
    type: sensor_msgs/msg/JointState
    time: header
    align: hold
    max_age: {max_age}
    fields: [{{path: "position[a, b]", names: [a, b], unit: rad}}]
  - topic: gripper
    type: sensor_msgs/msg/JointState
    time: header
    align: hold
    max_age: {max_age}
    fields: [{{path: "position[c]", names: [c], unit: m}}]
actions:
  - topic: joint_command
    type: sensor_msgs/msg/JointState
    fields:
      - {{path: "velocity[a, b]", names: [va, vb], unit: rad/s, scale: 0.5, limits: [-0.4, 0.4]}}
reward:
  topic: reward
  type: sensor_msgs/msg/JointState
  time: header
  fields: [{{path: "position[reward]", names: [reward], unit: "1"}}]
"""
# In real time: to a test of other things than silence a busy machine is no fault; to one of silence
# it is, so that this has to last longer than such a machine is away.
PATIENT = {"watchdog": 2.0, "max_age": 1.0}
WATCHED = {"watchdog": 1.0, "max_age": 0.5}


def contract_text(
    template: str = CONTRACT, *, trigger: str = "all", watchdog: float = 0.3, max_age: float = 0.2
) -> str:
    return template.format(trigger=trigger, watchdog=watchdog, max_age=max_age)


def make_agent(seed: int = 0, **changes) -> Agent:
    torch.manual_seed(seed)
    return Agent(DS, DA, Networks(**NETWORKS | changes)).eval()


def observations(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DS)).astype(np.float32)


def describe(text: str, version: int = 1, **changes) -> dict:
    return {
        "version": version,
        "run": "r",
        "domain": "bench",
        "observation_dim": DS,
        "action_dim": DA,
        "networks": NETWORKS,
        "contract": text,
    } | changes


class Robot:
    """Robot, learner, labeler and manager of one policy."""

    numbers = itertools.count()

    def __init__(self, ros, path, clock="lockstep", *, make_policy=PolicyNode, **parameters):
        # A namespace each: what DDS remembers of a test that is over cannot disturb the next one.
        self.namespace = namespace = f"/robot{next(self.numbers)}"
        self.ros, self.contract = ros, load_contract(path)
        self.reader = CommandReader(self.contract)
        self.real_time = clock == "real_time"
        self.commands: list[JointState] = []
        self.ends: list[End] = []
        self.posteriors: list[np.ndarray] = []
        self.diagnostics: list[DiagnosticStatus] = []
        node = self.node = ros.node("robot", namespace=namespace)
        self.observed = 0
        self.streams = [
            node.create_publisher(JointState, topic, reliable(10))
            for topic in ("joint_states", "gripper")
        ]
        self.rewards = node.create_publisher(JointState, "reward", reliable(10))
        self.episodes = node.create_publisher(String, "episode", reliable(100))
        self.weights = node.create_publisher(UInt8MultiArray, "weights", latched())
        self.labels = node.create_publisher(PointCloud2, "labelled_trajectories", reliable(100))
        for kind, topic, take, qos in (
            (JointState, "joint_command", self.commands.append, reliable(100)),
            (String, "episode", self.hear, reliable(100)),
            (Float64MultiArray, "posterior", self.see, latched()),
            (DiagnosticArray, "/diagnostics", self.note, reliable(10)),
        ):
            node.create_subscription(kind, topic, take, qos)
        self.policy = make_policy(
            namespace=namespace,
            parameter_overrides=[
                Parameter(key, value=value)
                for key, value in (
                    {"settle": 0.0, "contract": str(path), "clock": clock} | parameters
                ).items()
            ],
        )

    def start(self, agent: Agent | None = None) -> "Robot":
        """Activate the policy; with an agent: wait until it has its weights."""
        self.ros.start(self.policy)
        if agent is not None:
            self.send_weights(agent)
            self.until(lambda: self.policy.policy.controller, "weights")
        publishers = (*self.streams, self.rewards, self.labels, self.episodes)
        for publisher in publishers:
            self.until(publisher.get_subscription_count, publisher.topic_name)
        self.until(lambda: self.node.count_publishers("joint_command"), "the policy's commands")
        self.until(lambda: self.episodes.get_subscription_count() > 1, "both ends of episode")
        self.until(lambda: self.policy._ends.get_subscription_count() > 1, "both ends of episode")
        self.until(lambda: self.policy.policy.commands.listeners, "a listener to commands")
        return self

    def until(self, condition, what=""):
        return self.ros.until(condition, 30.0, what)

    def spin(self, seconds: float):
        """Let nothing happen for a while."""
        end = time.monotonic() + seconds
        self.ros.until(lambda: time.monotonic() > end)

    def hear(self, message: String):
        if '"end"' in message.data:
            self.ends.append(parse_marker(message.data))

    def see(self, message: Float64MultiArray):
        assert [d.size for d in message.layout.dim] == [2, NETWORKS["latent_dim"]]
        self.posteriors.append(np.array(message.data).reshape(2, -1))

    def note(self, message: DiagnosticArray):
        status = message.status[0]
        if status.name == self.policy.get_fully_qualified_name():
            self.diagnostics.append(status)

    def send_weights(self, agent: Agent, version: int = 1, **changes):
        content = describe(self.contract.text, version) | changes
        self.weights.publish(pack_weights(agent.state_dict(), content))

    def now(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def observe(
        self, observation: np.ndarray, stamp: int | None = None, *, paced: bool = True
    ) -> int:
        """Publish an observation; its stamp. In real time a period after the last one."""
        if stamp is None:
            if paced:
                self.until(lambda: self.now() >= self.observed + PERIOD)
            stamp = self.observed = self.now()
        for publisher, names, values in (
            (self.streams[0], ["a", "b"], observation[:2]),
            (self.streams[1], ["c"], observation[2:]),
        ):
            message = JointState(name=names, position=array.array("d", values.astype(float)))
            set_stamp(message.header.stamp, stamp)
            publisher.publish(message)
        return stamp

    def run(self, condition, what=""):
        """A robot that publishes until the condition holds."""
        timer = self.node.create_timer(0.02, lambda: self.observe(observations(1)[0], paced=False))
        self.until(condition, what)
        self.node.destroy_timer(timer)

    def pay(self, reward: float, stamp: int):
        message = JointState(name=["reward", "success"], position=[reward, 0.0])
        set_stamp(message.header.stamp, stamp)
        self.rewards.publish(message)

    def begin(self, **changes) -> Begin:
        values = {
            "session": 7,
            "id": 0,
            "start": FIRST,
            "steps": 5,
            "purpose": "exploration",
            "mode": "explore",
            "group": 0,
            "seed": 3,
        }
        marker = Begin(**values | changes)
        self.episodes.publish(String(data=marker.to_json()))
        return marker

    def label(self, episode: int, rows, group: int = 0, exploration: bool = True, session=7):
        s, a, r = rows
        n = len(r)
        trajectory = Trajectory(
            session, episode, group, 0, 0, exploration, 1, FIRST, np.arange(n) * 0.05, s, a, r, s,
            np.zeros(n, np.float32),
        )  # fmt: skip
        self.labels.publish(pack_trajectory(trajectory))

    def answer(self, count: int) -> JointState:
        """The newest command, when there are ``count``."""
        self.until(lambda: len(self.commands) >= count, f"command {count}")
        return self.commands[-1]

    def values(self) -> np.ndarray:
        return np.array([self.reader.values(0, command) for command in self.commands])

    def stamps(self) -> list[int]:
        return [stamp_ns(command.header.stamp) for command in self.commands]

    def play(self, seen: np.ndarray, start: int = FIRST, rewards=None) -> None:
        """Lockstep: all but the last observation are answered."""
        before = len(self.commands)
        for step, observation in enumerate(seen):
            stamp = start + step * PERIOD
            if rewards is not None and step:
                self.pay(rewards[step - 1], stamp)
            self.observe(observation, stamp)
            if step < len(seen) - 1:
                self.answer(before + step + 1)

    def end(self, count: int = 1) -> End:
        self.until(lambda: len(self.ends) >= count, f"end {count}")
        return self.ends[-1]

    def call(self, service: str) -> Trigger.Response:
        name = f"{self.policy.get_fully_qualified_name()}/{service}"
        return self.ros.call(self.node.create_client(Trigger, name), Trigger.Request())

    def faults(self) -> str:
        return "; ".join(self.policy.diagnostics.faults.values())


def limited(actions: np.ndarray) -> np.ndarray:
    """Message values: scale and limits of the contract."""
    return np.clip(0.5 * np.asarray(actions, float), -0.4, 0.4)


def random_rows(seed: int, n: int = 6):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((n, DS), (n, DA), (n,)))
