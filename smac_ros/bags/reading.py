"""Recordings of ROS 2 (rosbag2): which topics they have, and their messages as bytes.

No ROS installation is needed, and nothing is ever written to a recording. What is odd about one,
and what could not be read of it, is in its ``notes``.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from smac_core.errors import InputError
from smac_ros.bags.compression import ZSTD, CompressionError, decompress, decompress_file
from smac_ros.bags.definitions import difference, is_known
from smac_ros.bags.files import (
    METADATA,
    Description,
    files_in,
    find_bags,
    is_packed,
    read_description,
    require_recording,
    storage_of,
)
from smac_ros.bags.mcap import McapFile
from smac_ros.bags.sqlite import SqliteFile
from smac_ros.bags.storage import MAX_TIME, MIN_TIME, Connection, Message, Part, full_type, merge

__all__ = ["CONTRACT", "Bag", "Topic", "find_bags"]

CONTRACT = "smac_ros_contract"  # key of the contract's text in a recording's custom data
_READERS = {".mcap": McapFile, ".db3": SqliteFile}
_KEPT, _KEPT_PACKED = 64, 4  # files left open, and decompressed, at once


class Topic(NamedTuple):
    """A topic of a recording.

    Attributes:
        type: "sensor_msgs/msg/JointState"; with commas between, where it has several.
        count: messages.
        known: whether its messages can be read: the type is standard, installed, or defined in
            the recording.
    """

    name: str
    type: str
    count: int
    known: bool


class Bag:
    """One recording, opened for reading: a context manager.

    Args:
        path: a folder as rosbag2 makes them (SQLite or MCAP files, split or not, compressed as
            files, as messages or as chunks), or a single .mcap or .db3 file.

    Attributes:
        path: of the recording.
        files: its storage files that are read.
        topics: by name.
        message_count: of all topics.
        start, stop: times of receipt of the first and the last message, ns; 0 without messages.
        custom: rosbag2's custom data.
        notes: what is odd about the recording; of a topic, "NAME: what". More may be added while
            messages are read.

    Raises:
        InputError: there is nothing that can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.files: list[Path] = []
        self.notes: list[str] = []
        self.custom: dict[str, str] = {}
        self._closing = ExitStack()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._closing.close()

    def release(self) -> None:
        """Close its files, and remove what was decompressed, until they are needed again."""
        for file in self._files:
            file.close()

    def __enter__(self) -> "Bag":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return (self.stop - self.start) / 1e9

    @property
    def contract_text(self) -> str | None:
        """The YAML of the contract that it was recorded for, where it carries one."""
        return self.custom.get(CONTRACT)

    # Messages

    def messages(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time of receipt in ns, CDR bytes) in order of receipt, as they are read.

        Args:
            topics: names; those that the recording does not have are passed over.
            start, stop: only messages received from start until before stop, ns.

        Raises:
            InputError: a topic has messages of several types, or such that are no CDR, or of a
                type that is defined here in another way.
        """
        for batch in self.batches(topics, start, stop):
            yield from batch

    def batches(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[list[Message]]:
        """``messages`` in lists of about 1 MB."""
        wanted = {name for name in topics if name in self.topics}
        for name in wanted:
            self._require_readable(name)
        low = MIN_TIME if start is None else start
        high = MAX_TIME if stop is None else stop

        def read(file: _File) -> Iterator[list[Message]]:
            with file.opened() as storage:
                names = {
                    key: connection.topic
                    for key, connection in storage.connections.items()
                    if connection.topic in wanted
                }
                if names:
                    yield from merge(storage.parts(names, low, high))

        parts = [
            Part(file.start, partial(read, file))
            for file in self._files
            if wanted and file.start < high and file.stop >= low
        ]
        for batch in merge(parts):
            yield self._unpacked(batch) if self._packed_messages else batch

    def times(self) -> Iterator[tuple[str, np.ndarray]]:
        """(topic, times of receipt [n] int64 ns), stretch by stretch, not in order.

        Messages themselves are not read where the files allow it.
        """
        for file in self._files:
            with file.opened() as storage:
                for key, times in storage.times():
                    if key in storage.connections:
                        yield storage.connections[key].topic, times

    def _unpacked(self, batch: list[Message]) -> list[Message]:
        """With each message decompressed that is compressed."""
        found = []
        for topic, time, data in batch:
            if data.startswith(ZSTD):
                try:
                    data = decompress(data, "zstd")
                except CompressionError as error:
                    self._note(f"{topic}: compressed messages that are damaged ({error})")
                    continue
            found.append((topic, time, data))
        return found

    def require_type(self, topic: str, type_name: str) -> None:
        """Raise InputError unless the topic's messages are of a type, as it is defined here."""
        self._require_readable(topic)
        if self.topics[topic].type != type_name:
            raise InputError(self.path, topic, self.topics[topic].type, type_name)

    def _require_readable(self, topic: str) -> None:
        if problem := self._unreadable.get(topic):
            raise InputError(self.path, topic, problem, "messages of one type, as CDR")
        kind = self.topics[topic].type
        for definition in self._definitions[topic]:
            if found := difference(kind, definition):
                raise InputError(
                    self.path, f"{topic}, definition of {kind}", found, "the one that is known here"
                )

    # What is in it

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _open(self) -> None:
        require_recording(self.path)
        description = self._description() if self.path.is_dir() else None
        paths = [self.path] if self.path.is_file() else files_in(self.path)
        if description is not None and paths:
            listed = self._listed(description, paths)
            description, paths = (description, listed) if listed else (None, paths)
        if not paths:
            names = ", ".join(description.files) if description and description.files else "files"
            raise InputError(self.path, "files", "none", f"{names}, as {METADATA} lists")
        self.files = paths
        self._files: list[_File] = []
        for path in paths:
            keep = len(paths) <= (_KEPT_PACKED if is_packed(path) else _KEPT)
            file = _File(path, self._note, keep)
            self._closing.callback(file.close)
            times = description and description.files.get(path.name)
            try:
                if times and is_packed(path):
                    file.start, file.stop = times
                else:
                    file.look()
            except InputError as error:
                if len(paths) == 1:
                    raise
                self._note(f"{path.name}: not read, {error.field}: found {error.found}")
                continue
            self._files.append(file)
        if not self._files:
            raise InputError(self.path, "files", "; ".join(self.notes), "one that can be read")
        described = description is not None and self._agrees(description)
        if description is None:
            description = self._stored()
        self._packed_messages = description is None or description.packed_messages
        if description is not None:
            self.custom = description.custom
        self._count(description if described else None)

    def _description(self) -> Description | None:
        """What metadata.yaml says, if it is there and can be read."""
        path = self.path / METADATA
        try:
            return read_description(path.read_text(encoding="utf-8"), path)
        except FileNotFoundError:
            self._note(f"no {METADATA}: what is in it was found in the files themselves")
        except (InputError, UnicodeDecodeError) as error:
            self._note(f"{METADATA} is damaged and not used: {error}")
        return None

    def _stored(self) -> Description | None:
        """What the files themselves have of metadata."""
        for text in (file.metadata for file in self._files if file.metadata):
            try:
                return read_description(text, self.path)
            except InputError:
                continue  # written before anything was recorded
        return None

    def _listed(self, description: Description, there: list[Path]) -> list[Path]:
        """The files that are there of those that metadata.yaml lists; none if it is another's."""
        names = {path.name for path in there}
        if names.isdisjoint(description.files):
            self._note(f"{METADATA} lists none of the files that are there and is not used")
            return []
        for name in sorted(description.files.keys() - names):
            self._note(f"{name} is missing: its messages are not read")
        for name in sorted(names - description.files.keys()):
            self._note(f"{name} is not in {METADATA} and not read; it can be given on its own")
        return [path for path in there if path.name in description.files]

    def _agrees(self, description: Description) -> bool:
        """Whether the counts of metadata.yaml can be right."""
        if len(self._files) < len(description.files) or not all(f.whole for f in self._files):
            return False
        counts = [file.count for file in self._files]
        if None in counts or sum(counts) == description.count:
            return True
        self._note(f"{METADATA} counts {description.count} messages, the files have {sum(counts)}")
        return False

    def _count(self, description: Description | None) -> None:
        """Topics with their types and numbers of messages."""
        counts: Counter[str] = Counter()
        connections: dict[str, list[Connection]] = {}
        if description is not None:
            for name, kind, encoding, count in description.topics:
                counts[name] += count
                connections.setdefault(name, []).append(
                    Connection(name, full_type(kind), encoding, "", "")
                )
            self.message_count = description.count
            self.start, self.stop = description.start, description.stop
        for file in self._files:
            if description is None:
                file.look(count=True)
                for key, count in file.counts.items():
                    counts[file.connections[key].topic] += count
            qos: dict[str, str] = {}
            for connection in file.connections.values():
                name = connection.topic
                connections.setdefault(name, []).append(connection)
                if qos.setdefault(name, connection.qos) != connection.qos:
                    self._note(f"{name}: publishers with different QoS; their messages are merged")
        if description is None:
            self.message_count = counts.total()
            filled = [file for file in self._files if file.counts]
            self.start = min((file.start for file in filled), default=0)
            self.stop = max((file.stop for file in filled), default=0)
        if not self.message_count:
            self._note("there are no messages in it")
        self._unreadable: dict[str, str] = {}
        self._definitions: dict[str, set[str]] = {}
        self.topics: dict[str, Topic] = {}
        for name in sorted(connections):
            self.topics[name] = self._topic(name, counts[name], connections[name])

    def _topic(self, name: str, count: int, connections: list[Connection]) -> Topic:
        kinds = sorted({connection.type for connection in connections})
        encodings = sorted({connection.encoding for connection in connections} - {"cdr"})
        self._definitions[name] = {c.definition for c in connections if c.definition}
        known = bool(self._definitions[name]) or all(map(is_known, kinds))
        if len(kinds) > 1:
            self._unreadable[name] = f"messages of {' and of '.join(kinds)}"
        elif encodings:
            self._unreadable[name] = f"messages encoded as {', '.join(encodings)}"
        elif not known:
            self._note(f"{name}: the type {kinds[0]} is not known here; it is skipped")
        if name in self._unreadable:
            self._note(f"{name}: {self._unreadable[name]}; it is skipped")
        return Topic(name, ", ".join(kinds), count, known and name not in self._unreadable)


class _File:
    """One storage file of a recording.

    Args:
        keep: leave it open once it was opened.

    Attributes:
        start, stop: times of receipt, ns.
        count: messages; None: not known yet.
        counts, connections: as the storage has them.
    """

    def __init__(self, path: Path, note: Callable[[str], None], keep: bool) -> None:
        self.path, self._note, self._keep = path, note, keep
        self.start = self.stop = 0
        self.whole, self.metadata = True, ""
        self.count: int | None = None
        self.counts: Counter[int] = Counter()
        self.connections: dict[int, Connection] = {}
        self._open = ExitStack()
        self._kept: McapFile | SqliteFile | None = None

    @contextmanager
    def opened(self) -> Iterator[McapFile | SqliteFile]:
        if not self._keep:
            with ExitStack() as stack:
                yield self._storage(stack)
            return
        if self._kept is None:
            self._kept = self._storage(self._open)
        yield self._kept

    def close(self) -> None:
        self._kept = None
        self._open.close()

    def _storage(self, stack: ExitStack) -> McapFile | SqliteFile:
        path = self.path
        try:
            if is_packed(path):
                folder = stack.enter_context(TemporaryDirectory(prefix="smac_bag_"))
                path = Path(folder, path.stem)
                if problem := decompress_file(self.path, path):
                    self._note(f"{self.path.name}: broken off or damaged ({problem})")
            storage = _READERS[storage_of(self.path)](path, self._note)
        except OSError as error:
            expected = "a file that can be read, and room for a copy of it in $TMPDIR"
            raise InputError(self.path, "file", error, expected) from None
        stack.callback(storage.close)
        return storage

    def look(self, count: bool = False) -> None:
        """Find out what is in it; how much, where that is told by an index, or if asked."""
        with self.opened() as storage:
            self.connections, self.metadata = dict(storage.connections), storage.metadata
            if count or isinstance(storage, McapFile) or not storage.whole:
                self.counts = storage.counts
                self.count = self.counts.total()
            self.start, self.stop = storage.start, storage.stop
            self.whole = storage.whole
