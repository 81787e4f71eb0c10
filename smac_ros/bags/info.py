"""``smac bag info``: what is in a recording, and whether a contract's robot is in it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from smac_core.errors import InputError
from smac_ros.bags.files import storage_of
from smac_ros.bags.reading import Bag
from smac_ros.bags.topics import Names, find_topic
from smac_ros.contract import Contract, require_same

GAP = 3.0  # median intervals between messages: a longer silence is a gap
_FEW = 10  # messages have no rate
MARKERS = (("episode", "std_msgs/msg/String"), ("terminated", "std_msgs/msg/Header"))


def describe(
    bag: Bag,
    contract: Contract | None = None,
    names: Names | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """A recording as plain data.

    Rates are of the median interval between times of receipt. Times in s, rates in Hz; None where
    there are too few messages.

    Args:
        names: how the contract's topics are named in the recording.
        advance: told how many more messages have been looked at.
    """
    times: dict[str, list[np.ndarray]] = {}
    for topic, found in bag.times():
        times.setdefault(topic, []).append(found)
        advance(len(found))
    topics = [
        {
            "name": topic.name,
            "type": topic.type,
            "count": topic.count,
            "known": topic.known,
            **_rhythm(times.get(topic.name, [])),
        }
        for topic in bag.topics.values()
    ]
    content = {
        "path": str(bag.path),
        "files": [str(path) for path in bag.files],
        "storage": sorted({storage_of(path).strip(".") for path in bag.files}),
        "bytes": sum(path.stat().st_size for path in bag.files),
        "messages": bag.message_count,
        "start": bag.start / 1e9,
        "duration": bag.duration,
        "topics": topics,
        "carries_contract": bag.contract_text is not None,
    }
    if contract is not None:
        content["contract"] = _compared(bag, contract, names or Names())
    return content | {"notes": list(bag.notes)}


def _rhythm(parts: list[np.ndarray]) -> dict[str, Any]:
    times = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    if len(times) < _FEW:
        return {"rate": None, "gaps": None, "longest_gap": None}
    intervals = np.diff(times) / 1e9
    median = float(np.median(intervals))
    gaps = intervals[intervals > GAP * median] if median > 0 else np.empty(0)
    return {
        "rate": 1 / median if median > 0 else None,
        "gaps": len(gaps),
        "longest_gap": float(gaps.max(initial=0.0)),
    }


def _compared(bag: Bag, contract: Contract, names: Names) -> dict[str, Any]:
    """Whether the contract's topics are in the recording, and the contract it carries is alike."""
    roles = [("observation", stream, not stream.optional) for stream in contract.observations]
    roles += [("action", command, True) for command in contract.actions]
    roles += [("reward", contract.reward, False)] if contract.reward else []
    wanted = [(role, part.topic, part.type, needed) for role, part, needed in roles]
    wanted += [("marker", topic, kind, False) for topic, kind in MARKERS]
    topics = []
    for role, topic, kind, needed in wanted:
        name, problem = None, "" if role == "marker" else "missing"
        try:
            name = find_topic(bag, topic, kind, names)
            if name is not None:
                bag.require_type(name, kind)
                problem = "" if bag.topics[name].count else "no messages"
        except InputError as error:
            problem = f"{error.field}: found {error.found}; expected {error.expected}"
        row = {"role": role, "topic": topic, "type": kind, "needed": needed, "name": name}
        topics.append(row | {"problem": problem})
    difference = None
    if bag.contract_text is not None:
        try:
            require_same(contract, bag.contract_text, bag.path)
        except InputError as error:
            difference = f"{error.field}: found {error.found}; expected {error.expected}"
    complete = not any(row["needed"] and row["problem"] for row in topics)
    return {
        "name": contract.name,
        "complete": complete,
        "agrees": None if bag.contract_text is None else difference is None,
        "difference": difference,
        "topics": topics,
    }


# For people


def show(content: dict[str, Any]) -> None:
    """A recording as tables."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    size, files = content["bytes"] / 1e6, len(content["files"])
    began = ""
    if content["messages"]:
        began = datetime.fromtimestamp(content["start"], UTC).strftime(", %Y-%m-%d %H:%M:%S UTC")
    console.print(
        f"[bold]{escape(content['path'])}[/bold] {' and '.join(content['storage'])}, "
        f"{files} file{'s' if files > 1 else ''}, {size:,.1f} MB{began}, "
        f"{content['duration']:,.1f} s, {content['messages']:,} messages"
    )
    rows = [("topic", "type", "messages", "Hz", "gaps", "longest")]
    for topic in content["topics"]:
        gaps = "" if not topic["gaps"] else f"{topic['gaps']:,}"
        rows.append(
            (
                topic["name"],
                topic["type"] + ("" if topic["known"] else " (not known)"),
                f"{topic['count']:,}",
                "" if topic["rate"] is None else f"{topic['rate']:,.1f}",
                gaps,
                f"{topic['longest_gap']:,.2f} s" if gaps else "",
            )
        )
    console.print(grid(rows, right=(2, 3, 4, 5)))
    if "contract" in content:
        _show_contract(console, content)
    elif content["carries_contract"]:
        print("It carries the contract that it was recorded for.")
    for note in content["notes"]:
        console.print(f"note: {escape(note)}")


def _show_contract(console: Any, content: dict[str, Any]) -> None:
    from rich.markup import escape

    found = content["contract"]
    state = "all that it needs is there" if found["complete"] else "it needs more than is there"
    console.print(f"\n[bold]contract {escape(found['name'])}[/bold]: {state}")
    rows = [("role", "topic", "in the recording")]
    for row in found["topics"]:
        there = row["problem"] or row["name"] or "not there"
        if row["problem"] and not row["needed"]:
            there += " (not needed)"
        rows.append((row["role"], row["topic"], there))
    console.print(grid(rows))
    if found["agrees"] is None:
        print("It carries no contract of its own.")
    elif found["agrees"]:
        print("The contract that it was recorded for agrees.")
    else:
        console.print(f"It was recorded for another contract: {escape(found['difference'])}")


def grid(rows: list[tuple[str, ...]], right: Sequence[int] = ()) -> Any:
    """The first row is the head; what does not fit is folded, never cut off."""
    from rich.markup import escape
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for column in range(len(rows[0])):
        grid.add_column(justify="right" if column in right else "left", overflow="fold")
    for number, row in enumerate(rows):
        grid.add_row(*map(escape, row), style="" if number else "dim")
    return grid
