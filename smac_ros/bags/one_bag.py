"""One recording, read once for all the tasks that it serves, in the memory of one episode."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smac_core.data.dataset import TaskData
from smac_core.data.dataset_writer import TaskWriter
from smac_core.errors import InputError
from smac_core.reward_functions import RewardFunction
from smac_core.training.progress import stop_requested
from smac_ros.bags.decoding import Decoded, Decoder, decode_header_stamp, decode_text
from smac_ros.bags.episodes import (
    Episode,
    Episodes,
    GappedEpisodes,
    ListedEpisodes,
    MarkedEpisodes,
)
from smac_ros.bags.reading import Bag
from smac_ros.bags.report import BagReport, TaskReport, TopicReport
from smac_ros.bags.rewards import (
    FileRewards,
    FunctionRewards,
    Rewards,
    SuccessRewards,
    TopicRewards,
    labelled,
)
from smac_ros.bags.samples import Samples, set_backs
from smac_ros.bags.storage import Message
from smac_ros.bags.task_file import Interval, Task
from smac_ros.bags.topics import Names, find_topic, require_topic
from smac_ros.contract import Command, Contract, Stream, require_same
from smac_ros.experience import Series, Transitions, observations_at

MARKERS, MARKER_TYPE = "episode", "std_msgs/msg/String"
ENDS, END_TYPE = "terminated", "std_msgs/msg/Header"
BATCH = 16_384  # messages that are decoded together
BATCH_BYTES = 32 * 2**20
ROUNDED = 1e-3  # of an action: a command of less than 64 bits


class Stopped(Exception):
    """Asked to stop: nothing is written."""


class _Channel(NamedTuple):
    """What becomes of one topic's messages; a topic may have several."""

    kind: str  # "streams", "commands" or "rewards", of Samples
    index: int
    decoder: Decoder
    report: TopicReport


class _Served(NamedTuple):
    """A task that a recording serves."""

    number: int
    task: Task
    rewards: Rewards
    report: TaskReport


class BagConversion:
    """What is to become of one recording; found in order before anything is read.

    Attributes:
        report: of what became of it.

    Raises:
        InputError: it lacks what the contract or a task needs.
    """

    def __init__(
        self,
        bag: Bag,
        contract: Contract,
        tasks: Sequence[Task],
        functions: Sequence[RewardFunction | None],
        tasks_file: Path,
        names: Names,
    ) -> None:
        self._bag, self._contract, self._names = bag, contract, names
        if bag.contract_text is not None:
            require_same(contract, bag.contract_text, f"{bag.path}: its contract")
        self.report = BagReport(str(bag.path), bag.duration, bag.notes, set(bag.topics))
        self._channels: dict[str, list[_Channel]] = {}
        for index, stream in enumerate(contract.observations):
            find = find_topic if stream.optional else require_topic
            name = find(bag, stream.topic, stream.type, names)
            if name is None:
                self.report.notes.append(f"no {names.full(stream.topic)}: it reads as missing")
            else:
                self._open("streams", index, stream, name)
        for index, action in enumerate(contract.actions):
            name = require_topic(bag, action.topic, action.type, names)
            self._open("commands", index, action, name)
        self._reward_streams: dict[str, Stream] = {}
        self._marked: MarkedEpisodes | None = None
        self._markers: str | None = None
        self._found: dict[object, tuple[Episodes, list[_Served]]] = {}
        for number, (task, function) in enumerate(zip(tasks, functions, strict=True)):
            if task.has(bag.path, tasks_file.resolve().parent):
                self._serve(number, task, function, tasks_file)
        self._ends = find_topic(bag, ENDS, END_TYPE, names)
        self._note_namespaces()
        self.report.others -= self._wanted

    # What is wanted

    def _note_namespaces(self) -> None:
        """Topics that were found in several, of which nobody has said that they are one robot's."""
        found: dict[str, str] = {}  # namespace -> a topic in it
        for channel in (one for channels in self._channels.values() for one in channels):
            name, topic = channel.report.name, channel.report.topic
            if topic not in self._names.remaps and not topic.startswith("/"):
                found.setdefault(name.removesuffix(f"/{topic}") or "/", name)
        if len(found) > 1:
            names = ", ".join(found.values())
            remedy = "--namespace, or --remap, if they are not one robot's"
            self.report.notes.append(f"topics of several namespaces ({names}); {remedy}")

    def _open(self, kind: str, index: int, source: Stream | Command, name: str) -> None:
        report = TopicReport.of(name, source, self._contract.period_ns)
        self._channels.setdefault(name, []).append(
            _Channel(kind, index, Decoder(source), report)
        )
        self.report.topics.append(report)

    def _serve(
        self, number: int, task: Task, function: RewardFunction | None, tasks_file: Path
    ) -> None:
        rewards = self._rewards(task, function, tasks_file)
        report = TaskReport(task.name, task.split)
        self.report.tasks.append(report)
        key, make = self._episodes(task)
        if key not in self._found:
            self._found[key] = (make(), [])
        self._found[key][1].append(_Served(number, task, rewards, report))

    def _rewards(self, task: Task, function: RewardFunction | None, tasks_file: Path) -> Rewards:
        source, bag = task.reward, self._bag
        if source.topic is not None:
            if source.key not in self._reward_streams:
                stream = source.stream(self._contract)
                name = require_topic(bag, stream.topic, stream.type, self._names)
                self._open("rewards", len(self._reward_streams), stream, name)
                self._reward_streams[source.key] = stream
            return TopicRewards(list(self._reward_streams).index(source.key))
        if source.csv is not None:
            path = self._own(source.csv.of(bag.path), task, "reward.csv", tasks_file)
            return FileRewards(path, source.time, bag.start)
        if source.success is not None:
            own = self._own(source.success.of(bag.path), task, "reward.success", tasks_file)
            times = [(i.start.at(bag.start), i.end.at(bag.start)) for i in own]
            return SuccessRewards(times, source.inside, source.outside)
        return FunctionRewards(function, source.function, task, tasks_file)

    def _episodes(self, task: Task) -> tuple[object, Callable[[], Episodes]]:
        """What tells a way to find episodes apart from others, and what makes it."""
        wanted, bag, contract = task.episodes, self._bag, self._contract
        if wanted.gaps is not None:
            return ("gaps", wanted.gaps), partial(GappedEpisodes, contract, wanted.gaps)
        if wanted.intervals is not None:
            own = (i for i in wanted.intervals.of(bag.path) if overlaps(i, bag))
            times = [(i.start.at(bag.start), i.end.at(bag.start)) for i in own]
            return ("intervals", *times), partial(ListedEpisodes, contract, times)
        if self._markers is None:
            instead = f" for task {task.name}, or its episodes by gaps or intervals"
            self._markers = require_topic(bag, MARKERS, MARKER_TYPE, self._names, instead)
            self._marked = MarkedEpisodes(contract)
        return "markers", lambda: self._marked

    def _own(self, value: Any, task: Task, key: str, tasks_file: Path) -> Any:
        if value is None:
            found = f"nothing for {self._bag.path.name}"
            expected = "an entry for each of the task's recordings"
            raise InputError(tasks_file, f"task {task.name}: {key}", found, expected)
        return value

    @property
    def _wanted(self) -> set[str]:
        return {*self._channels, *filter(None, (self._markers, self._ends))}

    @property
    def messages(self) -> int:
        """How many will be read."""
        return sum(self._bag.topics[name].count for name in self._wanted)

    # Reading

    def convert(
        self, rows: Sequence[TaskWriter], horizon: int | None, advance: Callable[[int], None]
    ) -> None:
        """Read it all; episodes go to ``rows``, the tasks', as they are over."""
        self._rows, self._horizon = rows, horizon
        self._samples = Samples(self._contract, list(self._reward_streams.values()))
        pending: dict[str, tuple[list[int], list[bytes]]] = {
            name: ([], []) for name in self._channels
        }
        self._events: deque[Message] = deque()
        keep = {name: (receives.append, raws.append) for name, (receives, raws) in pending.items()}
        count = size = 0
        receive = self._bag.start
        for piece in self._pieces():
            for name, receive, raw in piece:
                lists = keep.get(name)
                if lists is None:
                    self._events.append((name, receive, raw))
                else:
                    lists[0](receive)
                    lists[1](raw)
            count += len(piece)
            size += sum(len(raw) for _, _, raw in piece)
            if count >= BATCH or size >= BATCH_BYTES:
                self._take(pending, receive)
                count = size = 0
            advance(len(piece))
            if stop_requested():
                raise Stopped
        self._take(pending, receive)
        self._finish(receive, cut=True)
        for finder, served in self._found.values():
            finder.close()
            for one in served:
                one.report.dropped.update(finder.dropped)
        for channels in self._channels.values():
            for channel in channels:
                channel.report.problems.update(channel.decoder.problems)
        self.report.most_samples = self._samples.most
        del self._samples

    def _pieces(self) -> Iterator[list[Message]]:
        """The messages that are wanted, in lists of at most ``BATCH``."""
        for batch in self._bag.batches(self._wanted):
            for first in range(0, len(batch), BATCH):
                yield batch[first : first + BATCH]

    def _event(self, name: str, receive: int, raw: bytes) -> None:
        try:
            if name == self._markers:
                self._marked.mark(receive, decode_text(raw))
            else:
                self._samples.terminated.append((receive, decode_header_stamp(raw)))
        except ValueError as error:
            note = f"{name}: a message that cannot be read: {error}"
            if note not in self.report.notes:
                self.report.notes.append(note)

    def _take(self, pending: dict[str, tuple[list[int], list[bytes]]], now: int) -> None:
        """Decode what has come, and lay it by; where a clock was set back, piece by piece."""
        parts: list[tuple[_Channel, Decoded]] = []
        backs: list[tuple[int, str, int, int]] = []  # time of receipt, which samples, stamp
        for name, (receives, raws) in pending.items():
            for channel in self._channels[name]:
                decoded = channel.decoder.decode(receives, raws)
                channel.report.messages += len(raws)
                channel.report.add(decoded)
                parts.append((channel, decoded))
                last = self._samples.series(channel.kind)[channel.index].last
                for row in set_backs(decoded.stamps, last):
                    times = int(decoded.receives[row]), int(decoded.stamps[row])
                    backs.append((times[0], channel.kind, channel.index, times[1]))
            receives.clear()
            raws.clear()
        begin = 0
        for receive, kind, index, stamp in sorted(backs):
            self._add(parts, begin, receive)
            self._finish(receive, cut=True)
            self._samples.restart(kind, index, receive)
            if self._samples.is_reference(kind, index):
                for finder, _ in self._found.values():
                    finder.set_back(stamp)
            begin = receive
        self._add(parts, begin, now + 1)
        self._finish(now)

    def _add(self, parts: list[tuple[_Channel, Decoded]], begin: int, end: int) -> None:
        """What was received in [begin, end)."""
        while self._events and self._events[0][1] < end:
            self._event(*self._events.popleft())
        for channel, decoded in parts:
            first, after = np.searchsorted(decoded.receives, (begin, end))
            if first == after:
                continue
            piece = Decoded(*(array[first:after] for array in decoded))
            self._samples.add(channel.kind, channel.index, piece)
            for finder, _ in self._found.values():
                finder.add(channel.kind, channel.index, piece)

    # Episodes

    def _finish(self, now: int, *, cut: bool = False) -> None:
        """Write what is whole, forget what is not needed any more."""
        for finder, served in self._found.values():
            for episode in finder.ready(self._samples, now, cut=cut):
                self._count_held(episode)
                assembled: dict[int, tuple[Series | None, Transitions]] = {}
                for one in served:
                    if _is_chosen(one.task, episode):
                        self._write(one, episode, assembled)
                    else:
                        one.report.not_chosen += 1
        needs = [finder.needs(self._samples) for finder, _ in self._found.values()]
        self._samples.clear_before(min((n for n in needs if n is not None), default=None))

    def _count_held(self, episode: Episode) -> None:
        stamps = self._samples.commands[0].stamps
        end = len(stamps) if episode.last is None else np.searchsorted(stamps, episode.last)
        points = stamps[np.searchsorted(stamps, episode.start) : end]
        _, faults = observations_at(self._contract, self._samples.streams, points)
        bad = {reason.partition(" ")[2]: np.zeros(len(points), bool) for reason, _ in faults}
        for reason, rows in faults:
            bad[reason.partition(" ")[2]] |= rows
        for channels in self._channels.values():
            for channel in channels:
                if channel.kind == "streams" and channel.report.topic in bad:
                    channel.report.ticks += len(points)
                    channel.report.held += int(np.count_nonzero(bad[channel.report.topic]))

    def _write(
        self,
        one: _Served,
        episode: Episode,
        assembled: dict[int, tuple[Series | None, Transitions]],
    ) -> None:
        report = one.report
        made = labelled(self._contract, self._samples, episode, one.rewards, assembled)
        report.left_out.update(made.left_out)
        count = len(made.ticks)
        if count < one.task.episodes.shortest:
            if count:
                reason = f"shorter than {one.task.episodes.shortest} transitions"
                report.left_out["in a short episode"] += count
            elif episode.reason != "complete":
                reason = f"no transitions ({episode.reason})"
            else:
                reason = "no transitions"
            report.dropped[reason] += 1
            return
        if self._horizon is not None and count > self._horizon:
            report.beyond_horizon += count - self._horizon
            count = self._horizon
        terminals = np.zeros(count, bool)
        if episode.terminal and count == len(made.ticks):
            terminals[-1] = made.next_ticks[-1] == episode.last
            report.terminals += int(terminals[-1])
            report.terminals_lost += int(not terminals[-1])
        timeouts = np.zeros(count, bool)
        timeouts[-1] = not terminals[-1]
        self._rows[one.number].add(
            TaskData(
                observations=made.observations[:count],
                actions=made.actions[:count],
                rewards=made.rewards[:count],
                next_observations=made.next_observations[:count],
                terminals=terminals,
                timeouts=timeouts,
                split=one.task.split,
            )
        )
        report.episodes += 1
        report.transitions += count
        beyond = np.abs(made.actions[:count]) > 1 + ROUNDED
        report.beyond += int(np.count_nonzero(beyond.any(1)))
        reward = self._contract.reward
        if episode.begin is not None and reward and one.task.reward.topic == reward.topic:
            report.scenes.add(episode.begin.task)
        report.interrupted += int(episode.reason != "complete")


def overlaps(interval: Interval, bag: Bag) -> bool:
    """Whether any of it lies in a recording."""
    return interval.start.at(bag.start) <= bag.stop and interval.end.at(bag.start) >= bag.start


def _is_chosen(task: Task, episode: Episode) -> bool:
    wanted, begin = task.episodes.markers, episode.begin
    if wanted is None or begin is None:
        return True
    return begin.purpose in wanted.purpose and (not wanted.task or begin.task in wanted.task)
