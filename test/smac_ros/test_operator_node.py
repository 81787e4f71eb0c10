"""The operator's node: rewards, orders and jogging, by a joystick's messages and a terminal."""

import array
import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from policy_robot import PATIENT, PERIOD, Robot, contract_text, make_agent, observations
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool, String

from smac_ros.base_node import latched, reliable
from smac_ros.messages import stamp_ns
from smac_ros.operator_node import OperatorNode
from smac_ros.up import environment

MAPPING = """
input: joystick
orders:
  emergency_stop: 1
  release_emergency_stop: 6
  pause: 2
  takeover: 3
  resume: 7
  end_success: 8
success: {press: 0, how: held}
deadman: 4
jog:
  - {action: va, axis: 1, speed: 1.0}
  - {action: 2, axis: 0, speed: 0.5, invert: true}
  - {action: 3, axis: 2, speed: 0.5}
"""
SUCCESS, STOP, PAUSE, TAKEOVER, DEADMAN, RELEASE, RESUME, END = 0, 1, 2, 3, 4, 6, 7, 8


class Operated(Robot):
    """A robot in real time whose policy has an operator with a joystick."""

    def __init__(self, ros, folder, **parameters):
        contract, mapping = folder / "bench.yaml", folder / "pad.yaml"
        text = contract_text(**PATIENT).replace("scale: 0.5,", "scale: 0.5, max_step: 0.1,")
        contract.write_text(text)
        mapping.write_text(MAPPING)
        super().__init__(ros, contract, clock="real_time")
        self.buttons, self.axes = [0] * 11, [0.0] * 8
        self.told: list[JointState] = []
        self.controls: list[str] = []
        node = self.node
        node.create_subscription(JointState, "reward", self.told.append, reliable(100))
        take = lambda message: self.controls.append(message.data)  # noqa: E731
        node.create_subscription(String, "control", take, latched())
        self.joy = node.create_publisher(Joy, "joy", reliable(10))
        values = {"contract": str(contract), "mapping": str(mapping), "input": "joystick"}
        values |= {"success_reward": 2.0, "otherwise_reward": -0.5} | parameters
        overrides = [Parameter(key, value=value) for key, value in values.items()]
        self.operator = OperatorNode(namespace=self.namespace, parameter_overrides=overrides)

    def start(self, agent):
        super().start(agent)
        self.ros.start(self.operator)
        self.until(self.joy.get_subscription_count, "a listener to joy")
        for client in self.operator._askers.values():
            self.until(client.service_is_ready, client.srv_name)
        self.until(lambda: self.rewards.get_subscription_count() > 1, "listeners to rewards")
        self.until(lambda: self.operator._reward_publisher.get_subscription_count() == 2)
        self.until(lambda: self.streams[1].get_subscription_count() == 2)
        self.until(lambda: self.controls and self.operator._control == "policy", "control")
        timer = self.node.create_timer(0.05, self.hold)
        self.until(lambda: self.operator._controls._buttons, "the joystick")
        self.autorepeat = timer
        return self

    def hold(self) -> None:
        axes = array.array("f", self.axes)
        self.joy.publish(Joy(buttons=array.array("i", self.buttons), axes=axes))

    def press(self, *buttons: int) -> None:
        for button in buttons:
            self.buttons[button] = 1

    def let_go(self, *buttons: int) -> None:
        for button in buttons:
            self.buttons[button] = 0

    def push(self, button: int, condition, what="") -> None:
        """Press, wait, let go."""
        self.press(button)
        self.until(condition, what)
        self.let_go(button)
        self.until(lambda: not self.operator._controls._buttons[button])

    def step(self) -> int:
        """One control step of the policy; the stamp of its observation."""
        count = len(self.commands)
        stamp = self.observe(observations(1)[0])
        self.answer(count + 1)
        return stamp


@pytest.fixture
def operated(ros, tmp_path):
    return Operated(ros, tmp_path).start(make_agent())


def rewards(robot) -> dict[int, float]:
    """By stamp."""
    return {stamp_ns(m.header.stamp): m.position[m.name.index("reward")] for m in robot.told}


def test_rewards_by_a_joystick_adapt_the_policy(operated):
    """A success button's rewards make the posterior of exactly these transitions."""
    robot = operated
    robot.begin(mode="adapt", purpose="meta_test", steps=6)
    stamps = []
    for step in range(7):
        if step == 3:
            robot.press(SUCCESS)
            robot.until(lambda: robot.operator._controls._buttons[SUCCESS])
        if step < 6:
            stamps.append(robot.step())
        else:
            stamps.append(robot.observe(observations(1)[0]))
    assert robot.end().reason == "complete"
    expected = np.array([-0.5, -0.5, 2.0, 2.0, 2.0, 2.0], np.float32)  # a step's, at its end
    robot.until(lambda: stamps[-1] in rewards(robot))
    assert [rewards(robot)[stamp] for stamp in stamps[1:]] == expected.tolist()
    success = [m.position[m.name.index("success")] for m in robot.told]
    assert set(success) == {0.0, 1.0}
    actions = robot.reader.decode(robot.values()[:6])
    rows = (np.repeat(observations(1), 6, 0), actions, expected)
    posterior = make_agent().infer(*(torch.from_numpy(part)[None] for part in rows))
    shown = np.stack([part[0].double().numpy() for part in posterior])
    robot.until(lambda: np.array_equal(robot.posteriors[-1], shown), "the posterior")
    prior = np.stack([np.zeros(4), np.ones(4)])
    assert not np.allclose(shown, prior, atol=1e-3)


def test_fast_and_staggered_streams_leave_no_step_without_reward(operated):
    """500 observations a second from two sensors; commands at 20 Hz."""
    robot = operated
    robot.begin(mode="adapt", purpose="meta_test", steps=10)
    timer = robot.node.create_timer(0.002, lambda: robot.observe(observations(1)[0], paced=False))
    assert robot.end().reason == "complete"
    robot.node.destroy_timer(timer)
    assert "missing rewards" not in robot.policy.diagnostics.counts
    gaps = np.diff(sorted(rewards(robot)))
    assert gaps.min() >= PERIOD // 4


def test_a_success_ends_the_episode(operated):
    """The operator's word is the last step's reward, and the episode's end its own."""
    robot = operated
    robot.begin(mode="adapt", purpose="meta_test", steps=100)
    for _ in range(4):
        last = robot.step()
    robot.push(END, lambda: robot.ends, "the end")
    end = robot.end()
    assert (end.reason, end.terminal, end.last, end.steps) == ("complete", True, last, 3)
    assert rewards(robot)[last] == 2.0
    robot.until(lambda: len(robot.policy.policy.context) == 1)


def test_a_dead_joystick_gives_no_rewards(operated):
    robot = operated
    robot.press(SUCCESS)
    robot.node.destroy_timer(robot.autorepeat)
    faults = robot.operator.diagnostics
    robot.until(lambda: "joystick silent" in faults.faults, "the fault")
    robot.told.clear()
    stamp = robot.observe(observations(1)[0])
    robot.until(lambda: robot.operator._newest == stamp)
    robot.spin(0.1)
    assert not robot.told


def test_jogging_within_limits_and_only_with_the_deadman(operated):
    robot = operated
    robot.begin(steps=1000)
    for _ in range(3):
        robot.step()
    robot.push(TAKEOVER, lambda: robot.controls[-1] == "human", "the takeover")
    assert robot.end().reason.startswith("interrupted: taken over")
    publishers = lambda: len(robot.node.get_publishers_info_by_topic("joint_command"))  # noqa: E731
    robot.until(lambda: publishers() == 2, "the operator's commands")
    robot.until(lambda: robot.operator._commands[0].get_subscription_count() >= 2)
    robot.axes[1], robot.axes[0] = 1.0, 1.0
    robot.until(lambda: robot.operator._controls._axes[1] == 1.0)
    count = len(robot.commands)
    robot.spin(0.2)
    assert len(robot.commands) == count  # nobody holds the dead-man button
    robot.press(DEADMAN)
    robot.until(lambda: len(robot.commands) > count + 8, "jogging")
    jogged = robot.values()[count:]
    np.testing.assert_allclose(jogged[:4, 0], [0.1, 0.2, 0.3, 0.4])  # by max_step to the limit
    np.testing.assert_allclose(jogged[5:], [[0.4, -0.2]] * len(jogged[5:]))  # half, inverted
    robot.let_go(DEADMAN)
    robot.until(lambda: not robot.values()[-1].any(), "standing")
    assert not robot.policy.policy.human.moving
    robot.until(lambda: not robot.operator._jogging.started, "silence: it starts anew")
    robot.axes = [0.0] * 8
    robot.push(RESUME, lambda: robot.controls[-1] == "policy", "the policy")
    robot.until(lambda: publishers() == 1, "the policy's commands alone")
    robot.begin(id=1, steps=50)
    count = len(robot.commands)
    robot.step()
    assert np.abs(robot.values()[count:]).max() <= 0.1


def test_the_emergency_button_and_its_release(operated):
    robot = operated
    robot.begin(steps=1000)
    for _ in range(3):
        robot.step()
    stops = []
    take = lambda message: stops.append(message.data)  # noqa: E731
    robot.node.create_subscription(Bool, "emergency_stop", take, latched())
    robot.press(STOP)
    robot.until(lambda: robot.ends, "the end")
    assert robot.end().reason.startswith("interrupted: emergency stop by")
    robot.let_go(STOP)
    robot.until(lambda: stops == [True], "the topic's word")
    assert robot.controls[-1] == "emergency_stop"
    robot.push(RELEASE, lambda: robot.controls[-1] == "paused", "the release")
    robot.push(RESUME, lambda: robot.controls[-1] == "policy", "the policy")
    assert stops == [True, False]


def test_what_is_held_at_the_start_gives_no_orders(ros, tmp_path):
    """A joystick that is plugged in with a button stuck: only an emergency stop counts."""
    robot = Operated(ros, tmp_path)
    robot.press(TAKEOVER, STOP)
    robot.start(make_agent())
    robot.until(lambda: "emergency_stop" in robot.controls)
    assert "human" not in robot.controls


def test_a_terminal_is_needed(ros):
    """The node says what to do instead."""
    overrides = [Parameter("input", value="keyboard")]
    node = ros.add(OperatorNode(parameter_overrides=overrides))
    node.trigger_configure()
    said = node.diagnostics.faults["refused"]
    assert "standard input: found no terminal; expected" in said and "smac operator" in said
    assert node._keyboard is None


class Terminal:
    """A user's: what is typed, and what is shown."""

    def __init__(self, *words: str):
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave, self.shown = slave, ""
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave,
            env=environment() | os.environ, preexec_fn=self._own,
        )  # fmt: skip

    def _own(self) -> None:
        os.setsid()
        import fcntl

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def shows(self, text: str) -> bool:
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.shown += os.read(self.master, 4096).decode(errors="replace")
            except OSError:
                break
        return text in self.shown

    def attributes(self) -> list:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=30)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def contract(tmp_path):
    path = tmp_path / "bench.yaml"
    path.write_text(contract_text(**PATIENT))
    return path


def test_a_crash_gives_the_terminal_back():
    program = (
        "import queue\n"
        "from smac_ros.keyboard import Keyboard\n"
        "typed = queue.Queue()\n"
        "keyboard = Keyboard(typed.put, print)\n"
        "print('ready')\n"
        "raise RuntimeError(f'crash at {typed.get()}')\n"
    )
    terminal = Terminal(sys.executable, "-c", program)
    try:
        select.select([terminal.master], [], [], 20.0)
        assert terminal.shows("ready") and not terminal.attributes()[3] & termios.ECHO
        terminal.type("x")
        assert terminal.process.wait(20.0) == 1 and terminal.shows("RuntimeError: crash at x")
        assert terminal.attributes() == terminal.before
    finally:
        terminal.close()


def test_a_keyboard_as_a_user_has_it(ros, contract):
    """smac operator in a terminal: every key, Ctrl-C, and the terminal as it was."""
    robot = Robot(ros, contract, clock="real_time").start(make_agent())
    controls, told = [], []
    take = lambda message: controls.append(message.data)  # noqa: E731
    robot.node.create_subscription(String, "control", take, latched())
    robot.node.create_subscription(JointState, "reward", told.append, reliable(100))
    words = ("operator", "--contract", str(contract), "--namespace", robot.namespace)
    terminal = Terminal(str(Path(sys.executable).with_name("smac")), *words)
    try:
        robot.until(lambda: terminal.shows("now commands: policy"), "the operator")
        assert not terminal.attributes()[3] & (termios.ICANON | termios.ECHO)
        robot.begin(steps=1000)
        robot.run(lambda: len(robot.commands) > 3 and len(told) > 3, "rewards")
        assert told[-1].position[told[-1].name.index("reward")] == 0.0
        terminal.type("s")
        robot.run(lambda: told[-1].position[told[-1].name.index("reward")] == 1.0, "success")
        terminal.type("p")
        robot.until(lambda: controls[-1] == "paused", "a pause")
        terminal.type("r")
        robot.until(lambda: controls[-1] == "policy", "the policy")
        robot.begin(id=1, steps=1000)
        robot.run(lambda: robot.values()[-1].any(), "commands")
        terminal.type("t")
        robot.until(lambda: controls[-1] == "human", "a takeover")
        robot.until(lambda: len(robot.node.get_publishers_info_by_topic("joint_command")) == 2)
        robot.spin(0.3)
        terminal.type("\x1b[A")  # up: one key press moves for key_hold seconds
        robot.until(lambda: robot.values()[-1][0] > 0, "jogging")
        robot.until(lambda: not robot.values()[-1].any(), "standing")
        terminal.type("\x1a ")  # Ctrl-Z is no way to lose an operator
        robot.until(lambda: controls[-1] == "emergency_stop", "an emergency stop")
        assert not robot.values()[-1].any()
        terminal.type("U")
        robot.until(lambda: controls[-1] == "human", "the release")
        terminal.type("\x03")
        terminal.process.wait(10)
        assert terminal.attributes() == terminal.before
        assert controls[-1] == "human"  # the policy does not start by itself
    finally:
        terminal.close()
