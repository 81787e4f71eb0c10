"""``smac bench record``: joint states that the recorder, a process of its own, keeps up with."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smac_core.benchmarks.measurement import report
from smac_ros.bags.reading import Bag
from smac_ros.system import NodeSpec
from smac_ros.up import command_line, environment

JOINTS = 13
RATES = (1_000, 5_000, 10_000, 20_000)  # Hz
ROUNDS = 3
TOPIC = "joint_states"  # of the contract latency
PATIENCE = 30.0  # s for the recorder to come up, or to get done


def bench_record(*, seconds: float) -> dict[str, Any]:
    """Messages a second in the bag, of JointStates of 13 joints that this process publishes.

    Rates take turns, ``ROUNDS`` rounds of ``seconds`` each. ``published``, ``recorded`` and
    ``known_lost`` count the messages of a rate in all; ``cpu_us`` is the processor's time of the
    recorder for each, idle work of those seconds included.

    Raises:
        OSError: the recorder does not come up, or does not keep what it says it has.
    """
    with tempfile.TemporaryDirectory(prefix="smac_bench_record_") as folder:
        os.environ.update(environment())
        out = Path(folder, "bag")
        words = command_line(NodeSpec("recorder_node", "recorder"), None)
        for name, value in (("contract", "latency"), ("out", out), ("disk_left", 0.0)):
            words += ["-p", f"{name}:={value}"]
        process = subprocess.Popen(words, stdout=sys.stderr)
        try:
            rows = _measure(process, seconds)
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        finally:
            process.kill()
        with Bag(out) as bag:
            kept = bag.topics[f"/{TOPIC}"].count
    if kept != sum(row["recorded"] for row in rows):
        raise OSError(f"{kept} messages in the bag, of {rows}")
    measured: dict[str, list[float]] = {}
    totals: dict[str, dict[str, float]] = {}
    for row in rows:
        name = f"{row['rate']:,} Hz"
        measured.setdefault(name, []).append(row["recorded"] / seconds)
        total = totals.setdefault(name, dict.fromkeys(row, 0) | {"rate": row["rate"]})
        for key in row.keys() - {"rate"}:
            total[key] += row[key]
    for total in totals.values():
        total["cpu_us"] = round(1e6 * total.pop("cpu") / total["published"], 1)
    content = report("record", "messages/s", measured, f"{RATES[0]:,} Hz")
    return content | {"seconds": seconds, "rates": list(totals.values())}


def _measure(process: subprocess.Popen, seconds: float) -> list[dict[str, float]]:
    """Of every round of every rate: what was published, recorded and lost, and seconds of work."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.experimental import EventsExecutor
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import JointState

    from smac_ros.base_node import reliable

    rclpy.init()
    node, executor = rclpy.create_node("record_bench"), EventsExecutor()
    executor.add_node(node)
    shown: dict[str, str] = {}

    def look(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "/recorder":
                shown.update((pair.key, pair.value) for pair in status.values)

    def until(condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            executor.spin_once(timeout_sec=0.05)
            if process.poll() is not None or time.monotonic() > end:
                raise OSError(f"waited in vain for {what}")

    def counted() -> tuple[int, int]:
        return int(shown["messages"]), int(shown.get("messages lost", 0))

    names = [f"right_j{index}" for index in range(JOINTS)]
    values = [0.1 * index for index in range(JOINTS)]
    message = JointState(name=names, position=values, velocity=values, effort=values)
    data = serialize_message(message)
    rows, published = [], 0
    try:
        node.create_subscription(DiagnosticArray, "/diagnostics", look, reliable(10))
        publisher = node.create_publisher(JointState, TOPIC, reliable(1000))
        until(publisher.get_subscription_count, "the recorder")
        publisher.publish(data)
        until(lambda: shown.get("messages") == "1", "the recorder's first message")
        before, published = counted(), 1
        for _ in range(ROUNDS):
            for rate in RATES:
                work = _cpu(process.pid)
                sent = _publish(publisher, data, rate, seconds)
                published += sent
                until(lambda: sum(counted()) >= published, "what was published")  # noqa: B023
                recorded, lost = (a - b for a, b in zip(counted(), before, strict=True))
                before = counted()
                row = {"rate": rate, "published": sent, "recorded": recorded, "known_lost": lost}
                rows.append(row | {"cpu": _cpu(process.pid) - work})
        rows[0]["recorded"] += 1  # the first of all
        rows[0]["published"] += 1
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return rows


def _publish(publisher: Any, data: bytes, rate: float, seconds: float) -> int:
    """As many as are due, every millisecond; how many."""
    began, count = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        for _ in range(int(now * rate) - count):
            publisher.publish(data)
        count = int(now * rate)
        time.sleep(0.001)
    return count


def _cpu(pid: int) -> float:
    """Seconds of the processor that a process has had."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
