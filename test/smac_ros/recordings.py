"""Recordings for tests: by rosbags' writer, and MCAP files as other recorders lay them out."""

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
JOINTS, TEXT = "sensor_msgs/msg/JointState", "std_msgs/msg/String"
PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
SECOND = 10**9
Sample = tuple[str, int, bytes]  # topic, time of receipt, CDR


def qos(depth: int) -> Qos:
    never = QosTime(0, 0)
    return Qos(
        *(QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, QosDurability.VOLATILE),
        *(never, never, QosLiveliness.AUTOMATIC, never, False),
    )


def joint_state(stamp: int, values: Sequence[float], names: Sequence[str] = (), frame="base"):
    """A JointState with positions ``values``, velocities half and efforts twice of them."""
    types, positions = STORE.types, np.array(values, np.float64)
    names = list(names or (f"j{index}" for index in range(len(positions))))
    time = types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))
    header = types["std_msgs/msg/Header"](time, frame)
    return types[JOINTS](header, names, positions, positions / 2, positions * 2)


def joints(stamp: int, values: Sequence[float], **others: Any) -> bytes:
    return cdr(joint_state(stamp, values, **others))


def text(content: str) -> bytes:
    return cdr(STORE.types[TEXT](content))


def cdr(message: Any) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def samples(count: int, topics: Sequence[str] = ("/a", "/b")) -> list[Sample]:
    """Joint states of topics in turns, at 100 Hz, received 3 ms after their stamps."""
    start = 1_700_000_000 * SECOND
    made = []
    for number in range(count):
        stamp = start + number * 10_000_000
        topic = topics[number % len(topics)]
        made.append((topic, stamp + 3_000_000, joints(stamp, [number, -number, 0.5])))
    return made


def write(
    path: Path,
    content: Iterable[Sample],
    storage: str = "mcap",
    mode: CompressionMode = CompressionMode.NONE,
    *,
    types: dict[str, str] | None = None,
    custom: dict[str, str] | None = None,
) -> Path:
    """A recording by rosbags. Topics are of joint states, unless ``types`` tells another type."""
    kinds, connections = types or {}, {}
    writer = Writer(path, version=9, storage_plugin=PLUGINS[storage])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    for key, value in (custom or {}).items():
        writer.set_custom_data(key, value)
    with writer:
        for topic, time, data in content:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, kinds.get(topic, JOINTS), typestore=STORE
                )
            writer.write(connections[topic], time, data)
    return path


class McapBytes:
    """An MCAP file as other recorders write them: laid out as told, with or without an index.

    Args:
        chunks: messages that lie together, chunk by chunk.
        pack: what compresses a chunk, by its name; None: messages lie outside of chunks.
        indexed: whether chunks have message indices, and the file the index of its chunks.
        types: of topics, where they are no joint states.
        encoding: of the messages.
    """

    def __init__(
        self,
        chunks: Sequence[Sequence[Sample]],
        pack: tuple[str, Callable[[bytes], bytes]] | None = ("", bytes),
        *,
        indexed: bool = True,
        types: dict[str, str] | None = None,
        encoding: str = "cdr",
    ) -> None:
        topics = list(dict.fromkeys(sample[0] for chunk in chunks for sample in chunk))
        self._channels = {topic: number for number, topic in enumerate(topics, 1)}
        about = b""
        for topic, number in self._channels.items():
            kind = (types or {}).get(topic, JOINTS)
            known = kind in STORE.types
            definition = STORE.generate_msgdef(kind, ros_version=2)[0] if known else ""
            schema = b"".join(map(_text, (kind, "ros2msg", definition)))
            about += _record(3, struct.pack("<H", number) + schema)
            channel = struct.pack("<HH", number, number) + _text(topic) + _text(encoding)
            about += _record(4, channel + struct.pack("<I", 0))
        self.data = b"\x89MCAP0\r\n" + _record(1, _text("ros2") + _text("test")) + about
        self.chunk_places: list[int] = []  # where chunks begin
        indices, counts = b"", dict.fromkeys(self._channels.values(), 0)
        for chunk in chunks:
            if pack is None:
                self.data += b"".join(map(self._message, chunk))
            else:
                indices += self._add_chunk(chunk, *pack, indexed)
            for topic, *_ in chunk:
                counts[self._channels[topic]] += 1
        self.data += _record(15, bytes(4))
        first = len(self.data) if indexed else 0
        if indexed:
            times = [sample[1] for chunk in chunks for sample in chunk]
            total = (len(times), len(topics), len(topics), 0, 0, len(chunks) if pack else 0)
            by_channel = b"".join(struct.pack("<HQ", *pair) for pair in counts.items())
            statistics = struct.pack("<QHIIIIQQ", *total, min(times), max(times))
            statistics += struct.pack("<I", len(by_channel)) + by_channel
            self.data += about + indices + _record(11, statistics)
        self.data += struct.pack("<BQQQ", 2, 20, first, 0)
        crc = zlib.crc32(self.data[first:]) if first else 0
        self.data += struct.pack("<I", crc) + b"\x89MCAP0\r\n"

    def _message(self, sample: Sample) -> bytes:
        topic, time, data = sample
        return _record(5, struct.pack("<HIQQ", self._channels[topic], 0, time, time) + data)

    def _add_chunk(
        self, chunk: Sequence[Sample], name: str, pack: Callable[[bytes], bytes], indexed: bool
    ) -> bytes:
        content = b"".join(map(self._message, chunk))
        times, packed = [time for _, time, _ in chunk], pack(content)
        head = struct.pack("<QQQI", min(times), max(times), len(content), zlib.crc32(content))
        place = len(self.data)
        self.chunk_places.append(place)
        self.data += _record(6, head + _text(name) + struct.pack("<Q", len(packed)) + packed)
        end, places = len(self.data), b""
        if not indexed:
            return b""
        offset, entries = 0, {}
        for sample in chunk:
            entry = struct.pack("<QQ", sample[1], offset)
            channel = self._channels[sample[0]]
            entries[channel] = entries.get(channel, b"") + entry
            offset += len(self._message(sample))
        for channel, entry in entries.items():
            places += struct.pack("<HQ", channel, len(self.data))
            self.data += _record(7, struct.pack("<HI", channel, len(entry)) + entry)
        sizes = struct.pack("<QQ", len(packed), len(content))
        behind = struct.pack("<Q", len(self.data) - end) + _text(name) + sizes
        about = struct.pack("<QQQQI", min(times), max(times), place, end - place, len(places))
        return _record(8, about + places + behind)


def _record(kind: int, body: bytes) -> bytes:
    return struct.pack("<BQ", kind, len(body)) + body


def _text(content: str) -> bytes:
    return struct.pack("<I", len(content)) + content.encode()
