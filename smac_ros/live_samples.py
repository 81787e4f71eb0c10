"""What was heard of a stream, judged by its contract. Knows no ROS; ``live_check`` listens."""

from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np

from smac_ros.contract import Contract, MessageError, Stream
from smac_ros.messages import SECOND, stamp_ns

CLOCKS = 1.0  # s by which the robot's clock and this one's may differ
LATE = 0.05  # s that messages may be under way without a word
SLOW = 0.9  # of the contract's rate
UNEVEN = 0.1  # how far from a multiple of the contract's rate, in rates
RECENT_YEARS = 10 * 365 * 86400  # s after 1970: earlier stamps count from something else


class Finding(NamedTuple):
    """Something that does not fit. ``error``: the robot must not be moved."""

    level: Literal["error", "warning"]
    topic: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        text = f"{self.level}: {self.topic}: found {self.found}; expected {self.expected}"
        return f"{text}; {self.remedy}" if self.remedy else text


class Heard:
    """Samples of one stream.

    Attributes:
        arrivals: when messages came, s, monotonic.
        stamps: of their headers, ns; none where the contract goes by the time of receipt.
        offsets: this machine's clock minus the stamp, s.
        unreadable: what messages lacked -> how many did.
        not_finite: column -> in how many messages it was NaN or infinite.
        frame: of the last header.
        values: [width] that were read last, NaN before.
    """

    def __init__(self, stream: Stream):
        self.stream = stream
        self.clear()

    def clear(self) -> None:
        """What comes from now on counts."""
        self.arrivals: list[float] = []
        self.stamps: list[int] = []
        self.offsets: list[float] = []
        self.unreadable: Counter[str] = Counter()
        self.not_finite: Counter[str] = Counter()
        self.frame = ""
        self.values = np.full(self.stream.width, np.nan)

    def take(self, message: Any, arrival: float, now: int) -> None:
        """A message that came at ``arrival`` (monotonic, s), which is ``now`` (ns) by the clock."""
        self.arrivals.append(arrival)
        stream = self.stream
        if stream.time == "header":
            stamp = stamp_ns(message.header.stamp)
            self.frame = message.header.frame_id
            self.stamps.append(stamp)
            self.offsets.append((now - stamp) / SECOND)
        try:
            stream.read_values(message, self.values)
        except MessageError as error:
            self.unreadable[str(error)] += 1
            return
        for column in np.flatnonzero(~np.isfinite(self.values)):
            self.not_finite[stream.names[column]] += 1

    def broken(self, error: Exception) -> None:
        """Bytes came that are no message of the stream's type."""
        self.unreadable[str(error)] += 1

    @property
    def rate(self) -> float | None:
        """Messages a second, by their stamps where these rise."""
        times = self.arrivals
        if len(self.stamps) == len(times) and len(times) > 1 and np.diff(self.stamps).min() > 0:
            times = [stamp / SECOND for stamp in self.stamps]
        if len(times) < 2 or times[-1] <= times[0]:
            return None
        return (len(times) - 1) / (times[-1] - times[0])

    def largest_gap(self, until: float) -> float | None:
        """The longest time without a message, s, up to the moment ``until`` (monotonic)."""
        return float(np.diff([*self.arrivals, until]).max()) if self.arrivals else None

    @property
    def offset(self) -> float | None:
        """Median of the offsets, s."""
        return float(np.median(self.offsets)) if self.offsets else None

    def summary(self, until: float) -> dict[str, Any]:
        """As plain data."""
        return {
            "messages": len(self.arrivals),
            "rate": self.rate,
            "largest_gap": self.largest_gap(until),
            "clock_offset": self.offset,
        }


def judge(
    contract: Contract,
    heard: list[Heard],
    seconds: float,
    until: float,
    *,
    lockstep: bool = False,
) -> list[Finding]:
    """What does not fit in ``seconds`` of samples up to ``until``, of streams that are published.

    Args:
        heard: one a stream; those without a message are silent.
        lockstep: the robot's time stands and is its own: rates and stamps say nothing.
    """
    findings = []
    for one in heard:
        findings += _contents(one)
        if not one.arrivals and not one.unreadable:
            findings += _silent(one, seconds)
        elif one.arrivals and not lockstep:
            findings += [*_times(contract, one, until), *_order(one)]
    if not lockstep:
        findings += [*_clocks(contract, heard), *_positions(contract, heard)]
    findings += _frames(contract, heard)
    return findings


def _silent(heard: Heard, seconds: float) -> list[Finding]:
    stream = heard.stream
    level = "warning" if stream.optional else "error"
    found = f"no message in {seconds:g} s, though it is published"
    expected = f"one every {stream.max_age_ns / SECOND:g} s (max_age)"
    remedy = "look at what publishes it; over a network, at its firewall and multicast"
    return [Finding(level, stream.topic, found, expected, remedy)]


def _contents(heard: Heard) -> list[Finding]:
    stream, unreadable = heard.stream, sum(heard.unreadable.values())
    count = max(len(heard.arrivals), unreadable)
    all_of_them = unreadable == count
    findings = []
    for text, times in heard.unreadable.items():
        remedy = "put the names that it has into the contract's path"
        if not all_of_them:
            remedy = "the policy skips these; have one publisher with all of them"
        found = f"{times} of {count} messages that lack something: {text}"
        level = "error" if all_of_them else "warning"
        findings.append(Finding(level, stream.topic, found, ", ".join(stream.paths), remedy))
    for column, times in heard.not_finite.items():
        found = f"{column} NaN or infinite in {times} of {count} messages"
        remedy = "look at the sensor: the policy stops at each of them"
        findings.append(Finding("error", stream.topic, found, "finite numbers", remedy))
    return findings


def _times(contract: Contract, heard: Heard, until: float) -> list[Finding]:
    stream, rate = heard.stream, heard.rate
    max_age, gap = stream.max_age_ns / SECOND, heard.largest_gap(until)
    if rate is None:
        return _silent(heard, gap)
    findings = []

    def add(level: Literal["error", "warning"], found: str, expected: str, remedy: str) -> None:
        findings.append(Finding(level, stream.topic, found, expected, remedy))

    needed = not stream.optional and stream.align == "hold"
    triggers = not stream.optional and contract.trigger in ("all", stream.topic)
    if triggers and rate < SLOW * contract.rate:
        remedy = "raise the driver's rate, or name another trigger; to act slower is another domain"
        add("error", f"{rate:.1f} Hz", f"at least the contract's {contract.rate:g} Hz", remedy)
    elif 1 / rate > max_age:
        level = "error" if needed else "warning"
        consequence = "the policy would stop" if needed else "it would mostly be missing"
        remedy = f"{consequence}: raise its rate, or the contract's max_age"
        add(level, f"{rate:.1f} Hz", f"more than {1 / max_age:.1f} Hz (max_age)", remedy)
    elif needed and gap > contract.watchdog:
        remedy = "the policy stops at each: look at the network and the driver's load"
        add("error", f"{gap:.3f} s without a message", f"{contract.watchdog:g} s at most", remedy)
    elif needed and gap > max_age:
        remedy = "the policy stops at each: look at the network and the driver's load"
        add("warning", f"{gap:.3f} s without a message", f"max_age {max_age:g} s at most", remedy)
    ratio = rate / contract.rate
    if triggers and ratio > 1 + UNEVEN and abs(ratio - round(ratio)) > UNEVEN:
        remedy = "steps would be uneven: the policy acts on a message, not between two"
        add("warning", f"{rate:.1f} Hz", f"{contract.rate:g} Hz, or a multiple of it", remedy)
    return findings


def _order(heard: Heard) -> list[Finding]:
    steps, topic = np.diff(heard.stamps), heard.stream.topic
    findings = []
    if (again := int(np.count_nonzero(steps == 0))) and any(heard.stamps):
        remedy = "a reading that is published twice counts once"
        found = f"{again} of {len(heard.stamps)} messages with the stamp of the one before"
        findings.append(Finding("warning", topic, found, "stamps that rise", remedy))
    if len(steps) and steps.min() < -CLOCKS * SECOND:
        found = f"stamps that went back by {-steps.min() / SECOND:.1f} s"
        remedy = "has the driver been started again, or its clock been set?"
        findings.append(Finding("error", topic, found, "stamps that rise", remedy))
    return findings


def _clocks(contract: Contract, heard: list[Heard]) -> list[Finding]:
    known = [one for one in heard if one.offset is not None]
    findings = []
    for one in known:
        stream, offset = one.stream, one.offset
        max_age = stream.max_age_ns / SECOND
        side = "behind" if offset > 0 else "ahead of"
        found = f"stamps {abs(offset):.3g} s {side} this machine's clock"
        remedy = "set both clocks by one server (chrony), or write `time: receive`"
        if abs(offset) > CLOCKS:
            found = f"stamps {abs(offset):.1f} s {side} this machine's clock"
            if one.stamps[-1] == 0:
                found = "stamps that are not set: 0"
                remedy = "have the driver set header.stamp, or write `time: receive`"
            elif one.stamps[-1] < RECENT_YEARS * SECOND:
                found = f"stamps of {one.stamps[-1] / SECOND:.1f} s, not of today"
                remedy = (
                    "a clock that counts from the driver's start: write `time: receive`; "
                    "simulated time: use_sim_time"
                )
            expected = f"at most {CLOCKS:g} s"
            findings.append(Finding("error", stream.topic, found, expected, remedy))
            continue
        quickest = min(known, key=lambda other: other.offset)
        older = offset - quickest.offset
        if stream.align == "hold" and older > max_age:
            found = f"stamps {older:.3g} s older than those of {quickest.stream.topic}"
            remedy = "stale to the policy: set the clocks by one server, or raise max_age"
            expected = f"at most max_age, {max_age:g} s"
            findings.append(Finding("error", stream.topic, found, expected, remedy))
        elif contract.trigger == "timer" and offset > max_age:
            expected = f"at most max_age, {max_age:g} s, with trigger timer"
            findings.append(Finding("error", stream.topic, found, expected, remedy))
        elif offset > max(LATE, max_age / 2) or offset < -LATE:
            expected = f"at most {LATE:g} s, which messages take to arrive"
            findings.append(Finding("warning", stream.topic, found, expected, remedy))
    return findings


def _positions(contract: Contract, heard: list[Heard]) -> list[Finding]:
    """Where the first commands would take the robot otherwise than it may be expected."""
    seen = np.full(contract.observation_dim, np.nan)
    for one in heard:
        seen[one.stream.start : one.stream.start + one.stream.width] = one.values
    findings = []

    def add(topic: str, found: str, expected: str, remedy: str) -> None:
        findings.append(Finding("warning", topic, found, expected, remedy))

    for command in contract.actions:
        for column, name in enumerate(command.names):
            at, change = command.measured[column], command.max_change[column]
            if at < 0:
                if np.isnan(command.zero[column]):
                    found = f"{name}, a position that nothing measures"
                    remedy = "the first command may be a jump: name what measures it"
                    add(command.topic, found, "the key measured", remedy)
                continue
            low, high, unit = command.low[column], command.high[column], command.units[column]
            step = change if np.isfinite(change) else 0.0
            if seen[at] < low - step or seen[at] > high + step:
                how = f"steps of {change:g} {unit}" if step else "one jump, for want of max_rate"
                remedy = f"the first commands would lead it back by {how}: move it there before"
                found = f"{name} at {seen[at]:.4g} {unit}"
                add(command.topic, found, f"within its limits, {low:g} to {high:g} {unit}", remedy)
    return findings


def _frames(contract: Contract, heard: list[Heard]) -> list[Finding]:
    """Poses in one frame: nothing here transforms them."""
    poses = [one for one in heard if "Pose" in one.stream.type and one.frame]
    if not poses:
        return []
    wanted = next((command.frame for command in contract.actions if command.frame), poses[0].frame)
    remedy = "the contract's numbers are all in one frame: transform them before"
    return [
        Finding("warning", one.stream.topic, f"frame {one.frame!r}", repr(wanted), remedy)
        for one in poses
        if one.frame != wanted
    ]
