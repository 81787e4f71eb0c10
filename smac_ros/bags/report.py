"""What a conversion reports: topics, clocks, episodes, transitions, and what to be wary of.

Thresholds, and what they mean: doc/bags.md.
"""

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smac_ros.bags.decoding import Decoded
from smac_ros.contract import Command, Stream
from smac_ros.experience import JUMP
from smac_ros.messages import SECOND

CLOCKS_APART = 0.5  # s between a topic's clock and the others', or the recorder's
FROM_THE_FUTURE = 0.05  # s between stamp and receipt, and to the others: no delay explains it
OUT_OF_ORDER = 0.01  # share of a topic's stamps
HELD_TOO_LONG = 0.01  # share of control steps
OUT_OF_REACH = 0.01  # share of a task's actions in a recording that are beyond +-1
LEFT_OUT = 0.05  # share of a task's control steps in a recording
DATES = 10**8  # s: a clock below does not count since 1970, as a simulation's


@dataclass
class TopicReport:
    """One topic of a recording, while it is read.

    Attributes:
        name: in the recording; ``topic`` is the contract's.
        longest: silence that is still no gap, ns.
    """

    name: str
    topic: str
    longest: int
    messages: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    gaps: int = 0
    longest_gap: int = 0
    out_of_order: int = 0
    jumps: int = 0
    unstamped: int = 0
    ticks: int = 0
    held: int = 0
    simulated: bool = False  # its stamps do not count since 1970
    _offsets: list[float] = field(default_factory=list)
    _first: int | None = None
    _last: tuple[int, int] = (0, 0)  # receive time, stamp
    _ends: tuple[int, int] = (0, 0)  # receive time - stamp, of the first and the last

    @classmethod
    def of(cls, name: str, source: Stream | Command, period: int) -> "TopicReport":
        own = source.max_age_ns if isinstance(source, Stream) else 0
        return cls(name, source.topic, max(own, 3 * period // 2))

    def add(self, decoded: Decoded) -> None:
        """Samples in order of receipt."""
        stamps, receives = decoded.stamps, decoded.receives
        if not len(stamps):
            return
        if self._first is None:
            self._first = int(receives[0])
            self._last = (self._first, int(stamps[0]))
            self._ends = (self._last[0] - self._last[1],) * 2
            self.simulated = int(stamps[0]) < DATES * SECOND
        passed = np.diff(receives, prepend=self._last[0])
        self.gaps += int(np.count_nonzero(passed > self.longest))
        self.longest_gap = max(self.longest_gap, int(passed.max()))
        ahead = np.diff(stamps, prepend=self._last[1])
        self.out_of_order += int(np.count_nonzero((ahead < 0) & (ahead >= -JUMP)))
        # A simulation's time stands, or runs, as it likes; it is set back where it starts again.
        jumps = ahead < -JUMP if self.simulated else np.abs(ahead - passed) > JUMP
        self.jumps += int(np.count_nonzero(jumps))
        self.unstamped += int(np.count_nonzero(stamps == 0))
        self._offsets.append(float(np.median(receives - stamps)))
        self._last = (int(receives[-1]), int(stamps[-1]))
        self._ends = (self._ends[0], self._last[0] - self._last[1])

    @property
    def clock(self) -> float | None:
        """Header's clock against the recorder's, s: stamp minus time of receipt, a median."""
        return -statistics.median(self._offsets) / SECOND if self._offsets else None

    @property
    def timeless(self) -> bool:
        """Whether its headers carry no time."""
        return 2 * self.unstamped > self.messages > 1

    @property
    def drifts(self) -> bool:
        """Whether its clock goes at another speed than the recorder's, as a simulation's may."""
        return self.simulated and np.ptp(self._ends) > CLOCKS_APART * SECOND

    @property
    def rate(self) -> float | None:
        """Messages a second."""
        seconds = 0 if self._first is None else (self._last[0] - self._first) / SECOND
        return (self.messages - 1) / seconds if seconds > 0 else None

    @property
    def held_share(self) -> float | None:
        """Share of control steps at which the newest sample was too old, or none had come."""
        return self.held / self.ticks if self.ticks else None

    def content(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "contract_topic": self.topic,
            "messages": self.messages,
            "rate": _rounded(self.rate),
            "gaps": self.gaps,
            "longest_gap": _rounded(self.longest_gap / SECOND),
            "jumps": self.jumps,
            "out_of_order": self.out_of_order,
            "clock": None if self.simulated or self.timeless else _rounded(self.clock),
            "simulated": self.simulated and not self.timeless,
            "held_too_long": _rounded(self.held_share),
            "unreadable": dict(self.problems),
        }

    def warnings(self) -> list[str]:
        found = []
        for problem, count in self.problems.items():
            found.append(f"{self.name}: {_plural(count, 'message')} not readable: {problem}")
        if self.timeless:
            found.append(
                f"{self.name}: {self.unstamped} of {self.messages} headers have no time (0); "
                "time: receive in the contract goes by receipt"
            )
        if self.jumps and not self.simulated:
            found.append(f"{self.name}: its stamps jump {_times(self.jumps)} by more than 1 s")
        if self.out_of_order > OUT_OF_ORDER * self.messages:
            found.append(
                f"{self.name}: {self.out_of_order} of {self.messages} stamps are out of order"
            )
        if (self.held_share or 0) > HELD_TOO_LONG:
            found.append(
                f"{self.name}: at {100 * self.held_share:.1f} % of control steps its newest "
                "sample is older than max_age, or none has come"
            )
        return found


@dataclass
class TaskReport:
    """What a task got from one recording."""

    name: str
    split: str
    episodes: int = 0
    not_chosen: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0
    transitions: int = 0
    beyond: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    beyond_horizon: int = 0
    terminals: int = 0
    terminals_lost: int = 0
    scenes: set[int] = field(default_factory=set)  # tasks that its recorded rewards are of

    def content(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "split": self.split,
            "episodes": self.episodes,
            "episodes_not_chosen": self.not_chosen,
            "episodes_dropped": dict(self.dropped),
            "episodes_interrupted": self.interrupted,
            "transitions": self.transitions,
            "transitions_left_out": dict(self.left_out),
            "transitions_beyond_horizon": self.beyond_horizon,
            "actions_out_of_reach": self.beyond,
            "terminals": self.terminals,
        }

    def warnings(self) -> list[str]:
        found = []
        for reason, count in self.dropped.items():
            found.append(f"task {self.name}: {_plural(count, 'episode')} dropped: {reason}")
        if self.interrupted:
            count = _plural(self.interrupted, "episode")
            found.append(f"task {self.name}: {count} interrupted; their steps so far are kept")
        lost = sum(self.left_out.values())
        if lost > LEFT_OUT * (lost + self.transitions):
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            found.append(
                f"task {self.name}: {lost} of {lost + self.transitions} control steps left out: "
                f"{reasons}"
            )
        if self.beyond > OUT_OF_REACH * self.transitions:
            found.append(
                f"task {self.name}: {self.beyond} of {self.transitions} actions are beyond +-1, "
                "where no policy of ours can go; scale in the contract says what 1 is"
            )
        if len(self.scenes) > 1:
            scenes = ", ".join(map(str, sorted(self.scenes)))
            found.append(
                f"task {self.name}: its recorded rewards are of {len(self.scenes)} tasks "
                f"({scenes}); markers: {{task: ...}} takes one"
            )
        if self.terminals_lost:
            count = _plural(self.terminals_lost, "terminal transition")
            found.append(f"task {self.name}: {count} left out; those episodes end by time")
        return found


@dataclass
class BagReport:
    """One recording.

    Attributes:
        notes: what is odd about it.
        others: topics of which nothing is wanted.
    """

    path: str
    seconds: float
    notes: list[str]
    others: set[str]
    topics: list[TopicReport] = field(default_factory=list)
    tasks: list[TaskReport] = field(default_factory=list)
    most_samples: int = 0  # held at once

    def content(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "path": self.path,
            "seconds": _rounded(self.seconds),
            "notes": self.notes,
            "most_samples_held": self.most_samples,
            "topics": [topic.content() for topic in self.topics],
            "tasks": [task.content() for task in self.tasks],
        }

    def warnings(self) -> list[str]:
        found = [note for note in self.notes if note.partition(": ")[0] not in self.others]
        found += clock_warnings(self.topics)
        for part in (*self.topics, *self.tasks):
            found += part.warnings()
        return [f"{self.path}: {text}" for text in found]


def clock_warnings(topics: list[TopicReport]) -> list[str]:
    """Topics whose clock differs from the others', or all of them from the recorder's."""
    topics = [topic for topic in topics if topic.clock is not None and not topic.timeless]
    simulated = [topic.name for topic in topics if topic.simulated]
    if 0 < len(simulated) < len(topics):
        dated = ", ".join(topic.name for topic in topics if not topic.simulated)
        return [f"{', '.join(simulated)}: simulated time; but dates on {dated}"]
    clocks = {topic.name: topic.clock for topic in topics}
    if not clocks or any(topic.drifts for topic in topics):
        return []  # medians of clocks that drift tell nothing

    def agreeing(clock: float) -> tuple[int, float]:
        return sum(abs(other - clock) <= CLOCKS_APART for other in clocks.values()), -abs(clock)

    common = max(clocks.values(), key=agreeing)
    found = []
    for name, clock in clocks.items():
        apart = abs(clock - common)
        if apart > CLOCKS_APART or min(apart, clock) > FROM_THE_FUTURE:
            found.append(f"{name}: its clock is {_ahead(clock - common)} the other topics'")
    if abs(common) > CLOCKS_APART and not simulated:
        found.append(f"header stamps are {_ahead(common)} the recorder's clock")
    return found


def reasons(tasks: list[TaskReport]) -> str:
    """Why a task got nothing of its recordings, in brackets; empty where nothing is known."""
    dropped = sum((task.dropped for task in tasks), Counter())
    left_out = sum((task.left_out for task in tasks), Counter())
    del dropped["no transitions"]  # says nothing new
    found = [f"{_plural(count, 'episode')}: {reason}" for reason, count in dropped.items()]
    if not_chosen := sum(task.not_chosen for task in tasks):
        found.append(f"{_plural(not_chosen, 'episode')}: not chosen by its markers")
    found += [f"{_plural(count, 'step')}: {reason}" for reason, count in left_out.items()]
    return f" ({'; '.join(found)})" if found else ""


def show(content: dict[str, Any]) -> None:
    """A report as tables."""
    from rich.console import Console
    from rich.markup import escape

    from smac_ros.bags.info import grid

    console = Console(highlight=False)
    for bag in content["bags"]:
        console.print(f"[bold]{escape(bag['path'])}[/bold]  {bag['seconds']:.1f} s")
        # A column for what is rare only where it is there: a terminal may have 80 characters.
        jumps = ["jumps"] if any(topic["jumps"] for topic in bag["topics"]) else []
        rows = [("topic", "messages", "Hz", "gaps", *jumps, "clock", "too old")]
        rows += [_topic_row(topic, bool(jumps)) for topic in bag["topics"]]
        console.print(grid(rows, right=range(1, len(rows[0]))))
        rows = [("task", "split", "episodes", "dropped", "transitions", "left out")]
        for task in bag["tasks"]:
            dropped = dict(task["episodes_dropped"])
            if task["episodes_not_chosen"]:
                dropped["not chosen"] = task["episodes_not_chosen"]
            rows.append(
                (
                    task["name"],
                    task["split"],
                    str(task["episodes"]),
                    _reasons(dropped),
                    str(task["transitions"]),
                    _reasons(task["transitions_left_out"]),
                )
            )
        console.print()
        console.print(grid(rows, right=(2, 4)))


def _topic_row(topic: dict[str, Any], with_jumps: bool) -> tuple[str, ...]:
    unreadable = sum(topic["unreadable"].values())
    clock = "-" if topic["clock"] is None else f"{topic['clock']:+.3f} s"
    return (
        topic["name"],
        str(topic["messages"]) + (f"\n{unreadable} unreadable" if unreadable else ""),
        "-" if topic["rate"] is None else f"{topic['rate']:.1f}",
        f"{topic['gaps']}, to {topic['longest_gap']:.1f} s" if topic["gaps"] else "0",
        *[str(topic["jumps"])][: int(with_jumps)],
        "simulated" if topic["simulated"] else clock,
        "-" if topic["held_too_long"] is None else f"{100 * topic['held_too_long']:.1f} %",
    )


def _reasons(counts: dict[str, int]) -> str:
    return "\n".join(f"{count} {reason}" for reason, count in counts.items()) or "0"


def _ahead(seconds: float) -> str:
    digits = 1 if abs(seconds) >= CLOCKS_APART else 3
    return f"{abs(seconds):.{digits}f} s {'ahead of' if seconds > 0 else 'behind'}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(float(number), 6)
