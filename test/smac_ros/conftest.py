"""Real rclpy over loopback, in a DDS domain that no other test process uses."""

import fcntl
import gc
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def ros_environment() -> Iterator[int]:
    """A domain id of this process's own; nodes started as processes inherit it."""
    for domain in random.sample(range(1, 100), 99):
        lock = open(Path(tempfile.gettempdir()) / f"smac_ros_domain_{domain}", "w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            lock.close()
    os.environ.update(
        ROS_DOMAIN_ID=str(domain),
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
        ROS_PYTHON_CHECK_FIELDS="1",
    )
    from smac_ros.up import environment

    os.environ.update(environment())  # what is set already stays
    yield domain
    lock.close()


@pytest.fixture
def ros(ros_environment: int) -> Iterator["Spinner"]:
    """rclpy, initialised, with an executor to which nodes are added."""
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    spinner = Spinner()
    yield spinner
    spinner.close()
    rclpy.try_shutdown()
    # Nodes lie in reference cycles, and each test's keep a DDS participant alive until collected.
    # On localhost participants from the 33rd on are not discovered: so late tests waited in vain.
    gc.collect()


class Spinner:
    """Spins nodes of this process until something has happened."""

    def __init__(self):
        from rclpy.experimental import EventsExecutor

        self.executor = EventsExecutor()
        self.nodes: list = []

    def add(self, node):
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def node(self, name: str = "tester", **arguments):
        """A plain node, to publish and listen with."""
        import rclpy.node

        return self.add(rclpy.node.Node(name, **arguments))

    def start(self, node):
        """Add a lifecycle node, configured and active."""
        from rclpy.lifecycle import TransitionCallbackReturn

        self.add(node)
        for transition in (node.trigger_configure, node.trigger_activate):
            assert transition() == TransitionCallbackReturn.SUCCESS, node.diagnostics.faults
        return node

    def until(self, condition: Callable[[], object], timeout: float = 60.0, what: str = ""):
        """Spin until the condition holds; its value."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > end:
                pytest.fail(f"waited {timeout:.0f} s in vain{': ' + what if what else ''}")
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def call(self, client, request, timeout: float = 60.0):
        """The response of a service."""
        self.until(client.service_is_ready, timeout, client.srv_name)
        future = client.call_async(request)
        self.until(future.done, timeout, client.srv_name)
        return future.result()

    def close(self):
        from smac_ros.base_node import SmacNode, leave

        for node in self.nodes:
            self.executor.remove_node(node)
            leave(node) if isinstance(node, SmacNode) else node.destroy_node()
        self.executor.shutdown()
        self.nodes, self.executor = [], None  # it keeps what it has seen alive
