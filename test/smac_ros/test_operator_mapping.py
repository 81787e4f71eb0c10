"""What keys, buttons and axes do, without ROS: files, what is pressed, and the commands of it."""

import numpy as np
import pytest
from test_contract import CLASSES

from smac_core.errors import InputError
from smac_ros.contract import CommandReader, Contract, load_contract
from smac_ros.jogging import Jogging
from smac_ros.keyboard import keys
from smac_ros.operator_mapping import INPUTS, Controls, describe, load_mapping, mappings

KEYS = "input: keyboard\norders: {emergency_stop: space, pause: p}\n"
PAD = "input: joystick\norders: {emergency_stop: 1, pause: 2, takeover: 3}\n"


@pytest.fixture
def arm() -> Contract:
    return load_contract("moveit_servo_arm")


@pytest.mark.parametrize("kind", INPUTS)
def test_the_package_has_one_for_each_input(kind, arm):
    assert kind in mappings()
    mapping = load_mapping("", kind, arm)
    rows = describe(mapping, arm)
    orders = {does for _, does in rows}
    assert {"emergency stop", "release emergency stop", "pause", "takeover", "resume"} <= orders
    assert "takeover: gripper + -" in orders and len({what for what, _ in rows}) == len(rows)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("keyboard", KEYS + "sucess: {press: s}", "line 3: sucess: found the unknown key 'sucess'"),
        ("keyboard", "input: keyboard\norders: {pause: p}", "expected emergency_stop among them"),
        ("keyboard", KEYS + "success: {press: p, how: held}", "'p', as orders.pause has"),
        ("keyboard", KEYS + "success: {press: ctrl, how: held}", "found 'ctrl'; expected one char"),
        ("keyboard", KEYS + "jog: [{action: 1, plus: a, minus: a, speed: 1}]", "as jog.0.plus has"),
        ("keyboard", KEYS + "jog: [{action: elbow, plus: a, minus: b, speed: 1}]", "hand_vx"),
        ("keyboard", KEYS + "jog: [{action: 0, plus: a, minus: b, speed: 1}]", "a number from 1"),
        ("keyboard", KEYS + "jog: [{action: 1, plus: a, minus: b, speed: 2}]", "speed: found 2"),
        ("keyboard", PAD, "line 1: input: found 'joystick'; expected one of keyboard"),
        ("joystick", PAD + "jog: [{action: 1, axis: 1, speed: 1}]", "deadman: found nothing"),
        ("joystick", PAD + "deadman: 2", "deadman: found 2, as orders.pause has"),
        ("joystick", PAD + "orders: {pause: -1}", "found the key a second time"),
        ("joystick", "- a", "found list"),
    ],
)
def test_mistakes_are_named(tmp_path, arm, kind, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_mapping(str(path), kind, arm)
    assert said in str(error.value) and str(path) in str(error.value)


def test_a_mapping_that_is_not_there(arm):
    with pytest.raises(InputError, match="did you mean 'joystick'"):
        load_mapping("joystik", "joystick", arm)
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        load_mapping("nowhere.yaml", "keyboard", arm)


def test_what_a_terminal_sends():
    assert list(keys("s \x1b[A\x1bOB\x1b[5~\x1bU\x03\x1b[15~\r")) == [
        "s", "space", "up", "down", "page_up", "escape", "U", "enter",
    ]  # fmt: skip


def test_keys_are_held_while_they_repeat(arm):
    controls = Controls(load_mapping("", "keyboard", arm), arm, hold=0.3, patience=0.5)
    assert controls.type("space", 0.0) == ["emergency_stop"] and not controls.silent(99.0)
    assert controls.type("up", 1.0) == [] and controls.may_move(1.0)
    np.testing.assert_allclose(controls.jog(1.2), [0.2, 0, 0, 0])
    controls.type("down", 1.2)
    assert not controls.jog(1.25).any()  # both: neither
    np.testing.assert_allclose(controls.jog(1.4), [-0.2, 0, 0, 0])
    assert not controls.jog(1.6).any()
    controls.type("s", 2.0)
    assert controls.shows_success(99.0)
    controls.reset()
    assert not controls.shows_success(2.0)


def test_a_joystick_must_be_held_and_alive(arm):
    controls = Controls(load_mapping("", "joystick", arm), arm, hold=0.3, patience=0.5)
    axes, none = [0.05, 1.0, 0, 0, -0.55, 0, 0, np.nan], [0] * 11
    hold, success = [*none[:4], 1, *none[5:]], [1, *none[1:]]
    assert controls.silent(0.0) and controls.hear(hold, axes, 0.0) == []
    np.testing.assert_allclose(controls.jog(0.1), [0.3, 0, -0.15, 0])  # (0.55 - 0.1) / 0.9 = 0.5
    assert not controls.jog(0.6).any() and not controls.may_move(0.6)  # it has died
    controls.hear(success, axes, 1.0)
    assert not controls.jog(1.0).any() and controls.shows_success(1.0)
    assert not controls.shows_success(1.6)
    stop = [0, 1, *none[2:]]
    assert controls.hear(stop, axes, 2.0) == ["emergency_stop"]
    assert controls.hear(stop, axes, 2.1) == []  # held, not pressed again
    assert controls.lacks() == ""
    controls.hear([0, 0], axes, 3.0)
    assert controls.lacks() == "button 10: it has 2"


def test_jogging_starts_where_the_robot_is(arm):
    """A velocity from rest, a gripper from what measures it; no step beyond the limits."""
    jogging, reader = Jogging(arm, CLASSES), CommandReader(arm)
    observation = np.full(arm.observation_dim, np.nan)
    observation[arm.observation_names.index("gripper")] = 0.013
    assert jogging.move(np.zeros(4), observation, 0.05, 0) == [None, None]  # nobody jogs
    assert jogging.stand(0) == [None, None]
    speeds, seen = np.array([1.0, 0, -0.5, 0.5]), []
    for step in range(12):
        messages = jogging.move(speeds, observation, 0.05, step)
        seen.append(np.concatenate([reader.values(i, m) for i, m in enumerate(messages)]))
    hand, gripper = np.array(seen)[:, :3], np.array(seen)[:, 3]
    np.testing.assert_allclose(hand[:5, 0], [0.025, 0.05, 0.075, 0.1, 0.1])  # 0.5 m/s^2
    np.testing.assert_allclose(hand[-1], [0.1, 0, -0.05])
    # the action counts from open to closed: plus closes; 0.04 m/s is the limit, 0.02 asked for
    np.testing.assert_allclose(gripper, np.maximum(0.013 - 0.001 * np.arange(1, 13), 0))
    stopped = jogging.stand(99)
    assert not reader.values(0, stopped[0]).any()
    assert reader.values(1, stopped[1]) == gripper[-1]


def test_what_nobody_knows_is_not_commanded():
    """The gripper of sawyer_sim has nothing that measures it: the last command, or none."""
    contract = load_contract("sawyer_sim")
    jogging, reader = Jogging(contract, CLASSES), CommandReader(contract)
    nothing, speeds = np.full(contract.observation_dim, np.nan), np.array([0.1, 0, 0, 0.5])
    hand, gripper = jogging.move(speeds, nothing, 0.04, 0)
    assert gripper is None and reader.values(0, hand)[0] == pytest.approx(0.12)
    assert jogging.unknown == ["gripper"] and jogging.stand(0)[1] is None
    gripper = CLASSES["sensor_msgs/msg/JointState"]()
    gripper.name, gripper.position = ["opening"], [0.05]
    jogging.hear(1, gripper)
    jogging.begin()
    _, gripper = jogging.move(speeds, nothing, 0.04, 0)
    assert reader.values(1, gripper) == pytest.approx(0.05 - 0.5 * 0.0715 * 0.04)
    assert jogging.unknown == []
