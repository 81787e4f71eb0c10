"""doc/nodes.md, made from the running nodes themselves: python -m test.smac_ros.node_tables

A test compares the page with what this makes, so that the tables stay true.
"""

import inspect
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "doc" / "nodes.md"

INTRODUCTION = """\
# Nodes

What each node takes, gives and can be told. Names are relative: in namespaces, or remapped,
several robots live side by side. This page is made from the running nodes
(`python test/smac_ros/node_tables.py`) and checked by a test.

Every node is a lifecycle node (`ros2 lifecycle get /policy`) that configures and activates itself
unless `autostart` is false; it publishes `/diagnostics` (diagnostic_msgs/DiagnosticArray, reliable,
depth 10) once a second and when its level changes: ERROR while something keeps it from its work,
WARN for five seconds after something went wrong that it survived, with counts of both. The services
of parameters and of the lifecycle, and `/rosout`, are ROS's own and left out below.

QoS: *reliable N* is RELIABLE, KEEP_LAST(N); *best effort N* is BEST_EFFORT, KEEP_LAST(N);
*latched* is reliable 1 with TRANSIENT_LOCAL, so that who comes later gets the last message. The
topics of the robot are those of the contract `sawyer_sim`; another contract names others
([contract](contract.md)). Its streams are listened to reliably in lockstep, as shown, and best
effort in real time, where the newest reading matters. Parameters that are not *live* are set when
the node is started.
"""

MEANINGS = {
    "/clock": "the simulated robot's time",
    "control": "who commands: `policy`, `paused`, `human` or `emergency_stop`",
    "emergency_stop": "true: stop and stay so; false releases nothing, but lets a release be",
    "endpoint_pose": "pose of the hand's end, frame `world`",
    "episode": "episodes that begin and end, JSON (below)",
    "gripper/state": "`opening`: distance between the fingers, m",
    "gripper_command": "`opening`: the distance wanted, m",
    "hand_command": "velocity of the hand, m/s, frame `world`",
    "joint_command": "efforts of the actuated joints, as the contract scales them",
    "joy": "the joystick, of `joy`'s `joy_node`; with `input: joystick` only",
    "joint_states": "every joint's position and velocity",
    "labelled_trajectories": "a table a trajectory, a transition a row (below)",
    "learner/progress": "version, iteration, updates, losses and what it waits for",
    "markers": "objects and goals, for RViz and Foxglove",
    "objects/bottom_drawer": "the button's drawer, its x as in the observation",
    "objects/button": "the button, its z as in the observation",
    "objects/handle": "the other drawer's handle, its y as in the observation",
    "objects/lego": "the lego block in the bottom drawer; 0, 0, 0 where absent",
    "objects/object": "the graspable object; 0, 0, 0 where absent",
    "posterior": "q(z given context): a row of means, a row of variances",
    "reward": "`reward`, `success`, `terminated` of the step before the stamp",
    "robot_description": "the URDF",
    "takeover": "true: a human commands; false: nobody, until `~/resume`",
    "tf": "poses of the links",
    "terminated": "the stamp at which the robot itself ended the episode: it fell",
    "weights": "safetensors of encoder, decoder and policy, with version and sizes",
}

SERVICES = {
    "episode_manager/start": "begin, or go on",
    "episode_manager/stop": "end after the present episode; what was scored is kept",
    "pause": "hold before the next episode",
    "emergency_stop": "the safe command now, and nothing else until it is released",
    "release_emergency_stop": "end it, where the topic does not say true; a pause remains",
    "recorder/pause": "record nothing until `~/resume`",
    "recorder/resume": "record again",
    "policy/pause": "the safe command; the episode is interrupted, until `~/resume`",
    "takeover": "the safe command; then a human commands, until `~/resume`",
    "resume": "the policy commands again, from where the robot is",
    "mock_robot/reset": "everything back to its start; answers as a simulated robot does",
    "reset": "put the parameter `task` into effect and begin at its start; answers "
    '`{"stamp": ns}` of the first observation',
    "reset_context": "forget the task: the posterior is the prior again",
    "save": "write a checkpoint now",
    "start": "act without episodes, in the parameter `mode`, until `~/stop` or a fall",
    "stop": "stop acting; the robot gets its safe command",
}

MESSAGES = """\
## What travels on `episode`, `labelled_trajectories` and `weights`

**episode** (std_msgs/String, JSON; `smac_ros.messages.Begin` and `End`):

{begin}

{end}

**labelled_trajectories** (sensor_msgs/PointCloud2; `pack_trajectory`): a row a transition, with the
columns {columns}. `sequence` counts the labeler's messages: the learner counts and shows what it
missed. Stamp: that of the first observation.

**weights** (std_msgs/UInt8MultiArray; `pack_weights`): safetensors bytes whose metadata say schema,
version, run, sizes and contract. A policy refuses other sizes, an older version, numbers that are
not finite and a contract that does not match, says so, and keeps what it has.
"""


def nodes(scratch: Path) -> list:
    """(class, parameters) of every node."""
    from smac_ros.episode_manager_node import EpisodeManagerNode
    from smac_ros.learner_node import LearnerNode
    from smac_ros.mock_robot_node import MockRobotNode
    from smac_ros.mujoco_sim_node import MujocoSimNode
    from smac_ros.operator_node import OperatorNode
    from smac_ros.policy_node import PolicyNode
    from smac_ros.preflight_node import PreflightNode
    from smac_ros.recorder_node import RecorderNode
    from smac_ros.reward_labeler_node import RewardLabelerNode
    from smac_ros.sawyer_sim_node import SawyerSimNode

    lockstep = {"clock": "lockstep"}
    return [
        (PolicyNode, {"checkpoint": "shipped", "settle": 0.0} | lockstep),
        (RewardLabelerNode, lockstep),
        (LearnerNode, {"run": str(scratch / "run"), "device": "cpu"}),
        (EpisodeManagerNode, {"start": False} | lockstep),
        (OperatorNode, {"input": "joystick"}),
        (RecorderNode, {"out": str(scratch / "bag")}),
        (SawyerSimNode, lockstep),
        (MujocoSimNode, lockstep),
        (MockRobotNode, {"contract": "sawyer_sim", "kinematics": "sawyer_arm"}),
        (PreflightNode, {"contract": "sawyer_sim", "policy": ""}),
    ]


def page(scratch: Path) -> str:
    """The whole page, of nodes configured and activated in this process (rclpy initialised)."""
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter

    from smac_ros.base_node import leave

    parts = [INTRODUCTION]
    for node_class, values in nodes(scratch):
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = node_class(parameter_overrides=overrides)
        try:
            for transition in (node.trigger_configure, node.trigger_activate):
                assert transition() == TransitionCallbackReturn.SUCCESS, node.diagnostics.faults
            parts.append(section(node))
        finally:
            leave(node)
    parts.append(messages())
    return "\n".join(parts)


def section(node) -> str:
    """One node: topics, services, parameters."""
    module = sys.modules[type(node).__module__]
    executable = module.__name__.rpartition(".")[2]
    name = node.get_name()
    lines = [f"## {name}", "", f"`ros2 run smac_ros {executable}`. {summary(module)}", ""]
    topics = [
        (relative(end.topic_name), way, end)
        for way, ends in (("gives", node.publishers), ("takes", node.subscriptions))
        for end in ends
    ]
    hidden = ("/diagnostics", "/rosout", "/parameter_events")
    table = ["| | topic | type | QoS | what |", "|---|---|---|---|---|"]
    seen = set()
    for topic, way, end in sorted(topics, key=lambda item: (item[1] == "gives", item[0])):
        if topic in hidden or topic.endswith("transition_event") or (topic, way) in seen:
            continue
        seen.add((topic, way))
        kind, qos = message_name(end.msg_type), quality(end.qos_profile)
        table.append(f"| {way} | `{topic}` | {kind} | {qos} | {MEANINGS[topic]} |")
    lines += table if seen else ["It listens to the contract's streams for as long as it looks."]
    own = [service for service in node.services if not standard(service.service_name, name)]
    if own:
        lines += ["", "| service | type | what |", "|---|---|---|"]
        for service in sorted(own, key=lambda item: item.srv_name):
            short = service.service_name.rpartition("/")[2]
            kind = message_name(service.srv_type).replace("/msg/", "/srv/")
            what = SERVICES.get(f"{name}/{short}") or SERVICES[short]
            lines.append(f"| `~/{short}` | {kind} | {what} |")
    lines += ["", "| parameter | default | what |", "|---|---|---|"]
    for parameter in node.parameters:
        limits = ""
        if parameter.low is not None and parameter.high is not None:
            limits = f" [{parameter.low:g}, {parameter.high:g}]"
        if parameter.choices:
            limits = " One of: " + ", ".join(f"`{choice}`" for choice in parameter.choices) + "."
        live = " *Live.*" if parameter.live else ""
        default = f"`{parameter.default!r}`".replace("'", '"')
        lines.append(f"| `{parameter.name}` | {default} | {parameter.description}{limits}{live} |")
    return "\n".join([*lines, ""])


def messages() -> str:
    """The tables of what travels in standard messages."""
    from smac_ros.messages import Begin, End, trajectory_dtype

    def fields(marker: type) -> str:
        described = attributes(marker)
        lines = [f"| `{marker.__name__.lower()}` | type | what |", "|---|---|---|"]
        for name, annotation in inspect.get_annotations(marker).items():
            kind = getattr(annotation, "__name__", str(annotation).removeprefix("typing."))
            kind = ", ".join(f"`{c}`" for c in annotation.__args__) if "Literal" in kind else kind
            lines.append(f"| `{name}` | {kind} | {described.get(name, '')} |")
        return "\n".join(lines)

    columns = ", ".join(f"`{name}`" for name in trajectory_dtype(1, 1).names)
    return MESSAGES.format(begin=fields(Begin), end=fields(End), columns=columns)


def attributes(marker: type) -> dict[str, str]:
    """The docstring's list of attributes."""
    described: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(marker) or "").partition("Attributes:\n")[2].splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            described[name] = text
        elif line.strip() and name:
            described[name] += " " + line.strip()
    return {name: text.replace("``", "`").rstrip(".") for name, text in described.items()}


def summary(module) -> str:
    """The module's first sentence."""
    return " ".join(inspect.getdoc(module).partition("\n\n")[0].split())


def relative(topic: str) -> str:
    absolute = ("/clock", "/diagnostics", "/rosout", "/parameter_events")
    return topic if topic in absolute else topic.lstrip("/")


def standard(service: str, node: str) -> bool:
    """Whether every node has it: of parameters, of the lifecycle, of types."""
    short = service.rpartition("/")[2]
    return short not in SERVICES or f"/{node}/" not in service


def message_name(kind: type) -> str:
    return f"{kind.__module__.split('.')[0]}/{kind.__name__}"


def quality(profile) -> str:
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    if profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        return "latched" if profile.depth == 1 else f"latched {profile.depth}"
    kind = "reliable" if profile.reliability == ReliabilityPolicy.RELIABLE else "best effort"
    return f"{kind} {profile.depth}"


if __name__ == "__main__":
    import tempfile

    import rclpy

    rclpy.init()
    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(page(Path(scratch)))
    rclpy.try_shutdown()
    print(PAGE)
