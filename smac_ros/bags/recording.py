"""A recording that is being written: of what, to where, until when.

A thread of its own does what the disk has to do, so that who receives messages never waits for it.
"""

import shutil
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from smac_core.errors import InputError
from smac_ros.bags.reading import CONTRACT
from smac_ros.bags.writing import VERSION, BagWriter
from smac_ros.contract import Contract

MEGABYTE = 10**6
FLUSH = 1.0  # s until what was received is on the disk: what a crash can take, and little more
BATCH = 2**20  # bytes received that need not wait for that
ROUND = 5000  # messages between two looks at the disk
PENDING = 100 * MEGABYTE  # bytes that may wait for a slow disk; what comes beyond is lost


class RecordedTopic(NamedTuple):
    """A topic's name, and its messages' type: "sensor_msgs/msg/JointState"."""

    name: str
    type: str


def recorded_topics(contract: Contract) -> list[RecordedTopic]:
    """What a recording for a contract holds, by the contract's own names, each topic once.

    That is observations, commands, the reward if there is one, the markers of episodes, and the
    stamps at which the robot itself ended one.
    """
    reward = [] if contract.reward is None else [contract.reward]
    topics = [
        *(RecordedTopic(s.topic, s.type) for s in (*contract.observations, *contract.actions)),
        *(RecordedTopic(stream.topic, stream.type) for stream in reward),
        RecordedTopic("episode", "std_msgs/msg/String"),
        RecordedTopic("terminated", "std_msgs/msg/Header"),
    ]
    return list({topic.name: topic for topic in topics}.values())


class Recording:
    """A recording that is being written.

    Args:
        folder: a new one.
        topics: by the names they have on the network.
        contract: its YAML text, which the recording carries.
        max_size: bytes, about, after which another file begins; 0: never.
        least_free: bytes of the disk to leave; the recording ends before.
        compressed: chunks of messages, by zstd.
        pending: bytes that may wait for a slow disk.

    Attributes:
        counts: messages accepted, by topic.
        dropped: messages that were not, because the disk did not keep up.
        problem: why nothing is accepted any more; empty: all is well.

    Raises:
        InputError: the folder exists or cannot be made, the disk is full, a type is not known.
    """

    def __init__(
        self,
        folder: str | Path,
        topics: Sequence[RecordedTopic],
        contract: str,
        *,
        max_size: float = 0,
        least_free: float = 0,
        compressed: bool = True,
        pending: int = PENDING,
    ) -> None:
        self.folder, self.topics = Path(folder), tuple(topics)
        self.counts, self.dropped, self.problem = [0] * len(topics), 0, ""
        self._max_size, self._least_free, self._most = max_size, least_free, pending
        require_new(self.folder)
        store = definitions([topic.type for topic in topics])
        custom = {CONTRACT: contract}
        try:
            self._require_space(_parent(self.folder))
            writer = BagWriter(self.folder, version=VERSION, storage_plugin=StoragePlugin.MCAP)
            if compressed:
                writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            for key, value in custom.items():
                writer.set_custom_data(key, value)
            writer.open()
            self._connections = [
                writer.add_connection(topic.name, topic.type, typestore=store) for topic in topics
            ]
            self._writer, self._files = writer, writer.storage
            self._files.start(custom)
        except OSError as error:
            with suppress(OSError):  # an empty one is nothing to keep
                self.folder.rmdir()
            raise InputError(self.folder, "folder", error, "one that can be written") from None
        self._size = self._files.size
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        self._taken = self._written = 0  # bytes, each changed by one thread alone
        self._wake, self._end = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="disk", daemon=True)
        self._thread.start()

    def write(self, topic: int, time: int, data: bytes) -> None:
        """Take a message: its topic's index, when it was received (ns), its bytes (CDR).

        Never waits and never fails; always called by the same thread.
        """
        if self.problem:
            return
        waiting = self._taken + len(data) - self._written
        if waiting > self._most:
            self.dropped += 1
            return
        self.counts[topic] += 1
        self._taken += len(data)
        self._waiting.append((topic, time, data))
        if waiting > BATCH and not self._wake.is_set():
            self._wake.set()

    @property
    def message_count(self) -> int:
        return sum(self.counts)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._size

    @property
    def files(self) -> int:
        return len(self._files.parts)

    def close(self) -> None:
        """Write what waits and close the recording, whole."""
        self._end = True
        self._wake.set()
        self._thread.join()

    # The thread

    def _work(self) -> None:
        try:
            while not self.problem and not self._end:
                self._wake.wait(FLUSH)
                self._wake.clear()
                self._write_waiting()
            self._write_waiting()  # what came until the end
            self._writer.close()
            self._size = sum(part.path.stat().st_size for part in self._files.parts)
        except Exception as error:  # whatever it is, the recording is over and must be seen to be
            self.problem = (
                f"{self.folder}: {error}; it ends there, with what was received until about "
                f"{FLUSH:g} s before"
            )
            with suppress(Exception):
                self._writer.abort()

    def _write_waiting(self) -> None:
        while self._waiting:
            if 0 < self._max_size <= self._files.path.stat().st_size:
                self._files.split()
            for _ in range(min(len(self._waiting), ROUND)):
                topic, when, data = self._waiting.popleft()
                self._writer.write(self._connections[topic], when, data)
                self._written += len(data)
            self._files.flush()
            self._size = self._files.size
            try:
                self._require_space(self.folder)
            except InputError as error:
                self.problem = str(error)  # what was accepted is still written

    def _require_space(self, folder: Path) -> None:
        free = shutil.disk_usage(folder).free
        if free < self._least_free:
            found = f"{free / MEGABYTE:.0f} MB left on the disk"
            expected = f"at least {self._least_free / MEGABYTE:.0f} MB; free some, or choose less"
            raise InputError(self.folder, "disk", found, expected)


def require_new(folder: Path) -> None:
    """Raise InputError if there is something already."""
    if folder.exists():
        raise InputError(folder, "folder", "one that exists", "a new one; nothing is overwritten")


def definitions(types: Sequence[str]) -> Typestore:
    """Definitions of message types: the standard ones', and those of installed packages.

    Raises:
        InputError: a type that is neither standard nor installed with its .msg file.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    wanted, found = list(types), {}
    while wanted:
        name = wanted.pop()
        if name in store.fielddefs or name in found:
            continue
        found |= get_types_from_msg(_installed_definition(name), name)
        wanted += [part for _, kind in found[name][1] for part in _messages(kind)]
    store.register(found)
    return store


def _messages(kind: tuple[Nodetype, Any]) -> list[str]:
    """Names of the messages that a field is made of: none or one."""
    node, content = kind
    if node == Nodetype.NAME:
        return [content]
    return [] if node == Nodetype.BASE else _messages(content[0])


def _installed_definition(name: str) -> str:
    package, _, short = name.split("/")
    file = f"share/{package}/msg/{short}.msg"
    try:
        from ament_index_python.packages import get_package_prefix

        return (Path(get_package_prefix(package)) / file).read_text(encoding="utf-8")
    except (ImportError, LookupError, OSError):
        expected = f"a standard type, or a package installed with its {file}"
        raise InputError("type", name, "no definition", expected) from None


def _parent(folder: Path) -> Path:
    """The nearest folder above that exists."""
    return next(parent for parent in folder.absolute().parents if parent.is_dir())
