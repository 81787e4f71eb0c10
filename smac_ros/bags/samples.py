"""What is kept of a recording while it is read: the samples that coming episodes can still use."""

from collections.abc import Sequence

import numpy as np

from smac_ros.bags.decoding import Decoded
from smac_ros.contract import Contract, Stream
from smac_ros.experience import JUMP, KEPT, Series


class Samples:
    """Sorted samples of every topic, and how receive times and stamps belong together.

    Attributes:
        streams, commands: as the contract has them.
        rewards: of further streams that rewards are read from.
        terminated: (time of receipt, stamp) of the robot's own ends, ns.
        most: the most samples that were held at once.
    """

    def __init__(self, contract: Contract, rewards: Sequence[Stream]) -> None:
        self.contract = contract
        self.streams = [Series(stream.width) for stream in contract.observations]
        self.commands = [Series(command.width) for command in contract.actions]
        self.rewards = [Series(stream.width) for stream in rewards]
        self.terminated: list[tuple[int, int]] = []
        self.most = 0
        topics = [stream.topic for stream in contract.observations]
        needed = [not stream.optional for stream in contract.observations]
        trigger = contract.trigger
        self._reference = topics.index(trigger) if trigger in topics else needed.index(True)
        self._delays = Series(1)  # of the reference: receive time -> receive time - stamp

    @property
    def newest(self) -> int | None:
        """The newest stamp of the stream that the policy waits for: what time it is."""
        return self.streams[self._reference].last

    def is_reference(self, kind: str, index: int) -> bool:
        """Whether it is the stream that the policy waits for."""
        return (kind, index) == ("streams", self._reference)

    def series(self, kind: str) -> list[Series]:
        """``streams``, ``commands`` or ``rewards``."""
        return getattr(self, kind)

    def add(self, kind: str, index: int, decoded: Decoded) -> None:
        """Take samples in."""
        if not len(decoded.stamps):
            return
        series = self.series(kind)[index]
        series.extend(decoded.stamps, decoded.values)
        if self.is_reference(kind, index):
            delays = (decoded.receives - decoded.stamps).astype(np.float64)
            self._delays.extend(decoded.receives, delays[:, None])
        held = sum(len(s) for s in (*self.streams, *self.commands, *self.rewards))
        self.most = max(self.most, held)

    def restart(self, kind: str, index: int, receive: int) -> None:
        """The clock of a topic was set back: what was before can belong to nothing any more."""
        all_series = self.series(kind)
        all_series[index] = Series(all_series[index].width)
        self.terminated = [end for end in self.terminated if end[0] >= receive]
        if self.is_reference(kind, index):
            self._delays = Series(1)

    def clear_before(self, stamp: int | None) -> None:
        """Forget what no episode that starts at ``stamp`` or later can use; None: there is none."""
        for series in (*self.streams, *self.commands, *self.rewards):
            if len(series):
                # By its own newest stamp: with a clock far ahead of the others' it must not lose
                # theirs, nor its own.
                before = series.last - KEPT
                series.clear_before(before if stamp is None else min(before, stamp))
        if self.newest is not None and self.terminated:
            before = self.newest - KEPT if stamp is None else min(self.newest - KEPT, stamp)
            self.terminated = [end for end in self.terminated if end[1] >= before]
        if len(self._delays):
            before = self._delays.last - KEPT
            if stamp is not None:
                before = min(before, stamp + int(self._delays.values[0, 0]) - KEPT)
            self._delays.clear_before(before)

    def stamps_at(self, receives: np.ndarray) -> np.ndarray:
        """What the clock of stamps showed at times of receipt [n] int64 ns.

        It goes on from the reference's sample that was received last, and stays below the next
        one's stamp: a simulation may be slower than the recorder's clock.
        """
        known = self._delays.stamps
        if not len(known):
            return receives
        stamps = known - self._delays.values[:, 0].astype(np.int64)
        index = np.searchsorted(known, receives, "right") - 1
        before = np.maximum(index, 0)
        shown = stamps[before] + (receives - known[before])
        after = index + 1
        inside = (index >= 0) & (after < len(known))
        return np.where(
            inside, np.minimum(shown, stamps[np.minimum(after, len(known) - 1)] - 1), shown
        )


def set_backs(stamps: np.ndarray, last: int | None) -> list[int]:
    """Where, in samples [n] in order of receipt, a clock was set back; ``last``: newest before."""
    found: list[int] = []
    first = 0
    while first < len(stamps):
        part = stamps[first:]
        newest = np.maximum.accumulate(part)
        before = np.empty_like(newest)
        before[0] = part[0] if last is None else last
        before[1:] = newest[:-1] if last is None else np.maximum(newest[:-1], last)
        back = np.flatnonzero(part < before - JUMP)
        if not len(back):
            break
        first += int(back[0])
        found.append(first)
        last = None
    return found
