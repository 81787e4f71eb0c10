"""MCAP files: read by their index; without one, or cut off, by what is there.

The content of a chunk and messages that lie outside of chunks are read alike.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from smac_core.errors import InputError
from smac_ros.bags import mcap_records as mcap
from smac_ros.bags.compression import CompressionError, decompress
from smac_ros.bags.storage import (
    MAX_TIME,
    MIN_TIME,
    Connection,
    Message,
    Part,
    full_type,
    time_of,
)

_HEAD = struct.Struct("<QQQII")  # of a chunk: start, end, size, crc, length of compression's name
_LOOSE = 4 << 20  # bytes of messages outside of chunks that are read at once


class _Chunk(NamedTuple):
    """Where messages lie together, in a chunk or outside of one.

    Attributes:
        first, packed: first byte and number of bytes of its records, compressed or not.
        size: bytes of the records when they are not compressed.
        crc: where their checksum is; None: they have none.
        start, stop: times of receipt, ns.
        counts: messages by channel; empty: not known.
        index: first byte of each channel's message index; empty: there are none.
    """

    first: int
    packed: int
    size: int
    compression: str
    crc: int | None
    start: int
    stop: int
    counts: dict[int, int]
    index: dict[int, int]


class McapFile:
    """One file, opened for reading.

    Args:
        note: is told what is odd about the file, also while it is read.

    Attributes:
        connections: by channel.
        counts: messages by channel.
        start, stop: times of receipt of the first and the last message, ns; 0 without messages.
        metadata: rosbag2's metadata in the file: YAML, empty where there is none.
        whole: whether it goes on to its end.

    Raises:
        InputError: it is no MCAP file, or compressed in a way that is not known.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self.path = path
        self._note = lambda text: note(f"{path.name}: {text}")
        self._file = path.open("rb")
        try:
            self._size = self._file.seek(0, 2)
            if self._read(0, len(mcap.MAGIC)) != mcap.MAGIC:
                found = f"{self._size} bytes of something else" if self._size else "0 bytes"
                raise InputError(path, "file", found, "an MCAP file")
            self._forget()
            index = self._footer()
            self.whole = index is not None
            if not (index and self._read_index(index)):
                self._forget()
                self._scan()
        except BaseException:
            self._file.close()
            raise

    def _forget(self) -> None:
        self.connections: dict[int, Connection] = {}
        self.counts: Counter[int] = Counter()
        self.start = self.stop = 0
        self.metadata = ""
        self._schemas: dict[int, tuple[str, str]] = {}  # type, definition
        self._chunks: list[_Chunk] = []

    def close(self) -> None:
        self._file.close()

    # Messages

    def parts(self, wanted: Mapping[int, str], start: int, stop: int) -> list[Part]:
        """The messages of channels, each given its topic, received from start until before stop."""

        def part(chunk: _Chunk) -> Part:
            def read() -> Iterator[list[Message]]:
                found = mcap.messages(self._content(chunk), wanted, start, stop)
                found.sort(key=time_of)
                yield found

            return Part(max(chunk.start, start), read)

        return [
            part(chunk)
            for chunk in self._chunks
            if chunk.start < stop
            and chunk.stop >= start
            and not wanted.keys().isdisjoint(chunk.counts or chunk.index or wanted)
        ]

    def times(self) -> Iterator[tuple[int, np.ndarray]]:
        """(channel, times of receipt [n] int64 ns), stretch by stretch; from indices, if any."""
        for chunk in self._chunks:
            for channel, place in chunk.index.items():
                _, length = mcap.HEAD.unpack(self._read(place, mcap.HEAD.size))
                entries = self._read(place + mcap.HEAD.size, length)[6:]
                entries = np.frombuffer(entries[: len(entries) // 16 * 16], "<u8")
                yield channel, entries[::2].astype(np.int64)
            if not chunk.index:
                for channel, times in mcap.receipts(self._content(chunk)).items():
                    yield channel, np.array(times)

    def _content(self, chunk: _Chunk) -> bytes:
        """A chunk's records; where it is damaged, those before the damage."""
        packed, problem = self._read(chunk.first, chunk.packed), ""
        try:
            content = decompress(packed, chunk.compression)
        except CompressionError as error:
            content, problem = error.partial, str(error)
        except LookupError as error:
            raise InputError(self.path, "compression", error, "none, zstd or lz4") from None
        if chunk.crc is not None and len(content) == chunk.size:
            (crc,) = struct.unpack("<I", self._read(chunk.crc, 4))
            if crc and crc != zlib.crc32(content):
                content, problem = b"", "its checksum differs"
        if problem and chunk.first + chunk.packed < self._size:  # else the file is cut off there
            self._note(
                f"the chunk at byte {chunk.first} is damaged ({problem}): "
                f"{len(content)} of its {chunk.size} bytes are read"
            )
        return content

    # Records of the file

    def _read(self, first: int, size: int) -> bytes:
        """Bytes of the file; fewer where it ends before, whatever a damaged length says."""
        if first >= self._size:
            return b""
        self._file.seek(first)
        return self._file.read(min(size, self._size - first))

    def _records(self, place: int) -> Iterator[tuple[int, int, int]]:
        """(what it is, first byte behind its head, length) of each record from a place on.

        Until where none begins; the last one may be cut off.
        """
        while len(head := self._read(place, mcap.HEAD.size)) == mcap.HEAD.size:
            kind, length = mcap.HEAD.unpack(head)
            if kind == 0 or mcap.DATA_END < kind < mcap.PRIVATE:
                return
            place += mcap.HEAD.size
            yield kind, place, length
            place += length

    def _describe(self, kind: int, body: bytes) -> None:
        """Take in a schema, a channel or rosbag2's metadata; other records tell nothing."""
        if kind == mcap.SCHEMA:
            (key,) = struct.unpack_from("<H", body)
            (name, _, definition), _ = mcap.strings(body, 2, 3)
            self._schemas[key] = (full_type(name), definition)
        elif kind == mcap.CHANNEL:
            key, schema = struct.unpack_from("<HH", body)
            (topic, encoding), place = mcap.strings(body, 4, 2)
            qos = mcap.string_map(body, place).get("offered_qos_profiles", "")
            name, definition = self._schemas.get(schema, ("", ""))
            self.connections[key] = Connection(topic, name, encoding, qos, definition)
        elif kind == mcap.METADATA:
            (name,), place = mcap.strings(body, 0, 1)
            if name == "rosbag2":
                self.metadata = mcap.string_map(body, place).get("serialized_metadata", "")

    # What is in the file, by its index

    def _footer(self) -> int | None:
        """First byte of the index, 0: there is none; None: the file does not end as it should."""
        length = mcap.HEAD.size + 20 + len(mcap.MAGIC)
        data = self._read(max(self._size - length, 0), length)
        if not data.endswith(mcap.MAGIC) or mcap.HEAD.unpack_from(data) != (mcap.FOOTER, 20):
            return None
        first, _, crc = struct.unpack_from("<QQI", data, mcap.HEAD.size)
        if first and crc:
            index = self._read(first, self._size - len(mcap.MAGIC) - 4 - first)
            if zlib.crc32(index) != crc:
                self._note("its index is damaged and not used")
                return 0
        return first

    def _read_index(self, place: int) -> bool:
        """Whether the index has all that is needed; some recorders leave parts of it out."""
        totals = None
        with suppress(struct.error):
            for kind, first, length in self._records(place):
                if kind == mcap.FOOTER:
                    break
                body = self._read(first, length)
                if kind == mcap.STATISTICS:
                    totals = struct.unpack_from("<QHIIIIQQ", body)
                    self.counts.update(dict(struct.iter_unpack("<HQ", body[46:])))
                elif kind == mcap.CHUNK_INDEX:
                    self._chunks.append(_indexed(body))
                else:
                    self._describe(kind, body)
            if totals is None:
                return False
            count, _, channels, _, metadata, chunks, start, stop = totals
            if count:
                self.start, self.stop = start, stop
            if metadata:
                self._find_metadata()
            places = [place for chunk in self._chunks for place in chunk.index.values()]
            places += [chunk.first + chunk.packed for chunk in self._chunks]
            return (
                max(places, default=0) < self._size - mcap.HEAD.size
                and count == sum(self.counts.values())
                and chunks == len(self._chunks)
                and bool(chunks or not count)
                and channels == len(self.connections)
                and self.connections.keys() >= self.counts.keys()
            )
        return False

    def _find_metadata(self) -> None:
        """rosbag2 writes its metadata behind the last chunk."""
        chunks = [chunk.first + chunk.packed for chunk in self._chunks]
        for kind, first, length in self._records(max(chunks, default=len(mcap.MAGIC))):
            if kind == mcap.METADATA:
                self._describe(kind, self._read(first, length))
            if kind in (mcap.DATA_END, mcap.FOOTER):
                return

    # What is in the file, record by record

    def _scan(self) -> None:
        """Go through the file, as far as it goes."""
        place, ended = len(mcap.MAGIC), False
        loose = _Loose(place)
        for kind, first, length in self._records(place):
            after = first + length
            if after > self._size and kind != mcap.CHUNK:
                break
            if kind == mcap.MESSAGE:
                loose.add(self._read(first, mcap.TIMES.size))
            if kind != mcap.MESSAGE or after - loose.first > _LOOSE:
                self._add(loose.chunk(after if kind == mcap.MESSAGE else place))
                loose = _Loose(after)
            if kind == mcap.CHUNK:
                self._add(self._scanned(first, after))
                if after > self._size:
                    break
            elif kind in (mcap.SCHEMA, mcap.CHANNEL, mcap.METADATA):
                with suppress(struct.error):
                    self._describe(kind, self._read(first, length))
            place = after
            if kind in (mcap.DATA_END, mcap.FOOTER):
                ended = True
                break
        self._add(loose.chunk(place))
        count = sum(self.counts.values())
        if not ended:
            self.whole = False
            self._note(
                f"broken off at byte {place} of {self._size}: the {count} messages before are read"
            )
        elif not self.whole:
            self._note(f"its index is broken off; all its {count} messages are read")
        unknown = self.counts.keys() - self.connections.keys()
        if unknown:
            lost = sum(self.counts.pop(channel) for channel in unknown)
            self._note(f"{lost} messages of no topic are left out")

    def _add(self, chunk: _Chunk | None) -> None:
        if chunk is None or not chunk.counts:
            return
        self.start = min(self.start, chunk.start) if self._chunks else chunk.start
        self.stop = max(self.stop, chunk.stop)
        self._chunks.append(chunk)
        self.counts.update(chunk.counts)

    def _scanned(self, first: int, after: int) -> _Chunk | None:
        """The chunk whose head begins at ``first``, as much as there is of it."""
        head = self._read(first, _HEAD.size)
        if len(head) < _HEAD.size:
            return None
        start, stop, size, _, length = _HEAD.unpack(head)
        behind = first + _HEAD.size + length + 8
        name = self._read(first + _HEAD.size, length + 8)
        if behind > self._size:
            return None
        (packed,) = struct.unpack("<Q", name[length:])
        packed = min(packed, self._size - behind)
        compression = name[:length].decode(errors="replace")
        counts, index = self._indices(after)
        chunk = _Chunk(
            behind, packed, size, compression, first + 24, start, stop, counts, index
        )
        if not counts or counts.keys() - self.connections.keys():
            content = self._content(chunk)
            for kind, place, length in mcap.records(content):
                if kind in (mcap.SCHEMA, mcap.CHANNEL):
                    with suppress(struct.error):
                        self._describe(kind, content[place : place + length])
            times = mcap.receipts(content)
            chunk = chunk._replace(
                start=min(map(min, times.values()), default=0),
                stop=max(map(max, times.values()), default=0),
                counts={channel: len(found) for channel, found in times.items()},
            )
        return chunk

    def _indices(self, place: int) -> tuple[dict[int, int], dict[int, int]]:
        """Messages by channel and where their indices are, of those behind a chunk.

        Nothing where the file may be cut off among them.
        """
        counts, places = {}, {}
        for kind, first, length in self._records(place):
            if kind != mcap.MESSAGE_INDEX:
                return counts, places
            if first + length > self._size:
                break
            channel, size = struct.unpack("<HI", self._read(first, 6))
            counts[channel], places[channel] = size // 16, first - mcap.HEAD.size
        return {}, {}


class _Loose:
    """Messages outside of chunks, one behind the other."""

    def __init__(self, first: int) -> None:
        self.first, self._counts = first, Counter()
        self._start, self._stop = MAX_TIME, MIN_TIME

    def add(self, head: bytes) -> None:
        channel, _, time = mcap.TIMES.unpack(head)
        if time < MAX_TIME:
            self._counts[channel] += 1
            self._start, self._stop = min(self._start, time), max(self._stop, time)

    def chunk(self, end: int) -> _Chunk:
        size = end - self.first
        return _Chunk(
            self.first, size, size, "", None, self._start, self._stop, dict(self._counts), {}
        )


def _indexed(body: bytes) -> _Chunk:
    """The chunk that a chunk index tells of."""
    start, stop, place, _, length = struct.unpack_from("<QQQQI", body)
    index = dict(struct.iter_unpack("<HQ", body[36 : 36 + length]))
    (name,), behind = mcap.strings(body, 44 + length, 1)
    packed, size = struct.unpack_from("<QQ", body, behind)
    head = place + mcap.HEAD.size
    first = head + _HEAD.size + len(name.encode()) + 8
    return _Chunk(first, packed, size, name, head + 24, start, stop, {}, index)
