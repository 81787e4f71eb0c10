"""The topics that a policy commands on, and whether it is alone there.

Two policies on one robot would take turns at every message. So this one first listens: it becomes
a publisher only where there is none. If two start at once, the one with the smaller id stays.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from smac_ros.contract import Contract
from smac_ros.serialized import Packer

MATCHING = 0.25  # s that listeners may need to find a new publisher; what it says before is lost


class CommandTopics:
    """Publishers of a contract's commands.

    Args:
        humans: names of nodes whose publishers may be there: they command in takeovers only.

    Attributes:
        open: whether this node commands.
        foreign: description of other publishers there are; empty: none.
    """

    def __init__(
        self,
        node: Any,
        contract: Contract,
        classes: Mapping[str, type],
        qos: Any,
        humans: Sequence[str] = (),
    ):
        self._node, self._qos, self._humans = node, qos, frozenset(humans)
        self._kinds = [(classes[command.type], command.topic) for command in contract.actions]
        self._packs = [Packer(command.type, command.paths).pack for command in contract.actions]
        self._publishers: list[Any] = []
        self._own: list[set[bytes]] = []
        self._until = self._matched = 0.0
        self._matching = MATCHING
        self.foreign = ""

    @property
    def open(self) -> bool:
        return bool(self._publishers)

    @property
    def state(self) -> str:
        """Why it is not open."""
        return self.foreign or "certainty that nobody else commands"

    @property
    def listeners(self) -> int:
        """Of the topic that has fewest."""
        return min((p.get_subscription_count() for p in self._publishers), default=0)

    @property
    def unheard(self) -> str:
        """Why the first commands, which are to be gentle, would be lost; empty: they would not."""
        if time.monotonic() < self._matched:
            return "listeners to find its commands"
        lacking = [
            topic
            for (_, topic), publisher in zip(self._kinds, self._publishers, strict=False)
            if not publisher.get_subscription_count()
        ]
        return f"a listener to {', '.join(lacking)}" if lacking else ""

    def look(self, seconds: float) -> None:
        """Listen for so long before commanding."""
        self._until = time.monotonic() + seconds
        self._matching = min(seconds, MATCHING)

    def publish(self, messages: Sequence[Any | None]) -> None:
        """One message a command; None: not that one."""
        for publisher, pack, message in zip(self._publishers, self._packs, messages, strict=True):
            if message is not None:
                publisher.publish(pack(message))

    def check(self) -> tuple[str, str]:
        """Look around, and become a publisher when it is time.

        Returns:
            Why this node must stop, and who else publishes for the first time; or empty texts.
        """
        others = [self._others(index) for index in range(len(self._kinds))]
        before, self.foreign = self.foreign, self._describe(others)
        if not self.open:
            if not self.foreign and time.monotonic() >= self._until:
                self._create()
            return "", ""
        if any(
            gid < min(own) for own, found in zip(self._own, others, strict=True) for gid in found
        ):
            return self.foreign, ""
        return "", self.foreign if self.foreign != before else ""

    def _create(self) -> None:
        from rclpy.event_handler import PublisherEventCallbacks

        self._own = []
        # An executor holds on to a publisher that has callbacks until it spins next: the others
        # would still see it after ``close``.
        silent = PublisherEventCallbacks(use_default_callbacks=False)
        for kind, topic in self._kinds:
            before = self._present(topic).keys()
            publisher = self._node.create_publisher(kind, topic, self._qos, event_callbacks=silent)
            self._publishers.append(publisher)
            own = self._present(topic).keys() - before
            self._own.append(set(own))
            if len(own) != 1:  # another one has come at this very moment: look again
                self.close(None)
                return
        self._matched = time.monotonic() + self._matching

    def _present(self, topic: str) -> dict[bytes, str]:
        """Id -> node of all publishers of a topic."""
        name = self._node.resolve_topic_name(topic)
        return {
            bytes(info.endpoint_gid): f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            for info in self._node.get_publishers_info_by_topic(name)
        }

    def _others(self, index: int) -> dict[bytes, str]:
        found = self._present(self._kinds[index][1])
        own = self._own[index] if self.open else set()
        return {
            gid: node
            for gid, node in found.items()
            if gid not in own and node.rpartition("/")[2] not in self._humans
        }

    def _describe(self, others: Sequence[Mapping[bytes, str]]) -> str:
        found = [
            f"{topic}: {', '.join(sorted(nodes.values()))}"
            for (_, topic), nodes in zip(self._kinds, others, strict=True)
            if nodes
        ]
        return f"another publisher on {'; '.join(found)}" if found else ""

    def close(self, patience: Any) -> None:
        """Let the last commands arrive, and command no more."""
        for publisher in self._publishers:
            if patience is not None:
                publisher.wait_for_all_acked(patience)
            self._node.destroy_publisher(publisher)
        self._publishers = []
