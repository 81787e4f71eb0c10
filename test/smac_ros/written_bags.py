"""Recordings of a robot at 10 Hz whose numbers are known, and what they become."""

from pathlib import Path

import numpy as np
from recordings import STORE, Sample, cdr, write
from rosbags.rosbag2 import CompressionMode

from smac_core.data.dataset import TaskData
from smac_ros.messages import SECOND, Begin, End

MS = 10**6  # ns
EPOCH = 1_700_000_000 * SECOND  # when these recordings begin
LATENCY = 2 * MS  # from a stamp to its receipt

CONTRACT = """
name: point_mass
domain: point_mass
rate: 10.0
watchdog: 0.5
safety: zeros
observations:
  - topic: joint_states
    type: sensor_msgs/msg/JointState
    time: header
    align: hold
    max_age: 0.05
    fields:
      - {path: "position[x, y]", names: [x, y], unit: m}
actions:
  - topic: joint_command
    type: sensor_msgs/msg/JointState
    fields:
      - {path: "velocity[x, y]", names: [dx, dy], unit: m/s, scale: 0.5, limits: [-1, 1]}
reward:
  topic: reward
  type: sensor_msgs/msg/JointState
  time: header
  fields:
    - {path: "position[reward]", names: [reward], unit: "1"}
"""


class WrittenBag:
    """A recording that is written message by message; stamps are ns from ``EPOCH``."""

    def __init__(
        self,
        path: Path,
        *,
        namespace: str = "",
        contract: str | None = None,
        storage: str = "mcap",
        mode: str = "none",
    ) -> None:
        self.path, self.namespace = path, namespace
        self._custom = {} if contract is None else {"smac_ros_contract": contract}
        self._written = (storage, CompressionMode[mode.upper()])
        self._samples: list[Sample] = []
        self._types: dict[str, str] = {}

    def __enter__(self) -> "WrittenBag":
        return self

    def __exit__(self, *_: object) -> None:
        write(self.path, self._samples, *self._written, types=self._types, custom=self._custom)

    def write(self, topic: str, message: object, receive: int) -> None:
        name = f"{self.namespace}/{topic}"
        self._types[name] = message.__msgtype__
        self._samples.append((name, EPOCH + receive, cdr(message)))

    def joints(self, topic: str, stamp: int, receive: int | None = None, **arrays: dict) -> None:
        """A JointState: position={"x": 1.0, ...}, or velocity."""
        (field, values), empty = next(iter(arrays.items())), np.zeros(0)
        own = dict.fromkeys(("position", "velocity", "effort"), empty)
        own[field] = np.array(list(values.values()), float)
        message = STORE.types["sensor_msgs/msg/JointState"](
            header=self._header(stamp), name=list(values), **own
        )
        self.write(topic, message, stamp + LATENCY if receive is None else receive)

    def text(self, topic: str, text: str, receive: int) -> None:
        self.write(topic, STORE.types["std_msgs/msg/String"](data=text), receive)

    def stamp(self, topic: str, stamp: int) -> None:
        self.write(topic, self._header(stamp), stamp + LATENCY)

    def _header(self, stamp: int) -> object:
        time = STORE.types["builtin_interfaces/msg/Time"]
        seconds, nanoseconds = divmod(EPOCH + stamp, SECOND)
        header = STORE.types["std_msgs/msg/Header"]
        return header(stamp=time(sec=seconds, nanosec=nanoseconds), frame_id="")

    # The robot

    def observe(self, k: int, **options: int) -> None:
        """At step k (of 100 ms): x = k, y = -k."""
        self.joints("joint_states", 100 * MS * k, position={"x": k, "y": -k}, **options)

    def command(self, k: int, **options: int) -> None:
        """At step k: actions k / 128 and -k / 128 are the velocities k / 256 and -k / 256."""
        velocity = {"x": k / 256, "y": -k / 256}
        self.joints("joint_command", 100 * MS * k, velocity=velocity, **options)

    def reward(self, k: int, **options: int) -> None:
        """With the observation of step k: 10 k."""
        self.joints("reward", 100 * MS * k, position={"reward": 10 * k}, **options)

    def walk(self, first: int, last: int) -> None:
        """Observations and rewards of steps first to last; commands of all but the last one."""
        for k in range(first, last + 1):
            self.observe(k)
            self.reward(k)
            if k < last:
                self.command(k)

    def mark(self, number: int, first: int, last: int, /, **changes: object) -> None:
        """Begin and End of the episode of ``walk(first, last)``."""
        self.begin(number, first, last)
        self.end(number, first, last, **changes)

    def begin(
        self, number: int, first: int, last: int, /, receive: int | None = None, **changes: object
    ) -> None:
        own = {"purpose": "exploration", "mode": "explore", "group": 0, "seed": 0} | changes
        start = EPOCH + 100 * MS * first
        begin = Begin(session=1, id=number, start=start, steps=last - first, **own)
        self.text("episode", begin.to_json(), 100 * MS * first if receive is None else receive)

    def end(
        self, number: int, first: int, last: int, /, receive: int | None = None, **changes: object
    ) -> None:
        own = {"steps": last - first, "last": EPOCH + 100 * MS * last} | changes
        end = End(session=1, id=number, **own)
        receive = 100 * MS * last + 2 * LATENCY if receive is None else receive
        self.text("episode", end.to_json(), receive)


def bag(folder: Path, name: str = "bag", **options) -> WrittenBag:
    """To write into, in a ``with`` block."""
    return WrittenBag(folder / name, **options)


def task(reward: str = "{topic: reward}", episodes: str = "markers", name: str = "walk") -> str:
    """TASKS.yaml of one task."""
    return f"tasks:\n- name: {name}\n  episodes: {episodes}\n  reward: {reward}\n"


def steps(first: int, last: int) -> dict[str, np.ndarray]:
    """What ``WrittenBag.walk`` becomes."""
    k = np.arange(first, last, dtype=np.float32)
    return {
        "observations": np.stack([k, -k], 1),
        "actions": np.stack([k, -k], 1) / 128,
        "next_observations": np.stack([k + 1, -k - 1], 1),
        "rewards": 10 * (k + 1),
    }


def check(data: TaskData, *walks: tuple[int, int], rewards: bool = True) -> None:
    """A task's data are those of such walks."""
    expected = [steps(*walk) for walk in walks]
    for name in ("observations", "actions", "next_observations", *["rewards"][: int(rewards)]):
        whole = np.concatenate([part[name] for part in expected])
        np.testing.assert_array_equal(getattr(data, name), whole, err_msg=name)
        assert getattr(data, name).dtype == np.float32
    lengths = [rows.stop - rows.start for rows in data.trajectories]
    assert lengths == [last - first for first, last in walks]
