"""The only place where stamped messages become (s, a, s'): recordings and live topics share it.

``Series`` keep what came in, ``assemble`` makes transitions of them at once, ``Snapshot`` gives a
policy the observation as of now. Both follow the contract's alignment (doc/contract.md), to the
bit; numpy only, stamps are ns.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smac_ros.contract import CommandReader, Contract, Stream
from smac_ros.messages import SECOND

# How episodes and samples are followed, by the reward labeler and in recordings
KEPT = 10 * SECOND  # samples from before an episode whose begin may still come
JUMP = SECOND  # a sample that much older than the newest one: the clock was set back
OVERDUE = 60 * SECOND  # beyond thrice its nominal time, an episode without an end is forgotten
OPEN, DONE = 8, 1000  # episodes that may be under way, and that are remembered

_NEVER = -(1 << 62)  # the stamp of a sample that is not there


class Series:
    """Samples (stamp, values) sorted by stamp, in arrays that grow.

    Args:
        width: numbers a sample.

    Attributes:
        duplicates: samples that came again under a stamp that was there; the last one stays.
    """

    def __init__(self, width: int, capacity: int = 256) -> None:
        self._stamps = np.empty(capacity, np.int64)
        self._values = np.empty((capacity, width), np.float64)
        self._first = self._end = 0
        self.duplicates = 0

    def __len__(self) -> int:
        return self._end - self._first

    @property
    def width(self) -> int:
        return self._values.shape[1]

    @property
    def stamps(self) -> np.ndarray:
        """[n] int64, rising; a view that the next ``append`` may change."""
        return self._stamps[self._first : self._end]

    @property
    def values(self) -> np.ndarray:
        """[n, width] float64, likewise."""
        return self._values[self._first : self._end]

    @property
    def last(self) -> int | None:
        """The newest stamp."""
        return int(self._stamps[self._end - 1]) if len(self) else None

    def append(self, stamp: int, values: np.ndarray) -> None:
        """Add a sample, also one that comes late; ``values`` [width]."""
        place = self._end
        if len(self) and stamp <= self._stamps[self._end - 1]:
            place = self._first + int(np.searchsorted(self.stamps, stamp))
            if self._stamps[place] == stamp:
                self._values[place] = values
                self.duplicates += 1
                return
        if self._end == len(self._stamps):
            place -= self._make_room()
        if place < self._end:
            self._stamps[place + 1 : self._end + 1] = self._stamps[place : self._end]
            self._values[place + 1 : self._end + 1] = self._values[place : self._end]
        self._stamps[place] = stamp
        self._values[place] = values
        self._end += 1

    def extend(self, stamps: np.ndarray, values: np.ndarray) -> None:
        """``append`` for each of ``stamps`` [n] and ``values`` [n, width], but at once."""
        if not len(stamps):
            return
        rising = bool((stamps[1:] > stamps[:-1]).all())
        if not rising or (len(self) and stamps[0] <= self._stamps[self._end - 1]):
            # What is there from the earliest of them on is put in order together with them.
            first = self._first + int(np.searchsorted(self.stamps, stamps.min()))
            stamps = np.concatenate([self._stamps[first : self._end], stamps])
            values = np.concatenate([self._values[first : self._end], values])
            order = np.argsort(stamps, kind="stable")
            last = np.append(np.diff(stamps[order]) > 0, True)  # of those with one stamp
            self.duplicates += len(stamps) - int(np.count_nonzero(last))
            stamps, values = stamps[order[last]], values[order[last]]
            self._end = first
        if self._end + len(stamps) > len(self._stamps):
            self._make_room(len(stamps))
        end = self._end + len(stamps)
        self._stamps[self._end : end], self._values[self._end : end] = stamps, values
        self._end = end

    def clear_before(self, stamp: int) -> None:
        """Forget what no tick from ``stamp`` on can use: all older samples but the newest."""
        self._first += max(int(np.searchsorted(self.stamps, stamp, "right")) - 1, 0)

    def _make_room(self, more: int = 1) -> int:
        """Move the samples to the front, of larger arrays if they are full; returns by how much."""
        shift, count = self._first, len(self)
        capacity = len(self._stamps)
        while capacity < 2 * count or capacity < count + more:
            capacity *= 2
        stamps, values = self.stamps.copy(), self.values.copy()
        self._stamps = np.empty(capacity, np.int64)
        self._values = np.empty((capacity, self.width), np.float64)
        self._stamps[:count], self._values[:count] = stamps, values
        self._first, self._end = 0, count
        return shift


class Transitions(NamedTuple):
    """Transitions in order of time; not necessarily one run, where some were left out."""

    observations: np.ndarray  # [n, ds] float32
    actions: np.ndarray  # [n, da] float32
    next_observations: np.ndarray  # [n, ds] float32
    rewards: np.ndarray | None  # [n] float32
    ticks: np.ndarray  # [n] int64, ns, of the commands
    next_ticks: np.ndarray  # [n] int64, ns
    left_out: dict[str, int]  # reason -> how many control steps


def assemble(
    contract: Contract,
    streams: Sequence[Series],
    commands: Sequence[Series],
    *,
    start: int,
    last: int | None,
    steps: int | None = None,
    rewards: Series | None = None,
) -> Transitions:
    """The transitions of an episode.

    Ticks are the stamps from ``start`` on at which all commands are there. A transition is the
    observation as of a tick, the command, and the observation as of the next tick; the last tick's
    next is ``last``. Whatever is wrong with a step, the step counts once in ``left_out``, under
    the first reason that applies, so that with ``steps`` len(ticks) + sum(left_out) == steps:

    - "incomplete command": some command is missing at its stamp; "lost command": all are.
    - "no next observation": the last command, when ``last`` is None or not after it.
    - "gap", "short step": the next tick is later than 1.5, earlier than 0.5 periods.
    - "missing TOPIC", "stale TOPIC" (align hold), "dropped TOPIC" (drop), at either end.
    - "not finite": NaN or infinity in observations, action or reward.
    - "no reward": none with a stamp in (tick, next tick], where ``rewards`` are given.

    Args:
        streams: one a stream of the contract, of ``Stream.read_values``.
        commands: one a command, of ``CommandReader.values``.
        start: stamp of the first observation; earlier commands belong to another episode.
        last: stamp of the last observation; None: there is none after the last command.
        steps: how many commands were given, where that is known; later ones are ignored.
        rewards: of the contract's reward stream.
    """
    ticks, rows, incomplete = _ticks(contract, commands, start, last, steps)
    left_out = {"incomplete command": incomplete}
    if steps is not None:
        left_out["lost command"] = max(steps - incomplete - len(ticks), 0)
    points = ticks
    if last is not None and len(ticks) and last > ticks[-1]:
        points = np.append(ticks, last)
    elif len(ticks):
        left_out["no next observation"] = 1
    count = max(len(points) - 1, 0)
    ticks, next_ticks = points[:count], points[1:]

    observations, faults = observations_at(contract, streams, points)
    actions = CommandReader(contract).decode(rows[:count])
    reasons = _Reasons(count)
    spans = next_ticks - ticks
    reasons.add("gap", 2 * spans > 3 * contract.period_ns)
    reasons.add("short step", 2 * spans < contract.period_ns)
    for reason, bad in faults:
        reasons.add(reason, bad[:count] | bad[1 : count + 1])
    reasons.add("not finite", ~np.isfinite(actions).all(1))
    labels = None
    if rewards is not None:
        index = np.searchsorted(rewards.stamps, next_ticks, "right") - 1
        there = (index >= 0) & (_take(rewards.stamps, index, _NEVER) > ticks)
        labels = _take(rewards.values[:, 0], index, np.nan).astype(np.float32)
        reasons.add("no reward", ~there)
        reasons.add("not finite", ~np.isfinite(labels))
    keep = reasons.none
    left_out |= reasons.counts()
    return Transitions(
        observations[:count][keep],
        actions[keep],
        observations[1:][keep],
        None if labels is None else labels[keep],
        ticks[keep],
        next_ticks[keep],
        {reason: number for reason, number in left_out.items() if number},
    )


class _Reasons:
    """For every step the first reason, in order of ``add``, to leave it out."""

    def __init__(self, count: int) -> None:
        self._names: list[str] = []
        self._first = np.full(count, -1)

    def add(self, name: str, bad: np.ndarray) -> None:
        if name not in self._names:
            self._names.append(name)
        self._first[bad & (self._first < 0)] = self._names.index(name)

    @property
    def none(self) -> np.ndarray:
        """[n] bool: nothing is wrong."""
        return self._first < 0

    def counts(self) -> dict[str, int]:
        numbers = np.bincount(self._first[~self.none], minlength=len(self._names))
        return dict(zip(self._names, numbers.tolist(), strict=True))


def _ticks(
    contract: Contract,
    commands: Sequence[Series],
    start: int,
    last: int | None,
    steps: int | None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Stamps [n] of complete commands, their values [n, da], and how many were incomplete."""
    chosen = []
    for series in commands:
        first = np.searchsorted(series.stamps, start)
        # With a number of steps, a command at the last observation's stamp may be the last step
        # (no observation followed it); without, it belongs to what comes after.
        end = len(series)
        if last is not None:
            end = np.searchsorted(series.stamps, last, "left" if steps is None else "right")
        chosen.append((series.stamps[first:end], series.values[first:end]))
    if all(command.time == "header" for command in contract.actions):
        stamps = np.unique(np.concatenate([stamps for stamps, _ in chosen]))
        found = [_exactly(own, stamps) for own, _ in chosen]
    else:  # times of receipt: no two are equal, the first command's count
        stamps = chosen[0][0]
        found = [_nearest(own, stamps, contract.period_ns // 2) for own, _ in chosen]
    if steps is not None:
        stamps, found = stamps[:steps], [index[:steps] for index in found]
    complete = np.logical_and.reduce([index >= 0 for index in found])
    rows = np.concatenate(
        [values[index[complete]] for (_, values), index in zip(chosen, found, strict=True)], axis=1
    )
    return stamps[complete], rows, int(np.count_nonzero(~complete))


def _exactly(stamps: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Index [n] of the sample with each stamp, -1 where there is none."""
    index = np.searchsorted(stamps, at)
    return np.where(_take(stamps, index, _NEVER) == at, index, -1)


def _nearest(stamps: np.ndarray, at: np.ndarray, within: int) -> np.ndarray:
    """Index [n] of the sample nearest to each stamp, -1 where none is ``within`` reach."""
    after = np.searchsorted(stamps, at)
    ages = at - _take(stamps, after - 1, _NEVER)
    delays = _take(stamps, after, -_NEVER) - at
    index = np.where(ages <= delays, after - 1, after)
    return np.where(np.minimum(ages, delays) <= within, index, -1)


def _take(values: np.ndarray, index: np.ndarray, otherwise: float) -> np.ndarray:
    """values[index], ``otherwise`` where the index is out of range."""
    out = np.full(len(index), otherwise, values.dtype)
    inside = (index >= 0) & (index < len(values))
    out[inside] = values[index[inside]]
    return out


def observations_at(
    contract: Contract, streams: Sequence[Series], points: np.ndarray
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Observations [n, ds] float32 as of points [n] int64, and what is wrong at which of them.

    Returns:
        The observations, and (reason, bad [n] bool) in the order in which reasons apply; where
        one does, the observation is not to be used.
    """
    rows = np.zeros((len(points), contract.observation_dim))
    faults = []
    for stream, series in zip(contract.observations, streams, strict=True):
        index = np.searchsorted(series.stamps, points, "right") - 1
        never = index < 0
        ages = points - _take(series.stamps, index, _NEVER)
        bad = never | _too_old(stream, ages)
        columns = slice(stream.start, stream.start + stream.width)
        rows[~bad, columns] = series.values[index[~bad]]
        if stream.align == "as_of":
            rows[bad, columns] = stream.missing
        elif stream.align == "drop":
            faults.append((f"dropped {stream.topic}", bad))
        else:
            faults.append((f"missing {stream.topic}", never))
            faults.append((f"stale {stream.topic}", bad & ~never))
    with np.errstate(over="ignore"):  # to infinity, which is counted
        observations = rows.astype(np.float32)
    faults.append(("not finite", ~np.isfinite(observations).all(1)))
    return observations, faults


def _too_old(stream: Stream, age: int | np.ndarray) -> bool | np.ndarray:
    """Whether a sample of that age in ns is out of use: the rule of ``max_age``, only here."""
    return age >= stream.max_age_ns if stream.align == "as_of" else age > stream.max_age_ns


class Fault(NamedTuple):
    """Why there is no observation as of a tick."""

    kind: str  # "missing" (never came), "stale" (align hold), "dropped" (drop), "not finite"
    topic: str
    age_s: float  # of the newest sample; infinity without one


class Snapshot:
    """The live side, for a policy: the newest samples of every stream, in preallocated rings.

    Args:
        need_same_stamp: lockstep. An observation is complete when all streams, also those that
            may be missing, have the same stamp; sent once more, it is complete once more.
        ring: samples kept a stream.
    """

    def __init__(self, contract: Contract, need_same_stamp: bool = False, ring: int = 8) -> None:
        self._streams = contract.observations
        self._stamps = [[_NEVER] * ring for _ in self._streams]  # rising
        self._rows = [[np.zeros(s.width) for _ in range(ring)] for s in self._streams]
        self._spare = [np.zeros(stream.width) for stream in self._streams]
        self._row = np.zeros(contract.observation_dim)
        self._views = [self._row[s.start : s.start + s.width] for s in self._streams]
        self._finite = np.zeros(contract.observation_dim, bool)
        self._lockstep = need_same_stamp
        self._timer = contract.trigger == "timer"
        self._ring = ring
        if need_same_stamp:
            needed = range(len(self._streams))
        elif contract.trigger in ("all", "timer"):
            needed = [i for i, stream in enumerate(self._streams) if not stream.optional]
        else:
            needed = [[s.topic for s in self._streams].index(contract.trigger)]
        self._needed = sum(1 << index for index in needed)
        self._required = [
            stamps
            for stamps, stream in zip(self._stamps, self._streams, strict=True)
            if not stream.optional
        ]
        self.clear()

    def clear(self) -> None:
        """Forget everything, as after the clock was set back."""
        for stamps in self._stamps:
            stamps[:] = [_NEVER] * self._ring
        self._reported = [_NEVER] * len(self._streams)
        self._waiting = self._needed  # streams, as bits, without a new sample
        self._came: dict[int, int] = {}  # lockstep: stamp -> streams that came with it, as bits
        self._complete: int | None = None

    @property
    def stamp(self) -> int | None:
        """The observation's stamp: the newest among its samples; in lockstep the one of all.

        None until there is one. It is the tick that a message-triggered policy's command answers.
        """
        if self._lockstep:
            return self._complete
        newest = max(stamps[-1] for stamps in self._stamps)
        return None if newest == _NEVER else newest

    def add(self, index: int, stamp: int, message: object) -> bool:
        """Take a message of stream ``index``; True when it completes a new observation.

        By the contract's trigger: "all": every needed stream has a newer sample than when an
        observation was last complete; a topic: it has, and no needed stream lacks samples;
        "timer": never.

        Raises:
            MessageError: the message lacks what the contract names. Nothing is changed.
        """
        row = self._spare[index]
        self._streams[index].read_values(message, row)
        stamps, rows = self._stamps[index], self._rows[index]
        place = bisect_left(stamps, stamp)
        if place < len(stamps) and stamps[place] == stamp:
            rows[place], self._spare[index] = row, rows[place]
        elif place == 0:
            return False  # older than all that is kept
        else:
            self._spare[index] = rows.pop(0)
            del stamps[0]
            rows.insert(place - 1, row)
            stamps.insert(place - 1, stamp)
        if self._lockstep:
            return self._completes_stamp(index, stamp)
        if self._timer or stamp <= self._reported[index]:
            return False
        self._waiting &= ~(1 << index)
        if self._waiting or any(stamps[-1] == _NEVER for stamps in self._required):
            return False
        self._waiting = self._needed
        for other, stamps in enumerate(self._stamps):
            self._reported[other] = stamps[-1]
        return True

    def _completes_stamp(self, index: int, stamp: int) -> bool:
        came = self._came.get(stamp, 0) | 1 << index
        if came == self._needed:
            self._came.pop(stamp, None)
            self._complete = stamp
            return True
        self._came[stamp] = came
        if len(self._came) > self._ring:
            del self._came[next(iter(self._came))]
        return False

    def at(self, tick: int, out: np.ndarray) -> Fault | None:
        """Put the observation as of ``tick`` into ``out`` [ds] float32; None: all is well.

        With a Fault, ``out`` is not to be used.
        """
        for index, stream in enumerate(self._streams):
            stamps = self._stamps[index]
            place = bisect_right(stamps, tick) - 1
            stamp = stamps[place] if place >= 0 else _NEVER
            if not _too_old(stream, tick - stamp):
                self._views[index][:] = self._rows[index][place]
            elif stream.align == "as_of":
                self._views[index].fill(stream.missing)
            elif stream.align == "drop":
                return Fault("dropped", stream.topic, _age(tick, stamp))
            else:
                kind = "missing" if stamp == _NEVER else "stale"
                return Fault(kind, stream.topic, _age(tick, stamp))
        with np.errstate(over="ignore"):
            np.copyto(out, self._row, casting="same_kind")
        finite = math.isfinite(np.add.reduce(out))  # so is every one of them
        if not finite and not np.isfinite(out, out=self._finite).all():
            stream = next(
                s for s in self._streams if not self._finite[s.start : s.start + s.width].all()
            )
            return Fault("not finite", stream.topic, 0.0)
        return None


def _age(tick: int, stamp: int) -> float:
    return float("inf") if stamp == _NEVER else (tick - stamp) / 1e9
