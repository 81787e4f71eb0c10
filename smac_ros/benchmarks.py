"""``smac bench policy_latency`` and ``lockstep``: real nodes in processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from smac_core.agents.context import Agent
from smac_core.benchmarks.measurement import report
from smac_core.config import Config, load_config
from smac_core.controller import Controller
from smac_core.deployment.export import export_agent
from smac_core.deployment.exported import ExportedAgent, Origin
from smac_core.deployment.interface import RobotController
from smac_core.deployment.onnx_controller import OnnxController
from smac_core.provenance import command, git_revision
from smac_ros.contract import Contract, load_contract
from smac_ros.messages import pack_weights, set_stamp, stamp_ns
from smac_ros.system import NodeSpec
from smac_ros.up import command_line, environment

JOINTS = 13
RATE = 100.0  # Hz
PATIENCE = 30.0  # s for nodes to come up


def bench_policy_latency(
    *, seconds: float, wake: float | None = None, export: bool = False
) -> dict[str, Any]:
    """Observation message to command message at 100 Hz, policy node and echo node taking turns.

    The policy has the paper's network sizes, draws z at every step and samples its actions. Both
    figures are round trips seen by a third process. "inference" is the controller alone, back to
    back: as in real time, and "exact" as in lockstep. ``wake``: the policy's parameter. ``export``:
    a third node takes turns, and its controller, which run the same networks from ONNX files.
    """
    config = load_config("sawyer", "paper")
    contract = load_contract("latency")
    torch.set_num_threads(1)  # as in the nodes
    agent = Agent(contract.observation_dim, contract.action_dim, config.networks).eval()
    parameters = {"contract": "latency"} | ({} if wake is None else {"wake": float(wake)})
    nodes = [NodeSpec("policy_node", "policy", parameters), NodeSpec("echo_node", "echo")]
    prefixes = {"policy": "", "echo": "echo/"}
    with TemporaryDirectory() as folder:
        controllers = {
            "inference": Controller(agent, exact=False),
            "inference, exact": Controller(agent, exact=True),
        }
        if export:
            exported = _exported(agent, config, contract, Path(folder) / "export")
            controllers["inference, export"] = OnnxController(exported)
            more = parameters | {"checkpoint": str(exported.folder)}
            nodes.append(NodeSpec("policy_node", "policy", more, namespace="exported"))
            prefixes["policy, export"] = "exported/"
        with _nodes(*nodes):
            trips = _round_trips(agent, config, contract.text, seconds, prefixes)
        for name, controller in controllers.items():
            trips[name] = _inference(controller, seconds / 5)
    rounds = {name: _quantiles(values) for name, values in trips.items()}
    results = {
        f"{name}, {quantile}": [1e6 * found[quantile] for found in blocks]
        for name, blocks in rounds.items()
        for quantile in ("p50", "p99")
    }
    return report("policy_latency", "us", results, "echo, p50", "lower") | {
        "rate": RATE,
        "round_trips": {name: len(values) for name, values in trips.items()},
    }


def _exported(agent: Agent, config: Config, contract: Contract, folder: Path) -> ExportedAgent:
    """The agent's export, of a robot that is the contract's."""
    names = ("observation_names", "observation_units", "action_names", "action_units", "rate")
    environment = config.environment.model_copy(update={n: getattr(contract, n) for n in names})
    origin = Origin(
        name="bench",
        id="bench",
        algorithm="smac",
        phase="offline",
        step=0,
        seed=0,
        command=command(),
        commit=git_revision(),
        dataset=None,
        weights_sha256="",
    )
    config = config.model_copy(update={"environment": environment, "domain": contract.domain})
    export_agent(agent, config, origin, contract.text, folder)
    return ExportedAgent(folder)


def _quantiles(values: np.ndarray) -> list[dict[str, float]]:
    """Of five blocks in the order of time, so that the report has a spread."""
    return [
        {"p50": float(np.quantile(block, 0.5)), "p99": float(np.quantile(block, 0.99))}
        for block in np.array_split(values, 5)
    ]


def _inference(controller: RobotController, seconds: float) -> np.ndarray:
    controller.begin("explore", seed=0, deterministic=False, latent="step")
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(256, controller.agent.observation_dim)).astype(np.float32)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        observation = observations[len(times) % 256]
        began = time.perf_counter()
        controller.act(observation)
        times.append(time.perf_counter() - began)
    return np.array(times)


def _round_trips(
    agent: Agent, config: Config, contract: str, seconds: float, prefixes: dict[str, str]
) -> dict[str, np.ndarray]:
    """Seconds of every round trip, of each node by name; ``prefixes``: of their topics."""
    import rclpy
    from rclpy.experimental import EventsExecutor
    from sensor_msgs.msg import JointState
    from std_msgs.msg import UInt8MultiArray
    from std_srvs.srv import Trigger

    from smac_ros.base_node import latched, reliable

    rclpy.init()
    node = rclpy.create_node("latency_bench")
    executor = EventsExecutor()
    executor.add_node(node)

    def until(condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > end:
                raise OSError(f"waited {PATIENCE:.0f} s in vain for {what}")

    sent = dict.fromkeys(prefixes, 0)  # perf_counter_ns of the last observation
    trips: dict[str, list[float]] = {name: [] for name in prefixes}
    publishers = {}
    for name, prefix in prefixes.items():
        publishers[name] = node.create_publisher(JointState, f"{prefix}joint_states", reliable(10))

        def receive(message: JointState, name: str = name) -> None:
            if stamp_ns(message.header.stamp) == sent[name]:
                trips[name].append((time.perf_counter_ns() - sent[name]) / 1e9)

        node.create_subscription(JointState, f"{prefix}joint_command", receive, reliable(10))
    weights = node.create_publisher(UInt8MultiArray, "weights", latched())
    description = {
        "version": 1,
        "run": "bench",
        "domain": "latency",
        "observation_dim": agent.observation_dim,
        "action_dim": agent.action_dim,
        "networks": config.networks.model_dump(mode="json"),
        "contract": contract,
    }
    weights.publish(pack_weights(agent.state_dict(), description))
    starts = [
        node.create_client(Trigger, f"{prefix}policy/start")
        for name, prefix in prefixes.items()
        if name != "echo"
    ]
    try:
        for start in starts:
            until(start.service_is_ready, f"the service {start.srv_name}")
        for publisher in publishers.values():
            until(publisher.get_subscription_count, f"a listener on {publisher.topic_name}")
        for start in starts:
            began = time.monotonic()
            while True:  # refused until the weights have arrived
                future = start.call_async(Trigger.Request())
                until(future.done, "the policy's answer")
                if future.result().success:
                    break
                if time.monotonic() - began > PATIENCE:
                    raise OSError(f"the policy does not start: {future.result().message}")
                executor.spin_once(timeout_sec=0.1)
        message = JointState(name=[f"j{i}" for i in range(JOINTS)])
        positions = np.random.default_rng(0).normal(size=(256, JOINTS))
        names = list(prefixes)
        rate = len(names) * RATE
        for turn in range(int(rate * (seconds + 2))):  # two seconds to warm up and settle
            name = names[turn % len(names)]
            due = time.perf_counter() + 1 / rate
            message.position = positions[turn % 256].tolist()
            sent[name] = time.perf_counter_ns()
            set_stamp(message.header.stamp, sent[name])
            publishers[name].publish(message)
            while (left := due - time.perf_counter()) > 0:
                executor.spin_once(timeout_sec=left)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    warm = int(RATE)
    for name, values in trips.items():
        if len(values) < 2 * warm:
            raise OSError(f"{name} answered {len(values)} observations only")
    return {name: np.array(values[warm:]) for name, values in trips.items()}


def bench_lockstep(*, seconds: float) -> dict[str, Any]:
    """Control steps a second, simulated Sawyer and policy, over topics; and the simulation alone.

    The shipped checkpoint acts. The reference is the same environment stepped in one process.
    """
    import gymnasium

    env = gymnasium.make("sim:smac/Sawyer-v0", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (512, 4)).astype(np.float32)
    plain = []
    for _ in range(5):
        began = time.perf_counter()
        for action in actions:
            env.step(action)
        plain.append(len(actions) / (time.perf_counter() - began))
    env.close()
    parameters = {"clock": "lockstep", "contract": "sawyer_sim"}
    nodes = (
        NodeSpec("sawyer_sim_node", "sawyer_sim", parameters),
        NodeSpec("policy_node", "policy", parameters | {"checkpoint": "shipped"}),
    )
    with _nodes(*nodes):
        rates = _lockstep_rates(seconds)
    results = {"one process, steps": plain, "over topics, steps": rates}
    return report("lockstep", "1/s", results, "one process, steps")


def _lockstep_rates(seconds: float) -> list[float]:
    """Steps a second in five blocks, told by the stamps of one of the robot's topics."""
    import rclpy
    from geometry_msgs.msg import PoseStamped
    from rclpy.executors import SingleThreadedExecutor
    from std_srvs.srv import Trigger

    from smac_ros.base_node import sensor

    period = load_contract("sawyer_sim").period_ns
    rclpy.init()
    node = rclpy.create_node("lockstep_bench")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stamps: list[int] = []
    try:
        for service in ("policy/start", "sawyer_sim/reset"):
            client = node.create_client(Trigger, service)
            if not client.wait_for_service(timeout_sec=PATIENCE):
                raise OSError(f"waited {PATIENCE:.0f} s in vain for the service {service}")
            future = client.call_async(Trigger.Request())
            executor.spin_until_future_complete(future, timeout_sec=PATIENCE)
            if not future.done() or not future.result().success:
                raise OSError(f"{service}: {future.result().message if future.done() else 'mute'}")

        def look() -> int:
            """One message is enough: a listener that takes them all would slow the loop down."""
            stamps.clear()
            listener = node.create_subscription(
                PoseStamped, "endpoint_pose", lambda m: stamps.append(stamp_ns(m.header.stamp)),
                sensor(1),
            )  # fmt: skip
            end = time.monotonic() + PATIENCE
            while not stamps and time.monotonic() < end:
                executor.spin_once(timeout_sec=0.1)
            node.destroy_subscription(listener)
            if not stamps:
                raise OSError("the simulated robot is silent")
            return stamps[-1]

        look()
        time.sleep(1.5)  # the policy waits a second before its first command
        rates = []
        for _ in range(5):
            first, began = look(), time.perf_counter()
            time.sleep(seconds / 5)
            rates.append((look() - first) / period / (time.perf_counter() - began))
        return rates
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def _nodes(*nodes: NodeSpec) -> Iterator[None]:
    """Nodes in processes, stopped at the end."""
    os.environ.update(environment())
    processes = []
    try:
        for node in nodes:
            words = command_line(node, None)
            for name, value in node.parameters.items():
                words += ["-p", f"{name}:={value}"]
            processes.append(subprocess.Popen(words, stdout=sys.stderr))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=PATIENCE)
