"""doc/nodes.md says what the nodes really have."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
sys.path.insert(0, str(Path(__file__).parent))

from node_tables import PAGE, SERVICES, page  # noqa: E402


def test_page_is_what_the_nodes_say(ros, tmp_path):
    made, there = page(tmp_path), PAGE.read_text()
    differing = [
        (a, b) for a, b in zip(made.splitlines(), there.splitlines(), strict=False) if a != b
    ]
    assert made == there, f"run python {PAGE.parents[1]}/test/smac_ros/node_tables.py: {differing}"


def test_the_graph_shows_the_same(ros, tmp_path):
    """What `ros2 node info` sees of a running policy is what the page lists."""
    from rclpy.parameter import Parameter

    from smac_ros.policy_node import PolicyNode

    values = {"checkpoint": "shipped", "clock": "lockstep", "settle": 0.0}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    ros.start(PolicyNode(parameter_overrides=overrides))
    watcher = ros.node("watcher")
    ros.until(lambda: ("policy", "/") in watcher.get_node_names_and_namespaces())

    def topics() -> dict[str, str]:
        gives = watcher.get_publisher_names_and_types_by_node("policy", "/")
        takes = watcher.get_subscriber_names_and_types_by_node("policy", "/")
        return {f"{way} {name}": kinds[0] for way, found in (("gives", gives), ("takes", takes))
                for name, kinds in found}  # fmt: skip

    ros.until(lambda: "gives /hand_command" in topics())
    section = PAGE.read_text().partition("## policy")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith(("| g", "| t"))]
    listed = {f"{way.strip('| ')} /{topic.strip('`/')}" for way, topic, *_ in rows}
    hidden = ("/rosout", "/parameter_events", "/diagnostics", "/policy/transition_event")
    seen = {key for key in topics() if not key.endswith(hidden)}
    assert seen == listed
    services = dict(watcher.get_service_names_and_types_by_node("policy", "/"))
    for short in ("start", "stop", "reset_context"):
        assert services[f"/policy/{short}"] == ["std_srvs/srv/Trigger"] and short in SERVICES
        assert f"`~/{short}`" in section
