"""Many messages at once: where names and lengths stay the same, numbers are columns of bytes."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from smac_ros.message_paths import leaves, named_arrays
from smac_ros.messages import SECOND
from smac_ros.serialized import STAMP, LayoutError, Walk, owner_of


class Columns:
    """Where the numbers are in a topic's messages that are laid out as one of them is.

    Args:
        type_name: of the messages.
        data, message: one of them, as bytes and as it is read.
        paths: of the numbers.
        stamped: whether headers' stamps are wanted.

    Raises:
        LayoutError: the numbers' places are not known.
    """

    def __init__(
        self, type_name: str, data: bytes, message: Any, paths: Sequence[str], stamped: bool
    ) -> None:
        try:
            walk = Walk(type_name, data)
        except struct.error as error:
            raise LayoutError(error) from None
        if walk.end > len(data):
            raise LayoutError(f"{len(data)} bytes for a message of {walk.end}")
        self._first = np.frombuffer(data, np.uint8)
        self._fixed = np.zeros(len(data), np.uint8)
        for first, last in walk.fixed:
            self._fixed[first:last] = 0xFF
        self._stamp = [_place(walk, path, 0) for path in STAMP] if stamped else []
        places = [place for path in paths for place in _places(walk, type_name, path, message)]
        self._width = len(places)
        self._blocks = _blocks(places)

    def fitting(self, rows: np.ndarray) -> np.ndarray:
        """Which of the messages [n, length] uint8 are laid out like this: [n] bool."""
        differ = rows ^ self._first
        differ &= self._fixed
        return ~differ.any(axis=1) if differ.any() else np.ones(len(rows), bool)

    def values(self, rows: np.ndarray) -> np.ndarray:
        """The numbers [n, width] float64 of messages that fit."""
        out, column = np.empty((len(rows), self._width)), 0
        for first, code, count in self._blocks:
            out[:, column : column + count] = _block(rows, first, code, count)
            column += count
        return out

    def stamps(self, rows: np.ndarray) -> np.ndarray:
        """The headers' stamps [n] int64, ns."""
        seconds, nanoseconds = (_block(rows, *place, 1)[:, 0] for place in self._stamp)
        return seconds.astype(np.int64) * SECOND + nanoseconds


def _block(rows: np.ndarray, first: int, code: str, count: int) -> np.ndarray:
    """Numbers [n, count] that follow one another in every message: a view, perhaps unaligned."""
    kind = np.dtype(f"<{code}")
    strides = (rows.strides[0], kind.itemsize)
    return np.ndarray((len(rows), count), kind, rows, first, strides)


def _blocks(places: list[tuple[int, str]]) -> list[tuple[int, str, int]]:
    """(first byte, struct's code, how many) of numbers that follow one another."""
    blocks: list[tuple[int, str, int]] = []
    for place, code in places:
        if blocks:
            first, last, count = blocks[-1]
            if last == code and place == first + count * struct.calcsize(code):
                blocks[-1] = (first, code, count + 1)
                continue
        blocks.append((place, code, 1))
    return blocks


def _places(walk: Walk, type_name: str, path: str, message: Any) -> list[tuple[int, str]]:
    """(first byte, struct's code) of each number that a path names."""
    if (named := named_arrays(type_name, path)) is not None:
        where, array, joints = named
        names = list(getattr(*owner_of(message, where)))
        return [_place(walk, array, names.index(joint)) for joint in joints]
    places = []
    for leaf in leaves(type_name, path):
        array, _, entry = leaf.rpartition("[") if leaf.endswith("]") else (leaf, "", "0]")
        places.append(_place(walk, array, int(entry[:-1])))
    return places


def _place(walk: Walk, path: str, index: int) -> tuple[int, str]:
    first, code, count = walk.numbers.get(path, (0, "?", None))
    if code == "?":  # any byte but 0 is true, which numpy does not know
        raise LayoutError(f"{path}, no number")
    if index >= (1 if count is None else count):
        raise LayoutError(f"{path}[{index}]")
    return first + index * struct.calcsize(code), code
