"""Who commands, order by order; and what a human's commands do to the next ones."""

import numpy as np
import pytest
from test_contract import CLASSES

from smac_core.errors import InputError
from smac_ros.authority import Authority
from smac_ros.contract import Contract, load_contract
from smac_ros.contract_commands import CommandWriter


@pytest.fixture
def authority():
    return Authority("policy", clock=lambda: 0.0)


def by(who):
    return lambda: who


def test_an_emergency_stop_outranks_and_outlives_everything(authority):
    authority.pause("a")
    authority.take_over("b")
    authority.stop("c")
    authority.take_over("d")
    authority.pause("e")
    assert authority.state == "emergency_stop"
    assert authority.reason.startswith("emergency stop by c, since ")
    with pytest.raises(InputError, match="release_emergency_stop first"):
        authority.resume()
    authority.release()
    assert (authority.state, authority.reason[:15]) == ("human", "taken over by b")
    authority.resume()
    assert (authority.state, authority.reason) == ("policy", "")


def test_a_release_leaves_a_pause(authority):
    """To release a stop must not by itself start the robot."""
    authority.stop("button")
    authority.release()
    assert authority.state == "paused"
    with pytest.raises(InputError, match="emergency stop: found none"):
        authority.release()


def test_the_topic_must_no_longer_say_true(authority):
    authority.hear_stop(True, by("panel"))
    authority.hear_stop(True, by("another"))
    assert "by panel" in authority.reason
    with pytest.raises(InputError, match="let go of the button first"):
        authority.release()
    authority.hear_stop(False, by("panel"))
    assert authority.state == "emergency_stop"
    authority.release()
    authority.hear_stop(False, by("panel"))
    assert authority.state == "paused"


def test_a_takeover_by_topic_ends_in_a_pause(authority):
    authority.hear_takeover(False, by("pedal"))
    assert authority.state == "policy"
    authority.hear_takeover(True, by("pedal"))
    assert authority.state == "human"
    with pytest.raises(InputError, match="give the robot back first"):
        authority.resume()
    authority.hear_takeover(False, by("pedal"))
    assert authority.state == "paused"
    authority.take_over("service")
    authority.hear_takeover(False, by("pedal"))  # it says so all the time: not its takeover
    assert authority.state == "human"


def writer(safety: str) -> CommandWriter:
    """A hand's velocity, and a gripper that holds its position."""
    text = load_contract("moveit_servo_arm").text
    return CommandWriter(
        Contract.from_text(text.replace("safety: zeros", f"safety: {safety}"), "test"), CLASSES
    )


def test_what_is_not_known_is_not_repeated():
    """A human may have moved the gripper by other means: the last command is of the past."""
    one = writer("zeros")
    one.fill(one.encode(np.array([1.0, 0, 0, -1])), 0)
    one.let_go()
    hand, gripper = one.fill_safe(5)
    assert hand.twist.linear.x == 0.0 and hand.header.stamp.nanosec == 5 and gripper is None
    one.follow(1, np.array([0.03]))
    hand, gripper = one.fill_safe(6)
    assert gripper.points[0].positions[0] == 0.03
    assert one.is_safe(1, np.array([0.03])) and one.is_safe(0, np.zeros(3))
    assert not one.is_safe(0, np.array([0.0, 0.1, 0]))
    one.let_go()
    assert writer("none").fill_safe(0) == [None, None]
    assert writer("hold").fill_safe(0) == [None, None]
