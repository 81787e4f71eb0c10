"""The lifecycle, parameters and diagnostics that every node shares."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter as RosParameter  # noqa: E402

from smac_core.errors import InputError  # noqa: E402
from smac_ros.base_node import Parameter, SmacNode, reliable  # noqa: E402


class Example(SmacNode):
    parameters = (
        Parameter("rate", 10.0, "Steps a second, Hz.", low=1.0, high=100.0),
        Parameter("kind", "good", "What it is.", choices=("good", "bad"), live=True),
        Parameter("count", 3, "How many.", low=0, high=5, live=True),
    )

    def __init__(self, **arguments):
        super().__init__("example", **arguments)
        self.log: list[str] = []

    def configure(self):
        self.log.append("configure")
        if self.setting("kind") == "bad":
            raise InputError("some.yaml", "kind", "bad", "good")

    def activate(self):
        self.log.append("activate")

    def deactivate(self):
        self.log.append("deactivate")

    def cleanup(self):
        self.log.append("cleanup")

    def check_parameters(self, values):
        if values.get("count") == 4:
            raise InputError("example", "count", 4, "anything else")


def test_lifecycle_from_outside(ros):
    node, tester = ros.add(Example()), ros.node()
    change = tester.create_client(ChangeState, "example/change_state")
    state = tester.create_client(GetState, "example/get_state")
    reached = []
    for transition in (1, 3, 4, 2):  # configure, activate, deactivate, cleanup
        request = ChangeState.Request()
        request.transition.id = transition
        assert ros.call(change, request).success
        reached.append(ros.call(state, GetState.Request()).current_state.label)
    assert reached == ["inactive", "active", "inactive", "unconfigured"]
    assert node.log == ["configure", "activate", "deactivate", "cleanup"]


def test_refused_configuration_says_why(ros):
    node, tester = ros.add(Example()), ros.node()
    seen: list[DiagnosticStatus] = []
    tester.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: seen.extend(m.status), reliable(10)
    )
    assert node.set_parameters([RosParameter("kind", value="bad")])[0].successful
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert node.log == ["configure", "cleanup"]
    ros.until(lambda: any(s.level == DiagnosticStatus.ERROR for s in seen))
    status = next(s for s in seen if s.level == DiagnosticStatus.ERROR)
    assert status.message == "some.yaml: kind: found bad; expected good"
    assert status.name == "/example"
    node.set_parameters([RosParameter("kind", value="good")])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert not node.diagnostics.faults


def test_parameters_are_described_and_checked(ros):
    ros.add(Example())
    tester = ros.node()
    describe = tester.create_client(DescribeParameters, "example/describe_parameters")
    rate, kind, count = ros.call(
        describe, DescribeParameters.Request(names=["rate", "kind", "count"])
    ).descriptors
    assert rate.floating_point_range[0].to_value == 100.0 and rate.read_only
    assert "good, bad" in kind.description and not kind.read_only
    assert count.integer_range[0].from_value == 0
    setter = tester.create_client(SetParametersAtomically, "example/set_parameters_atomically")

    def set_(name: str, value) -> tuple[bool, str]:
        parameter = RosParameter(name, value=value).to_parameter_msg()
        answer = ros.call(setter, SetParametersAtomically.Request(parameters=[parameter]))
        return answer.result.successful, answer.result.reason

    assert set_("count", 5) == (True, "")
    for name, value in (("count", 6), ("rate", 20.0), ("kind", "ugly"), ("count", 4)):
        accepted, reason = set_(name, value)
        assert not accepted and reason, name
    assert "one of good, bad" in set_("kind", "ugly")[1]


def test_counts_and_faults(ros):
    node, tester = ros.add(Example()), ros.node()
    seen: list[DiagnosticStatus] = []
    tester.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: seen.extend(m.status), reliable(10)
    )
    ros.until(lambda: seen)
    assert seen[-1].level == DiagnosticStatus.OK
    node.diagnostics.count("lost message", "a message was lost")
    node.diagnostics.count("lost message", by=2)
    ros.until(lambda: seen[-1].level == DiagnosticStatus.WARN)
    values = {value.key: value.value for value in seen[-1].values}
    assert values["lost message"] == "3" and values["state"] == "unconfigured"
    node.diagnostics.fault("stale", "no pose for 0.3 s")
    ros.until(lambda: seen[-1].level == DiagnosticStatus.ERROR)
    assert seen[-1].message == "no pose for 0.3 s"
    node.diagnostics.clear("stale")
    ros.until(lambda: seen[-1].level != DiagnosticStatus.ERROR)


PROGRAM = textwrap.dedent(
    """
    import sys
    from smac_core.errors import InputError
    from smac_ros.base_node import SmacNode, run

    class Example(SmacNode):
        def __init__(self):
            super().__init__("example")

        def configure(self):
            if sys.argv[1] == "refuse":
                raise InputError("some.yaml", "kind", "bad", "good")
            if sys.argv[1] == "break":
                self.no_such_thing()

        def activate(self):
            print("active", flush=True)
            if sys.argv[1] == "finish":
                self.exit_code = 3
            if sys.argv[1] == "fail":
                self.create_timer(0.01, lambda: 1 / 0)

        def deactivate(self):
            print("deactivated", self.context.ok(), flush=True)

    run(Example)
    """
)


@pytest.mark.parametrize(
    ("ending", "code", "output"),
    [
        ("SIGINT", 0, "active\ndeactivated True\n"),
        ("SIGTERM", 0, "active\ndeactivated True\n"),
        ("finish", 3, "active\ndeactivated True\n"),
        ("fail", 1, "active\ndeactivated True\n"),
        ("refuse", 1, ""),
        ("break", 1, ""),
    ],
)
def test_process_ends_in_order(ending: str, code: int, output: str, tmp_path):
    """The node is deactivated while it can still talk, whatever ends it."""
    with open(tmp_path / "stderr", "w+") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, ending], stdout=subprocess.PIPE, stderr=stderr,
            text=True, env=os.environ,
        )  # fmt: skip
        first = process.stdout.readline()
        if ending.startswith("SIG"):
            process.send_signal(getattr(signal, ending))
        rest = process.stdout.read()
        process.wait(timeout=30)
        stderr.seek(0)
        errors = stderr.read()
    assert (process.returncode, first + rest) == (code, output), errors
    assert ("Traceback" in errors) == (ending in ("fail", "break")), errors
    if ending == "break":
        assert "no_such_thing" in errors
    if ending == "fail":
        assert "ZeroDivisionError" in errors
    if ending == "refuse":
        assert "some.yaml: kind: found bad; expected good" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["-p", "settle:=1"], 2, "write a number with its point: 1.0"),
        (["-p", "robot:="], 1, "ROS arguments"),
        (["-p", "clock:=sundial"], 2, "one of real_time, lockstep"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments: list[str], code: int, told: str):
    done = subprocess.run(
        [sys.executable, "-m", "smac_ros.policy_node", "--ros-args", *arguments],
        capture_output=True, text=True, env=os.environ, timeout=60,
    )  # fmt: skip
    assert done.returncode == code and told in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "error: " in done.stderr
