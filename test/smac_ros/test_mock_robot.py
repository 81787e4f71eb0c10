"""The mock robot: what moves what, its faults, and its record of what it was told."""

import numpy as np
import pytest

from smac_core.errors import InputError
from smac_ros.contract import load_contract
from smac_ros.messages import SECOND, stamp_ns
from smac_ros.mock_robot import CommandRecord, MockRobot, load_mock_robot, stream_writers

ARMS = (
    *("sawyer_arm", "sawyer_joints", "moveit_servo_arm"),
    *("ros2_control_trajectory", "ros2_control_forward"),
)
ARM = load_contract("sawyer_arm")


def written(tmp_path, **columns):
    """A mock robot's file for sawyer_arm with some of its columns otherwise."""
    lines = dict.fromkeys(ARM.observation_names, "{}") | columns
    text = "contract: sawyer_arm\ncolumns:\n"
    path = tmp_path / "mock.yaml"
    path.write_text(text + "".join(f"  {name}: {line}\n" for name, line in lines.items()))
    return str(path)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_of_the_examples_has_one(name):
    """Its messages read back as its state, and every command moves something."""
    pytest.importorskip("rclpy")
    contract = load_contract(name)
    robot = MockRobot(contract, load_mock_robot("", contract))
    start = robot.state.copy()
    values = np.concatenate([(c.low + c.high) / 2 + (c.high - c.low) / 4 for c in contract.actions])
    robot.step(values, 0.1)
    assert np.count_nonzero(robot.state != start) >= contract.action_dim
    out = np.zeros(contract.observation_dim)
    for index, writer in enumerate(stream_writers(contract)):
        contract.observe(index, writer.fill(robot.state), out)
    np.testing.assert_allclose(out, robot.state, rtol=1e-12)


def test_kinematics():
    robot = MockRobot(ARM, load_mock_robot("", ARM))
    nothing = np.full(4, np.nan)
    robot.step(nothing, 1.0)
    assert robot.state[:4].tolist() == [0.6, -0.15, -0.2, 0.0715]
    robot.step(np.array([0.1, 0.0, -0.5, 0.0]), 0.5)
    closed = 0.0715 * np.exp(-0.5 / 0.1)  # a lag of 0.1 s
    np.testing.assert_allclose(robot.state[:4], [0.65, -0.15, -0.36, closed])  # the table's end
    robot.reset(0)
    assert robot.state[0] == 0.6
    assert robot.read()[0] != 0.6 and abs(robot.read()[0] - 0.6) < 0.002  # noise of 0.0002 m


def test_velocities_are_those_of_the_positions():
    contract = load_contract("ros2_control_trajectory")
    robot = MockRobot(contract, load_mock_robot("", contract))
    before = robot.state.copy()
    robot.step(robot.state[:6] + 0.1, 0.05)
    np.testing.assert_allclose(robot.state[6:], (robot.state[:6] - before[:6]) / 0.05)


@pytest.mark.parametrize(
    ("column", "text", "told"),
    [
        ("hand_x", "{integrate: hand_dxx}", "found 'hand_dxx'; expected a command of contract"),
        ("hand_x", "{follow: hand_dx}", "found 'hand_dx' in m/s; expected a command in m"),
        ("hand_x", "{intgrate: hand_dx}", "line 3: columns.hand_x.intgrate: found the unknown"),
        ("hand_x", "{start: 2.0, limits: [0, 1]}", "start: found 2; expected within limits [0, 1]"),
        ("hand_x", "{follow: gripper, integrate: hand_dx}", "expected one of integrate, follow"),
        ("hand", "{}", "columns.hand: found 'hand'; expected an observation"),
        ("hand_x", "{rate_of: hand_u}", "columns.hand_x.rate_of: found 'hand_u'"),
    ],
)
def test_files_that_do_not_fit(tmp_path, column, text, told):
    with pytest.raises(InputError) as error:
        load_mock_robot(written(tmp_path, **{column: text}), ARM)
    assert told in str(error.value)


def test_unknown_files():
    with pytest.raises(InputError, match="found 'half_cheetah'; expected one of moveit_servo_arm"):
        load_mock_robot("", load_contract("half_cheetah"))
    with pytest.raises(InputError, match="columns.hand_x: found nothing"):
        load_mock_robot("sawyer_joints", ARM)


class TestRecord:
    """Steps of sawyer_arm: 0.5 m/s^2 at 24 Hz for the hand, 0.05 m/s for the gripper."""

    def record(self, *commands, index=0, state=None):
        record = CommandRecord(ARM)
        state = MockRobot(ARM, load_mock_robot("", ARM)).state if state is None else state
        for values in commands:
            record.add(index, np.array(values, float), state)
        return record

    def test_within_limits(self):
        step = 0.5 / 24
        record = self.record([step, 0, 0], [2 * step, -step, 0], [0, 0, 0])  # a stop may be sudden
        assert not record.outside and not record.violations
        report = record.report()
        assert report["commands"] == 3 and report["values"]["hand_dx"]["highest"] == 2 * step
        assert report["values"]["hand_dx"]["largest_step"] == pytest.approx(step)
        assert report["values"]["gripper"]["lowest"] is None

    @pytest.mark.parametrize(
        "commands",
        [
            [[0.11, 0, 0]],
            [[0, float("nan"), 0]],
            [[0.05, 0, 0]],  # from rest
            [[0.02, 0, 0], [0.06, 0, 0]],
        ],
    )
    def test_beyond_limits(self, commands):
        record = self.record(*commands)
        assert record.outside == 1 and "robot/limb/right/twist_command" in record.violations[0]

    def test_a_position_starts_from_where_it_is(self):
        assert not self.record([0.0700], index=1).outside  # the fingers are at 0.0715
        assert self.record([0.0600], index=1).outside == 1


class TestNode:
    """On topics, with real rclpy."""

    def start(self, ros, **parameters):
        pytest.importorskip("rclpy")
        from rclpy.parameter import Parameter
        from robot_client import Client

        from smac_ros.mock_robot_node import MockRobotNode

        given = [Parameter(name, value=value) for name, value in parameters.items()]
        node = ros.start(MockRobotNode(parameter_overrides=given))
        return node, Client(ros, "mock_robot", "sawyer_arm")

    def test_moves_as_told_and_stands_when_nobody_does(self, ros):
        node, client = self.start(ros, rate=96.0, command_timeout=0.15)
        first = client.reset()
        begun = client.observation(first)
        np.testing.assert_allclose(begun[:4], [0.6, -0.15, -0.2, 0.0715], atol=1e-3)
        for _ in range(5):
            client.command([1 / 12, 0, 0, -1], client.latest)
            seen = client.latest
            ros.until(lambda seen=seen: client.latest > seen, what="the next observation")
        ros.until(lambda: sum(node.record.count) >= 10, what="commands")
        ros.until(lambda: node._values[0] == 0.0, what="the end of its patience")
        stopped = node.robot.state[0]
        assert stopped > 0.605  # 0.1 m/s for at least 0.15 s
        seen = client.latest
        ros.until(lambda: client.latest > seen + 50_000_000)
        assert node.robot.state[0] == stopped and not node.record.outside
        refused = client.set(publish_reward=True)
        assert not refused.successful and "knows no reward" in refused.reason

    def test_a_seed_loses_the_same_messages(self, ros):
        pytest.importorskip("rclpy")
        from rclpy.parameter import Parameter
        from std_srvs.srv import Trigger

        from smac_ros.mock_robot_node import MockRobotNode

        node = ros.start(MockRobotNode(parameter_overrides=[Parameter("drop", value=0.5)]))
        runs = []
        for seed in (3, 3, 4):
            assert node.set_parameters([Parameter("seed", value=seed)])[0].successful
            before = node._lost
            assert node._on_reset(None, Trigger.Response()).success
            for _ in range(20):
                node._on_period()
            runs.append((node._lost - before, node.robot.read().tolist()))
        assert runs[0] == runs[1] != runs[2]
        assert 40 < runs[0][0] < 110  # of 21 readings of 7 streams

    def test_faults_that_are_none_are_refused(self, ros):
        node, client = self.start(ros)
        assert "expected one of hand_x, hand_y" in client.set(nan_column="elbow").reason
        assert "expected one of robot/limb" in client.set(offset_topic="pose").reason
        assert not client.set(drop=1.5).successful

    def test_latency_and_jitter(self, ros):
        """Nothing comes before its latency, nor all of it at once."""
        node, client = self.start(ros, latency=0.05, jitter=0.03)
        from geometry_msgs.msg import PoseStamped

        delays, clock = [], client.node.get_clock()

        def hear(message):
            delays.append((clock.now().nanoseconds - stamp_ns(message.header.stamp)) / SECOND)

        client.node.create_subscription(PoseStamped, "objects/lego", hear, 10)
        ros.until(lambda: len(delays) > 15, what="late messages")
        assert min(delays) >= 0.05 and np.median(delays) < 0.5  # on a busy machine
        assert max(delays) - min(delays) > 0.005
