"""``smac bench bags``: recorded joint states to arrays, beside the library's one by one."""

import json
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.benchmarks.measurement import report
from smac_core.benchmarks.memory import peak

JOINTS = tuple(f"right_j{index}" for index in range(13))
TYPE = "sensor_msgs/msg/JointState"
STORAGES = ("sqlite3", "mcap")
_CONTRACT = f"""
name: bench
domain: bench
rate: 100.0
trigger: joint_states
watchdog: 0.1
safety: zeros
observations:
- topic: joint_states
  type: {TYPE}
  time: header
  align: hold
  max_age: 0.05
  fields: [{{path: "position[{", ".join(JOINTS)}]", names: [{", ".join(JOINTS)}], unit: rad}}]
actions:
- {{topic: command, type: {TYPE}, fields: [
    {{path: "velocity[right_j0]", names: [v], unit: rad/s, limits: [-1, 1]}}]}}
"""


def bench_bags(*, megabytes: int, quiet: bool = False) -> dict[str, Any]:
    """Messages a second of one core, from opening a recording to arrays of stamps and positions.

    Counted by the processor's time, which other work on the machine changes little; ``readers``
    has what the clock on the wall said. Each way of reading has a process of its own, which tells
    the most memory that it had resident.

    Raises:
        RuntimeError: a process has failed, or the two ways have read different numbers.
    """
    from smac_core.training.progress import Progress

    raw, place = _message()
    count = megabytes * 10**6 // len(raw)
    rates: dict[str, list[float]] = {}
    details: dict[str, Any] = {}
    for storage in STORAGES:
        found = {}
        with tempfile.TemporaryDirectory(prefix="smac_bench_bags_") as folder:
            path = Path(folder, storage)
            with Progress(f"writing {storage}", count, unit="messages", quiet=quiet) as bar:
                _write(path, storage, raw, place, count, bar.advance)
            for reader, name in (("library", f"rosbags, {storage}"), ("ours", f"smac, {storage}")):
                found[reader] = result = _child(reader, path)
                rates[name] = [count / result["cpu_seconds"]]
                details[name] = {
                    "rate": round(count / result["seconds"]),
                    "peak_mb": round(result["peak"]),
                }
        if found["ours"]["check"] != found["library"]["check"]:
            raise RuntimeError(f"{storage}: the two ways have read different numbers")
    content = report("bags", "messages/s of a core", rates, f"rosbags, {STORAGES[0]}")
    ratios = {
        storage: round(rates[f"smac, {storage}"][0] / rates[f"rosbags, {storage}"][0], 2)
        for storage in STORAGES
    }
    size = {"message_bytes": len(raw), "messages": count, "megabytes": megabytes}
    return content | size | {"readers": details, "ratios": ratios}


def show(content: dict[str, Any]) -> None:
    """The report as a table."""
    from smac_core.benchmarks.measurement import show as show_rates

    show_rates(content)
    for name, found in content["readers"].items():
        print(f"{name}: {found['rate']:,}/s by the wall's clock, peak {found['peak_mb']} MB")
    for storage, ratio in content["ratios"].items():
        print(f"{storage}: {ratio} times as fast")


def _message() -> tuple[bytes, int]:
    """A joint state, and where its positions begin."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    time_ = store.types["builtin_interfaces/msg/Time"](0, 0)
    header = store.types["std_msgs/msg/Header"](time_, "base")
    positions, zeros = np.arange(1.0, 1 + len(JOINTS)), np.zeros(len(JOINTS))
    message = store.types[TYPE](header, list(JOINTS), positions, zeros, zeros)
    raw = bytes(store.serialize_cdr(message, TYPE))
    return raw, raw.index(positions.tobytes())


def _write(
    path: Path, storage: str, raw: bytes, place: int, count: int, advance: Callable[[int], None]
) -> None:
    """So many joint states, 100 a second; their stamps and positions differ."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    rows = np.random.default_rng(0).normal(size=(1024, len(JOINTS)))
    positions = [row.tobytes() for row in rows]
    plugin = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}[storage]
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        store = get_typestore(Stores.ROS2_JAZZY)
        connection = writer.add_connection("/joint_states", TYPE, typestore=store)
        data = bytearray(raw)
        for number in range(count):
            stamp = 10**18 + number * 10**7
            struct.pack_into("<iI", data, 4, *divmod(stamp, 10**9))
            data[place : place + len(positions[0])] = positions[number % 1024]
            writer.write(connection, stamp + 10**6, bytes(data))
            if number % 1000 == 999:
                advance(1000)


def _child(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "smac_ros.bags.benchmark", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = "\n".join(done.stderr.splitlines()[-5:])
        raise RuntimeError(f"{' '.join(command[3:])}: exit code {done.returncode}\n{lines}")
    return json.loads(done.stdout)


# In processes of their own

Read = Callable[[str], Iterator[tuple[np.ndarray, np.ndarray]]]


def _ours() -> Read:
    from smac_ros.bags.decoding import Decoder
    from smac_ros.bags.reading import Bag
    from smac_ros.contract import Contract

    source = Contract.from_text(_CONTRACT, "bench").observations[0]

    def read(path: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        decoder = Decoder(source)
        with Bag(path) as bag:
            for batch in bag.batches(["/joint_states"]):
                _, receives, raw = zip(*batch, strict=True)
                found = decoder.decode(receives, raw)
                yield found.stamps, found.values

    return read


def _library() -> Read:
    from rosbags.rosbag2 import Reader
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)

    def read(path: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        stamps, rows = [], []
        with Reader(path) as reader:
            for connection, _, raw in reader.messages():
                message = store.deserialize_cdr(raw, connection.msgtype)
                stamps.append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
                rows.append(message.position)
                if len(rows) == 4096:
                    yield np.array(stamps), np.array(rows)
                    stamps, rows = [], []
        if rows:
            yield np.array(stamps), np.array(rows)

    return read


def _measure(read: Read, path: str) -> None:
    """Time, memory, and a number of all stamps and positions, whatever their order."""
    began, cpu, check = time.perf_counter(), time.process_time(), 0
    for stamps, values in read(path):
        check ^= int(np.bitwise_xor.reduce(values.view(np.int64) + stamps[:, None], axis=None))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "check": check, "peak": peak()}
    print(json.dumps(found))


if __name__ == "__main__":
    _measure({"ours": _ours, "library": _library}[sys.argv[1]](), sys.argv[2])
