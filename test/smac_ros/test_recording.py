"""Recordings as files: whole, split, broken off, and never over something that is there."""

import errno
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import Reader
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from smac_core.errors import InputError
from smac_ros.bags import recording
from smac_ros.bags.decoding import deserialize
from smac_ros.bags.reading import CONTRACT, Bag
from smac_ros.bags.recording import RecordedTopic, Recording, definitions, recorded_topics
from smac_ros.bags.writing import Files
from smac_ros.contract import Contract, load_contract

STORE = get_typestore(Stores.ROS2_JAZZY)
TEXT = "name: some contract\nwith: [lines, 'and \"quotes\"', äöü]\n"
TOPICS = (
    RecordedTopic("/arm/joint_states", "sensor_msgs/msg/JointState"),
    RecordedTopic("/arm/episode", "std_msgs/msg/String"),
)
FREE = namedtuple("Usage", "total used free")
START = 1_700_000_000_000_000_000


def joint_state(number: int) -> bytes:
    """CDR of a message of seven joints that says which it is."""
    types = STORE.types
    time = types["builtin_interfaces/msg/Time"](sec=number, nanosec=1)
    values = np.random.default_rng(number).standard_normal((3, 7))
    message = types["sensor_msgs/msg/JointState"](
        header=types["std_msgs/msg/Header"](stamp=time, frame_id="base"),
        name=[f"right_j{i}" for i in range(7)],
        position=values[0],
        velocity=values[1],
        effort=values[2],
    )
    return bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/JointState"))


def until(condition: Callable[[], object]) -> None:
    """Wait for what the recording's thread does."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def read(path: Path) -> list[tuple[str, int, bytes]]:
    with Bag(path) as bag:
        return list(bag.messages([topic.name for topic in TOPICS]))


@pytest.fixture
def soon(monkeypatch):
    """The disk has everything after 20 ms."""
    monkeypatch.setattr(recording, "FLUSH", 0.02)


def test_topics_of_a_contract():
    """Each once, with the reward where there is one, and what tells of episodes."""
    contract = load_contract("sawyer_sim")
    names = [topic.name for topic in recorded_topics(contract)]
    streams = [s.topic for s in (*contract.observations, *contract.actions)]
    assert names == [*streams, "reward", "episode", "terminated"]
    assert recorded_topics(contract)[0].type == "geometry_msgs/msg/PoseStamped"
    without = Contract.from_text(contract.text.partition("\nreward:")[0], "text")
    assert "reward" not in [topic.name for topic in recorded_topics(without)]


@pytest.mark.parametrize("compressed", [True, False])
def test_a_recording_is_a_bag(tmp_path, compressed):
    """The library's own reader finds all of it: bytes, times, definitions, the contract."""
    sent = [(START + 10**7 * k, joint_state(k)) for k in range(300)]
    made = Recording(tmp_path / "day" / "one", TOPICS, TEXT, compressed=compressed)
    for when, data in sent:
        made.write(0, when, data)
    made.close()
    assert (made.counts, made.dropped, made.problem, made.files) == ([300, 0], 0, "", 1)
    assert made.size == (tmp_path / "day/one/one_0.mcap").stat().st_size
    assert (made.size < 300 * len(sent[0][1])) == compressed
    with Reader(tmp_path / "day" / "one") as reader:
        got = [(when, bytes(data)) for _, when, data in reader.messages()]
        assert got == sent
        assert (reader.start_time, reader.end_time - 1) == (sent[0][0], sent[-1][0])
        assert {(c.topic, c.msgtype) for c in reader.connections} == set(TOPICS)
        assert "float64[] position" in reader.connections[0].msgdef.data
    metadata = yaml.safe_load((tmp_path / "day/one/metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    assert information["custom_data"] == {CONTRACT: TEXT}
    assert information["relative_file_paths"] == ["one_0.mcap"]
    with Bag(tmp_path / "day/one") as bag:
        assert bag.contract_text == TEXT and not bag.notes
    with Bag(tmp_path / "day/one/one_0.mcap") as bag:  # as somebody may send it
        assert bag.contract_text == TEXT and bag.message_count == 300


def test_bytes_to_spare():
    """rclpy's serialize_message leaves some at the end; a policy publishes them along."""
    raw, kind = joint_state(3), "sensor_msgs/msg/JointState"
    for spare in (b"", b"abcd1234"):
        assert deserialize(raw + spare, kind).position.tobytes() in raw
    with pytest.raises(SerdeError):
        deserialize(raw[:-8], kind)


def test_nothing_recorded_is_an_empty_bag(tmp_path):
    Recording(tmp_path / "empty", TOPICS, TEXT).close()
    with Bag(tmp_path / "empty") as bag:
        assert bag.message_count == 0 and bag.contract_text == TEXT
        assert set(bag.topics) == {topic.name for topic in TOPICS}


def test_split_by_size(tmp_path, monkeypatch):
    """Each file is whole, carries the contract and can be read alone."""
    monkeypatch.setattr(recording, "ROUND", 50)
    sent = [(0, START + k, joint_state(k)) for k in range(400)]
    made = Recording(tmp_path / "long", TOPICS, TEXT, max_size=15_000, compressed=False)
    for message in sent:
        made.write(*message)
    made.close()
    files = sorted((tmp_path / "long").glob("*.mcap"))
    assert made.files == len(files) > 3
    assert made.size == sum(file.stat().st_size for file in files)
    expected = [(TOPICS[0].name, when, data) for _, when, data in sent]
    assert read(tmp_path / "long") == expected
    parts = [read(file) for file in files]
    assert sum(parts, []) == expected and all(parts)
    with Bag(files[1]) as bag:
        assert bag.contract_text == TEXT
    information = yaml.safe_load((tmp_path / "long/metadata.yaml").read_text())
    information = information["rosbag2_bagfile_information"]
    assert information["relative_file_paths"] == [file.name for file in files]
    assert [file["message_count"] for file in information["files"]] == list(map(len, parts))
    assert information["message_count"] == 400


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from test_recording import START, TEXT, TOPICS, Recording, joint_state, recording, until
recording.FLUSH = 0.02
made = Recording({out!r}, TOPICS, TEXT)
for k in range(100):
    made.write(0, START + k, joint_state(k))
until(lambda: not made._waiting)
first = made.size  # perhaps with, and perhaps before the last of them
made.write(0, START + 100, joint_state(100))
until(lambda: made.size > first)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_recording_is_there_up_to_the_break(tmp_path):
    """What was on the disk is read, with the contract, though there is no index and no metadata."""
    code = KILLED.format(folder=str(Path(__file__).parent), out=str(tmp_path / "killed"))
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not (tmp_path / "killed/metadata.yaml").exists()
    got = read(tmp_path / "killed")
    assert len(got) >= 100
    assert got == [(TOPICS[0].name, START + k, joint_state(k)) for k in range(len(got))]
    with Bag(tmp_path / "killed") as bag:
        assert bag.contract_text == TEXT and bag.notes


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there: folder: found one that exists; expected a new"):
        Recording(tmp_path / "there", TOPICS, TEXT)
    assert not list((tmp_path / "there").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder: found .*Not a directory"):
        Recording(tmp_path / "file" / "bag", TOPICS, TEXT)


def test_it_ends_before_the_disk_is_full(tmp_path, monkeypatch, soon):
    """Closed whole, and with a reason; what comes later is not taken."""
    free = [2000]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: FREE(10**6, 0, free[0] * 10**6))
    with pytest.raises(InputError, match="found 2000 MB left on the disk; expected at least 3000"):
        Recording(tmp_path / "no", TOPICS, TEXT, least_free=3e9)
    assert not (tmp_path / "no").exists()
    made = Recording(tmp_path / "bag", TOPICS, TEXT, least_free=1e9)
    free[0] = 999
    made.write(0, START, joint_state(0))
    until(lambda: made.problem)
    assert "999 MB left on the disk; expected at least 1000 MB" in made.problem
    made.write(0, START + 1, joint_state(1))
    made.close()
    assert made.counts == [1, 0]
    with Bag(tmp_path / "bag") as bag:
        assert bag.message_count == 1 and not bag.notes


def test_a_disk_that_fails_is_told(tmp_path, monkeypatch, soon):
    """The recording ends with a reason, and what was written before can be read."""
    made = Recording(tmp_path / "bag", TOPICS, TEXT)
    first = made.size
    made.write(0, START, joint_state(0))
    until(lambda: made.size > first)

    def fail(self) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Files, "flush", fail)
    made.write(0, START + 1, joint_state(1))
    until(lambda: made.problem)
    made.close()
    assert "Input/output error; it ends there" in made.problem
    assert read(tmp_path / "bag") == [(TOPICS[0].name, START, joint_state(0))]


def test_a_disk_that_does_not_keep_up(tmp_path):
    """Memory is bounded, and what is lost is counted."""
    data = joint_state(0)
    made = Recording(tmp_path / "bag", TOPICS, TEXT, pending=10 * len(data))
    for k in range(25):  # all before the thread looks again
        made.write(0, START + k, data)
    made.close()
    assert (made.counts[0], made.dropped) == (10, 15)
    assert len(read(tmp_path / "bag")) == 10


def test_definitions_of_installed_packages(tmp_path, monkeypatch):
    """A robot's own types are described in the recording, with what they are made of."""
    pytest.importorskip("ament_index_python")
    for path, text in {
        "resource_index/packages/arm_msgs": "",
        "../arm_msgs/msg/Gripper.msg": "std_msgs/Header header\nFinger[] fingers\n",
        "../arm_msgs/msg/Finger.msg": "float64 position\n",
    }.items():
        file = (tmp_path / "share/ament_index" / path).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    for _ in range(2):  # the node looks before it begins
        store = definitions(["arm_msgs/msg/Gripper", "std_msgs/msg/String"])
    text, _ = store.generate_msgdef("arm_msgs/msg/Gripper", ros_version=2)
    assert "arm_msgs/Finger[] fingers" in text and "float64 position" in text
    with pytest.raises(InputError, match="arm_msgs/msg/Gone: found no definition; expected a"):
        definitions(["arm_msgs/msg/Gone"])
