"""What the files of a recording have in common, whatever they are stored as."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

Message = tuple[str, int, bytes]  # topic, time of receipt in ns, CDR
MIN_TIME, MAX_TIME = -(1 << 62), 1 << 62  # ns

time_of = itemgetter(1)  # of a message


class Connection(NamedTuple):
    """A publisher's topic in a file; several of them may share the topic's name."""

    topic: str
    type: str
    encoding: str  # "cdr", or what is not read here
    qos: str  # as the file has it
    definition: str  # text; empty: none in the file


class Part(NamedTuple):
    """Messages of one stretch of a file.

    Attributes:
        start: none of them was received earlier, ns.
        read: lists of them in order of receipt, no list earlier than the one before it.
    """

    start: int
    read: Callable[[], Iterator[list[Message]]]


def full_type(name: str) -> str:
    """ "sensor_msgs/msg/Imu" also of "sensor_msgs/Imu", as some recorders write it."""
    package, slash, rest = name.partition("/")
    return f"{package}/msg/{rest}" if slash and "/" not in rest else name


def merge(parts: Iterable[Part]) -> Iterator[list[Message]]:
    """All messages in order of receipt, in lists; no more parts are read at once than overlap."""
    waiting = sorted(parts, key=lambda part: part.start)[::-1]  # the earliest is the last
    active: list[tuple[list[Message], Iterator[list[Message]]]] = []
    while waiting or active:
        if not active:
            active += _next(waiting.pop().read())
            continue
        # Nothing that is still to come was received before this time.
        bound = min(batch[-1][1] for batch, _ in active)
        while waiting and waiting[-1].start <= bound:
            active += _next(waiting.pop().read())
            bound = min(batch[-1][1] for batch, _ in active)
        if len(active) == 1:
            (batch, rest) = active.pop()
            yield batch
            active += _next(rest)
            continue
        ready: list[Message] = []
        left = []
        for batch, rest in active:
            cut = bisect_right(batch, bound, key=time_of)
            ready += batch[:cut]
            left += [(batch[cut:], rest)] if cut < len(batch) else _next(rest)
        active = left
        ready.sort(key=time_of)
        yield ready


def _next(batches: Iterator[list[Message]]) -> list[tuple[list[Message], Iterator[list[Message]]]]:
    """The first batch that is not empty, with those after it; nothing where there is none."""
    for batch in batches:
        if batch:
            return [(batch, batches)]
    return []
