"""Recorded messages, CDR bytes, to the contract's numbers.

Messages of a robot differ in their numbers alone, and then thousands are read at once. Whatever
is laid out otherwise is read one by one, by the very readers that live topics go through; the
results are equal to the bit.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from rosbags.serde import SerdeError

from smac_ros.bags.layouts import Columns
from smac_ros.contract import Command, MessageError, Stream
from smac_ros.message_paths import compile_reader
from smac_ros.message_types import message_class
from smac_ros.messages import stamp_ns
from smac_ros.serialized import Walk

_BLOCK = 1 << 18  # bytes of messages that are looked at together: they stay in the cache
_FEW = 8  # messages do not make it worth while to study how they are laid out
_LAYOUTS = 16  # are tried; a topic that has more is read one by one


class Decoded(NamedTuple):
    """n samples in the order of their messages."""

    stamps: np.ndarray  # [n] int64, ns: of the header or of receipt, as the contract says
    values: np.ndarray  # [n, width] float64
    receives: np.ndarray  # [n] int64, ns


class Decoder:
    """One topic's messages to stamps and values.

    Args:
        source: of the contract. A stream's values are in the observation's units; a command's
            are those in the message, as ``CommandReader.values`` has them.

    Attributes:
        problems: why messages were left out, and how many.
    """

    def __init__(self, source: Stream | Command) -> None:
        self.problems: Counter[str] = Counter()
        self._type, self._width = source.type, source.width
        self._stamped = source.time == "header"
        self._paths = [path for path, _ in source.fields]
        self._adjust: Callable[[np.ndarray], None] | None = None
        if isinstance(source, Stream):
            self._read, self._adjust = source.read_values, source.adjust
        else:
            self._read = _command_reader(source)
        self._layouts: dict[int, list[Columns]] = {}  # by length of the message
        self._lessons = _LAYOUTS  # that are left

    def decode(self, receives: Sequence[int], raw: Sequence[bytes]) -> Decoded:
        """The samples of messages, without those that cannot be read: see ``problems``.

        Args:
            receives: times of receipt, ns.
            raw: CDR bytes, one for each.
        """
        received = np.array(receives, np.int64)
        batch = _Batch(raw, received.copy(), np.empty((len(raw), self._width)))
        lengths = np.fromiter(map(len, raw), np.int64, len(raw))
        for length in np.unique(lengths).tolist():
            index = np.flatnonzero(lengths == length)
            size = max(_BLOCK // (length + 1), _FEW)
            for first in range(0, len(index), size):
                self._decode_equal(batch, index[first : first + size], length)
        if batch.good.all():
            return Decoded(batch.stamps, batch.values, received)
        return Decoded(batch.stamps[batch.good], batch.values[batch.good], received[batch.good])

    def _decode_equal(self, batch: "_Batch", index: np.ndarray, length: int) -> None:
        """Messages ``index`` of a batch, which have one length."""
        layouts = self._layouts.setdefault(length, [])
        if layouts or (self._lessons and len(index) >= _FEW):
            first, last = index[0], index[-1] + 1
            together = last - first == len(index)
            chosen = batch.raw[first:last] if together else [batch.raw[i] for i in index]
            rows = np.frombuffer(b"".join(chosen), np.uint8).reshape(len(index), length)
            for columns in layouts:
                index, rows = self._fill(batch, index, rows, columns)
            while self._lessons and len(index) >= _FEW:
                columns, before = self._study(bytes(rows[0])), len(index)
                if columns is None:
                    self._decode_one(batch, int(index[0]))
                    index, rows = index[1:], rows[1:]
                else:
                    index, rows = self._fill(batch, index, rows, columns)
                if before - len(index) < _FEW:
                    self._lessons -= 1
                elif len(layouts) < _LAYOUTS:
                    layouts.append(columns)
        for number in index.tolist():
            self._decode_one(batch, number)

    def _study(self, data: bytes) -> Columns | None:
        """How a message is laid out; None: one that cannot be read, or not in this way."""
        try:
            message = deserialize(data, self._type)
            columns = Columns(self._type, data, message, self._paths, self._stamped)
            self._read(message, row := np.empty(self._width))
        except Exception:  # it is counted when it is read
            return None
        found = self._values(columns, np.frombuffer(data, np.uint8)[None])
        return columns if found.tobytes() == row.tobytes() else None

    def _values(self, columns: Columns, rows: np.ndarray) -> np.ndarray:
        values = columns.values(rows)
        if self._adjust is not None:
            self._adjust(values)
        return values

    def _fill(
        self, batch: "_Batch", index: np.ndarray, rows: np.ndarray, columns: Columns
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the messages that are laid out so; the others, their numbers and bytes, are left."""
        if not len(index):
            return index, rows
        fit = columns.fitting(rows)
        found = rows if fit.all() else rows[fit]
        batch.values[index[fit]] = self._values(columns, found)
        if self._stamped:
            batch.stamps[index[fit]] = columns.stamps(found)
        return index[~fit], rows[~fit]

    def _decode_one(self, batch: "_Batch", number: int) -> None:
        """Message ``number`` of a batch, as it would be read from a live topic."""
        try:
            message = deserialize(batch.raw[number], self._type)
            self._read(message, batch.values[number])
            if self._stamped:
                batch.stamps[number] = stamp_ns(message.header.stamp)
            return
        except MessageError as error:
            problem = _without_numbers(str(error))
        except Exception as error:  # rosbags and rclpy raise many kinds for bytes that are no such
            problem = f"bytes that are no {self._type}: {_without_numbers(str(error))}"
        batch.good[number] = False
        self.problems[problem] += 1


class _Batch:
    """Messages and what becomes of them."""

    def __init__(self, raw: Sequence[bytes], stamps: np.ndarray, values: np.ndarray) -> None:
        self.raw, self.stamps, self.values = raw, stamps, values
        self.good = np.ones(len(raw), bool)


def _command_reader(command: Command) -> Callable[[Any, np.ndarray], None]:
    """A command's numbers in message units, as ``CommandReader.values`` has them."""
    start = command.start
    readers = [
        (compile_reader(command.type, path), slice(part.start - start, part.stop - start))
        for path, part in command.fields
    ]

    def read(message: Any, out: np.ndarray) -> None:
        for reader, part in readers:
            reader(message, out[part])

    return read


def _without_numbers(text: str) -> str:
    """So that messages of one fault are counted together."""
    return re.sub(r"(?<![\w.])-?\d+(\.\d+)?(?![\w.])", "#", text)[:200]


def deserialize(raw: bytes, type_name: str) -> Any:
    """A message of its CDR bytes: standard types without ROS, others by their installed package.

    Raises:
        Exception: of the libraries', where the bytes are no such message.
    """
    store = _typestore()
    if type_name in store.fielddefs:
        try:
            return store.deserialize_cdr(raw, type_name)
        except SerdeError:
            # rclpy's serialize_message leaves bytes to spare at the end, and some publish them
            end = Walk(type_name, raw).end
            if end >= len(raw):
                raise
            return store.deserialize_cdr(raw[:end], type_name)
    from rclpy.serialization import deserialize_message

    return deserialize_message(raw, message_class(type_name))


def decode_text(raw: bytes) -> str:
    """The text of a std_msgs/String.

    Raises:
        ValueError: the bytes are none.
    """
    return _deserialized(raw, "std_msgs/msg/String").data


def decode_header_stamp(raw: bytes) -> int:
    """The stamp, ns, of a std_msgs/Header.

    Raises:
        ValueError: the bytes are none.
    """
    return stamp_ns(_deserialized(raw, "std_msgs/msg/Header").stamp)


def _deserialized(raw: bytes, type_name: str) -> Any:
    try:
        return deserialize(raw, type_name)
    except Exception as error:
        raise ValueError(f"{len(raw)} bytes that are no {type_name}: {error}") from None


@lru_cache(maxsize=1)
def _typestore() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)
