"""The contract's topics under the names that a recording has them by."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from smac_core.errors import InputError
from smac_ros.bags.reading import Bag
from smac_ros.contract_errors import one_of


class Names(NamedTuple):
    """How names of the contract become those of a recording.

    ``namespace`` is the robot's; ``remaps`` are topic -> name in the recording.
    """

    namespace: str = ""
    remaps: Mapping[str, str] = {}

    @classmethod
    def parse(cls, namespace: str, remaps: list[str]) -> "Names":
        """Of the command line's options. Raises InputError where one is malformed."""
        found = {}
        for remap in remaps:
            topic, sign, other = remap.partition(":=")
            if not (topic and sign and other):
                raise InputError("--remap", "value", repr(remap), "topic:=name in the recording")
            found[topic] = other
        return cls(namespace.strip("/"), found)

    def require_used(self, topics: Iterable[str]) -> None:
        """Raise InputError for a remap of none of these topics: a slip of the pen."""
        known = sorted(set(topics))
        for topic in self.remaps:
            if topic not in known:
                raise InputError("--remap", "topic", repr(topic), one_of(topic, known))

    def full(self, topic: str) -> str:
        """As ROS resolves it."""
        name = self.remaps.get(topic, topic)
        if name.startswith("/"):
            return name
        return f"/{self.namespace}/{name}" if self.namespace else f"/{name}"


def find_topic(bag: Bag, topic: str, kind: str, names: Names) -> str | None:
    """A topic's name in the recording; None: it is not there.

    Without a namespace, one topic of that type whose name ends so will do.

    Raises:
        InputError: it has another type, or several could be meant.
    """
    full = names.full(topic)
    if full in bag.topics:
        bag.require_type(full, kind)
        return full
    if topic in names.remaps:
        known = one_of(full, sorted(bag.topics))
        raise InputError(bag.path, f"--remap {topic}", f"no topic {full}", known)
    if names.namespace or topic.startswith("/"):
        return None
    ends = [t.name for t in bag.topics.values() if t.name.endswith(full) and t.type == kind]
    if len(ends) > 1:
        robots = " or ".join(name.removesuffix(full).strip("/") for name in ends)
        expected = f"--namespace {robots}, or --remap {topic}:=..."
        raise InputError(bag.path, topic, f"{len(ends)} topics: {', '.join(ends)}", expected)
    return ends[0] if ends else None


def require_topic(bag: Bag, topic: str, kind: str, names: Names, instead: str = "") -> str:
    """As ``find_topic``; raises InputError where it is not there, ``instead`` being a remedy."""
    found = find_topic(bag, topic, kind, names)
    if found is None:
        alike = sorted(t.name for t in bag.topics.values() if t.type == kind)
        full, expected = names.full(topic), f"it{instead}"
        if alike:
            expected += f", or --remap {topic}:= {one_of(full, alike)}"
        raise InputError(bag.path, "topics", f"no {full} ({kind})", expected)
    return found
