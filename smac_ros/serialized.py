"""Messages as bytes: numbers are copied from where they lie, the rest is not made anew.

For every message that comes in rclpy makes a Python object of each of its strings and arrays. But
from one message of a robot to the next nothing changes but numbers; names, frames and lengths stay.
So the first message shows where the numbers lie, and while all names and lengths are the same they
alone are copied.
"""

import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from smac_ros.message_types import fields, has_header, message_class

STAMP = ("header.stamp.sec", "header.stamp.nanosec")
LEARN = 10  # layouts that a topic may have before its messages are no longer studied
LITTLE_ENDIAN = b"\0\1"  # how CDR, the bytes of ROS 2, begins; two more bytes belong to no message
START = 4
_CODES = {"float64": "d", "float32": "f", "bool": "?"} | {
    f"{sign}int{bits}": code.upper() if sign else code
    for sign in ("", "u")
    for bits, code in ((8, "b"), (16, "h"), (32, "i"), (64, "q"))
}


class LayoutError(ValueError):
    """Bytes that are laid out in a way that is not known here."""


class Walk:
    """The way through a message's bytes, as CDR (XCDR1) lays them out.

    Attributes:
        numbers: path -> (first byte, struct's code of one, how many; None: no array).
        fixed: (first byte, one behind the last) of every string and length.
    """

    def __init__(self, type_name: str, data: bytes) -> None:
        if data[:2] != LITTLE_ENDIAN:
            raise LayoutError(f"bytes that begin with {data[:2].hex()}")
        self._data, self._place = data, START
        self.numbers: dict[str, tuple[int, str, int | None]] = {}
        self.fixed = [(0, len(LITTLE_ENDIAN))]
        self._message(type_name, "")

    @property
    def end(self) -> int:
        """The byte behind the message's last one."""
        return self._place

    def _message(self, type_name: str, prefix: str) -> None:
        for name, kind in fields(type_name).items():
            path, count = prefix + name, kind.length
            if count == 0:  # of any length
                count = self._length()
            if kind.name in _CODES:
                self._numbers(path, _CODES[kind.name], count)
                continue
            for index in range(1 if count is None else count):
                if kind.is_message:
                    part = path if count is None else f"{path}[{index}]"
                    self._message(kind.name, f"{part}.")
                elif kind.name == "string":
                    self._take(self._length())
                else:
                    raise LayoutError(f"{path}, a {kind.name}")

    def _numbers(self, path: str, code: str, count: int | None) -> None:
        size = struct.calcsize(code)
        if count != 0:
            self._align(size)
        self.numbers[path] = (self._place, code, count)
        self._place += size * (1 if count is None else count)

    def _length(self) -> int:
        self._align(4)
        (length,) = struct.unpack_from("<I", self._data, self._place)
        if length > len(self._data):
            raise LayoutError(f"a length of {length} at byte {self._place}")
        self._take(4)
        return length

    def _take(self, size: int) -> None:
        first, last = self.fixed[-1]
        if last == self._place:
            self.fixed[-1] = (first, last + size)
        else:
            self.fixed.append((self._place, self._place + size))
        self._place += size

    def _align(self, size: int) -> None:
        self._place += (START - self._place) % size


class Layout:
    """Where numbers lie among the bytes of a topic's messages.

    Args:
        data: one of them.
        message: the same, as rclpy reads it; its arrays keep their lengths from now on.
        leaves: paths of numbers, as ``message_paths.leaves`` has them; arrays are taken as a whole.

    Raises:
        LayoutError: it is laid out otherwise, or ``leaves`` are not among its numbers.
    """

    def __init__(self, type_name: str, data: bytes, message: Any, leaves: Sequence[str]) -> None:
        try:
            walk = Walk(type_name, data)
            if walk.end > len(data):  # fewer than rclpy leaves room for
                raise LayoutError(f"{len(data)} bytes for a message of {walk.end}")
            wanted = {path: walk.numbers[path] for path in map(_without_entry, leaves)}
        except (struct.error, KeyError) as error:
            raise LayoutError(error) from None
        self.message, self._length = message, len(data)
        self._fixed = _struct((first, f"{last - first}s") for first, last in walk.fixed)
        self._same = self._fixed.unpack_from(data)
        self._arrays: list[tuple[slice, memoryview]] = []
        self._attributes: list[tuple[struct.Struct, int, Any, str]] = []
        for path, (first, code, count) in wanted.items():
            owner, name = owner_of(message, path)
            if count is None:
                self._attributes.append((struct.Struct(f"<{code}"), first, owner, name))
            else:
                last = first + count * struct.calcsize(code)
                self._arrays.append((slice(first, last), _bytes_of(getattr(owner, name), path)))
        if not self._agrees(data):
            raise LayoutError(f"{type_name}: its numbers lie elsewhere")

    def _agrees(self, data: bytes) -> bool:
        """Whether the message has these bytes' numbers (other than NaN)."""
        return all(array == data[place] for place, array in self._arrays) and all(
            getattr(owner, name) == code.unpack_from(data, first)[0]
            for code, first, owner, name in self._attributes
        )

    def fits(self, data: bytes) -> bool:
        """Whether all names and lengths are the same."""
        return len(data) == self._length and self._fixed.unpack_from(data) == self._same

    def read(self, data: bytes) -> Any:
        """The message, with the numbers of bytes that fit; whatever else it holds is older."""
        for place, array in self._arrays:
            array[:] = data[place]
        for code, first, owner, name in self._attributes:
            setattr(owner, name, code.unpack_from(data, first)[0])
        return self.message

    def write(self, data: bytearray) -> None:
        """The message's numbers to their places among its bytes."""
        for place, array in self._arrays:
            data[place] = array
        for code, first, owner, name in self._attributes:
            code.pack_into(data, first, getattr(owner, name))


class Unpacker:
    """A topic's messages of their bytes.

    Args:
        type_name: of the messages, "sensor_msgs/msg/JointState".
        leaves: paths of the numbers that are wanted; a header's stamp is besides.
    """

    def __init__(self, type_name: str, leaves: Sequence[str]) -> None:
        self._type, self._class = type_name, message_class(type_name)
        self._leaves = (*leaves, *(STAMP if has_header(type_name) else ()))
        self._layout: Layout | None = None
        self._left = LEARN
        self._first = b""  # what the layout was found in; empty: other numbers have confirmed it

    def unpack(self, data: bytes) -> Any:
        """A message with the wanted numbers; mostly the same object, with newer ones.

        Raises:
            RuntimeError: (rclpy's RMWError) the bytes are no such message.
        """
        known = self._layout is not None and self._layout.fits(data)
        if known and self._first in (b"", data):
            return self._layout.read(data)
        from rclpy.serialization import deserialize_message

        message = deserialize_message(data, self._class)
        layout, self._layout = self._layout, None
        if self._left:
            self._left -= 1
            with suppress(LayoutError):  # it goes on as it began
                found = Layout(self._type, data, message, self._leaves)
                self._layout, self._first = (layout, b"") if known else (found, data)
                return self._layout.read(data)
        return message


class Packer:
    """A command's bytes.

    Between two of them only the numbers of ``leaves`` and the stamp may change, and arrays are
    written to and not replaced. Quickly made bytes are compared with rclpy's until numbers have
    changed, and a message of which they differ is left to rclpy for good.

    Args:
        type_name, leaves: as for ``Unpacker``.
    """

    def __init__(self, type_name: str, leaves: Sequence[str]) -> None:
        self._type = type_name
        self._leaves = (*leaves, *(STAMP if has_header(type_name) else ()))
        self._layout: Layout | None = None
        self._data = bytearray()
        self._left = LEARN
        self._first = b""  # as the unpacker's

    def pack(self, message: Any) -> bytes:
        """What rclpy's publisher takes instead of the message."""
        quick = None
        if self._layout is not None and self._layout.message is message:
            self._layout.write(self._data)
            quick = bytes(self._data)
            if not self._first:
                return quick
        data = _serialize(message, self._type)
        if quick is None:
            self._study(message, data)
        elif quick != data:
            self._layout, self._left = None, 0
        elif data != self._first:
            self._first = b""
        return data

    def _study(self, message: Any, data: bytes) -> None:
        if not self._left:
            return
        self._left -= 1
        with suppress(LayoutError):
            self._layout = Layout(self._type, data, message, self._leaves)
            self._data[:], self._first = data, data


def _serialize(message: Any, type_name: str) -> bytes:
    """A message's bytes without those that rclpy leaves to spare behind them.

    They hold whatever was there before, and rosbags, for one, refuses messages that have them.
    """
    from rclpy.serialization import serialize_message

    data = serialize_message(message)
    with suppress(LayoutError, struct.error):
        return data[: Walk(type_name, data).end]
    return data


def _struct(parts: Iterable[tuple[int, str]]) -> struct.Struct:
    """What unpacks the parts, (first byte, code) in rising order, and nothing between them."""
    text, place = "<", 0
    for first, code in parts:
        text += f"{first - place}x{code}"
        place = first + struct.calcsize(f"<{code}")
    return struct.Struct(text)


def _without_entry(leaf: str) -> str:
    return leaf[: leaf.rindex("[")] if leaf.endswith("]") else leaf


def owner_of(message: Any, path: str) -> tuple[Any, str]:
    """The part of a message that has a path's last attribute, and that attribute's name."""
    *way, last = path.split(".")
    for part in way:
        name, _, index = part.partition("[")
        message = getattr(message, name)
        if index:
            message = message[int(index[:-1])]
    return message, last


def _bytes_of(array: Any, path: str) -> memoryview:
    try:
        return memoryview(array).cast("B")
    except TypeError:  # rclpy has lists of booleans
        raise LayoutError(f"{path}, an array of type {type(array).__name__}") from None
