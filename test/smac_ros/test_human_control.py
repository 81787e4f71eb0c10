"""Emergency stop, pause, takeover and resume of a policy over real topics."""

import array
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from policy_robot import DS, PATIENT, Robot, contract_text, make_agent, observations
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String

from smac_ros.base_node import latched, reliable, sensor
from smac_ros.messages import set_stamp

DONE = TransitionCallbackReturn.SUCCESS
SLOW = 0.01  # rad/s, the largest change between two commands


@pytest.fixture
def contract(tmp_path):
    """Velocities whose first command is counted from what is measured."""
    path = tmp_path / "bench.yaml"
    text = contract_text(**PATIENT).replace("scale: 0.5,", f"scale: 0.5, max_step: {SLOW},")
    path.write_text(text)
    return path


@pytest.fixture
def live(ros, contract):
    return listening(Robot(ros, contract, clock="real_time").start(make_agent()))


def listening(robot: Robot) -> Robot:
    """With what a human has, and ``controls`` that it hears."""
    robot.controls = []
    node = robot.node
    node.create_subscription(
        String, "control", lambda message: robot.controls.append(message.data), latched()
    )
    robot.stop = node.create_publisher(Bool, "emergency_stop", reliable(1))
    robot.pedal = node.create_publisher(Bool, "takeover", reliable(1))
    robot.until(robot.stop.get_subscription_count, "a listener to emergency_stop")
    robot.until(robot.pedal.get_subscription_count, "a listener to takeover")
    robot.until(lambda: robot.controls == ["policy"], "control")
    return robot


def act(live: Robot, steps: int = 3, **begin) -> int:
    """An episode in progress that has commanded; how many commands there are."""
    live.begin(steps=1000, **begin)
    before = len(live.commands)
    live.run(lambda: len(live.commands) >= before + steps, "commands")
    assert live.values()[-1].any()
    return len(live.commands)


def only_safe_from(live: Robot, count: int, seconds: float = 0.3) -> None:
    """All commands after ``count`` are safe ones, whatever the robot shows, and some come."""
    end = time.monotonic() + seconds
    live.run(lambda: time.monotonic() > end)
    assert len(live.commands) > count and not live.values()[count:].any()


def test_an_emergency_stop_latches(live):
    act(live)
    live.stop.publish(Bool(data=True))
    end = live.end()
    assert end.reason.startswith("interrupted: emergency stop by topic emergency_stop (published")
    assert f"{live.namespace}/robot" in end.reason and end.steps >= 3
    count = int(np.flatnonzero(live.values().any(1))[-1]) + 1
    only_safe_from(live, count)
    status = live.until(lambda: [s for s in live.diagnostics if s.level == DiagnosticStatus.ERROR])
    assert "emergency stop by topic emergency_stop" in status[-1].message
    # Neither an episode, nor weights, nor the lifecycle, nor the topic releases it.
    live.begin(id=1, steps=50)
    assert live.end(2).reason.startswith("interrupted: emergency stop by topic")
    live.send_weights(make_agent(1), version=2)
    assert "emergency stop" in live.call("start").message
    refused = live.call("release_emergency_stop")
    assert not refused.success and "let go of the button first" in refused.message
    live.stop.publish(Bool(data=False))
    policy = live.policy
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert getattr(policy, f"trigger_{transition}")() == DONE
    assert "emergency stop" in live.faults()
    live.until(lambda: live.node.count_publishers("joint_command"), "the policy's commands")
    live.send_weights(make_agent(1), version=3)
    live.until(lambda: policy.policy.controller, "weights")
    live.begin(id=2, steps=50)
    assert live.end(3).reason.startswith("interrupted: ")
    live.until(lambda: len(live.commands) > count)
    only_safe_from(live, count)
    assert not live.call("resume").success
    # A human does, and then says that the robot may go on.
    live.until(lambda: live.call("release_emergency_stop").success)
    assert live.controls[-1] == "paused" and not live.faults()
    live.begin(id=3, steps=50)
    assert live.end(4).reason.startswith("interrupted: paused by topic emergency_stop")
    only_safe_from(live, count)
    assert live.call("resume").success
    act(live, id=4)


def test_the_safe_command_is_sent_in_the_callback(live):
    """Not in a later cycle: the command leaves before anything else is done."""
    act(live)
    policy = live.policy.policy
    sent = []
    policy.commands.publish = lambda messages: sent.append(list(messages[0].velocity))
    live.policy._human._on_emergency_stop(Bool(data=True))
    assert sent[0] == [0.0, 0.0] and policy.episode is None


@pytest.mark.parametrize("state", ["inactive", "unconfigured"])
def test_a_stop_is_heard_in_every_state(live, state):
    live.policy.trigger_deactivate()
    if state == "unconfigured":
        live.policy.trigger_cleanup()
    assert live.call("emergency_stop").success
    if state == "unconfigured":
        assert live.policy.trigger_configure() == DONE
    assert live.policy.trigger_activate() == DONE
    live.until(lambda: live.node.count_publishers("joint_command"), "the policy's commands")
    assert "service ~/emergency_stop" in live.faults()
    live.begin(steps=50)
    assert live.end().reason.startswith("interrupted: emergency stop by service")


def test_a_latched_stop_reaches_who_comes_later(ros, contract):
    early = ros.node("panel", namespace=f"/robot{next(Robot.numbers) + 1}")
    publisher = early.create_publisher(Bool, "emergency_stop", latched())
    publisher.publish(Bool(data=True))
    robot = Robot(ros, contract, clock="real_time")
    assert robot.namespace == early.get_namespace()
    ros.start(robot.policy)
    robot.until(lambda: "emergency stop" in robot.faults(), "the emergency stop")


def test_a_stop_by_best_effort_is_heard(live):
    """A small controller's panel, which knows no other QoS: a reliable listener would be deaf."""
    act(live)
    panel = live.node.create_publisher(Bool, "emergency_stop", sensor())
    live.until(panel.get_subscription_count, "a listener to the panel")
    panel.publish(Bool(data=True))
    assert live.end().reason.startswith("interrupted: emergency stop by topic")


def test_a_pause_interrupts_and_resume_goes_on(live):
    before = act(live)
    assert live.call("pause").success
    end = live.end()
    assert end.reason.startswith("interrupted: paused by service ~/pause") and not end.terminal
    only_safe_from(live, max(before, int(np.flatnonzero(live.values().any(1))[-1]) + 1))
    assert live.controls[-1] == "paused" and not live.faults()
    assert "waits for an episode or ~/start" in live.call("resume").message
    assert live.call("resume").message == "nothing held it up"
    count = len(live.commands)
    act(live, id=1)
    assert (np.abs(np.diff(live.values()[count - 1 :], axis=0)) <= SLOW + 1e-12).all()


def test_a_stopped_policy_keeps_its_topics(live):
    """A stop must stay possible also beside a publisher to which the policy would yield."""
    act(live)
    rival = live.ros.node("rival", namespace=live.namespace)
    rival.create_publisher(JointState, "joint_command", 1)
    commands = live.policy.policy.commands
    live.until(lambda: "other publishers of commands" in live.policy.diagnostics.counts)
    live.call("pause")
    commands.close(None)
    commands._create()  # ids grow: now the rival's is smaller
    live.until(lambda: commands.listeners, "a listener to commands")
    only_safe_from(live, len(live.commands), 0.5)
    assert commands.open and not live.faults()


def test_what_start_began_goes_on_after_a_pause(live):
    assert live.call("start").success
    live.run(lambda: live.commands and live.values()[-1].any())
    live.call("pause")
    assert live.policy.policy.episode is None and "~/resume first" in live.call("start").message
    assert live.call("resume").message == "goes on"
    count = len(live.commands)
    live.run(lambda: live.values()[count:].any(), "it goes on")
    live.call("pause")
    assert "will not go on" in live.call("stop").message
    live.call("resume")
    assert live.policy.policy.episode is None


def drive(publisher, live: Robot, value: float, field: str = "velocity") -> None:
    message = JointState(name=["a", "b"], **{field: array.array("d", [value, 0.0])})
    set_stamp(message.header.stamp, live.now())
    publisher.publish(message)


def test_a_human_takes_over_and_gives_back(live):
    act(live)
    assert live.call("takeover").success
    assert live.end().reason.startswith("interrupted: taken over by service ~/takeover")
    assert live.controls[-1] == "human"
    human = live.ros.node("teleop", namespace=live.namespace)
    publisher = human.create_publisher(JointState, "joint_command", reliable(1))
    policy = live.policy.policy
    live.until(lambda: publisher.get_subscription_count() == 2, "robot and policy listen")
    live.until(lambda: len(live.policy.get_publishers_info_by_topic("joint_command")) == 2)
    count = len(live.commands)
    while len(live.commands) < count + 30:  # 1.5 s of the human's commands, and nobody else's
        drive(publisher, live, 0.2)
        live.observe(np.full(DS, 0.2, np.float32))
        live.until(lambda: policy.human.moving, "the human is heard")
    assert (live.values()[count:] == [0.2, 0.0]).all() and not live.faults()
    assert policy.commands.open
    # Nobody gives the robot back while he moves it: both would command.
    timer = human.create_timer(0.02, lambda: drive(publisher, live, 0.2))
    refused = live.call("resume")
    assert not refused.success and "let go first" in refused.message
    human.destroy_timer(timer)
    # The human's node dies while the robot moves.
    falls = time.monotonic()
    live.until(lambda: not live.values()[-1].any(), "the safe command")
    assert time.monotonic() - falls < 3 * PATIENT["watchdog"]  # once, on a busy machine
    assert live.policy.diagnostics.counts["takeovers fallen silent"] == 1
    count = len(live.commands)
    live.spin(0.4)
    assert len(live.commands) == count  # and silence again
    # Back: while the human's publisher is there, the policy waits; then it begins gently.
    assert live.call("resume").success
    live.begin(id=1, steps=1000)
    live.until(lambda: "another publisher on joint_command" in live.faults())
    human.destroy_publisher(publisher)
    count = len(live.commands)
    live.run(lambda: len(live.commands) >= count + 4, "it goes on")
    steps = np.diff(np.concatenate([np.zeros((1, 2)), live.values()[count:]]), axis=0)
    assert (np.abs(steps) <= SLOW + 1e-12).all() and not live.faults()


def test_positions_go_on_from_where_the_human_left_the_robot(ros, contract):
    """Neither a pause nor the policy's first command takes the robot back to where it was."""
    old = 'path: "velocity[a, b]", names: [va, vb], unit: rad/s, scale: 0.5'
    new = 'path: "position[a, b]", names: [pa, pb], unit: rad, scale: 2.0, measured: [a, b]'
    text = contract.read_text()
    assert old in text
    contract.write_text(text.replace(old, new).replace("[-0.4, 0.4]", "[-3, 3]"))
    live = listening(Robot(ros, contract, clock="real_time").start(make_agent()))
    there = np.array([0.1, 0.1, 0], np.float32)
    live.begin(steps=1000)
    for step in range(3):
        live.observe(there)
        live.answer(step + 1)
    assert np.abs(live.values() - 0.1).max() <= 3 * SLOW + 1e-6
    assert live.call("takeover").success
    human = live.ros.node("teleop", namespace=live.namespace)
    publisher = human.create_publisher(JointState, "joint_command", reliable(1))
    live.until(lambda: publisher.get_subscription_count() == 2, "robot and policy listen")
    live.spin(0.5)
    count = len(live.commands)  # the human moves it by hand, and nothing holds against that
    assert live.call("pause").success and live.call("resume").success
    assert live.call("takeover").success and len(live.commands) == count
    drive(publisher, live, 2.0, "position")
    live.until(lambda: len(live.commands) > count, "the human's command")
    live.until(lambda: live.policy.policy.writer._sent.all(), "the policy hears it")
    human.destroy_publisher(publisher)
    assert live.call("resume").success
    there = np.array([1.9, 0.05, 0], np.float32)
    stamp = live.observe(there)
    live.until(lambda: live.policy.policy._tick == stamp, "where the robot is now")
    live.begin(id=1, steps=1000)
    count = len(live.commands)
    timer = live.node.create_timer(0.02, lambda: live.observe(there, paced=False))
    live.until(lambda: len(live.commands) >= count + 2, "the policy")
    live.node.destroy_timer(timer)
    np.testing.assert_allclose(live.values()[count], there[:2], atol=SLOW + 1e-6)
    assert (np.abs(np.diff(live.values()[count:], axis=0)) <= SLOW + 1e-12).all()


def test_a_pedal_takes_over_and_an_emergency_stop_ends_it(live):
    act(live)
    live.pedal.publish(Bool(data=True))
    assert "taken over by topic takeover (published by" in live.end().reason
    live.until(lambda: live.controls[-1] == "human")
    assert not live.call("resume").success
    live.stop.publish(Bool(data=True))
    live.until(lambda: live.controls[-1] == "emergency_stop")
    count = len(live.commands)
    only_safe_from(live, count)
    live.pedal.publish(Bool(data=False))
    live.stop.publish(Bool(data=False))
    live.until(lambda: live.call("release_emergency_stop").success)
    assert live.controls[-1] == "paused" and live.call("resume").success
    act(live, id=1)


def test_named_teleoperation_may_stay(ros, contract):
    """A publisher that only speaks in takeovers neither keeps the policy waiting nor stops it."""
    robot = Robot(ros, contract, clock="real_time", teleoperation=["pad"])
    pad = ros.node("pad", namespace=robot.namespace)
    pad.create_publisher(JointState, "joint_command", reliable(1))
    robot.until(lambda: robot.node.count_publishers("joint_command"))
    robot.start(make_agent())
    assert len(robot.node.get_publishers_info_by_topic("joint_command")) == 2
    robot.begin(steps=50)
    robot.observe(observations(1)[0])
    robot.answer(1)
    robot.spin(0.3)
    assert "other publishers of commands" not in robot.policy.diagnostics.counts
