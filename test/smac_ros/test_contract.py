"""Contracts: what their files say, what is refused and where, commands there and back."""

import json
import re
from functools import partial

import numpy as np
import pytest
import yaml
from blank_messages import (
    JOINTS,
    NUMBERS,
    POSE,
    TRAJECTORY,
    TWIST,
    blank,
    joints,
    pose,
    through_a_bag,
)
from typer.testing import CliRunner

from smac_core.config import load_config
from smac_core.errors import InputError
from smac_ros.contract import (
    CommandReader,
    CommandWriter,
    Contract,
    MessageError,
    contracts,
    load_contract,
    message_class,
    require_same,
)
from smac_ros.contract_cli import contract_app

ARM = """\
name: arm
domain: reach
rate: 10.0
watchdog: 0.5
safety: zeros
observations:
  - topic: hand
    type: geometry_msgs/msg/PoseStamped
    time: header
    align: hold
    max_age: 0.25
    fields:
      - {path: pose.position, names: [x, y, z], unit: m}
  - topic: joint_states
    type: sensor_msgs/msg/JointState
    time: header
    align: as_of
    max_age: 0.1
    missing: -1.0
    fields:
      - {path: "position[grip]", names: [grip], unit: mm, scale: 1000.0, offset: -2.0}
actions:
  - topic: twist
    type: geometry_msgs/msg/TwistStamped
    frame: world
    fields:
      - {path: twist.linear, names: [vx, vy, vz], unit: m/s, scale: 0.5, limits: [-0.4, 0.4],
         max_rate: 2.0}
  - topic: grip
    type: sensor_msgs/msg/JointState
    fields:
      - {path: "position[grip]", names: [grip], unit: m, scale: -0.02, offset: 0.02,
         limits: [0, 0.04], max_step: 0.01, zero: hold}
"""
POINT = "trajectory_msgs/msg/JointTrajectoryPoint"
CLASSES = {name: partial(blank, name) for name in (JOINTS, TWIST, NUMBERS, TRAJECTORY, POINT)}


@pytest.fixture
def arm() -> Contract:
    return Contract.from_text(ARM, "arm.yaml")


def changed(*changes: tuple[str, str]) -> str:
    text = ARM
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def measured_gripper(more: str = "") -> Contract:
    """A gripper, in m, whose command counts from where it is."""
    text = changed(
        ("align: as_of\n    max_age: 0.1\n    missing: -1.0", "align: hold\n    max_age: 0.1"),
        ("unit: mm, scale: 1000.0, offset: -2.0", "unit: m"),
        ("zero: hold", "zero: hold, measured: [grip]" + more),
    )
    return Contract.from_text(text, "arm.yaml")


def refused(*changes: tuple[str, str]) -> InputError:
    with pytest.raises(InputError) as error:
        Contract.from_text(changed(*changes), "arm.yaml")
    return error.value


class TestWhatAContractSays:
    def test_dimensions_names_and_times(self, arm):
        assert (arm.name, arm.domain, arm.rate, arm.trigger) == ("arm", "reach", 10.0, "all")
        assert (arm.watchdog, arm.safety, arm.period_ns) == (0.5, "zeros", 100_000_000)
        assert (arm.observation_dim, arm.action_dim) == (4, 4)
        assert arm.observation_names == ["x", "y", "z", "grip"]
        assert arm.observation_units == ["m", "m", "m", "mm"]
        assert arm.action_names == ["vx", "vy", "vz", "grip"]
        assert arm.action_units == ["m/s", "m/s", "m/s", "m"]
        assert arm.text == ARM
        assert arm.reward is None

    def test_streams_and_commands(self, arm):
        hand, grip = arm.observations
        assert (hand.topic, hand.type, hand.time, hand.align) == ("hand", POSE, "header", "hold")
        assert (hand.max_age_ns, hand.missing, hand.start, hand.width) == (250_000_000, None, 0, 3)
        assert (grip.missing, grip.start, grip.width, grip.optional) == (-1.0, 3, 1, True)
        assert hand.paths == ("pose.position.x", "pose.position.y", "pose.position.z")
        twist, grip = arm.actions
        assert (twist.topic, twist.frame, twist.start, twist.width) == ("twist", "world", 0, 3)
        assert (grip.start, grip.width, grip.time) == (3, 1, "header")
        # 2 m/s a second are 0.2 m/s a step at 10 Hz
        assert twist.max_change.tolist() == [0.2, 0.2, 0.2]
        assert twist.zero.tolist() == [0.0, 0.0, 0.0] and np.isnan(grip.zero[0])

    def test_period_is_rounded(self):
        assert load_contract("sawyer_sim").period_ns == 41_666_667

    def test_observation_is_scaled_into_its_columns(self, arm):
        out = np.zeros(4)
        arm.observe(0, pose(1.0, 2.0, 3.0), out)
        arm.observations[1].read(joints({"other": 9.0, "grip": 0.03}), out)
        assert out.tolist() == [1.0, 2.0, 3.0, 0.03 * 1000.0 - 2.0]

    def test_clipped_observation_stays_within_its_bounds(self):
        arm = Contract.from_text(changed(("offset: -2.0", "offset: -2.0, clip: [-1, 30]")), "arm")
        out = np.zeros(4)
        for value, expected in ((0.03, 28.0), (0.05, 30.0), (-1.0, -1.0)):
            arm.observe(1, joints({"grip": value}), out)
            assert out[3] == expected
        arm.observe(1, joints({"grip": float("nan")}), out)
        assert np.isnan(out[3])  # which is a fault elsewhere, no number

    def test_unscaled_observation_keeps_every_bit(self, arm):
        out = np.zeros(4)
        values = np.random.default_rng(0).normal(size=(100, 3))
        values[0] = [-0.0, 1e-40, 3.4e38]
        for row in values:
            arm.observe(0, pose(*row.tolist()), out)
            assert out[:3].astype(np.float32).tobytes() == row.astype(np.float32).tobytes()

    def test_reading_a_message_that_lacks_a_joint(self, arm):
        with pytest.raises(MessageError, match=r"position\[grip\]"):
            arm.observe(1, joints({"other": 1.0}), np.zeros(4))

    def test_reward_stream(self):
        reward = load_contract("sawyer_sim").reward
        out = np.zeros(1)
        reward.read(joints({"reward": 0.5, "success": 1.0}), out)
        assert (reward.topic, reward.width, out[0]) == ("reward", 1, 0.5)


class TestContractsOfThePackage:
    def test_all_are_valid(self):
        mujoco = {"cheetah_velocity", "ant_direction", "humanoid_direction"}
        mujoco |= {"walker_params", "hopper_params", "half_cheetah"}
        arms = {"moveit_servo_arm", "ros2_control_forward", "ros2_control_trajectory"}
        arms |= {"sawyer_arm", "sawyer_joints", "sawyer_sim"}
        assert set(contracts()) == mujoco | arms | {"latency"}
        for name in contracts():
            assert load_contract(name).name == name

    def test_sawyer_agrees_with_its_domain(self):
        environment = load_config("sawyer", "paper").environment
        contract = load_contract("sawyer_sim")
        contract.check_domain(
            environment.observation_names,
            environment.observation_units,
            environment.action_names,
            environment.rate,
            "sawyer",
        )
        contract.require_lockstep()

    def test_sawyer_commands_mean_what_the_simulation_does(self):
        """An action of 1 is 0.05 m in one step; the gripper goes from open, -1, to closed, +1."""
        contract = load_contract("sawyer_sim")
        writer = CommandWriter(contract, CLASSES)
        values = writer.encode(np.array([1, -1, 0, -1], np.float32))
        np.testing.assert_allclose(values[:3] / contract.rate, [0.05, -0.05, 0.0])
        assert values[3] == 0.0715
        assert writer.encode(np.array([0, 0, 0, 1], np.float32))[3] == 0.0
        assert writer.limited == 0

    def test_half_cheetah_is_the_order_of_the_environment(self):
        """qpos[1:] then qvel of gymnasium's HalfCheetah-v5."""
        contract = load_contract("half_cheetah")
        names = ["rootx", "rootz", "rooty", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"]
        message = joints(dict(zip(names, np.arange(9.0), strict=True)))
        message.velocity = np.arange(10.0, 19.0)
        out = np.zeros(17)
        contract.observe(0, message, out)
        assert out.tolist() == [*range(1, 9), *range(10, 19)]
        assert contract.action_names == names[3:]

    def test_moveit_servo_arm_starts_slowly(self):
        writer = CommandWriter(load_contract("moveit_servo_arm"), CLASSES)
        values = writer.encode(np.array([1, 0, 0, 1], np.float32))
        assert values.tolist() == [0.025, 0.0, 0.0, 0.0]  # 0.5 m/s^2 at 20 Hz
        writer.fill(values, 0)
        assert writer.encode(np.array([1, 0, 0, 1], np.float32))[0] == 0.05

    def test_unknown_name_is_suggested(self):
        with pytest.raises(InputError, match="did you mean 'sawyer_sim'"):
            load_contract("sawyer")

    def test_path_of_a_file(self, tmp_path):
        path = tmp_path / "arm.yaml"
        path.write_text(ARM)
        assert load_contract(path).source == str(path)
        with pytest.raises(InputError, match="no.yaml: file: found nothing"):
            load_contract(tmp_path / "no.yaml")
        with pytest.raises(InputError, match="Is a directory"):
            (tmp_path / "folder.yaml").mkdir()
            load_contract(tmp_path / "folder.yaml")


LINE_OF = {line.strip(): number for number, line in enumerate(ARM.splitlines(), 1)}


class TestErrors:
    @pytest.mark.parametrize(
        ("old", "new", "key", "found", "expected"),
        [
            ("rate: 10.0", "rate: 0", "rate", "0", "above 0"),
            ("rate: 10.0", "rate: .nan", "rate", "nan", "finite"),
            ("rate: 10.0", "rate: fast", "rate", "'fast'", "a number"),
            ("rate: 10.0", "rate: 1e1", "rate", "'1e1'", "write 1.0e-3"),
            ("rate: 10.0", "rate: true", "rate", "True", "a number"),
            ("rate: 10.0", "rte: 10.0", "rte", "unknown key 'rte'", "did you mean 'rate'"),
            ("watchdog: 0.5", "watchdog: 0.09", "watchdog", "0.09 s", "one period, 0.1 s"),
            ("safety: zeros", "safety: zeroes", "safety", "'zeroes'", "did you mean 'zeros'"),
            ("safety: zeros", "safety: zeros\ntrigger: hnd", "trigger", "'hnd'", "'hand'"),
            ("topic: hand", "topic: hand pose", "observations[0].topic", "'hand pose'", "name"),
            (POSE, "geometry_msgs/msg/PoseStampd", "observations[0].type", "PoseStampd",
             "did you mean 'geometry_msgs/msg/PoseStamped'"),
            ("align: hold", "align: as_of", "observations[0].align", "without missing", "missing"),
            ("align: hold", "align: hodl", "observations[0].align", "'hodl'", "'hold'"),
            ("align: hold", "aling: hold", "observations[0].aling", "'aling'", "'align'"),
            ("align: hold", "align: hold\n    missing: 0", "observations[0].missing", "hold",
             "as_of"),
            ("max_age: 0.25", "max_age: -1", "observations[0].max_age", "-1", "not below 0"),
            ("max_age: 0.1", "max_age: 0", "observations[1].max_age", "0", "more than 0"),
            ("missing: -1.0", "missing: .nan", "observations[1].missing", "nan", "finite"),
            ("time: header", "time: arrival", "observations[0].time", "'arrival'", "receive"),
            ("[x, y, z]", "[x, y]", "observations[0].fields[0].names", "2 names: x, y",
             "3, one for each of pose.position.x"),
            ("[x, y, z]", "[x, y, y]", "observations[0].fields[0].names", "'y' again", "once"),
            ("[x, y, z]", "[x, y, grip]", "observations[1].fields[0].names", "'grip' again",
             "once"),
            ("[x, y, z]", "xyz", "observations[0].fields[0].names", "'xyz'", "a list"),
            ("[x, y, z]", "[x, y, 3]", "observations[0].fields[0].names[2]", "3", "text"),
            ("unit: mm", "unit: ''", "observations[1].fields[0].unit", "''", "some text"),
            ("unit: mm", "unit: 1", "observations[1].fields[0].unit", "1", "quote it"),
            ("scale: 1000.0", "scale: 0", "observations[1].fields[0].scale", "0.0", "but 0"),
            ("offset: -2.0", "clip: [1, 1]", "observations[1].fields[0].clip", "[1, 1]",
             "low < high"),
            ("pose.position", "pose.positoin", "observations[0].fields[0].path", "positoin",
             "did you mean 'position'"),
            ("pose.position", "header.frame_id", "observations[0].fields[0].path", "a string",
             "a number"),
            ("topic: joint_states", "topic: hand", "observations[1].topic", "'hand' again", "once"),
            ("topic: grip", "topic: twist", "actions[1].topic", "'twist' again", "once"),
            ("limits: [-0.4, 0.4]", "limits: [0.4, -0.4]", "actions[0].fields[0].limits",
             "[0.4, -0.4]", "low < high"),
            ("limits: [-0.4, 0.4]", "limits: [-.inf, .inf]", "actions[0].fields[0].limits", "inf",
             "finite"),
            ("limits: [-0.4, 0.4]", "limits: [1]", "actions[0].fields[0].limits", "[1]", "two"),
            ("limits: [-0.4, 0.4]", "limits: [0.1, 0.4]", "actions[0].fields[0]", "its default",
             "within limits [0.1, 0.4]"),
            ("zero: hold", "zero: 0.05", "actions[1].fields[0].zero", "zero 0.05", "[0, 0.04]"),
            ("zero: hold", "zero: keep", "actions[1].fields[0].zero", "'keep'", "hold"),
            ("max_rate: 2.0", "max_rate: 0", "actions[0].fields[0].max_rate", "0", "above 0"),
            ("names: [vx, vy, vz], unit: m/s,", "names: [vx, vy, vz],", "actions[0].fields[0].unit",
             "nothing", "this key"),
            ("frame: world", "time_from_start: 1.0", "actions[0].time_from_start", "1.0",
             "JointTrajectory"),
        ],
    )  # fmt: skip
    def test_line_key_found_and_expected(self, old, new, key, found, expected):
        error = refused((old, new))
        assert error.field.split(": ")[1] == key
        assert found in error.found
        assert expected in error.expected
        assert str(error).startswith("arm.yaml: line ")

    @pytest.mark.parametrize(
        ("old", "new", "line"),
        [
            ("rate: 10.0", "rate: 0", "rate: 10.0"),
            ("align: as_of", "align: as_off", "align: as_of"),
            ("frame: world", "fram: world", "frame: world"),
            ("max_age: 0.25", "", "- topic: hand"),
        ],
    )
    def test_line_is_the_one_of_the_key(self, old, new, line):
        assert refused((old, new)).field.startswith(f"line {LINE_OF[line]}: ")

    def test_missing_limits_are_an_error(self):
        """Safety limits are never off by default."""
        error = refused((" limits: [-0.4, 0.4],", ""))
        assert error.field.endswith("actions[0].fields[0].limits")

    def test_every_problem_is_reported_in_the_order_of_lines(self):
        error = refused(("align: as_of", "align: off"), ("rate: 10.0", "rate: -1"))
        first, second = str(error).split("\n")
        assert "rate" in first and "observations[1].align" in second
        assert int(re.search(r"line (\d+)", first)[1]) == 3

    def test_repeated_key(self):
        error = refused(("safety: zeros", "safety: zeros\nsafety: none"))
        assert error.field == "line 6: safety" and "second time" in error.found

    @pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "a: [1\n", "a: b: c"])
    def test_files_that_are_no_mapping(self, text):
        with pytest.raises(InputError, match="x.yaml: line"):
            Contract.from_text(text, "x.yaml")

    def test_header_time_needs_a_header(self):
        error = refused((POSE, "geometry_msgs/msg/Pose"), ("path: pose.position", "path: position"))
        assert error.field.endswith("observations[0].time")
        assert "receive" in error.expected

    def test_joint_trajectory_needs_time_from_start(self):
        error = refused(
            ("position[grip]\", names: [grip], unit: m, ", "points[0].positions[grip]\", names: "
             "[grip], unit: m, "),
            ("topic: grip\n    type: " + JOINTS, "topic: grip\n    type: " + TRAJECTORY),
        )  # fmt: skip
        assert "time_from_start" in error.found

    @pytest.mark.parametrize(
        ("fields", "found"),
        [
            ([("position[a]", "p"), ("velocity[b]", "v")], "velocity for b"),
            ([("position[a]", "p"), ("position[a]", "v")], "position[a], written twice"),
            ([("position[1]", "p")], "position[1] without position[0]"),
        ],
    )
    def test_numbers_that_nobody_sets_would_be_commanded_to_zero(self, fields, found):
        tree = yaml.safe_load(ARM)
        tree["actions"][1]["fields"] = [
            {"path": path, "names": [name], "unit": "m", "limits": [-1, 1]} for path, name in fields
        ]
        with pytest.raises(InputError) as error:
            Contract.from_text(yaml.safe_dump(tree), "arm.yaml")
        assert found in error.value.found

    def test_commands_must_be_float64(self):
        tree = yaml.safe_load(ARM)
        tree["actions"][1] |= {"type": "std_msgs/msg/Float32MultiArray"}
        tree["actions"][1]["fields"][0]["path"] = "data[0]"
        with pytest.raises(InputError, match="a float32; expected a float64"):
            Contract.from_text(yaml.safe_dump(tree), "arm.yaml")

    def test_trigger_all_needs_a_stream_that_is_always_there(self):
        error = refused(("align: hold", "align: as_of\n    missing: 0.0"))
        assert error.field.endswith("trigger") or error.field.endswith("contract")
        assert "timer" in error.expected


class TestLockstep:
    def test_command_without_a_stamp(self):
        text = changed(
            (JOINTS + "\n    fields:\n      - {path: \"position[grip]\", names: [grip], unit: m, ",
             NUMBERS + "\n    fields:\n      - {path: \"data[0]\", names: [grip], unit: m, "),
        )  # fmt: skip
        contract = Contract.from_text(text, "arm.yaml")
        assert contract.actions[1].time == "receive"
        with pytest.raises(InputError, match=r"actions\[1\].*grip.*Float64MultiArray"):
            contract.require_lockstep()

    def test_stream_by_time_of_receipt(self):
        contract = Contract.from_text(changed(("time: header", "time: receive")), "arm.yaml")
        with pytest.raises(InputError, match=r"observations\[0\]"):
            contract.require_lockstep()


class TestAgreement:
    def test_same_text_and_remapped_topics(self, arm):
        arm.require_match(ARM, "run")
        remapped = changed(
            ("topic: hand", "topic: /left/hand"),
            ("limits: [-0.4, 0.4]", "limits: [-0.1, 0.1]"),
            ("watchdog: 0.5", "watchdog: 0.2"),
            ("name: arm", "name: left_arm"),
            ("max_age: 0.25", "max_age: 0.5"),
        )
        require_same(arm, remapped, "run")

    def test_types_unknown_here_do_not_matter(self, arm):
        require_same(arm, changed((POSE, "my_msgs/msg/Hand"), ("pose.position", "p")), "run")

    @pytest.mark.parametrize(
        ("old", "new", "field", "found", "expected"),
        [
            ("rate: 10.0", "rate: 12.5", "rate", "12.5", "10.0"),
            ("[x, y, z]", "[x, z, y]", "observations names[1]", "'z'", "'y'"),
            ("unit: mm", "unit: m", "observations unit[3]", "'m'", "'mm'"),
            ("scale: 1000.0", "scale: 1", "observations scale[3]", "1.0", "1000.0"),
            ("offset: -2.0", "offset: 2.0", "observations offset[3]", "2.0", "-2.0"),
            ("offset: -2.0", "offset: -2.0, clip: [0, 9]", "observations clip[3]", "(0.0, 9.0)",
             "None"),
            ("align: hold", "align: drop", "observations align[0]", "'drop'", "'hold'"),
            ("missing: -1.0", "missing: 0.0", "observations missing[3]", "0.0", "-1.0"),
            ("scale: 0.5", "scale: 0.4", "actions scale[0]", "0.4", "0.5"),
            ("names: [vx, vy, vz]", "names: [vx, vz, vy]", "actions names[1]", "'vz'", "'vy'"),
        ],
    )
    def test_first_difference_shows_both_sides(self, arm, old, new, field, found, expected):
        with pytest.raises(InputError) as error:
            require_same(arm, changed((old, new)), "run/contract.yaml")
        assert error.value.field == field
        assert error.value.found == found
        assert error.value.expected == f"{expected}, as in contract arm"
        assert str(error.value.path) == "run/contract.yaml"

    def test_one_column_more(self, arm):
        tree = yaml.safe_load(ARM)
        tree["observations"].append(
            dict(tree["observations"][0], topic="more")
            | {"fields": [{"path": "pose.position.x", "names": ["more"], "unit": "m"}]}
        )
        with pytest.raises(InputError, match="number of observations names: found 5; expected 4"):
            require_same(arm, yaml.safe_dump(tree), "run")

    def test_domain(self, arm):
        names, units, actions = ["x", "y", "z", "grip"], ["m", "m", "m", "mm"], [
            "vx", "vy", "vz", "grip"]  # fmt: skip
        arm.check_domain(names, units, actions, 10, "checkpoint")
        with pytest.raises(InputError) as error:
            arm.check_domain(["x", "y", "w", "grip"], units, actions, 10.0, "checkpoint")
        assert str(error.value) == (
            "checkpoint: observation_names[2]: found 'w'; expected 'z', as in contract arm"
        )
        with pytest.raises(InputError, match="number of action_names: found 3; expected 4"):
            arm.check_domain(names, units, actions[:3], 10.0, "checkpoint")
        with pytest.raises(InputError, match="rate: found 24.0; expected 10.0"):
            arm.check_domain(names, units, actions, 24, "checkpoint")


class TestCommands:
    def test_encode_scales_then_limits_then_changes_slowly(self, arm):
        """By hand: 0.5 * a within +-0.4, at most 0.2 a step; 0.02 - 0.02 a, at most 0.01 a step."""
        writer = CommandWriter(arm, CLASSES)
        first = writer.encode(np.array([0.2, 1.0, -1.0, 0.5], np.float32))
        np.testing.assert_allclose(first, [0.1, 0.2, -0.2, 0.01], rtol=1e-7)
        assert writer.limited == 2  # the gripper has no predecessor: it may start anywhere
        writer.fill(first, 0)
        second = writer.encode(np.array([-0.4, 1.0, -1.0, -1.0], np.float32))
        np.testing.assert_allclose(second, [-0.1, 0.4, -0.4, 0.02], rtol=1e-7)
        # two velocities by their limits, the third and the gripper by their change
        assert writer.limited == 2 + 4

    def test_changes_count_from_what_was_sent(self, arm):
        writer = CommandWriter(arm, CLASSES)
        action = np.ones(4, np.float32)
        assert writer.encode(action)[0] == writer.encode(action)[0] == 0.2
        writer.fill(writer.encode(action), 0)
        assert writer.encode(action)[0] == 0.4
        writer.fill_safe(0)
        assert writer.encode(action)[0] == 0.2
        writer.fill(writer.encode(action), 0)
        writer.reset()
        assert writer.encode(action)[0] == 0.2

    def test_a_rate_is_kept_also_between_early_commands(self, arm):
        """By hand: 2 m/s^2 are 0.2 m/s in a period of 0.1 s, 0.15 in 0.075 s, and never more."""
        writer = CommandWriter(arm, CLASSES)
        writer.fill(np.array([0.0, 0.0, 0.0, 0.02]), 0)
        action = np.ones(4, np.float32)
        for elapsed, velocity in ((0.075, 0.15), (0.1, 0.2), (7.0, 0.2), (None, 0.2), (-1.0, 0.0)):
            values = writer.encode(action, elapsed)
            np.testing.assert_allclose(values[[0, 3]], [velocity, 0.01], atol=1e-6)

    def test_a_position_starts_from_where_it_is(self):
        """Without it, the first command may be anywhere; later episodes go on from the last one."""
        text = changed(("unit: mm, scale: 1000.0, offset: -2.0", "unit: m"))
        free = CommandWriter(Contract.from_text(text, "arm.yaml"), CLASSES)
        action = np.array([0, 0, 0, -1], np.float32)  # opens: 0.04 m
        assert free.encode(action)[3] == pytest.approx(0.04)
        free.fill(np.array([0.0, 0.0, 0.0, 0.01]), 0)
        free.reset(np.array([0, 0, 0, 0.03], np.float32))
        assert free.encode(action)[3] == pytest.approx(0.02)  # 0.01 a step from 0.01
        bound = CommandWriter(measured_gripper(), CLASSES)
        bound.reset(np.array([0, 0, 0, 0.015], np.float32))
        assert bound.encode(action)[3] == pytest.approx(0.025)

    def test_a_position_does_not_run_ahead(self):
        """By hand: 0.015 m at most from where the gripper is; 0.01 m a step from there on."""
        writer = CommandWriter(measured_gripper(", max_lead: 0.015"), CLASSES)
        opens, stuck = np.array([0, 0, 0, -1], np.float32), np.zeros(4, np.float32)
        writer.reset(stuck)
        given = []
        for _ in range(4):
            given.append(writer.encode(opens, 0.1, stuck))
            writer.fill(given[-1], 0)
        np.testing.assert_allclose(np.array(given)[:, 3], [0.01, 0.015, 0.015, 0.015], atol=1e-9)
        assert writer.limited == 4  # each time: it wants 0.04
        moved = np.array([0, 0, 0, 0.035], np.float32)  # by hand, beyond the last command
        close = np.array([0, 0, 0, 1], np.float32)
        assert writer.encode(close, 0.1, moved)[3] == pytest.approx(0.02)
        assert writer.encode(opens, 0.1, moved)[3] == pytest.approx(0.03)
        unseen = np.full(4, np.nan)
        assert writer.encode(opens, 0.1, unseen)[3] == pytest.approx(0.025)

    def test_a_lead_has_to_be_measured(self):
        error = refused(("zero: hold", "zero: hold, max_lead: 0.01"))
        assert "max_lead" in error.field and error.expected == "measured, too"

    def test_what_may_be_missing_measures_nothing(self):
        """The robot would be taken to be where ``missing`` says."""
        error = refused(
            ("unit: mm, scale: 1000.0, offset: -2.0", "unit: m"),
            ("zero: hold", "zero: hold, measured: [grip]"),
        )
        assert "measured" in error.field and "'grip', which may be missing" in error.found

    @pytest.mark.parametrize(
        ("measured", "found", "expected"),
        [
            ("[grap]", "'grap'", "did you mean 'grip'"),
            ("[grip]", "'grip' in mm", "an observation in m"),
            ("[x, y]", "2 observations", "1, one for each name"),
        ],
    )
    def test_what_measures_a_command_must_fit(self, measured, found, expected):
        error = refused(("zero: hold", f"zero: hold, measured: {measured}"))
        assert "actions[1].fields[0].measured" in error.field
        assert found in error.found and expected in error.expected

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_no_number_but_finite_ones_ever_leaves(self, arm, bad):
        writer = CommandWriter(arm, CLASSES)
        action = np.array([0, bad, 0, 0], np.float32)
        with pytest.raises(ValueError, match="not finite"):
            writer.encode(action)
        with pytest.raises(ValueError, match="not finite"):
            writer.fill(action.astype(float), 0)
        with pytest.raises(ValueError, match=r"\(3,\), expected \(4,\)"):
            writer.encode(np.zeros(3, np.float32))

    def test_messages(self, arm):
        writer = CommandWriter(arm, CLASSES)
        twist, grip = writer.fill(np.array([0.1, 0.2, 0.3, 0.04]), 7_000_000_009)
        assert (twist.header.stamp.sec, twist.header.stamp.nanosec) == (7, 9)
        assert twist.header.frame_id == "world"
        linear = twist.twist.linear
        assert (linear.x, linear.y, linear.z) == (0.1, 0.2, 0.3)
        assert (grip.name, grip.position.tolist()) == (["grip"], [0.04])
        again = writer.fill(np.array([0.0, 0.0, 0.0, 0.03]), 8_000_000_000)
        assert again[1] is grip and grip.name == ["grip"] and grip.header.stamp.sec == 8

    def test_trajectory_message_survives_a_recording(self):
        contract = load_contract("moveit_servo_arm")
        writer = CommandWriter(contract, CLASSES)
        messages = writer.fill(np.array([0.0, 0.0, 0.0, 0.03]), 10**9)
        trajectory = through_a_bag(messages[1], TRAJECTORY)
        assert trajectory.joint_names == ["finger_joint"]
        assert len(trajectory.points) == 1
        assert trajectory.points[0].positions.tolist() == [0.03]
        assert trajectory.points[0].time_from_start.nanosec == 100_000_000
        assert CommandReader(contract).values(1, trajectory).tolist() == [0.03]

    @pytest.mark.parametrize(
        ("safety", "before", "after"),
        [
            ("hold", [None, None], [[0.1, 0.2, 0.3], [0.04]]),
            # nothing was sent: no gripper to hold
            ("zeros", [[0.0, 0.0, 0.0], None], [[0.0, 0.0, 0.0], [0.04]]),
            ("none", [None, None], [None, None]),
        ],
    )
    def test_the_safe_command(self, safety, before, after):
        contract = Contract.from_text(changed(("safety: zeros", f"safety: {safety}")), "arm.yaml")
        writer, reader = CommandWriter(contract, CLASSES), CommandReader(contract)

        def safe():
            messages = enumerate(writer.fill_safe(0))
            return [None if m is None else reader.values(i, m).tolist() for i, m in messages]

        assert safe() == before
        writer.fill(np.array([0.1, 0.2, 0.3, 0.04]), 0)
        assert safe() == after
        writer.reset()
        assert safe() == before

    def test_zeros_need_no_predecessor_where_zero_is_a_number(self):
        contract = Contract.from_text(changed((", zero: hold", ", zero: 0.04")), "arm.yaml")
        _, grip = CommandWriter(contract, CLASSES).fill_safe(0)
        assert CommandReader(contract).values(1, grip).tolist() == [0.04]

    @pytest.mark.parametrize(
        ("path", "unit", "hold"),
        [
            ("position[a]", "rad", True),
            ("velocity[a]", "rad/s", False),
            ("effort[a]", "N m", False),
        ],
    )
    def test_without_zero_positions_are_held_and_the_rest_is_zero(self, path, unit, hold):
        """A stop that commands 0 to positions would send the arm to its zero posture."""
        tree = yaml.safe_load(ARM)
        tree["actions"][1]["fields"] = [
            {"path": path, "names": ["a"], "unit": unit, "limits": [-1, 1]}
        ]
        contract = Contract.from_text(yaml.safe_dump(tree), "arm.yaml")
        assert np.isnan(contract.actions[1].zero[0]) == hold

    def test_round_trip_of_a_million_actions_is_exact(self):
        """float32 action -> float64 message -> float32 action, by 1.2 a and 0.03575 - 0.03575 a."""
        contract = load_contract("sawyer_sim")
        commands, reader = contract.actions, CommandReader(contract)
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1, 1, (1_000_000, 4)).astype(np.float32)
        actions[:3] = [[1, -1, 0, 1], [0, 0, 0, -1], [1e-30, -1e-38, 1e-8, 0]]
        scale = np.concatenate([command.scale for command in commands])
        offset = np.concatenate([command.offset for command in commands])
        assert np.array_equal(reader.decode(actions * scale + offset), actions)

    def test_round_trip_through_messages_is_exact(self):
        contract = load_contract("sawyer_sim")
        writer, reader = CommandWriter(contract, CLASSES), CommandReader(contract)
        rng = np.random.default_rng(1)
        for action in np.tanh(rng.normal(size=(500, 4))).astype(np.float32):
            messages = writer.fill(writer.encode(action), 5)
            back = [
                reader.values(index, through_a_bag(message, command.type))
                for index, (message, command) in enumerate(
                    zip(messages, contract.actions, strict=True)
                )
            ]
            assert reader.decode(np.concatenate(back)).tobytes() == action.tobytes()
        assert writer.limited == 0

    def test_limited_actions_read_back_as_what_was_done(self, arm):
        writer, reader = CommandWriter(arm, CLASSES), CommandReader(arm)
        values = writer.encode(np.array([1.0, 0.0, 0.0, 0.0], np.float32))
        assert reader.decode(values).tolist() == [np.float32(0.4), 0.0, 0.0, 0.0]

    def test_messages_of_rclpy(self):
        pytest.importorskip("rclpy")
        contract = load_contract("moveit_servo_arm")
        classes = {command.type: message_class(command.type) for command in contract.actions}
        writer, reader = CommandWriter(contract, classes), CommandReader(contract)
        values = writer.encode(np.array([0.5, -0.25, 0.0, 0.75], np.float32))
        messages = writer.fill(values, 1_700_000_000_000_000_123)
        assert messages[0].header.stamp.nanosec == 123
        assert messages[0].header.frame_id == "base_link"
        back = np.concatenate([reader.values(i, message) for i, message in enumerate(messages)])
        assert back.tolist() == values.tolist()


class TestCommandLine:
    def run(self, *arguments):
        return CliRunner().invoke(contract_app, arguments)

    def test_check(self, tmp_path):
        result = self.run("check", "sawyer_sim")
        assert result.exit_code == 0
        assert result.stdout.startswith("ok: sawyer_sim: 13 observations of 7 topics, 4 actions")
        assert "agrees with domain sawyer" in result.stdout
        assert json.loads(self.run("check", "latency", "--json").stdout)["observation_dim"] == 13

    def test_check_of_a_file_that_disagrees_with_its_domain(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text(load_contract("sawyer_sim").text.replace("handle_y", "handle"))
        error = self.run("check", str(path)).exception
        assert isinstance(error, InputError)
        assert "observation_names[11]: found 'handle_y'; expected 'handle'" in str(error)

    def test_show(self):
        text = self.run("show", "sawyer_sim").stdout
        assert "position[opening]" in text and "pose.position.x" in text
        content = json.loads(self.run("show", "sawyer_sim", "--json").stdout)
        assert content["observations"][11] | {"type": ""} == {
            "index": 11, "name": "handle_y", "unit": "m", "topic": "objects/handle", "type": "",
            "path": "pose.position.y", "time": "header", "align": "hold", "max_age": 0.1,
            "missing": None,
        }  # fmt: skip
        assert content["actions"][3]["limits"] == [0.0, 0.0715]
        assert content["actions"][3]["zero"] is None

    def test_help_shows_an_example(self):
        assert "smac contract check my_arm.yaml" in self.run("check", "--help").stdout
