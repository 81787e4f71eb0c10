"""Messages read by the thousand have the numbers, to the bit, that they have one by one."""

import random
import struct

import numpy as np
import pytest
from recordings import SECOND, STORE, cdr, joint_state, joints, text

from smac_ros.bags.decoding import Decoder, decode_header_stamp, decode_text, deserialize
from smac_ros.contract import CommandReader, Contract
from smac_ros.messages import stamp_ns

HEAD = """
name: test
domain: test
rate: 10.0
trigger: timer
watchdog: 1.0
safety: zeros
observations:
"""
ACTIONS = """
actions:
- topic: command
  type: sensor_msgs/msg/JointState
  fields: [{path: 'velocity[j2, j0]', names: [v2, v0], unit: rad/s, scale: 2.0, offset: 1.0,
            limits: [-9, 9]}]
"""


def contract(*fields: str, kind: str = "sensor_msgs/msg/JointState", time: str = "header"):
    lines = [f"- {{topic: joints, type: {kind}, time: {time}, align: hold, max_age: 1.0, fields: ["]
    return Contract.from_text(HEAD + lines[0] + ", ".join(fields) + "]}" + ACTIONS, "test.yaml")


ODD = [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1 / 3]
JOINTS = contract(
    "{path: 'position[j2, j0, j1]', names: [p2, p0, p1], unit: rad}",
    "{path: 'velocity[j0, j1]', names: [v0, v1], unit: rad/s, scale: 0.1, offset: -0.7}",
    "{path: 'effort[j1]', names: [e1], unit: N, clip: [0, 2.5]}",
    "{path: 'header.stamp.nanosec', names: [ns], unit: '1', scale: 1.0e-9}",
)


def messages(count: int, **options) -> list[bytes]:
    rng = np.random.default_rng(count)
    rows = rng.normal(size=(count, 3))
    rows[rng.random(rows.shape) < 0.2] = rng.choice(ODD)
    rows[rng.random(rows.shape) < 0.1] = -0.0
    return [joints(number * 10**7 + number, row, **options) for number, row in enumerate(rows)]


def one_by_one(source, receives, raw):
    """Through the readers that live topics go through."""
    rows, stamps, kept = [], [], []
    for receive, data in zip(receives, raw, strict=True):
        message, row = deserialize(data, source.type), np.empty(source.width)
        try:
            source.read_values(message, row)
        except ValueError:
            continue
        rows.append(row)
        stamps.append(stamp_ns(message.header.stamp) if source.time == "header" else receive)
        kept.append(receive)
    return np.array(stamps), np.array(rows), np.array(kept)


def check(source, raw, decoder=None):
    """That it is so; the messages that were read one by one after all."""
    decoder, singles = decoder or Decoder(source), []
    whole = decoder._decode_one
    decoder._decode_one = lambda batch, number: (singles.append(number), whole(batch, number))
    receives = list(range(7, 7 + len(raw)))
    found, expected = decoder.decode(receives, raw), one_by_one(source, receives, raw)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.tobytes() == theirs.tobytes()
    return singles


def test_thousands_of_joint_states():
    assert check(JOINTS.observations[0], messages(3000)) == []


def test_layouts_by_turns():
    """Joints in another order, other frames and lengths, as two publishers of a topic have them."""
    raw = messages(1000)
    raw += messages(1000, names=["j1", "j0", "j2"])
    raw += messages(300, frame="tool0") + messages(100, names=["j0", "j1", "j2", "extra"][:3])
    longer = [joints(1, [1, 2, 3, number], names=["x", "j0", "j1", "j2"]) for number in range(50)]
    raw += longer + [joints(9, [number, 2, 3], frame="once") for number in range(3)]
    random.Random(0).shuffle(raw)
    singles = check(JOINTS.observations[0], raw)
    assert {deserialize(raw[number], "sensor_msgs/msg/JointState").header.frame_id
            for number in singles} == {"once"}  # fmt: skip


def test_the_first_messages_do_not_decide():
    """They are big-endian, or another publisher's, whose robot lacks the joints."""
    raw = [joints(1, [number], names=["lamp"]) for number in range(5)]
    raw += [big_endian(number) for number in range(5)] + messages(1000)
    singles = check(JOINTS.observations[0], raw)
    assert all(number < 10 for number in singles)


def big_endian(number: int) -> bytes:
    message = joint_state(number * SECOND + 5, [number, -2.5, 3.5])
    return bytes(STORE.serialize_cdr(message, message.__msgtype__, little_endian=False))


def test_a_topic_that_never_stays_the_same():
    raw = [joints(number, [number, 2, 3], frame=f"f{number:04}") for number in range(400)]
    decoder = Decoder(JOINTS.observations[0])
    check(JOINTS.observations[0], raw, decoder)
    assert decoder._lessons == 0


def test_big_endian_and_other_bytes():
    raw = messages(20) + [big_endian(number) for number in range(20)]
    assert check(JOINTS.observations[0], raw) == list(range(20, 40))
    decoder = Decoder(JOINTS.observations[0])
    damaged = raw[0][:-9], b"", b"\0\1", b"\0\7" + raw[0][2:]
    found = decoder.decode(range(21), [*raw[:10], *damaged, *raw[10:17]])
    assert found.receives.tolist() == [*range(10), *range(14, 21)]
    assert decoder.problems.total() == 4
    assert all("bytes that are no sensor_msgs/msg/JointState" in text for text in decoder.problems)


def test_bytes_to_spare_at_the_end():
    """As some publish them; whatever they are."""
    raw = [data + bytes([number % 256] * 8) for number, data in enumerate(messages(300))]
    assert check(JOINTS.observations[0], raw) == []
    check(JOINTS.observations[0], raw[:3])


def test_what_lacks_a_joint_is_counted_once_a_fault():
    raw = messages(50) + messages(30, names=["a", "b", "c"])
    raw += [joints(1, [number]) for number in range(20)]
    decoder = Decoder(JOINTS.observations[0])
    found = decoder.decode(range(100), raw)
    assert found.receives.tolist() == list(range(50))
    assert sorted(decoder.problems.values()) == [20, 30]
    assert any("names no 'j2'" in problem for problem in decoder.problems)


def test_shorter_arrays_than_names():
    """Robots without velocities; no names would be missed, but numbers."""
    types = STORE.types
    message = joint_state(5, [1, 2, 3])
    short = types["sensor_msgs/msg/JointState"](
        message.header, message.name, message.position, np.array([]), np.array([])
    )
    decoder = Decoder(JOINTS.observations[0])
    assert len(decoder.decode(range(30), [cdr(short)] * 30).stamps) == 0
    assert decoder.problems.total() == 30


def pose(number: int):
    types = STORE.types
    parts = [types[f"geometry_msgs/msg/{kind}"] for kind in ("PoseStamped", "Pose", "Point")]
    header = joint_state(number * SECOND + 1, [0]).header
    place = parts[2](*(number * np.array([0.1, -1, 3])))
    turn = types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.6, -0.8)
    return parts[0](header, parts[1](place, turn))


def numbers(number: int):
    types = STORE.types
    dimension = types["std_msgs/msg/MultiArrayDimension"]("row", 3, 3)
    layout = types["std_msgs/msg/MultiArrayLayout"]([dimension], 0)
    return types["std_msgs/msg/Float32MultiArray"](layout, np.array([0.1, -1, number], np.float32))


def trajectory(number: int):
    types = STORE.types
    time = types["builtin_interfaces/msg/Duration"](0, 5)
    empty = np.array([])
    points = [
        types["trajectory_msgs/msg/JointTrajectoryPoint"](
            np.array([number + place, -number]), empty, empty, empty, time
        )
        for place in range(2)
    ]
    header = joint_state(number + 1, [0]).header
    return types["trajectory_msgs/msg/JointTrajectory"](header, ["a", "b"], points)


@pytest.mark.parametrize(
    ("make", "kind", "time", "paths", "together"),
    [
        (pose, "geometry_msgs/msg/PoseStamped", "header", ["pose.position", "pose.orientation"], 1),
        (pose, "geometry_msgs/msg/PoseStamped", "receive", ["pose.position.y"], 1),
        (numbers, "std_msgs/msg/Float32MultiArray", "receive", ["data[2]", "data[0:2]"], 1),
        (trajectory, "trajectory_msgs/msg/JointTrajectory", "header",
         ["points[1].positions[b]"], 1),
        (lambda n: STORE.types["std_msgs/msg/Bool"](n % 2 == 0), "std_msgs/msg/Bool", "receive",
         ["data"], 0),
        (lambda n: STORE.types["std_msgs/msg/Int64"](n - 2**60), "std_msgs/msg/Int64", "receive",
         ["data"], 1),
    ],
)  # fmt: skip
def test_other_types(make, kind, time, paths, together):
    fields = []
    for number, path in enumerate(paths):
        width = {"pose.position": 3, "pose.orientation": 4, "data[0:2]": 2}.get(path, 1)
        names = ", ".join(f"n{number}{entry}" for entry in range(width))
        fields.append(f"{{path: '{path}', names: [{names}], unit: '1'}}")
    source = contract(*fields, kind=kind, time=time).observations[0]
    singles = check(source, [cdr(make(number)) for number in range(40)])
    assert len(singles) == (0 if together else 40)


def test_commands_are_in_message_units():
    made = contract("{path: 'position[j0]', names: [p0], unit: rad}")
    raw = messages(100)
    found = Decoder(made.actions[0]).decode(range(100), raw)
    reader = CommandReader(made)
    expected = [reader.values(0, deserialize(data, made.actions[0].type)) for data in raw]
    assert found.values.tobytes() == np.array(expected).tobytes()
    assert found.stamps.tolist() == [number * 10**7 + number for number in range(100)]


def test_batches_do_not_matter():
    raw = messages(500) + messages(500, frame="b")
    random.Random(1).shuffle(raw)
    source = JOINTS.observations[0]
    whole, parts = Decoder(source).decode(range(1000), raw), Decoder(source)
    pieces = [parts.decode(range(k, k + 7), raw[k : k + 7]) for k in range(0, 994, 7)]
    pieces.append(parts.decode(range(994, 1000), raw[994:]))
    for index in range(3):
        together = np.concatenate([piece[index] for piece in pieces])
        assert together.tobytes() == whole[index].tobytes()
    nothing = parts.decode([], [])
    assert (nothing.values.shape, nothing.stamps.shape) == ((0, source.width), (0,))


def test_texts_and_headers():
    assert decode_text(text("ä {}")) == "ä {}"
    header = joint_state(3 * SECOND + 9, [0]).header
    assert decode_header_stamp(cdr(header)) == 3 * SECOND + 9
    for data in (b"", b"\0\1\0\0" + struct.pack("<I", 99) + b"short"):
        with pytest.raises(ValueError, match="bytes that are no std_msgs/msg/String"):
            decode_text(data)
