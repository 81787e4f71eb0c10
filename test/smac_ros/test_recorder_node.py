"""The recorder over topics: what is published is in the bag, and what is not is told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import rclpy
import rclpy.node
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from smac_ros import recorder_node
from smac_ros.bags.reading import Bag
from smac_ros.base_node import reliable, sensor
from smac_ros.contract import load_contract
from smac_ros.messages import set_stamp
from smac_ros.recorder_node import RecorderNode

ROOT = Path(__file__).parents[2]
CONTRACT = "half_cheetah"  # joint_states in, joint_command out, a reward
STATES = "/joint_states"


def recorder(out: Path, namespace: str = "", **parameters) -> RecorderNode:
    values = {"contract": CONTRACT, "out": str(out)} | parameters
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    return RecorderNode(namespace=namespace, parameter_overrides=overrides)


def joint_state(number: int) -> JointState:
    message = JointState(name=["a", "b"], position=[float(number), 0.5])
    set_stamp(message.header.stamp, number)
    return message


def recorded(path: Path, topic: str = STATES) -> dict[int, int]:
    """Number of each joint state, which is whole, by time of receipt."""
    found = {}
    with Bag(path) as bag:
        for _, when, data in bag.messages([topic]):
            message = deserialize_message(data, JointState)
            found[when] = round(message.position[0])
            assert message == joint_state(found[when])
    return found


def numbers(path: Path, topic: str = STATES) -> list[int]:
    return list(recorded(path, topic).values())


class Robot:
    """Publishes to a recorder."""

    def __init__(self, ros, namespace: str = ""):
        self.ros, self.node = ros, ros.node("robot", namespace=namespace)

    def publisher(self, kind=JointState, topic=STATES[1:], qos=None):
        made = self.node.create_publisher(kind, topic, qos or reliable(100))
        self.ros.until(made.get_subscription_count, what=f"somebody who listens to {topic}")
        return made


def taken(node: RecorderNode, count: int) -> bool:
    return node._recording.message_count == count


def test_what_is_published_is_in_the_bag(ros, tmp_path):
    """The contract's topics in the robot's namespace, as bytes, with the times of their coming."""
    node = ros.start(recorder(tmp_path / "bag", "arm"))
    robot = Robot(ros, "arm")
    states, episode = robot.publisher(), robot.publisher(String, "episode")
    robot.node.create_publisher(Float64, "temperature", 10).publish(Float64(data=36.6))
    begin = time.time_ns()
    for number in range(20):
        states.publish(joint_state(number))
    episode.publish(String(data="begin"))
    ros.until(lambda: taken(node, 21))
    end = time.time_ns()
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    got = recorded(tmp_path / "bag", "/arm/joint_states")
    times = list(got)
    assert list(got.values()) == list(range(20))
    assert times == sorted(times) and begin < times[0] and times[-1] < end
    with Bag(tmp_path / "bag") as bag:
        assert {name: topic.count for name, topic in bag.topics.items()} == {
            "/arm/joint_states": 20,
            "/arm/joint_command": 0,
            "/arm/reward": 0,
            "/arm/episode": 1,
            "/arm/terminated": 0,
        }
        assert bag.contract_text == load_contract(CONTRACT).text
    assert not node.diagnostics.counts


def test_from_whom_publishes_best_effort(ros, tmp_path):
    """A reliable subscription hears nothing of them; the recorder sees it and listens anew."""
    node = ros.start(recorder(tmp_path / "bag"))
    robot = Robot(ros)
    states = robot.publisher(qos=sensor())
    states.publish(joint_state(1))
    ros.until(lambda: taken(node, 1))
    both = robot.publisher(qos=reliable(10))  # who comes later is heard, too
    both.publish(joint_state(2))
    ros.until(lambda: taken(node, 2))
    node.trigger_deactivate()
    assert numbers(tmp_path / "bag") == [1, 2]


def test_by_the_clock_of_a_simulation(ros, tmp_path):
    """Times are those of /clock; what comes before the first of them has none."""
    node = ros.start(recorder(tmp_path / "bag", use_sim_time=True))
    robot = Robot(ros)
    states, clock = robot.publisher(), robot.publisher(Clock, "/clock")
    states.publish(joint_state(1))
    ros.until(lambda: node.diagnostics.counts)
    assert node.diagnostics.counts == {"messages before /clock": 1}
    for number in (5, 3):  # a simulation may begin again
        tick = Clock()
        set_stamp(tick.clock, number * 10**9)
        clock.publish(tick)
        ros.until(lambda: node.get_clock().now().nanoseconds == number * 10**9)  # noqa: B023
        states.publish(joint_state(number))
        ros.until(lambda: taken(node, {5: 1, 3: 2}[number]))  # noqa: B023
    node.trigger_deactivate()
    assert recorded(tmp_path / "bag") == {5 * 10**9: 5, 3 * 10**9: 3}


def test_what_is_lost_is_counted(ros, tmp_path, monkeypatch):
    """By the numbers that publishers give their messages."""
    monkeypatch.setattr(recorder_node, "DEPTH", 10)
    node = ros.start(recorder(tmp_path / "bag"))
    states = Robot(ros).publisher(qos=reliable(1000))
    states.publish(joint_state(0))
    ros.until(lambda: taken(node, 1))
    for number in range(1, 60):  # nobody spins: there is room for ten
        states.publish(joint_state(number))
    time.sleep(0.2)
    states.publish(joint_state(60))
    source = node._sources[0]
    ros.until(lambda: max(source.numbers.values()) == 61, what="the last one")
    count, lost = node._recording.message_count, node.diagnostics.counts["messages lost"]
    assert lost >= 40 and count + lost == 61
    shown = node.diagnostics._shown[STATES]()
    assert shown.startswith(f"{count} (") and shown.endswith(f" Hz, {lost} lost)")
    node.trigger_deactivate()
    assert len(numbers(tmp_path / "bag")) == count


def test_pause_and_resume(ros, tmp_path):
    """What comes in between is not recorded, and not taken for lost either."""
    node = ros.start(recorder(tmp_path / "bag"))
    robot = Robot(ros)
    states = robot.publisher()

    def call(name: str) -> None:
        client = robot.node.create_client(Trigger, f"recorder/{name}")
        assert ros.call(client, Trigger.Request()).success

    def publish(number: int) -> None:
        states.publish(joint_state(number))
        source = node._sources[0]
        ros.until(lambda: source.numbers and max(source.numbers.values()) == number)

    publish(1)
    call("pause")
    publish(2)
    publish(3)
    call("resume")
    publish(4)
    node.trigger_deactivate()
    assert numbers(tmp_path / "bag") == [1, 4]
    assert not node.diagnostics.counts


def test_refused(ros, tmp_path):
    """Before anything is written, with what to do."""
    success, failure = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
    (tmp_path / "there").mkdir()
    node = ros.add(recorder(tmp_path / "there"))
    assert node.trigger_configure() == failure
    assert "there: folder: found one that exists" in node.diagnostics.faults["refused"]
    node = ros.add(recorder(tmp_path / "full", disk_left=1e9))
    assert node.trigger_configure() == success and node.trigger_activate() == failure
    assert "MB left on the disk; expected at least 1000000000 MB" in (
        node.diagnostics.faults["refused"]
    )
    assert not (tmp_path / "full").exists()
    node = ros.start(recorder(tmp_path / "once"))
    assert node.trigger_deactivate() == success and node.trigger_activate() == failure
    assert "once: folder: found one that exists" in node.diagnostics.faults["refused"]


def test_it_ends_after_some_seconds(ros, tmp_path):
    node = ros.start(recorder(tmp_path / "bag", seconds=0.1))
    assert not node._over(node._recording), "nothing has come yet"
    Robot(ros).publisher().publish(joint_state(1))
    ros.until(lambda: node.exit_code is not None)
    assert node.exit_code == 0
    node.trigger_deactivate()
    assert numbers(tmp_path / "bag") == [1]


def test_a_full_disk_ends_it(ros, tmp_path, monkeypatch):
    """With an error and the exit code 1; the bag is whole."""
    monkeypatch.setattr("smac_ros.bags.recording.FLUSH", 0.02)
    node = ros.start(recorder(tmp_path / "bag"))
    monkeypatch.setattr(node._recording, "_least_free", 1e18)
    Robot(ros).publisher().publish(joint_state(1))
    ros.until(lambda: node.exit_code)
    fault = node.diagnostics.faults["recording"]
    assert node.exit_code == 1 and "has ended: " in fault and "left on the disk" in fault
    node.trigger_deactivate()
    assert numbers(tmp_path / "bag") == [1]


def test_what_does_not_come_is_told(ros, tmp_path, monkeypatch):
    """Silent observations, and topics of another type than the contract's."""
    monkeypatch.setattr(recorder_node, "SILENT", 0.1)
    node = ros.start(recorder(tmp_path / "bag"))
    elsewhere = rclpy.Context()  # one process's topics have one type
    rclpy.init(context=elsewhere)
    robot = rclpy.node.Node("robot", context=elsewhere)
    robot.create_publisher(String, STATES[1:], 10)
    ros.until(lambda: len(node.diagnostics.counts) == 2)
    assert node.diagnostics.counts == {"other types": 1, "silent topics": 1}
    robot.destroy_node()
    rclpy.shutdown(context=elsewhere)


def test_the_command(ros, tmp_path):
    """smac record, as a user runs it; Ctrl-C ends it well, with a whole bag."""
    code = "from smac_ros.cli import main; main()"
    words = ["record", "--contract", CONTRACT, "--out", "bag", "--max-size", "5"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    try:
        robot, shown = Robot(ros), {}

        def look(message: DiagnosticArray) -> None:
            shown.update((v.key, v.value) for s in message.status for v in s.values)

        robot.node.create_subscription(DiagnosticArray, "/diagnostics", look, 10)
        states = robot.publisher()
        for number in range(10):
            states.publish(joint_state(number))
        ros.until(lambda: shown.get("messages") == "10", what="its status")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "bag: 10 messages" in err and "nothing on /joint_command" in err, err
    assert numbers(tmp_path / "bag") == list(range(10))

