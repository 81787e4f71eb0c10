"""``smac contract check --live``: what does not fit is named before anything moves."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from smac_ros.contract import Contract, load_contract
from smac_ros.live_check import Report
from smac_ros.live_samples import Finding, Heard, judge
from smac_ros.messages import SECOND

POSE, JOINTS = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
TWIST = "geometry_msgs/msg/TwistStamped"
NOW = 1_700_000_000 * SECOND  # ns


def stream(topic: str, kind: str = POSE, path: str = "pose.position.x", **changes) -> str:
    """A stream of one column, which has the topic's name."""
    keys = {"time": "header", "align": "hold", "max_age": 0.2} | changes
    name = topic.replace("/", "_")
    field = f'{{path: "{path}", names: [{name}], unit: m}}'
    return f"{{topic: {topic}, type: {kind}, fields: [{field}], " + ", ".join(
        f"{key}: {value}" for key, value in keys.items()
    ) + "}"


def command(topic: str, kind: str = TWIST, path: str = "twist.linear.x") -> str:
    field = f'{{path: "{path}", names: [{topic}], unit: m/s, limits: [-1, 1]}}'
    frame = ", frame: world" if kind == TWIST else ""
    return f"{{topic: {topic}, type: {kind}{frame}, fields: [{field}]}}"


def contract(streams, commands=(), trigger="all") -> Contract:
    text = f"name: a\ndomain: a\nrate: 20.0\ntrigger: {trigger}\nwatchdog: 0.5\nsafety: zeros\n"
    for key, entries in (("observations", streams), ("actions", commands or [command("twist")])):
        text += f"{key}:\n" + "".join(f"  - {entry}\n" for entry in entries)
    return Contract.from_text(text, "a.yaml")


def pose(x: float, stamp: int, frame: str = "world"):
    header = SimpleNamespace(stamp=SimpleNamespace(), frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp, SECOND)
    position = SimpleNamespace(x=x, y=0.0, z=0.0)
    return SimpleNamespace(header=header, pose=SimpleNamespace(position=position))


def heard(of, topic, times, *, behind=0.0, stamps=None, values=None, frame="world") -> Heard:
    """A stream heard at ``times`` (s), whose clock is so far behind."""
    one = Heard(next(s for s in of.observations if s.topic == topic))
    for number, arrival in enumerate(times):
        now = NOW + round(arrival * SECOND)
        stamp = now - round(behind * SECOND) if stamps is None else stamps[number]
        one.take(pose(0.0 if values is None else values[number], stamp, frame), arrival, now)
    return one


STEADY = np.arange(0.0, 2.0, 0.05)


def findings(of, *streams):
    return [(f.level, f.topic, f.found) for f in judge(of, list(streams), 2.0, 2.0)]


class TestJudging:
    def test_what_fits(self):
        made = contract([stream("hand"), stream("object")])
        assert not findings(made, *(heard(made, topic, STEADY) for topic in ("hand", "object")))

    @pytest.mark.parametrize(
        ("times", "level", "found"),
        [
            (np.arange(0, 2, 0.1), "error", "10.0 Hz"),  # the contract: 20
            (np.arange(0, 2, 0.03), "warning", "33.3 Hz"),  # steps of 0.03 and 0.06 s
            (np.r_[np.arange(0, 1, 0.04), np.arange(1.3, 2, 0.04)], "warning", "0.340 s without"),
            (np.r_[np.arange(0, 1, 0.035), np.arange(1.6, 2, 0.035)], "error", "0.620 s without"),
            (np.arange(0, 1.2, 0.05), "error", "0.850 s without"),  # it died on the way
            ([0.1], "error", "no message in"),
            ([], "error", "no message in 2 s"),
        ],
    )
    def test_rates_and_gaps(self, times, level, found):
        made = contract([stream("hand")])
        ((of, topic, text),) = findings(made, heard(made, "hand", times))
        assert (of, topic) == (level, "hand") and text.startswith(found)

    def test_multiples_of_the_rate_are_thinned_out(self):
        made = contract([stream("hand")])
        assert not findings(made, heard(made, "hand", np.arange(0.0, 2.0, 0.01)))

    def test_what_is_no_trigger_may_be_slow(self):
        """A camera at 10 Hz beside a hand at 20, as long as it is younger than max_age."""
        made = contract([stream("hand"), stream("object")], trigger="hand")
        hand, slow = heard(made, "hand", STEADY), np.arange(0.0, 2.0, 0.1)
        assert not findings(made, hand, heard(made, "object", slow))
        ((level, topic, text),) = findings(made, hand, heard(made, "object", slow[::4]))
        assert (level, topic, text) == ("error", "object", "2.5 Hz")

    def test_what_may_be_missing_is_a_warning(self):
        made = contract(
            [stream("hand"), stream("object", align="as_of", missing=0.0)], trigger="hand"
        )
        ((level, topic, _),) = findings(
            made, heard(made, "hand", STEADY), heard(made, "object", [])
        )
        assert (level, topic) == ("warning", "object")

    @pytest.mark.parametrize(
        ("behind", "level", "found"),
        [
            (170.0, "error", "stamps 170.0 s behind"),
            (-170.0, "error", "stamps 170.0 s ahead of"),
            (0.15, "warning", "stamps 0.15 s behind"),
            (-0.2, "warning", "stamps 0.2 s ahead of"),
        ],
    )
    def test_clocks(self, behind, level, found):
        made = contract([stream("hand")])
        ((of, _, text),) = findings(made, heard(made, "hand", STEADY, behind=behind))
        assert of == level and text == f"{found} this machine's clock"

    def test_a_stream_that_is_older_than_another(self):
        made = contract([stream("hand"), stream("object")])
        hand, late = heard(made, "hand", STEADY), heard(made, "object", STEADY, behind=0.4)
        ((level, topic, text),) = findings(made, hand, late)
        assert (level, topic, text) == ("error", "object", "stamps 0.4 s older than those of hand")

    def test_a_timer_goes_by_this_machines_clock(self):
        made = contract([stream("hand")], trigger="timer")
        ((level, _, text),) = findings(made, heard(made, "hand", STEADY, behind=0.3))
        assert level == "error" and text == "stamps 0.3 s behind this machine's clock"

    def test_stamps_that_are_none(self):
        made = contract([stream("hand")])
        uptime = [round((100 + t) * SECOND) for t in STEADY]
        ((level, _, text),) = findings(made, heard(made, "hand", STEADY, stamps=uptime))
        assert level == "error" and text == "stamps of 102.0 s, not of today"
        unset = heard(made, "hand", STEADY, stamps=[0] * len(STEADY))
        assert findings(made, unset) == [("error", "hand", "stamps that are not set: 0")]

    def test_stamps_that_do_not_rise(self):
        made = contract([stream("hand")])
        stamps = [NOW + round(t * SECOND) for t in STEADY]
        again = [stamps[i - i % 2] for i in range(len(stamps))]
        seen = findings(made, heard(made, "hand", STEADY, stamps=again))
        assert ("warning", "hand", "20 of 40 messages with the stamp of the one before") in seen
        back = [s - (round(5.05 * SECOND) if i > 20 else 0) for i, s in enumerate(stamps)]
        seen = findings(made, heard(made, "hand", STEADY, stamps=back))
        assert any(f[0] == "error" and f[2] == "stamps that went back by 5.0 s" for f in seen)

    def test_numbers_that_are_none(self):
        made = contract([stream("hand")])
        values = [np.nan if i in (3, 7) else 0.0 for i in range(len(STEADY))]
        ((level, _, text),) = findings(made, heard(made, "hand", STEADY, values=values))
        assert (level, text) == ("error", "hand NaN or infinite in 2 of 40 messages")

    def test_poses_in_another_frame(self):
        made = contract([stream("hand"), stream("object")])
        seen = findings(
            made, heard(made, "hand", STEADY), heard(made, "object", STEADY, frame="camera")
        )
        assert seen == [("warning", "object", "frame 'camera'")]

    def test_where_the_first_commands_lead(self):
        """Limits of -1 to 1 m, 0.1 m a step: 1.05 is within one of them."""
        action = (
            "{topic: go, type: %s, fields: [{path: pose.position.x, names: [go], unit: m, "
            "limits: [-1, 1]%s}]}"
        )
        for more, at, found in (
            (", measured: [hand], max_step: 0.1", 1.05, None),
            (", measured: [hand], max_step: 0.1", -1.2, "go at -1.2 m"),
            (", measured: [hand]", 1.05, "go at 1.05 m"),
            ("", 0.0, "go, a position that nothing measures"),
        ):
            made = contract([stream("hand")], [action % (POSE, more)])
            one = heard(made, "hand", STEADY, values=[at] * len(STEADY))
            assert findings(made, one) == ([("warning", "go", found)] if found else [])

    def test_readings_that_lack_something(self):
        """Some of them: the policy skips these. All: it has nothing."""
        made = contract([stream("hand")])
        for some, level in ((True, "warning"), (False, "error")):
            one = heard(made, "hand", STEADY)
            one.unreadable.update({"a joint": 15, "another": 5 if some else 25})
            assert {f[0] for f in findings(made, one)} == {level}

    def test_bytes_that_are_no_message(self):
        made = contract([stream("hand")])
        one = heard(made, "hand", [])
        one.broken(RuntimeError("no PoseStamped"))
        ((level, _, text),) = findings(made, one)
        assert level == "error" and text.endswith("no PoseStamped")

    def test_what_is_the_same_of_several_topics_is_told_once(self):
        of = [Finding("error", topic, "a", "b", "c") for topic in ("hand", "object")]
        other = Finding("warning", "hand", "d", "e", "f")
        report = Report("arm", [*of, other], [])
        assert report.grouped() == [of[0]._replace(topic="hand, object"), other]
        assert report.errors == of


def untimed(found: list[Finding]) -> list[Finding]:
    """Without rates and gaps, which on a busy machine are its own; ``TestJudging`` has them."""
    return [f for f in found if "Hz" not in f.found and "without a message" not in f.found]


class TestNetwork:
    """Real rclpy: one network with everything wrong, and robots that fit."""

    def test_everything_at_once(self, ros):
        rclpy = pytest.importorskip("rclpy")
        from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
        from rclpy.experimental import EventsExecutor
        from rclpy.node import Node
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import JointState

        from smac_ros.live_check import LiveCheck
        from smac_ros.messages import set_stamp

        joints = {"kind": JOINTS, "path": "position[elbow]"}
        streams = [
            *(stream(topic) for topic in ("fine", "absent", "typed", "broken", "behind", "twice")),
            stream("jointless", **joints),
            stream("mixed", **joints),
        ]
        commands = [command(topic) for topic in ("good", "unheard", "latched", "taken", "mistyped")]
        made = contract(streams, commands)
        context = rclpy.Context()  # as a process of its own: types may differ between two
        rclpy.init(context=context)
        robot, executor = Node("driver", context=context), EventsExecutor(context=context)
        executor.add_node(robot)
        kinds = {"jointless": JointState, "mixed": JointState, "typed": Twist}
        topics = ("fine", "typed", "broken", "behind", "twice", "jointless", "mixed", "absentt")
        outs = {t: robot.create_publisher(kinds.get(t, PoseStamped), t, 10) for t in topics}
        second = ros.node("second")
        others = [second.create_publisher(PoseStamped, "twice", 10)]
        others.append(second.create_publisher(TwistStamped, "taken", 10))
        others.append(second.create_publisher(TwistStamped, "good", 10))
        spectator = ros.node("recorder")  # hears commands, and follows none
        spectator.create_subscription(TwistStamped, "unheard", lambda message: None, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, kind, qos in (
            *((topic, TwistStamped, 10) for topic in ("good", "taken")),
            ("latched", TwistStamped, latched),
            ("mistyped", Twist, 10),
        ):
            robot.create_subscription(kind, topic, lambda message: None, qos)

        def publish():
            now = robot.get_clock().now().nanoseconds
            publish.count += 1
            for topic, out in outs.items():
                message = out.msg_type()
                if topic == "typed":
                    out.publish(message)
                    continue
                set_stamp(message.header.stamp, now - (170 * SECOND if topic == "behind" else 0))
                if topic == "broken":
                    message.pose.position.x = float("nan")
                elif out.msg_type is JointState:
                    other = topic == "jointless" or publish.count % 2
                    message.name = ["wrist" if other else "elbow"]
                    message.position = [0.5]
                out.publish(message)

        publish.count = 0
        robot.create_timer(0.05, publish)
        checker = ros.node("checker")
        check = LiveCheck(checker, made, seconds=0.6, patience=1.0, teleoperation=("second",))
        ros.until(lambda: executor.spin_once(timeout_sec=0.001) or check.poll(), 10.0, "the check")
        strict = LiveCheck(checker, made, seconds=0.1, patience=0.0)
        report, again = check.report(), strict.report()
        robot.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown(context=context)
        assert [p.topic_name for p in checker.publishers] in ([], ["/parameter_events"])
        seen = {(f.level, f.topic): f for f in untimed(report.findings)}
        for level, topic, found in (
            ("error", "absent", "no publisher"),
            ("error", "typed", "geometry_msgs/msg/Twist, which /driver publishes"),
            ("error", "broken", "broken NaN or infinite in "),
            ("error", "behind", "stamps 170.0 s behind this machine's clock"),
            ("warning", "twice", "2 publishers: /driver, /second"),
            ("error", "jointless", "position[elbow]: the message names no 'elbow'"),
            ("warning", "mixed", "messages that lack something"),
            ("error", "unheard", "nobody who listens"),
            ("error", "latched", "transient local"),
            ("error", "mistyped", "geometry_msgs/msg/Twist, which /driver expects"),
        ):
            assert found in seen.pop((level, topic)).found, topic
        assert not seen
        absent = next(f for f in report.findings if f.topic == "absent")
        assert "there is /absentt" in absent.remedy
        taken = next(f for f in again.findings if f.topic == "taken")
        assert (taken.level, taken.found) == ("error", "another publisher: /second")
        assert report.errors and not report.data()["ok"]
        fine = next(row for row in report.topics if row["topic"] == "fine")
        assert fine["rate"] == pytest.approx(20, rel=0.5) and fine["publishers"] == ["/driver"]

    def test_every_example_fits_its_mock_robot(self, ros):
        """All at once, each in a namespace of its own."""
        pytest.importorskip("rclpy")
        from rclpy.parameter import Parameter

        from smac_ros.live_check import LiveCheck
        from smac_ros.mock_robot_node import MockRobotNode

        checks = []
        for name in (
            *("sawyer_arm", "sawyer_joints", "moveit_servo_arm"),
            *("ros2_control_trajectory", "ros2_control_forward"),
        ):
            made = load_contract(name)
            given = {"contract": name, "rate": 2 * made.rate}
            given = [Parameter(key, value=value) for key, value in given.items()]
            ros.start(MockRobotNode(namespace=name, parameter_overrides=given))
            checker = ros.node("checker", namespace=name)
            checks.append(LiveCheck(checker, made, seconds=0.5))
        ros.until(lambda: sum(check.poll() for check in checks) == len(checks), what="the checks")
        for check in checks:
            assert not untimed(check.report().findings), check.contract.name

    def test_the_command(self, ros):
        """Two robots in namespaces of their own, one with a clock that is 170 s off."""
        pytest.importorskip("rclpy")
        from rclpy.parameter import Parameter

        from smac_ros.mock_robot_node import MockRobotNode

        running = {}
        for namespace, offset in (("left", 0.0), ("right", 170.0)):
            given = [Parameter("clock_offset", value=offset), Parameter("rate", value=48.0)]
            ros.start(MockRobotNode(namespace=namespace, parameter_overrides=given))
            words = ["contract", "check", "sawyer_arm", "--live", "--seconds", "0.5"]
            words += ["--namespace", namespace] + (["--json"] if offset else [])
            running[namespace] = subprocess.Popen(
                [sys.executable, "-c", "from smac_ros.cli import main; main()", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        ros.until(lambda: all(p.poll() is not None for p in running.values()), 60.0, "the checks")
        left, right = (running[name].communicate(timeout=30)[0] for name in ("left", "right"))
        assert running["left"].returncode == 0, left
        assert "robot/limb/right/endpoint_pose" in left and "the robot fits" in left
        assert running["right"].returncode == 1
        report = json.loads(right)
        assert not report["ok"] and report["action_dim"] == 4
        assert len(report["findings"]) == 7  # a stream each
        for finding in report["findings"]:
            assert finding["level"] == "error" and "chrony" in finding["remedy"]
            assert finding["found"] == "stamps 170.0 s ahead of this machine's clock"
