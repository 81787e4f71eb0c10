"""Numbers in messages' bytes are those that rclpy reads and writes, whatever the message."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float32MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from smac_ros import serialized
from smac_ros.message_paths import compile_reader, compile_writer, leaves, width
from smac_ros.messages import set_stamp
from smac_ros.serialized import LEARN, Layout, Packer, Unpacker


def joints() -> JointState:
    names = ["a", "bc", "def", "ghij", "klmno"]
    message = JointState(name=names, position=[0.0] * 5, velocity=[0.0] * 5, effort=[0.0] * 5)
    message.header.frame_id = "base"
    return message


def floats() -> Float32MultiArray:
    message = Float32MultiArray(data=[0.0] * 3)
    message.layout.dim = [MultiArrayDimension(label="row", size=3)]
    return message


def trajectory() -> JointTrajectory:
    points = [JointTrajectoryPoint(positions=[0.0] * 2, effort=[0.0] * 3) for _ in range(2)]
    return JointTrajectory(joint_names=["a", "b"], points=points)


CASES = [
    ("sensor_msgs/msg/JointState", joints, ("position[def, a]", "effort[bc]")),
    ("sensor_msgs/msg/JointState", joints, ("velocity[a, bc, def, ghij, klmno]",)),
    ("geometry_msgs/msg/PoseStamped", PoseStamped, ("pose.position", "pose.orientation.w")),
    ("sensor_msgs/msg/Imu", Imu, ("angular_velocity", "linear_acceleration_covariance")),
    ("std_msgs/msg/Float32MultiArray", floats, ("data[0:3]",)),
    ("trajectory_msgs/msg/JointTrajectory", trajectory, ("points[1].positions[b]",)),
]


@pytest.fixture(params=CASES, ids=[f"{case[0].rpartition('/')[2]}-{case[2][0]}" for case in CASES])
def case(request):
    """(type, a message, its paths, their leaves, ``change``: a copy with other numbers)."""
    kind, make, paths = request.param
    rng = np.random.default_rng(0)

    def change(message, step: int):
        message = deserialize_message(serialize_message(message), type(message))
        for path in paths:
            numbers = rng.normal(size=width(kind, path)).astype(np.float32)
            compile_writer(kind, path)(message, numbers.tolist())
        if hasattr(message, "header"):
            set_stamp(message.header.stamp, 10**18 + 7 * step)
        return message

    return kind, make(), paths, [leaf for path in paths for leaf in leaves(kind, path)], change


def test_unpacks_what_rclpy_does(case):
    kind, message, paths, wanted, change = case
    unpacker = Unpacker(kind, wanted)
    seen = []
    for step in range(5):
        sent = change(message, step)
        seen.append(unpacker.unpack(serialize_message(sent)))
        for path in paths:
            found, expected = np.empty((2, width(kind, path)))
            compile_reader(kind, path)(seen[-1], found)
            compile_reader(kind, path)(sent, expected)
            np.testing.assert_array_equal(found, expected)
        assert getattr(seen[-1], "header", None) == getattr(sent, "header", None)
    assert all(other is seen[0] for other in seen), "messages were made anew"


def test_packs_what_rclpy_does(case):
    """And the quick way is taken: rclpy itself would send what changed elsewhere too."""
    kind, message, paths, wanted, change = case
    packer = Packer(kind, wanted)
    for step in range(5):
        other = change(message, step)
        for path in paths:
            numbers = np.empty(width(kind, path))
            compile_reader(kind, path)(other, numbers)
            compile_writer(kind, path)(message, numbers.tolist())
        if hasattr(message, "header"):
            set_stamp(message.header.stamp, 10**18 + 7 * step)
        assert deserialize_message(packer.pack(message), type(message)) == message


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.name.reverse(),
        lambda m: setattr(m.header, "frame_id", "tool"),
        lambda m: [setattr(m, part, getattr(m, part)[:3]) for part in ("name", "position")],
    ],
    ids=["names", "frame", "lengths"],
)
def test_other_names_and_lengths_are_seen(change):
    kind, message = "sensor_msgs/msg/JointState", joints()
    unpacker = Unpacker(kind, leaves(kind, "position[a]"))
    first = unpacker.unpack(serialize_message(message))
    change(message)
    message.position[0] = 3.0
    data = serialize_message(message)
    assert unpacker.unpack(data) == message
    assert unpacker.unpack(data) is not first


def test_a_topic_that_always_changes_is_read_as_by_rclpy():
    kind, message = "sensor_msgs/msg/JointState", joints()
    unpacker = Unpacker(kind, leaves(kind, "position[a]"))
    for step in range(LEARN + 5):
        message.header.frame_id = f"frame {step}"
        message.position[0] = float(step)
        assert unpacker.unpack(serialize_message(message)) == message


def test_bytes_that_are_no_message_are_refused():
    kind = "sensor_msgs/msg/JointState"
    unpacker = Unpacker(kind, leaves(kind, "position[a]"))
    data = serialize_message(joints())
    for wrong in (b"", data[:40]):
        with pytest.raises(RuntimeError, match="deserialize"):
            unpacker.unpack(wrong)
        unpacker.unpack(data)


def test_big_endian_bytes_are_left_to_rclpy():
    """geometry_msgs/PoseStamped: a stamp, an empty frame, seven numbers."""
    import struct

    text = b"\0\0\0\0" + struct.pack(">iII4x7d", 5, 6, 1, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0)
    kind = "geometry_msgs/msg/PoseStamped"
    unpacker = Unpacker(kind, leaves(kind, "pose.position"))
    for _ in range(2):
        message = unpacker.unpack(text)
        assert (message.header.stamp.sec, message.pose.position.z) == (5, 3.0)


def test_a_command_is_never_sent_as_bytes_that_rclpy_would_not_send(monkeypatch):
    """A layout that lies, of a vendor who lays messages out otherwise: seen before it is sent."""
    kind, message = "sensor_msgs/msg/JointState", joints()
    packer = Packer(kind, leaves(kind, "position[a]"))
    packer.pack(message)
    monkeypatch.setattr(Layout, "write", lambda self, data: data.__setitem__(-1, 255 - data[-1]))
    for step in range(3):
        message.position[0] = float(step)
        assert deserialize_message(packer.pack(message), type(message)) == message


def test_a_layout_found_among_zeros_is_confirmed_by_other_numbers(monkeypatch):
    walk = serialized.Walk._numbers

    def mistaken(self, path, code, count):
        walk(self, path, code, count)
        if path == "velocity":
            self.numbers["position"] = self.numbers["velocity"]

    monkeypatch.setattr(serialized.Walk, "_numbers", mistaken)
    kind, message = "sensor_msgs/msg/JointState", joints()
    wanted = leaves(kind, "position[a]")
    unpacker, packer = Unpacker(kind, wanted), Packer(kind, wanted)
    for step in (0, 0, 1, 2):
        message.position[0] = float(step)
        assert unpacker.unpack(serialize_message(message)) == message
        assert deserialize_message(packer.pack(message), JointState) == message


@pytest.mark.parametrize("name", ["a", "opening", "right_gripper"])
def test_what_is_sent_has_no_bytes_to_spare(name):
    """rclpy leaves some behind a message, for which rosbags refuses it in a recording."""
    from rosbags.typesys import Stores, get_typestore

    kind = "sensor_msgs/msg/JointState"
    message = JointState(name=[name], position=[0.5])
    packer = Packer(kind, leaves(kind, f"position[{name}]"))
    for value in (0.0, 1.0, 2.0):
        message.position[0] = value
        data = packer.pack(message)
        found = get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(data, kind)
        assert (found.name, found.position.tolist()) == ([name], [value])
