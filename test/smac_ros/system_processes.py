"""A whole system around one simulated Sawyer, for tests: nodes of this process and real processes.

pytest_plugins = ["system_processes"] gives the fixture ``bench``. Whatever a test does, no command
may lie outside the limits of the contract: a listener checks every one, and ``bench`` fails a test
that let one through.
"""

import itertools
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rcl_interfaces.msg import Log  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState, PointCloud2  # noqa: E402
from std_msgs.msg import Float64MultiArray, String, UInt8MultiArray  # noqa: E402

from smac_core.training.run import pretrained_directory  # noqa: E402
from smac_ros.base_node import latched, leave, reliable  # noqa: E402
from smac_ros.contract import CommandReader, Contract, load_contract, message_class  # noqa: E402
from smac_ros.episode_manager_node import EpisodeManagerNode  # noqa: E402
from smac_ros.messages import (  # noqa: E402
    Begin,
    End,
    Trajectory,
    describe_weights,
    parse_marker,
    stamp_ns,
    unpack_trajectory,
)
from smac_ros.sawyer_sim_node import SawyerSimNode  # noqa: E402
from smac_ros.system import NodeSpec  # noqa: E402
from smac_ros.up import _parameter_file, command_line, environment  # noqa: E402

ROOT = Path(__file__).parents[2]
SHIPPED = pretrained_directory() / "sawyer"
SLOWER = 0.8, 0.5  # m/s: limit and largest change a step of the hand in ``slow_contract``
TOLERANCE = 1e-9
NUMBERS = itertools.count(1)


def slow_contract(folder: Path) -> Path:
    """``sawyer_sim`` with limits that its policy runs into all the time."""
    text = load_contract("sawyer_sim").text
    low = f"limits: [-{SLOWER[0]}, {SLOWER[0]}]\n        max_step: {SLOWER[1]}"
    assert text.count("limits: [-1.2, 1.2]") == 1
    path = folder / "slow_sawyer.yaml"
    path.write_text(text.replace("limits: [-1.2, 1.2]", low))
    return path


class Recorder:
    """Hears everything about one robot.

    Attributes:
        observations: stamp -> stream's number -> message; ``rewards``: stamp -> (reward, success).
        commands: (stamp, command's number, values) in the order of their coming.
        begins, ends, labelled: what was published on ``episode`` and ``labelled_trajectories``.
        posteriors: [2, dz] each.
        versions: of the weights published.
        faults: commands outside the limits.
    """

    def __init__(self, ros, contract: Contract, namespace: str):
        self.ros, self.contract, self.prefix = ros, contract, f"/{namespace}"
        self.observations: dict[int, dict] = defaultdict(dict)
        self.rewards: dict[int, tuple[float, bool]] = {}
        self.commands: list[tuple[int, int, np.ndarray]] = []
        self.begins: list[Begin] = []
        self.ends: list[End] = []
        self.labelled: list[Trajectory] = []
        self.posteriors: list[np.ndarray] = []
        self.versions: list[int] = []
        self.faults: list[str] = []
        self.on_command: Callable[[int], None] = lambda count: None  # how many of this episode
        self.statuses: dict[str, list[DiagnosticStatus]] = defaultdict(list)
        self._lines: dict[str, list[str]] = defaultdict(list)
        self._reader = CommandReader(contract)
        self._last = [(0, np.full(command.width, np.nan)) for command in contract.actions]
        self._in_episode = 0
        node = self.node = ros.node("recorder", namespace=namespace)
        for index, stream in enumerate(contract.observations):

            def observe(message, index=index):
                self.observations[stamp_ns(message.header.stamp)][index] = message

            node.create_subscription(
                message_class(stream.type), stream.topic, observe, reliable(100)
            )
        for index, command in enumerate(contract.actions):

            def take(message, index=index):
                self._take_command(index, message)

            node.create_subscription(
                message_class(command.type), command.topic, take, reliable(100)
            )
        for kind, topic, take, qos in (
            (JointState, "reward", self._take_reward, reliable(1000)),
            (String, "episode", self._take_marker, reliable(100)),
            (PointCloud2, "labelled_trajectories", self._take_labels, reliable(100)),
            (Float64MultiArray, "posterior", self._take_posterior, latched()),
            (UInt8MultiArray, "weights", self._take_weights, latched()),
            (DiagnosticArray, "/diagnostics", self._take_diagnostics, reliable(100)),
            (Log, "/rosout", self._take_line, reliable(1000)),
        ):
            node.create_subscription(kind, topic, take, qos)

    def _take_command(self, index: int, message):
        command, values = self.contract.actions[index], self._reader.values(index, message)
        stamp, frame = stamp_ns(message.header.stamp), message.header.frame_id
        before, last = self._last[index]
        self._last[index] = stamp, values
        within = (values >= command.low - TOLERANCE) & (values <= command.high + TOLERANCE)
        if not within.all() or frame != command.frame:
            self.faults.append(f"{command.topic}: {values} in frame {frame!r} at {stamp}")
        begins = any(begin.start == stamp for begin in self.begins)
        if begins or stamp - before < 1.5 * self.contract.period_ns:  # else one was not heard
            rest = np.where(np.isnan(command.zero), last, command.zero)
            change = np.fmin(np.abs(values - last), np.abs(values - rest))
            stops = values == command.zero  # at once
            if not (stops | np.isnan(change) | (change <= command.max_change + TOLERANCE)).all():
                self.faults.append(f"{command.topic}: {values} after {last} at {stamp}")
        self.commands.append((stamp, index, values))
        self._in_episode += index == 0
        if index == 0:
            self.on_command(self._in_episode)

    def _take_reward(self, message: JointState):
        self.rewards[stamp_ns(message.header.stamp)] = message.position[0], message.position[1] > 0

    def _take_marker(self, message: String):
        marker = parse_marker(message.data)
        if isinstance(marker, Begin):
            self._in_episode = 0
        (self.begins if isinstance(marker, Begin) else self.ends).append(marker)

    def _take_labels(self, message: PointCloud2):
        sizes = self.contract.observation_dim, self.contract.action_dim
        self.labelled.append(unpack_trajectory(message, *sizes))

    def _take_posterior(self, message: Float64MultiArray):
        self.posteriors.append(np.array(message.data).reshape(2, -1))

    def _take_weights(self, message: UInt8MultiArray):
        self.versions.append(describe_weights(message)["version"])

    def _take_diagnostics(self, message: DiagnosticArray):
        for status in message.status:
            if status.name.startswith(f"{self.prefix}/"):
                self.statuses[status.name.removeprefix(f"{self.prefix}/")].append(status)

    def _take_line(self, message: Log):
        first, _, name = message.name.partition(".")
        if first == self.prefix[1:]:
            self._lines[name].append(message.msg)

    def shown(self, node: str, key: str) -> str | None:
        """The newest value of a key of a node on /diagnostics."""
        if not self.statuses[node]:
            return None
        return {v.key: v.value for v in self.statuses[node][-1].values}.get(key)

    def log(self, node: str) -> str:
        """What it has logged."""
        return "\n".join(self._lines[node])

    def diagnosed(self, node: str, text: str) -> None:
        """Wait until a node has said something on /diagnostics."""

        def there() -> bool:
            return any(text in status.message for status in self.statuses[node])

        self.ros.until(there, what=f"{text!r} of {node} on /diagnostics")

    def told(self, node: str, text: str) -> None:
        """Wait until a node of this process has said something on /diagnostics and in its log.

        What is alike is logged no more often than every five seconds.
        """
        self.diagnosed(node, text)
        self.ros.until(lambda: text in self.log(node), what=f"{text!r} in {self.log(node)}")

    def observation(self, stamp: int) -> np.ndarray:
        """[ds] float32, once it is there."""
        count = len(self.contract.observations)
        self.ros.until(lambda: len(self.observations[stamp]) == count, what=f"{stamp}")
        out = np.zeros(self.contract.observation_dim)
        for index, message in self.observations[stamp].items():
            self.contract.observe(index, message, out)
        return out.astype(np.float32)

    def episode_ends(self, begins: list[Begin]) -> list[End]:
        """One of each episode, which has to be complete."""

        def found(begin: Begin) -> list[End]:
            return [e for e in self.ends if (e.session, e.id) == (begin.session, begin.id)]

        self.ros.until(lambda: all(found(begin) for begin in begins), what="ends of episodes")
        complete = [[e for e in found(begin) if e.reason == "complete"] for begin in begins]
        assert all(len(ends) == 1 for ends in complete), self.ends
        return [ends[0] for ends in complete]

    def actions(self, begin: Begin, end: End) -> np.ndarray:
        """Decoded actions [n, da] of an episode, once they are there."""

        def rows() -> list[np.ndarray]:
            found = defaultdict(lambda: np.full(self.contract.action_dim, np.nan))
            for stamp, index, values in self.commands:
                command = self.contract.actions[index]
                if begin.start <= stamp < end.last:
                    found[stamp][command.start : command.start + command.width] = values
            whole = len(found) == end.steps and not np.isnan(list(found.values())).any()
            return [found[stamp] for stamp in sorted(found)] if whole else []

        return self._reader.decode(np.stack(self.ros.until(rows, what="commands")))


class Process:
    """A node as a process; what it prints goes to a file."""

    def __init__(self, spec: NodeSpec, folder: Path):
        number, self.gone = next(NUMBERS), False  # gone: as the test wants it
        self.path = folder / f"{number}_{spec.name}.log"
        places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        with self.path.open("w") as file:
            self.popen = subprocess.Popen(
                command_line(spec, _parameter_file(spec, folder, number)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment() | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
                cwd=folder,
                process_group=0,
            )

    @property
    def text(self) -> str:
        return self.path.read_text()

    def kill(self) -> None:
        """As a crash does it: at once."""
        self.gone = True
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(timeout=30)

    def end(self) -> int:
        """As Ctrl-C does it; the exit code."""
        self.gone = True
        self.popen.send_signal(signal.SIGINT)
        return self.popen.wait(20)


class Bench:
    """One robot's namespace: nodes, processes, jobs and a recorder."""

    def __init__(self, ros, folder: Path, contract: str):
        self.ros, self.folder, self.contract_name = ros, folder, contract
        self.namespace = f"bench{next(NUMBERS)}"
        self.contract = load_contract(contract)
        self.recorder = Recorder(ros, self.contract, self.namespace)
        self._processes: list[Process] = []
        self.managers = 0

    def make(self, kind: type, remappings: tuple[tuple[str, str], ...] = (), **parameters):
        """A node of this process, not yet configured."""
        words = [word for old, new in remappings for word in ("-r", f"{old}:={new}")]
        given = {"contract": self.contract_name} | parameters
        return kind(
            namespace=self.namespace,
            cli_args=["--ros-args", *words] if words else None,
            parameter_overrides=[Parameter(key, value=value) for key, value in given.items()],
        )

    def start(self, kind: type, remappings: tuple[tuple[str, str], ...] = (), **parameters):
        """A node of this process, active."""
        return self.ros.start(self.make(kind, remappings, **parameters))

    def leave(self, node) -> None:
        """End a node of this process in order."""
        self.ros.executor.remove_node(node)
        self.ros.nodes.remove(node)
        leave(node)

    def process(self, kind: str, name: str = "", **parameters) -> Process:
        """A node as a process of its own; it takes seconds until it is there."""
        spec = NodeSpec(
            f"{kind}_node",
            name or kind,
            {"contract": self.contract_name} | parameters,
            namespace=self.namespace,
        )
        self._processes.append(Process(spec, self.folder))
        return self._processes[-1]

    def policy(self, **parameters) -> Process:
        """A policy's process; in lockstep, with the shipped checkpoint."""
        common = {"checkpoint": "shipped", "clock": "lockstep", "settle": 0.2}
        return self.process("policy", **common | parameters)

    def learner(self, run: Path, **parameters) -> Process:
        """A learner's process with the settings of ``small``."""
        changes = [f"self_supervised.{key}={value}" for key, value in PRACTICE.items()]
        common = {"run": str(run), "device": "cpu", "threads": 1, "patience": 1.0}
        common["set"] = [*changes, f"environment.horizon={HORIZON}"]
        return self.process("learner", **common | parameters)

    def robot(self, **parameters) -> SawyerSimNode:
        return self.start(SawyerSimNode, **{"clock": "lockstep"} | parameters)

    def manager(self, **parameters) -> EpisodeManagerNode:
        """Begins a job of one held-out task, or of what is asked for.

        Another one has another name: what logs under a name falls silent when a namesake is gone.
        """
        self.managers += 1
        name = f"episode_manager{self.managers if self.managers > 1 else ''}"
        common = {"clock": "lockstep", "iterations": 0, "horizon": HORIZON}
        common |= {"meta_test": "none", "meta_test_tasks": 1}
        return self.start(EpisodeManagerNode, (("__node", name),), **common | PRACTICE | parameters)

    def finish(self, manager, timeout: float = 150.0) -> None:
        """The job is done, and well."""
        self.until(lambda: manager.exit_code is not None, "the job", timeout)
        assert manager.exit_code == 0, manager.diagnostics.faults

    def until(self, condition, what: str = "", timeout: float = 60.0):
        """Spin until the condition holds, as long as no process dies that is to live."""

        def holds():
            for process in self._processes:
                assert process.gone or process.popen.poll() is None, process.text
            return condition()

        return self.ros.until(holds, timeout, what)

    def stop(self) -> None:
        for process in self._processes:
            if process.popen.poll() is None:
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait(timeout=30)
            print(f"--- {process.path.name}", process.text, sep="\n")  # shown if the test fails


HORIZON = 12
PRACTICE = {"tasks_per_iteration": 1, "exploration_trajectories": 2, "adapted_trajectories": 1}


@pytest.fixture
def bench(ros, tmp_path):
    """A bench whose contract is stricter than what the shipped policy wants."""
    made = Bench(ros, tmp_path, str(slow_contract(tmp_path)))
    yield made
    made.stop()
    assert not made.recorder.faults, "commands outside the contract's limits"
