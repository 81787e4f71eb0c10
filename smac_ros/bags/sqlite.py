"""rosbag2's SQLite files; of those that are cut off, the rows before the cut.

A recording is never written to: where rows still lie in a journal beside the file, as a recorder
that was killed leaves it, both are copied and the copy is read.
"""

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from smac_core.errors import InputError
from smac_ros.bags.storage import Connection, Message, Part, full_type, time_of

_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter where its text has odd bytes
_MAGIC = b"SQLite format 3\0"
_COLUMNS = {
    "topics": {"id", "name", "type", "serialization_format"},
    "messages": {"id", "topic_id", "timestamp", "data"},
}
_JOURNALS = ("-wal", "-journal")
_BATCH = 1 << 20  # bytes of messages that are read at once
_ROWS = 1 << 16  # rows without their messages


class _Rows(NamedTuple):
    """Rows that follow one another, of a file that is cut off."""

    first: int
    last: int
    start: int
    stop: int


class SqliteFile:
    """One file, opened for reading.

    Args:
        note: is told what is odd about the file, also while it is read.

    Attributes:
        connections: by topic id.
        metadata: rosbag2's metadata in the file: YAML, empty where there is none.
        whole: whether it has all its pages.

    Raises:
        InputError: it is no SQLite file of rosbag2's, or its beginning is damaged.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self.path = path
        self._note = lambda text: note(f"{path.name}: {text}")
        self._copy: TemporaryDirectory | None = None
        self._rows: list[_Rows] = []
        self._counts: Counter[int] | None = None
        self.whole = True
        opened = (self._copied(path) or path).absolute()
        options = "mode=ro" if self._copy else "mode=ro&immutable=1"
        self._database = sqlite3.connect(f"file:{quote(str(opened))}?{options}", uri=True)
        self._database.text_factory = lambda text: text.decode(errors="replace")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()
        if self._copy is not None:
            self._copy.cleanup()

    def _copied(self, path: Path) -> Path | None:
        """A copy to read, if sqlite would have to write: to take a journal in, or because of a
        page of which the end is missing, which would be read as zeros."""
        names = [path.with_name(path.name + suffix) for suffix in _JOURNALS]
        journals = [name for name in names if name.is_file() and name.stat().st_size]
        with path.open("rb") as file:
            head = file.read(18)
        size = path.stat().st_size
        if not journals and not head.startswith(_MAGIC):
            found = f"{size} bytes of something else" if size else "0 bytes"
            raise InputError(path, "file", found, "an SQLite file of rosbag2")
        page = int.from_bytes(head[16:], "big")
        odd = size % {0: 1, 1: 1 << 16}.get(page, page)
        if not journals and not odd:
            return None
        self._copy = TemporaryDirectory(prefix="smac_bag_")
        copy = Path(self._copy.name, path.name)
        for name in (path, *journals):
            shutil.copyfile(name, copy.with_name(name.name))
        os.truncate(copy, size - odd)
        if journals:
            self._note(f"its recorder was not done with {journals[0].name}; a copy was read")
            with suppress(*_DAMAGE), closing(sqlite3.connect(copy)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                database.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
        return copy

    def _open(self) -> None:
        try:
            tables = self._tables()
        except _DAMAGE as error:
            # A file that is shorter than it says is opened only with this.
            self._database.execute("PRAGMA writable_schema=ON")
            self.whole = False
            try:
                tables = self._tables()
            except _DAMAGE:
                found = f"{error} ({self.path.stat().st_size} bytes)"
                raise InputError(self.path, "file", found, "rosbag2's tables") from None
        for name, columns in _COLUMNS.items():
            if not columns <= tables.get(name, set()):
                found = ", ".join(sorted(tables.get(name, ()))) or "none"
                expected = f"{', '.join(sorted(columns))}, as of rosbag2"
                raise InputError(self.path, f"columns of table {name}", found, expected)
        definitions: dict[str, str] = {}
        if "message_definitions" in tables:
            definitions = dict(
                self._all("SELECT topic_type, encoded_message_definition FROM message_definitions")
            )
        profiles = "offered_qos_profiles" if "offered_qos_profiles" in tables["topics"] else "''"
        self.connections = {
            key: Connection(topic, full_type(kind), encoding, qos, definitions.get(kind, ""))
            for key, topic, kind, encoding, qos in self._all(
                f"SELECT id, name, type, serialization_format, {profiles} FROM topics "
                "WHERE typeof(name) = 'text' AND typeof(type) = 'text'"
            )
        }
        self.metadata = ""
        if "metadata" in tables:
            for (text,) in self._all("SELECT metadata FROM metadata ORDER BY id"):
                self.metadata = text  # the last one counts
        if not self.whole:
            self._recover()

    def _tables(self) -> dict[str, set[str]]:
        """The columns of every table."""
        names = self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            name: {row[1] for row in self._database.execute(f"PRAGMA table_info('{name}')")}
            for (name,) in names.fetchall()
        }

    def _all(self, query: str) -> list[Any]:
        """A query's rows; of a damaged file those that can be read."""
        rows = []
        try:
            rows += self._database.execute(query)
        except _DAMAGE:
            self.whole = False
        return rows

    def _recover(self) -> None:
        """Find the rows that can be read, in the order in which they were written."""
        counts: Counter[int] = Counter()
        query = "SELECT id, topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
        size, times, first, last = 0, [], 0, 0
        try:
            rows = self._database.execute(query)
            for row, topic, time, data in rows:
                whole = type(time) is int and type(data) is bytes
                if topic not in self.connections or not whole:
                    break  # no recorder writes this
                if not times:
                    first = row
                last = row
                counts[topic] += 1
                times.append(time)
                size += len(data)
                if size > _BATCH:
                    self._rows.append(_Rows(first, last, min(times), max(times)))
                    size, times = 0, []
        except _DAMAGE:
            pass
        if times:
            self._rows.append(_Rows(first, last, min(times), max(times)))
        self.whole, self._counts = False, counts
        size = self.path.stat().st_size
        self._note(
            f"broken off or damaged ({size} bytes): the {counts.total()} messages before are read"
        )

    # How much there is

    @property
    def counts(self) -> Counter[int]:
        """Messages by topic id. This reads the whole file once."""
        if self._counts is None:
            query = "SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id"
            try:
                found = Counter(dict(self._database.execute(query).fetchall()))
            except _DAMAGE:
                self._recover()
                return self._counts
            unknown = found.keys() - self.connections.keys()
            if unknown:
                lost = sum(found.pop(key) for key in unknown)
                self._note(f"{lost} messages of no topic are left out")
            self._counts = found
        return self._counts

    @property
    def start(self) -> int:
        """Time of receipt of the first message, ns; 0 without messages."""
        found = self._one("MIN(timestamp)")
        return found if self.whole else min((rows.start for rows in self._rows), default=0)

    @property
    def stop(self) -> int:
        """Time of receipt of the last message, ns; 0 without messages."""
        found = self._one("MAX(timestamp)")
        return found if self.whole else max((rows.stop for rows in self._rows), default=0)

    def _one(self, what: str) -> int:
        """A number of all messages; if they cannot be read, ``whole`` is no more true."""
        if self.whole:
            try:
                (found,) = self._database.execute(f"SELECT {what} FROM messages").fetchone()
                return found if type(found) is int else 0
            except _DAMAGE:
                self._recover()
        return 0

    # Messages

    def times(self) -> Iterator[tuple[int, np.ndarray]]:
        """(topic id, times of receipt [n] int64 ns), stretch by stretch."""
        query = (
            "SELECT topic_id, timestamp FROM messages NOT INDEXED "
            f"WHERE topic_id IN ({','.join(map(str, self.connections))}) "
            "AND typeof(timestamp) = 'integer'"
        )
        if not self.whole:
            last = self._rows[-1].last if self._rows else -1
            query += f" AND id <= {last} ORDER BY id"
        for found in self._fetched(query, _ROWS):
            topics, times = np.array(found, np.int64).T
            for topic in np.unique(topics):
                yield int(topic), times[topics == topic]

    def parts(self, wanted: Mapping[int, str], start: int, stop: int) -> list[Part]:
        """The messages of topics, by id, received from start until before stop."""
        query = (
            "SELECT topic_id, timestamp, data FROM messages {} "
            f"WHERE topic_id IN ({','.join(map(str, wanted))}) "
            f"AND timestamp >= {start} AND timestamp < {stop} "
        )

        def named(query: str) -> Iterator[list[Message]]:
            for rows in self._fetched(query):
                yield [
                    (wanted[topic], time, data)
                    for topic, time, data in rows
                    if type(data) is bytes and type(time) is int
                ]

        def in_order() -> Iterator[list[Message]]:
            newest = start
            for found in named(query.format("") + "ORDER BY timestamp"):
                times = [newest, *(time for _, time, _ in found)]
                if times != sorted(times):
                    self._note("its index is damaged: reading stopped where times went back")
                    return
                newest = times[-1]
                yield found

        if self.whole:
            return [Part(max(self.start, start), in_order)]

        def part(rows: _Rows) -> Part:
            between = f"AND id BETWEEN {rows.first} AND {rows.last}"

            def read() -> Iterator[list[Message]]:
                found = list(chain.from_iterable(named(query.format("NOT INDEXED") + between)))
                yield sorted(found, key=time_of)

            return Part(max(rows.start, start), read)

        return [part(rows) for rows in self._rows if rows.start < stop and rows.stop >= start]

    def _fetched(self, query: str, count: int = 4) -> Iterator[list[Any]]:
        """A query's rows in lists; with messages, of about ``_BATCH`` bytes."""
        number, rows, problem = 0, None, None
        while problem is None:
            found: list[Any] = []
            try:
                rows = rows or self._database.execute(query)
                found += islice(rows, count)  # if it fails, those before are there all the same
            except _DAMAGE as error:
                problem = error
            if not found:
                break
            number += len(found)
            yield found
            if len(found[0]) > 2:
                some = found[:16]
                mean = sum(len(row[2] or b"") for row in some) / len(some)
                count = int(min(max(_BATCH / (mean + 1), 1), 1 << 14))
        if problem is not None:
            self._note(f"damaged ({problem}): reading stopped after {number} messages")
