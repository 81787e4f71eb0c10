"""A contract compared with what is on the network, before anything moves. Publishes nothing.

Who publishes and who listens, of which types and QoS; then, for some seconds, what is published.
"""

import difflib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from smac_ros.contract import Contract, Stream, message_class
from smac_ros.live_samples import Finding, Heard, judge
from smac_ros.serialized import Unpacker

POLL = 0.05  # s between two looks at the network
TELEOPERATION = ("operator",)
# Nodes that listen to commands, but follow none.
SPECTATORS = ("reward_labeler", "recorder", "rosbag2_recorder", "operator", "policy")
DEPTH = 100  # messages that may wait while this process is busy


class Report(NamedTuple):
    """What was found.

    Attributes:
        topics: of each topic of the contract what was seen, as plain data.
    """

    contract: str
    findings: list[Finding]
    topics: list[dict[str, Any]]

    @property
    def errors(self) -> list[Finding]:
        """What keeps the robot from being moved."""
        return [finding for finding in self.findings if finding.level == "error"]

    def grouped(self) -> list[Finding]:
        """For people: what is the same of several topics once, with all their names."""
        topics: dict[Finding, list[str]] = {}
        for finding in self.findings:
            topics.setdefault(finding._replace(topic=""), []).append(finding.topic)
        return [finding._replace(topic=", ".join(names)) for finding, names in topics.items()]

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": not self.errors,
            "topics": self.topics,
            "findings": [finding._asdict() for finding in self.findings],
        }


class LiveCheck:
    """Looks and listens through a node; call ``poll`` every ``POLL`` seconds until it is done.

    Args:
        node: in the robot's namespace; only subscriptions are made.
        seconds: to listen, once everything is there.
        patience: seconds to wait for what is not there yet (discovery takes up to 3 s).
        lockstep: the robot keeps its own time; the nodes will listen reliably.
        teleoperation: nodes that may publish commands beside the policy, as it is told, too.
    """

    def __init__(
        self,
        node: Any,
        contract: Contract,
        *,
        seconds: float = 5.0,
        patience: float = 5.0,
        lockstep: bool = False,
        teleoperation: Sequence[str] = TELEOPERATION,
    ):
        from smac_ros.base_node import reliable, sensor

        self._node, self.contract, self._teleoperation = node, contract, teleoperation
        self._seconds, self._patience, self._lockstep = seconds, patience, lockstep
        self._asked = _explicit(reliable(10) if lockstep else sensor())  # as policy_node does
        self._offered = _explicit(reliable(10 if lockstep else 1))
        self.heard = [Heard(stream) for stream in contract.observations]
        self._began = time.monotonic()
        self._since: float | None = None  # when listening began
        self._subscriptions = []
        for one in self.heard:
            unpack = Unpacker(one.stream.type, one.stream.paths).unpack
            callback = partial(self._take, one, unpack)
            kind, topic = message_class(one.stream.type), one.stream.topic
            self._subscriptions.append(
                node.create_subscription(kind, topic, callback, sensor(DEPTH), raw=True)
            )

    def _take(self, one: Heard, unpack: Any, data: bytes) -> None:
        arrival, now = time.monotonic(), self._node.get_clock().now().nanoseconds
        try:
            message = unpack(data)
        except RuntimeError as error:
            one.broken(error)
            return
        one.take(message, arrival, now)

    def poll(self) -> bool:
        """Whether it is done."""
        now = time.monotonic()
        if self._since is None:
            if not self.complete and now - self._began < self._patience:
                return False
            self._since = now
            for one in self.heard:
                one.clear()
            return not any(self._publishers(one.stream) for one in self.heard)
        return now - self._since >= self._seconds

    @property
    def waits_for(self) -> str:
        """What has not been seen yet, or that it listens."""
        if self._since is not None:
            return f"listens for {self._seconds:g} s"
        missing = [one.stream.topic for one in self.heard if not one.arrivals]
        missing += [c.topic for c in self.contract.actions if not self._followers(c.topic, c.type)]
        return f"waits for {', '.join(missing)}"

    @property
    def complete(self) -> bool:
        """Whether every topic is there."""
        heard = all(one.arrivals or one.stream.optional for one in self.heard)
        return heard and all(self._followers(c.topic, c.type) for c in self.contract.actions)

    def close(self) -> None:
        """Listen no more."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    # What is there

    def _name(self, topic: str) -> str:
        return self._node.resolve_topic_name(topic)

    def _publishers(self, stream: Stream, *, of_type: bool = True) -> list[Any]:
        infos = self._node.get_publishers_info_by_topic(self._name(stream.topic))
        return [i for i in infos if not of_type or i.topic_type == stream.type]

    def _followers(self, topic: str, kind: str = "") -> list[Any]:
        """Who may be the robot: of that type, or of any."""
        infos = self._node.get_subscriptions_info_by_topic(self._name(topic))
        infos = [info for info in infos if info.node_name not in SPECTATORS]
        return [info for info in infos if kind in ("", info.topic_type)]

    # What does not fit

    def report(self) -> Report:
        """Everything that was found."""
        contract, until = self.contract, time.monotonic()
        self._hinted = False
        findings, sounding = [], []
        for one in self.heard:
            found = self._connection(one.stream)
            findings += found
            if not any(finding.level == "error" for finding in found):
                sounding.append(one)
        seconds = until - (self._since or until)
        findings += judge(contract, sounding, seconds, until, lockstep=self._lockstep)
        if contract.reward is not None:
            findings += self._reward(contract.reward)
        for command in contract.actions:
            findings += self._command(command)
        order = {"error": 0, "warning": 1}
        findings.sort(key=lambda finding: order[finding.level])
        return Report(contract.name, findings, self._topics(until))

    def _connection(self, stream: Stream) -> list[Finding]:
        """Whether the stream is published, of its type, and can be heard."""
        level = "warning" if stream.optional else "error"
        topic, there = stream.topic, self._publishers(stream, of_type=False)
        if not there:
            remedy = self._elsewhere(topic, stream.type, self._node.count_publishers)
            return [Finding(level, topic, "no publisher", stream.type, remedy)]
        findings = self._types("publishes", topic, stream.type, there)
        right = self._publishers(stream)
        if not right:
            return findings
        findings = [finding._replace(level="warning") for finding in findings]
        findings += self._qos(topic, [(info, info.qos_profile, self._asked) for info in right])
        if len(right) > 1:
            found = f"{len(right)} publishers: {_nodes(right)}"
            remedy = "their messages mix: remap or stop all but the robot's"
            findings.append(Finding("warning", topic, found, "one", remedy))
        return findings

    def _reward(self, stream: Stream) -> list[Finding]:
        there = self._publishers(stream, of_type=False)
        findings = self._types("publishes", stream.topic, stream.type, there)
        right = self._publishers(stream)
        return findings + self._qos(stream.topic, [(i, i.qos_profile, self._asked) for i in right])

    def _command(self, command: Any) -> list[Finding]:
        """Whether the robot listens to a command, and nobody else gives it."""
        topic, findings = command.topic, []
        there = self._node.get_publishers_info_by_topic(self._name(topic))
        if others := [i for i in there if i.node_name not in self._teleoperation]:
            found = f"another publisher: {_nodes(others)}"
            remedy = "stop it, or remap it: the policy commands only where it is alone"
            findings.append(Finding("error", topic, found, "none but the policy", remedy))
        there = self._followers(topic)
        if not there:
            remedy = self._elsewhere(topic, command.type, self._node.count_subscribers)
            found = "nobody who listens"
            return [*findings, Finding("error", topic, found, command.type, remedy)]
        findings += self._types("expects", topic, command.type, there)
        right = self._followers(topic, command.type)
        return findings + self._qos(topic, [(i, self._offered, i.qos_profile) for i in right])

    def _types(self, does: str, topic: str, kind: str, infos: Iterable[Any]) -> list[Finding]:
        return [
            Finding(
                "error",
                topic,
                f"{info.topic_type}, which {_node(info)} {does}",
                kind,
                "put that type and its paths into the contract, or another topic",
            )
            for info in infos
            if info.topic_type != kind
        ]

    def _qos(self, topic: str, ends: Iterable[tuple[Any, Any, Any]]) -> list[Finding]:
        """Of (the other end, publisher's QoS, subscriber's QoS)."""
        from rclpy.qos import QoSCompatibility, qos_check_compatible

        findings, some_fit = [], False
        for info, publisher, subscriber in ends:
            verdict, reason = qos_check_compatible(publisher, subscriber)
            if verdict != QoSCompatibility.ERROR:
                some_fit = True
                continue
            reason = reason.replace("ERROR: ", "").strip("; ")
            found = f"QoS of {_node(info)} that does not match: {reason}"
            mine = publisher if publisher is self._offered else subscriber
            remedy = "no message would pass: change its QoS"
            findings.append(Finding("error", topic, found, f"one for {_quality(mine)}", remedy))
        return [f._replace(level="warning") for f in findings] if some_fit else findings

    def _elsewhere(self, topic: str, kind: str, ends: Callable[[str], int]) -> str:
        """Where it may be instead; what may be wrong with all of them is said once."""
        known = dict(self._node.get_topic_names_and_types())
        ours = (*self.contract.observations, *self.contract.actions, self.contract.reward)
        mine = {self._name(one.topic) for one in ours if one is not None}
        same = [n for n, kinds in known.items() if kind in kinds and n not in mine and ends(n)]
        if same:
            name = self._name(topic)
            close = ", ".join(difflib.get_close_matches(name, same, n=3, cutoff=0.0))
            return f"of that type there is {close}: remap, or change the contract's topic"
        if self._hinted:
            return ""
        self._hinted = True
        local = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "LOCALHOST"
        where = f"ROS_DOMAIN_ID {os.environ.get('ROS_DOMAIN_ID') or 0}"
        if local:
            where += ", this machine alone: ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET for others"
        return f"is the driver running, and in namespace {self._node.get_namespace()}? ({where})"

    def _topics(self, until: float) -> list[dict[str, Any]]:
        rows = []
        for one in self.heard:
            nodes = [_node(info) for info in self._publishers(one.stream, of_type=False)]
            row = {"topic": one.stream.topic, "type": one.stream.type, "publishers": nodes}
            rows.append(row | one.summary(until))
        for command in self.contract.actions:
            name = self._name(command.topic)
            there = self._node.get_subscriptions_info_by_topic(name)
            others = self._node.get_publishers_info_by_topic(name)
            rows.append(
                {
                    "topic": command.topic,
                    "type": command.type,
                    "listeners": [_node(info) for info in there],
                    "publishers": [_node(info) for info in others],
                }
            )
        return rows


def _node(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _nodes(infos: Iterable[Any]) -> str:
    return ", ".join(sorted(_node(info) for info in infos))


def _explicit(profile: Any) -> Any:
    """With the durations that DDS tells of it: what is not set is infinite, and not unknown."""
    from rclpy.duration import Infinite

    profile.deadline = profile.lifespan = profile.liveliness_lease_duration = Infinite
    return profile


def _quality(profile: Any) -> str:
    return f"{profile.reliability.name}, {profile.durability.name}".lower()


def check_live(
    contract: Contract,
    *,
    namespace: str = "",
    seconds: float = 5.0,
    patience: float = 5.0,
    lockstep: bool = False,
) -> Report:
    """Look and listen by a node of this call's own.

    Raises:
        InputError: rclpy is not installed.
    """
    from smac_ros.up import environment, require_rclpy

    require_rclpy()
    os.environ.update(environment())  # what is set already stays
    import rclpy
    from rclpy.experimental import EventsExecutor
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    executor = EventsExecutor(context=context)
    node = Node(
        "contract_check",
        namespace=namespace,
        context=context,
        enable_rosout=False,
        start_parameter_services=False,
    )
    try:
        executor.add_node(node)
        check = LiveCheck(
            node, contract, seconds=seconds, patience=patience, lockstep=lockstep
        )
        while not check.poll():
            end = time.monotonic() + POLL  # a spin ends with each message
            while (left := end - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left)
        return check.report()
    finally:
        node.destroy_node()
        executor.shutdown()
        context.try_shutdown()


def show(report: Report) -> None:
    """The table of topics, and every finding in a line."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for title in ("topic", "Hz", "largest gap", "clock", "from or to"):
        table.add_column(title, justify="left" if title in ("topic", "from or to") else "right")
    for row in report.topics:
        rate, gap, offset = (row.get(key) for key in ("rate", "largest_gap", "clock_offset"))
        table.add_row(
            escape(row["topic"]),
            "" if rate is None else f"{rate:.1f}",
            "" if gap is None else f"{gap:.3f} s",
            "" if offset is None else f"{-offset:+.3f} s",
            escape(", ".join(row.get("listeners", row["publishers"])) or "-"),
        )
    console.print(table)
    for finding in report.grouped():
        colour = "red" if finding.level == "error" else "yellow"
        text = escape(str(finding).partition(":")[2])
        console.print(f"[{colour}]{finding.level}[/{colour}]:{text}")
    errors = len(report.errors)
    warnings = len(report.findings) - errors
    verdict = "the robot fits" if not errors else "the robot must not be moved like this"
    console.print(f"{errors} errors, {warnings} warnings: {verdict}")
