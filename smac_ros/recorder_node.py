"""The recorder: a contract's topics and the markers of episodes, as bytes into a bag.

Times are those at which the middleware received a message, as rosbag2 takes them; with
use_sim_time those of /clock.
"""

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import ReliabilityPolicy
from std_srvs.srv import Trigger

from smac_ros.bags.recording import (
    MEGABYTE,
    RecordedTopic,
    Recording,
    definitions,
    recorded_topics,
    require_new,
)
from smac_ros.base_node import Parameter, SmacNode, reliable, run, sensor
from smac_ros.contract import load_contract, message_class

POLL = 0.2  # s between two looks at who publishes, and at the disk
SECOND = 1.0  # over which rates are counted
SILENT = 5.0  # s without a message of an observation until that is told
DEPTH = 5000  # messages of a topic that may wait for this process
MANY = 1e9  # MB


class _Source:
    """A recorded topic as it comes in."""

    def __init__(self, index: int, topic: RecordedTopic, needed: bool) -> None:
        self.index, self.name, self.type = index, topic.name, topic.type
        self.needed = needed  # an observation: a robot that works always publishes it
        self.subscription: Any = None
        self.best_effort = False
        self.numbers: dict[bytes | None, int] = {}  # publisher -> its last message's
        self.lost = self.seen = 0  # seen: when rates were last counted
        self.rate = 0.0  # Hz
        self.last = 0.0  # when something came, s; of time.monotonic


class RecorderNode(SmacNode):
    """One bag from activation to deactivation."""

    parameters = (
        Parameter("contract", "sawyer_sim", "Name of a contract, or path of its .yaml file."),
        Parameter("out", "", "Folder to write, a new one; empty: bags/<contract>_<date>_<time>."),
        Parameter("max_size", 1000.0, "MB, about, of a file; then another; 0: any.", 0.0, MANY),
        Parameter("disk_left", 500.0, "MB of the disk to leave; it ends before.", 0.0, MANY),
        Parameter("compression", "zstd", "Of the file's chunks.", choices=("zstd", "none")),
        Parameter("seconds", 0.0, "From the first message to the end; 0: no end.", 0.0, MANY),
    )

    def __init__(self, **arguments: Any):
        super().__init__("recorder", **arguments)
        self._recording: Recording | None = None
        self._sources: list[_Source] = []
        self._paused = self._simulated = False

    # Lifecycle

    def configure(self) -> None:
        self._contract = load_contract(self.setting("contract"))
        require_new(self._folder())
        observed = {stream.topic for stream in self._contract.observations}
        topics = recorded_topics(self._contract)
        definitions([topic.type for topic in topics])  # raises before anything is written
        self._topics = [t._replace(name=self.resolve_topic_name(t.name)) for t in topics]
        self._sources = [
            _Source(index, topic, topics[index].name in observed)
            for index, topic in enumerate(self._topics)
        ]
        for name in ("pause", "resume"):
            self.own("service", Trigger, f"~/{name}", getattr(self, f"_on_{name}"))
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also while a simulation's time stands
        self.own("timer", POLL, self._on_poll, clock=steady)
        self.own("timer", SECOND, self._on_second, clock=steady)

    def activate(self) -> None:
        folder = self._folder()
        self._recording = recording = Recording(
            folder,
            self._topics,
            self._contract.text,
            max_size=self.setting("max_size") * MEGABYTE,
            least_free=self.setting("disk_left") * MEGABYTE,
            compressed=self.setting("compression") == "zstd",
        )
        self._paused = self._complete = False
        self._dropped = 0
        self._simulated = self.get_clock().ros_time_is_active
        self._began = self._counted = time.monotonic()
        self._first = 0.0  # when something had come, for ``seconds``
        for source in self._sources:
            source.lost = source.seen = 0
            source.rate, source.last = 0.0, self._began
            source.numbers.clear()
        self._told: set[str] = set()
        self._silent: set[str] = set()
        self.diagnostics.show(
            folder=folder,
            messages=lambda: recording.message_count,
            megabytes=lambda: f"{recording.size / MEGABYTE:.1f}",
            files=lambda: recording.files,
            paused=lambda: self._paused,
            **{source.name: self._status(source) for source in self._sources},
        )
        for source in self._sources:
            self._listen(source)
        self.get_logger().info(f"recording {len(self._sources)} topics to {folder}")

    def deactivate(self) -> None:
        for source in self._sources:
            self._leave(source)
        recording, self._recording = self._recording, None
        if recording is None:
            return
        recording.close()
        if recording.problem:
            self._give_up(recording)
        self._conclude(recording)

    def _folder(self) -> Path:
        given = self.setting("out")
        return Path(given or time.strftime(f"bags/{self._contract.name}_%Y%m%d_%H%M%S"))

    # What is heard

    def _listen(self, source: _Source, best_effort: bool = False) -> None:
        """Reliably, so that nothing is lost, unless somebody publishes best effort."""
        self._leave(source)
        source.best_effort = best_effort
        source.subscription = self.create_subscription(
            message_class(source.type),
            source.name,
            self._receiver(source),
            sensor(DEPTH) if best_effort else reliable(DEPTH),
            raw=True,
            # rclpy's own would only log that somebody publishes best effort; _on_poll sees to it.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def _leave(self, source: _Source) -> None:
        if source.subscription is not None:
            self.destroy_subscription(source.subscription)
            source.subscription = None

    def _receiver(self, source: _Source) -> Callable[..., None]:
        def receive(*given: Any) -> None:
            data, info = given if len(given) == 2 else given[0]
            self._receive(source, data, info)

        # rclpy counts the arguments to know that the message's times are wanted, too. Its
        # EventsExecutor then passes both as one.
        receive.__signature__ = inspect.signature(lambda message, info: None)
        return receive

    def _receive(self, source: _Source, data: bytes, info: dict[str, Any]) -> None:
        number = info.get("publication_sequence_number")
        if number is not None:
            gid = info.get("publisher_gid")
            key = None if gid is None else gid["data"]
            last = source.numbers.get(key)
            source.numbers[key] = number
            if last is not None and number > last + 1:
                self._lost(source, key, number - last - 1)
        source.last = time.monotonic()
        if self._recording is None or self._paused:
            return
        if self._simulated:
            received = self.get_clock().now().nanoseconds
            if not received:
                self.diagnostics.count("messages before /clock", "no time on /clock yet")
                return
        else:
            received = info["received_timestamp"] or time.time_ns()
        self._recording.write(source.index, received, data)

    def _lost(self, source: _Source, publisher: bytes | None, count: int) -> None:
        """A publisher's numbers skip some."""
        if publisher is None and self.count_publishers(source.name) != 1:
            return  # Jazzy does not tell whose number it is
        source.lost += count
        self.diagnostics.count(
            "messages lost", f"{source.name}: {count} messages did not arrive", by=count
        )

    # Watching

    def _on_poll(self) -> None:
        recording = self._recording
        if recording is None:
            return
        for source in self._sources:
            for publisher in self.get_publishers_info_by_topic(source.name):
                if publisher.topic_type != source.type:
                    self._tell(f"{source.name} is published as {publisher.topic_type}, "
                               f"the contract has {source.type}")  # fmt: skip
                quality = publisher.qos_profile.reliability
                if quality == ReliabilityPolicy.BEST_EFFORT and not source.best_effort:
                    self._listen(source, best_effort=True)
        if recording.dropped > self._dropped:
            by, self._dropped = recording.dropped - self._dropped, recording.dropped
            self.diagnostics.count("messages dropped", "the disk does not keep up", by=by)
        if recording.problem:
            self._give_up(recording)
        elif self._over(recording):
            self.exit_code = 0

    def _over(self, recording: Recording) -> bool:
        """Whether it has lasted as long as it should."""
        seconds = self.setting("seconds")
        if not seconds or not recording.message_count:
            return False
        self._first = self._first or time.monotonic()
        return time.monotonic() - self._first >= seconds

    def _tell(self, what: str) -> None:
        """Once."""
        if what not in self._told:
            self._told.add(what)
            self.diagnostics.count("other types", what)

    def _give_up(self, recording: Recording) -> None:
        self.diagnostics.fault("recording", f"the recording has ended: {recording.problem}")
        self.exit_code = 1

    def _on_second(self) -> None:
        recording, now = self._recording, time.monotonic()
        if recording is None:
            return
        needed = [source for source in self._sources if source.needed]
        whole = all(source.seen for source in needed)  # came already before this second
        for source in self._sources:
            count = recording.counts[source.index]
            source.rate = (count - source.seen) / (now - self._counted)
            source.seen = count
        self._counted = now
        if whole and not self._complete:
            self._complete = True
            rates = ", ".join(f"{source.name} {source.rate:.0f} Hz" for source in needed)
            self.get_logger().info(f"all observations come in: {rates}")
        silent = {source.name for source in needed if now - source.last > SILENT}
        if silent - self._silent:
            names = ", ".join(sorted(silent))
            self.diagnostics.count("silent topics", f"nothing for {SILENT:g} s on {names}")
        self._silent = silent

    def _status(self, source: _Source) -> Callable[[], str]:
        def status() -> str:
            if self._recording is None:
                return "not recording"
            lost = f", {source.lost} lost" if source.lost else ""
            return f"{self._recording.counts[source.index]} ({source.rate:.1f} Hz{lost})"

        return status

    def _conclude(self, recording: Recording) -> None:
        """What there is now, in the log."""
        seconds = time.monotonic() - self._began
        counts = list(zip((s.name for s in self._sources), recording.counts, strict=True))
        some = ", ".join(f"{name} {count}" for name, count in counts if count)
        none = ", ".join(name for name, count in counts if not count)
        lost = sum(source.lost for source in self._sources) + recording.dropped
        self.get_logger().info(
            f"{recording.folder}: {recording.message_count} messages, "
            f"{recording.size / MEGABYTE:.1f} MB, {seconds:.0f} s, {lost} known to be lost"
            + (f"; {some}" if some else "")
            + (f"; nothing on {none}" if none else "")
        )

    # Services

    def _on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._pause(response, True, "records nothing until ~/resume")

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._pause(response, False, "records")

    def _pause(self, response: Trigger.Response, paused: bool, text: str) -> Trigger.Response:
        response.success = self._recording is not None
        response.message = text if response.success else "it is not recording"
        if response.success:
            self._paused = paused
            self.get_logger().info(text)
        return response


def main() -> None:
    """Entry point of the executable."""
    run(RecorderNode)


if __name__ == "__main__":
    main()
