"""A real robot's system: nothing moves unless the robot fits, and faults end in a safe stop.

The robot is a mock; everything else is what a user starts, as processes.
"""

import json
import signal
import subprocess
import sys

import pytest

from smac_core.errors import InputError
from smac_ros.contract import load_contract
from smac_ros.system import SYSTEMS

ARM = load_contract("sawyer_arm")


class TestNodes:
    """Which nodes with which parameters."""

    def build(self, **arguments):
        return {node.name: node for node in SYSTEMS["robot"].build(arguments)}

    def test_nothing_moves_by_itself(self):
        nodes = self.build()
        assert nodes.keys() == {"policy", "preflight"}
        assert nodes["policy"].parameters["autostart"] is False
        assert nodes["policy"].parameters["clock"] == "real_time"
        assert nodes["preflight"].parameters["start"] is False
        assert all(node.required for node in nodes.values())

    def test_practice(self):
        """A human sets up the scenes of a real robot; the manager begins, and not the preflight."""
        nodes = self.build(iterations="2", start="true", run="runs/x")
        assert nodes.keys() >= {"reward_labeler", "learner", "episode_manager"}
        manager = nodes["episode_manager"].parameters
        assert (manager["reset"], manager["start"]) == ("manual", True)
        assert manager["meta_test"] == "none"
        assert nodes["learner"].parameters["patience"] == 0.0
        assert nodes["preflight"].parameters["start"] is False
        mocked = self.build(iterations="2", mock="true")
        assert mocked["episode_manager"].parameters["reset"] == "service"
        assert mocked["episode_manager"].parameters["robot"] == "mock_robot"
        assert mocked["mock_robot"].parameters["contract"] == "sawyer_arm"

    def test_a_mock_robot_of_ones_own(self):
        with pytest.raises(InputError, match="kinematics: found mine; expected it only with mock"):
            self.build(kinematics="mine")
        with pytest.raises(InputError, match="columns.hand_x: found nothing"):
            self.build(kinematics="sawyer_joints", mock="true")

    def test_an_operator(self):
        assert self.build(operator="joystick")["operator"].parameters["input"] == "joystick"
        with pytest.raises(InputError, match="one of none, joystick"):
            self.build(operator="keyboard")
        nodes = self.build(teleoperation="operator, pad")
        for name in ("policy", "preflight"):
            assert nodes[name].parameters["teleoperation"] == ["operator", "pad"]

    def test_another_arm_needs_its_own_run(self):
        with pytest.raises(InputError, match="none is shipped for domain tabletop_arm"):
            self.build(contract="moveit_servo_arm")

    @pytest.mark.parametrize(
        "name", ["sawyer_joints", "ros2_control_trajectory", "ros2_control_forward"]
    )
    def test_examples_are_slow_from_the_first_command_on(self, name):
        """Every value is limited, and its change counts from what is measured."""
        for command in load_contract(name).actions:
            assert (command.max_rate <= 0.2).all() and (command.measured >= 0).all()

    def test_sawyers_policies_fit(self):
        ARM.require_match(load_contract("sawyer_sim").text, "sawyer_sim")
        hand = ARM.actions[0]
        assert hand.scale[0] == pytest.approx(0.05 * ARM.rate) and hand.high[0] == 0.1


def test_a_robot_that_does_not_fit_is_not_moved(ros):
    """Its clock is 170 s off: the policy never becomes active, and never commands."""
    pytest.importorskip("rclpy")
    from rclpy.parameter import Parameter

    from smac_ros.mock_robot_node import MockRobotNode
    from smac_ros.policy_node import PolicyNode
    from smac_ros.preflight_node import PreflightNode

    def given(**values):
        return [Parameter(name, value=value) for name, value in values.items()]

    robot = ros.start(
        MockRobotNode(parameter_overrides=given(clock_offset=-170.0, contract="sawyer_arm"))
    )
    settings = given(contract="sawyer_arm", autostart=False, settle=0.0)
    policy = ros.add(PolicyNode(parameter_overrides=settings))
    settings = given(contract="sawyer_arm", seconds=0.4, start=True)
    preflight = ros.start(PreflightNode(parameter_overrides=settings))
    ros.until(lambda: preflight.exit_code is not None, 30.0, "its verdict")
    assert preflight.exit_code == 1
    (fault,) = preflight.diagnostics.faults.values()
    assert fault.startswith("nothing is moved: the robot does not fit contract sawyer_arm: ")
    assert "found stamps 170.0 s behind this machine's clock" in fault and "(and 6 more)" in fault
    assert policy.diagnostics.state == "inactive"
    assert not preflight.count_publishers(ARM.actions[0].topic)
    assert sum(robot.record.count) == 0


class Up:
    """`smac up robot` with a mock, as a process.

    Attributes:
        said: what its nodes have logged so far.
    """

    def __init__(self, ros, path, *arguments):
        self.ros, self.path = ros, path
        words = ["up", "robot", "mock:=true", *arguments]
        code = "from smac_ros.cli import main; main()"
        with open(path, "w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=file
            )

    @property
    def said(self) -> str:
        return self.path.read_text()

    def told(self, text: str, after: int = 0) -> int:
        """Where a text ends that comes behind ``after``."""

        def comes():
            over, said = self.popen.poll() is not None, self.said[after:]
            assert text in said or not over, said
            return text in said

        self.ros.until(comes, 30.0, text)
        return self.said.index(text, after) + len(text)

    def end(self) -> None:
        """As Ctrl-C does."""
        self.popen.send_signal(signal.SIGINT)
        self.ros.until(lambda: self.popen.poll() is not None, 30.0, "its end")


@pytest.fixture
def up(ros, tmp_path):
    """Starts a system: up("namespace:=arm")."""
    pytest.importorskip("rclpy")
    running = []

    def start(*arguments):
        running.append(Up(ros, tmp_path / f"said_{len(running)}", *arguments))
        return running[-1]

    yield start
    for system in running:
        if system.popen.poll() is None:
            system.popen.terminate()
            system.popen.wait(30)


@pytest.mark.slow
def test_faults_end_in_a_safe_stop(ros, up):
    """Each is named with its cause, and limits are kept all the time."""
    from geometry_msgs.msg import PoseStamped, TwistStamped
    from rcl_interfaces.srv import SetParametersAtomically
    from rclpy.parameter import Parameter

    node = ros.node("tester", namespace="arm")
    hands, twists = [], []
    pose_topic, twist_topic = ARM.observations[0].topic, ARM.actions[0].topic
    node.create_subscription(PoseStamped, pose_topic, lambda m: hands.append(m.pose.position), 10)
    node.create_subscription(TwistStamped, twist_topic, lambda m: twists.append(m.twist.linear), 50)
    setter = node.create_client(SetParametersAtomically, "mock_robot/set_parameters_atomically")
    system = up("namespace:=arm", "start:=true", "seconds:=0.5")

    def fault(**values):
        """Put it into effect; how much had been said before."""
        parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        told = len(system.said)
        request = SetParametersAtomically.Request(parameters=parameters)
        assert ros.call(setter, request).result.successful
        return told

    def stands():
        """Is told to stand, again and again."""
        given = len(twists)
        ros.until(lambda: len(twists) > given + 10, what="safe commands")
        assert not any(t.x or t.y or t.z for t in twists[given + 1 : given + 10])

    def moves():
        given = len(twists)
        ros.until(lambda: any(t.x or t.y or t.z for t in twists[given:]), what="motion")

    told = system.told("the robot fits contract sawyer_arm")
    moves()
    fault(jitter=0.03, drop=0.05)
    given = len(twists)
    ros.until(lambda: len(twists) >= given + 40, 20.0, "commands in spite of losses")
    told = fault(jitter=0.0, drop=0.0)

    told = fault(stall=2.0, stall_at=0.0)
    told = system.told("stopped: no observation for 0.", told)
    stands()
    told = system.told("over: stopped", told)
    moves()

    told = fault(nan_at=0.0)
    told = system.told(f"stopped: {pose_topic}: not finite", told)
    told = system.told("over: stopped", told)

    told = fault(clock_offset=170.0, offset_topic="objects/object")
    told = system.told("stale, the newest sample is 1", told)
    stands()
    told = fault(clock_offset=0.0)
    told = system.told("jumped back", told)
    moves()

    system.end()
    told = system.told("it was told: ", told)
    report = json.loads(system.said[told:].splitlines()[0])
    assert report["outside"] == 0 and report["commands"] > 150
    assert report["values"]["hand_dx"]["highest"] <= 0.1
    assert 0 < report["values"]["hand_dx"]["largest_step"] <= 0.5 / ARM.rate + 1e-6
    assert hands
