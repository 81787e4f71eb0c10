"""Where episodes begin and end in a recording: by markers, by silences, or as a file says."""

from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from smac_core.errors import InputError
from smac_ros.bags.decoding import Decoded
from smac_ros.bags.samples import Samples
from smac_ros.contract import Contract
from smac_ros.experience import DONE, JUMP, OPEN, OVERDUE
from smac_ros.messages import SECOND, Begin, End, parse_marker

LATE = 2 * SECOND  # after an episode's end, for samples that are received late


class Episode(NamedTuple):
    """A stretch of a recording, in stamps, ns."""

    start: int  # of the first observation
    last: int | None  # of the last observation
    steps: int | None = None  # commands, where that is known
    terminal: bool = False  # the robot itself ended it there
    begin: Begin | None = None
    reason: str = "complete"  # or why it ended before


class Episodes(ABC):
    """Finds a recording's episodes while it is read.

    Attributes:
        dropped: why some are none: reason -> how many.
    """

    def __init__(self, contract: Contract) -> None:
        self.dropped: Counter[str] = Counter()
        self._contract = contract

    @abstractmethod
    def ready(self, samples: Samples, now: int, *, cut: bool = False) -> Iterator[Episode]:
        """Those of which all samples are there, at time of receipt ``now``.

        ``cut``: a clock was set back, or it is the recording's end: what is there is all.
        """

    @abstractmethod
    def needs(self, samples: Samples) -> int | None:
        """The earliest stamp of which one that is under way has need."""

    def add(self, kind: str, index: int, decoded: Decoded) -> None:  # noqa: B027
        """Samples of a topic, in order of receipt."""

    def set_back(self, stamp: int) -> None:  # noqa: B027
        """The clock goes on from ``stamp``, which it has passed before."""

    def close(self) -> None:  # noqa: B027
        """The recording is over."""


@dataclass
class _Marked:
    begin: Begin | None = None
    end: End | None = None
    whole_since: int | None = None  # time of receipt, ns

    @property
    def start(self) -> int:
        return self.begin.start if self.begin is not None else self.end.last


class MarkedEpisodes(Episodes):
    """By the messages on the topic ``episode``; as the reward labeler takes them."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        self._open: OrderedDict[tuple[int, int], _Marked] = OrderedDict()
        self._done: deque[tuple[int, int]] = deque(maxlen=DONE)

    def mark(self, receive: int, text: str) -> None:
        """A marker's text."""
        try:
            marker = parse_marker(text)
        except InputError:
            self.dropped["marker that cannot be read"] += 1
            return
        key = (marker.session, marker.id)
        if key in self._done:
            return
        episode = self._open.setdefault(key, _Marked())
        if isinstance(marker, Begin):
            episode.begin = episode.begin or marker
        else:
            episode.end = episode.end or marker
        if episode.begin is not None and episode.end is not None and episode.whole_since is None:
            episode.whole_since = receive
        halves = [key for key, one in self._open.items() if one.whole_since is None]
        if len(halves) > OPEN:
            self._forget(halves[0])

    def ready(self, samples: Samples, now: int, *, cut: bool = False) -> Iterator[Episode]:
        until = now if cut else now - LATE
        whole = [
            (one.whole_since, key)
            for key, one in self._open.items()
            if one.whole_since is not None and one.whole_since <= until
        ]
        for _, key in sorted(whole):  # so that their order tells nothing of when this was asked
            begin, end = self._open[key].begin, self._open[key].end
            self._close(key)
            terminal = end.terminal or end.last in {stamp for _, stamp in samples.terminated}
            yield Episode(begin.start, end.last, end.steps, terminal, begin, end.reason)
        for key, half in list(self._open.items()):
            if half.whole_since is not None or samples.newest is None:
                continue
            steps = 0 if half.begin is None else half.begin.steps
            late = samples.newest - half.start
            if late > 3 * steps * self._contract.period_ns + OVERDUE or late < -OVERDUE:
                self._forget(key)

    def needs(self, samples: Samples) -> int | None:
        return min((marked.start for marked in self._open.values()), default=None)

    def set_back(self, stamp: int) -> None:
        for key, marked in list(self._open.items()):
            if marked.start > stamp + JUMP:  # else its marker came before the clock's new samples
                self.dropped["the clock was set back in it"] += 1
                self._close(key)

    def close(self) -> None:
        for key in list(self._open):
            self._forget(key)

    def _close(self, key: tuple[int, int]) -> None:
        del self._open[key]
        self._done.append(key)

    def _forget(self, key: tuple[int, int]) -> None:
        missing = "end" if self._open[key].end is None else "begin"
        self.dropped[f"without {missing}"] += 1
        self._close(key)


@dataclass
class _Run:
    """A topic's samples without a silence between them."""

    first: int  # stamps, ns
    last: int
    received: int  # the last one
    closed: bool = False


@dataclass
class _Source:
    hold: int = 0  # how long after its last sample a topic still counts, ns
    runs: deque[_Run] = field(default_factory=deque)


class GappedEpisodes(Episodes):
    """Between silences: stretches in which every needed stream and every command goes on.

    A silence is measured by times of receipt, so that no clock can feign one.
    """

    def __init__(self, contract: Contract, gap: float) -> None:
        super().__init__(contract)
        self._gap = round(gap * SECOND)
        streams = [("streams", i) for i, s in enumerate(contract.observations) if not s.optional]
        self._sources = {source: _Source() for source in streams}
        for index in range(len(contract.actions)):
            # the observation after the last command comes a period later
            self._sources["commands", index] = _Source(hold=self._gap)

    def add(self, kind: str, index: int, decoded: Decoded) -> None:
        source = self._sources.get((kind, index))
        if source is None or not len(decoded.stamps):
            return
        ends = np.flatnonzero(np.diff(decoded.receives) > self._gap) + 1
        for part in np.split(np.arange(len(decoded.stamps)), ends):
            stamps, receives = decoded.stamps[part], decoded.receives[part]
            first, last, received = int(stamps.min()), int(stamps.max()), int(receives[-1])
            run = source.runs[-1] if source.runs else None
            if run is not None and not run.closed and receives[0] - run.received <= self._gap:
                run.first, run.last = min(run.first, first), max(run.last, last)
                run.received = received
                continue
            if run is not None:
                run.closed = True
            source.runs.append(_Run(first, last, received))

    def ready(self, samples: Samples, now: int, *, cut: bool = False) -> Iterator[Episode]:
        for source in self._sources.values():
            for run in source.runs:
                run.closed |= cut or now - run.received > self._gap + LATE
        while all(source.runs for source in self._sources.values()):
            heads = {name: source.runs[0] for name, source in self._sources.items()}
            ends = {name: run.last + self._sources[name].hold for name, run in heads.items()}
            soonest = min(ends, key=ends.get)
            if not heads[soonest].closed:
                break
            self._sources[soonest].runs.popleft()
            start = max(run.first for run in heads.values())
            if ends[soonest] > start:
                yield from _pieces(self._contract, samples, start, ends[soonest])
        if cut:  # what one topic has beyond the others' can meet nothing that is still to come
            for source in self._sources.values():
                source.runs.clear()

    def needs(self, samples: Samples) -> int | None:
        heads = [source.runs[0] for source in self._sources.values() if source.runs]
        if len(heads) < len(self._sources):
            return None
        return max(run.first for run in heads)


class ListedEpisodes(Episodes):
    """Intervals (start, end) of times of receipt, ns, as people read them off a player."""

    def __init__(self, contract: Contract, intervals: Sequence[tuple[int, int]]) -> None:
        super().__init__(contract)
        self._waiting = list(intervals)
        self._now: int | None = None

    def ready(self, samples: Samples, now: int, *, cut: bool = False) -> Iterator[Episode]:
        self._now = now
        over = [(s, e) for s, e in self._waiting if s <= now and (cut or e + LATE <= now)]
        for start, end in sorted(over, key=lambda interval: interval[::-1]):
            self._waiting.remove((start, end))
            if end > now:  # the clock was set back in it: the rest is another piece
                self._waiting.append((now, end))
            first, last = samples.stamps_at(np.array([start, min(end, now)])).tolist()
            yield from _pieces(self._contract, samples, first, last)

    def needs(self, samples: Samples) -> int | None:
        begun = [start for start, _ in self._waiting if self._now is None or start <= self._now]
        if not begun:
            return None
        return int(samples.stamps_at(np.array(begun)).min())


def _pieces(contract: Contract, samples: Samples, start: int, end: int) -> Iterator[Episode]:
    """A stretch without markers as episodes: the robot's own ends divide it."""
    for stamp in sorted({stamp for _, stamp in samples.terminated}):
        if start < stamp <= end:
            yield Episode(start, stamp, terminal=True)
            start = stamp + 1
    yield Episode(start, last_observation(contract, samples, end))


def last_observation(contract: Contract, samples: Samples, end: int) -> int | None:
    """Stamp of the last observation of a stretch that ends at ``end``; None: without commands.

    It is the one that follows the last command, if the stretch has it. Else it is the one that the
    last command answers, which then is no step: what came of it lies beyond the end.
    """
    newest = []
    for series in samples.commands:
        index = int(np.searchsorted(series.stamps, end, "right")) - 1
        if index < 0:
            return None
        newest.append(int(series.stamps[index]))
    tick = min(newest)
    wanted, answers = tick + contract.period_ns, []
    for stream, series in zip(contract.observations, samples.streams, strict=True):
        if contract.trigger == "timer":
            break
        if contract.trigger == stream.topic or (contract.trigger == "all" and not stream.optional):
            if not len(series):
                return tick
            index = int(np.searchsorted(series.stamps, wanted))
            near = series.stamps[max(index - 1, 0) : index + 1]
            answers.append(int(near[np.abs(near - wanted).argmin()]))
    following = max(answers, default=wanted)
    in_time = contract.period_ns <= 2 * (following - tick) <= 3 * contract.period_ns
    return following if in_time and following <= end else tick
