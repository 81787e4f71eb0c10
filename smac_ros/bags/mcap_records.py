"""Records of the MCAP format (https://mcap.dev/spec) as bytes."""

import struct
from collections.abc import Mapping

from smac_ros.bags.storage import MAX_TIME, Message

MAGIC = b"\x89MCAP0\r\n"
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(2, 9)
STATISTICS, METADATA, DATA_END = 0x0B, 0x0C, 0x0F
PRIVATE = 0x80  # from here on, records are anybody's own
HEAD = struct.Struct("<BQ")  # what it is, length
TIMES = struct.Struct("<HIQ")  # a message's channel, sequence and log time
_MESSAGE = struct.Struct("<BQHIQQ")  # head, channel, sequence, log time, publish time


def messages(content: bytes, wanted: Mapping[int, str], start: int, stop: int) -> list[Message]:
    """Messages of channels, each given its topic, received from start until before stop."""
    found: list[Message] = []
    take, unpack, head, end = found.append, _MESSAGE.unpack_from, _MESSAGE.size, len(content)
    place = 0
    while place + HEAD.size <= end:
        if content[place] != MESSAGE:
            place += HEAD.size + HEAD.unpack_from(content, place)[1]
            continue
        if place + head > end:
            break
        _, length, channel, _, time, _ = unpack(content, place)
        after = place + HEAD.size + length
        if after > end:
            break
        if channel in wanted and start <= time < stop:
            take((wanted[channel], time, content[place + head : after]))
        place = after
    return found


def receipts(content: bytes) -> dict[int, list[int]]:
    """Times of receipt, ns, by channel, in the order of the messages."""
    found: dict[int, list[int]] = {}
    for kind, first, _ in records(content):
        if kind == MESSAGE:
            channel, _, time = TIMES.unpack_from(content, first)
            if time < MAX_TIME:
                found.setdefault(channel, []).append(time)
    return found


def records(content: bytes) -> list[tuple[int, int, int]]:
    """(what it is, first byte behind its head, length) of all records that are whole."""
    found, place = [], 0
    while place + HEAD.size <= len(content):
        kind, length = HEAD.unpack_from(content, place)
        place += HEAD.size
        if place + length > len(content):
            break
        found.append((kind, place, length))
        place += length
    return found


def strings(body: bytes, place: int, count: int) -> tuple[list[str], int]:
    """So many strings from a place on, and the place behind them."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", body, place)
        place += 4 + length
        if place > len(body):
            raise struct.error(f"a string of {length} bytes")
        found.append(body[place - length : place].decode(errors="replace"))
    return found, place


def string_map(body: bytes, place: int) -> dict[str, str]:
    """A map of strings from a place on."""
    (length,) = struct.unpack_from("<I", body, place)
    place, end = place + 4, place + 4 + length
    found = {}
    while place < end:
        (key, value), place = strings(body, place, 2)
        found[key] = value
    return found
