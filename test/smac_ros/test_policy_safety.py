"""Positions after a stop: nothing of the past is repeated, and no first command is a jump."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from policy_robot import CONTRACT, FIRST, PERIOD  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from test_policy_falls import Stage  # noqa: E402

from smac_ros import policy as policy_module  # noqa: E402
from smac_ros.messages import set_stamp  # noqa: E402

STEP = 0.05  # rad, between two commands
HOLD = CONTRACT.replace("velocity[a, b]", "position[a, b]").replace("unit: rad/s", "unit: rad")
HOLD = HOLD.replace("safety: zeros", "safety: hold").replace("[-0.4, 0.4]", "[-3, 3]")
HOLD = HOLD.replace("scale: 0.5,", f"scale: 3.0, max_step: {STEP}, measured: [a, b],")


class Arm(Stage):
    """Two joints that somebody else may move; a clock that goes on as it is told."""

    def __init__(self, monkeypatch, text: str = HOLD):
        self.seconds = 0.0
        monkeypatch.setattr(policy_module.time, "monotonic", lambda: self.seconds)
        self.open, self.rivals = True, False
        self.faults = {}
        super().__init__(lockstep=False, text=text)
        self.tick = 0

    def publish(self, messages):
        self.commands += [list(m.position) for m in messages if m is not None and self.open]

    def fault(self, what, message):
        self.faults[what] = message

    def clear(self, what):
        self.faults.pop(what, None)

    def close(self, patience):
        self.open = False

    def check(self):
        if not self.rivals:
            self.open = True
        self.foreign = "another publisher" if self.rivals else ""
        return (self.foreign if self.open else ""), ""

    def show(self, *joints, stamp=None):
        """An observation, a period after the last one."""
        self.tick += 1
        self.seconds += PERIOD / 1e9
        self.now = stamp = FIRST + self.tick * PERIOD if stamp is None else stamp
        for index, (names, part) in enumerate(((["a", "b"], joints), (["c"], (0.0,)))):
            message = JointState(name=names, position=part)
            set_stamp(message.header.stamp, stamp)
            self.policy.observe(index, stamp, message)

    def wait(self, seconds):
        """Nothing comes; the policy's timers go on."""
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds += PERIOD / 1e9
            self.now += PERIOD
            self.tick += 1
            self.policy.on_watchdog()

    def next_from(self, *joints) -> float:
        """How far from the joints the next command is."""
        count = len(self.commands)
        self.show(*joints)
        assert len(self.commands) == count + 1
        return float(np.abs(np.array(self.commands[-1]) - joints).max())


@pytest.fixture
def arm(monkeypatch):
    arm = Arm(monkeypatch)
    arm.begin(endless=True)
    for _ in range(5):
        arm.show(0.1, 0.1)
    assert len(arm.commands) == 5
    return arm


def test_what_was_held_is_not_repeated_for_ever(arm):
    """A driver that is started anew would take it for a command to go there."""
    arm.wait(0.8)
    assert "no observation" in arm.faults["stopped"]
    held = arm.commands[5:]
    assert len(held) >= 5 and held == [arm.commands[4]] * len(held)  # a message may be lost
    arm.wait(1.0)
    count = len(arm.commands)
    arm.wait(5.0)
    assert len(arm.commands) == count and "stopped" in arm.faults


def test_after_a_long_stop_it_goes_on_from_where_the_robot_is(arm):
    arm.wait(3.0)
    assert arm.next_from(2.0, -2.0) <= STEP + 1e-6 and not arm.faults


def test_after_a_short_stop_it_goes_on_from_the_last_command(arm):
    """Not from where the arm has got to: the command would step back."""
    arm.wait(0.5)
    last = np.array(arm.commands[-1])
    arm.next_from(0.1, 0.1)
    assert np.abs(np.array(arm.commands[-1]) - last).max() <= STEP + 1e-12 and not arm.faults


def test_after_another_publisher_it_goes_on_from_where_the_robot_is(arm):
    """The other moved the robot, and has left; also where the observations have gone besides."""
    arm.rivals = True
    arm.policy.on_neighbours(None)
    assert not arm.open and arm.faults["stopped"]
    arm.rivals, count = False, len(arm.commands)
    arm.policy.on_neighbours(None)
    arm.wait(0.5)
    assert len(arm.commands) == count, "an old position, on the other's robot"
    assert arm.next_from(2.0, -2.0) <= STEP + 1e-6


def test_the_end_of_start_is_said_more_than_once(arm):
    """One message may be lost on its way to a robot that moves."""
    arm.policy.finish("stopped: ~/stop was called", safe=True)
    count = len(arm.commands)
    arm.wait(3.0)
    said = arm.commands[count - 1 :]
    assert 10 < len(said) < 25 and said == [arm.commands[4]] * len(said)


@pytest.mark.parametrize("act", ["halt", "close"])
def test_a_stop_long_after_the_end_moves_nothing(arm, act):
    """Someone has put the robot elsewhere: the last position would take it back."""
    arm.policy.finish("stopped: ~/stop was called", safe=True)
    arm.wait(3.0)
    count = len(arm.commands)
    arm.policy.halt() if act == "halt" else arm.policy.close(None)
    arm.wait(1.0)
    assert len(arm.commands) == count


@pytest.mark.parametrize("limit", ["", "max_lead: 0.12, "])
def test_a_robot_that_stands_by_itself(monkeypatch, limit):
    """Its joints are read all the time, and do not move: its own safety holds it."""
    arm = Arm(monkeypatch, HOLD.replace("measured:", f"{limit}measured:"))
    arm.begin(endless=True)
    ahead = [arm.next_from(0.1, 0.1) for _ in range(60)]
    assert (max(ahead) <= 0.12 + 1e-6) == bool(limit)
    assert arm.policy.writer.limited
