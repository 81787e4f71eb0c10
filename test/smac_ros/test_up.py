"""``smac up`` with small processes: their lines, their ends, and everyone's end."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smac_core.errors import InputError
from smac_ros import up
from smac_ros.system import NodeSpec

ROOT = Path(__file__).parents[2]

NODES = {
    # says that it is there, and leaves as it is told to
    "polite": """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("bye"), sys.exit(0)))
print("ready", flush=True)
while True: time.sleep(0.05)
""",
    "stubborn": """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: print("not me either", flush=True))
print("ready", flush=True)
while True: time.sleep(0.05)
""",
    "fails": """
import sys
print("a line before the end", file=sys.stderr)
sys.exit("the gripper is on fire")
""",
    # prints its table and ends with the code that its parameter file asks for
    "job": """
import sys, yaml
path = sys.argv[sys.argv.index("--params-file") + 1]
parameters = yaml.safe_load(open(path))["/**"]["ros__parameters"]
print("progress", file=sys.stderr)
print("a table")
print(" ".join(sys.argv[1:]).replace(path, "FILE"), file=sys.stderr)
print(path, file=sys.stderr)
sys.exit(parameters["code"])
""",
    "floods": """
import itertools
for number in itertools.count(): print("line", number)
""",
    "crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
}

DRIVER = """
import sys
from smac_ros import up
from smac_ros.cli import main
from smac_ros.system import SYSTEMS, NodeSpec, System, Argument
def node(kind, **more):
    return NodeSpec(kind, more.pop("name", kind), package="toy", **more)
def nodes(values):
    job = node("job", parameters={"code": values["code"]}, main=True)
    return {
        "job": [node("polite"), job],
        "polite": [node("polite"), node("polite", name="gentle")],
        "fails": [node("polite"), node("fails")],
        "crash": [node("polite"), node("crash", main=True)],
        "stubborn": [node("stubborn")],
        "floods": [node("polite"), node("floods")],
        "optional": [node("fails", required=False), job],
    }[values["what"]]
SYSTEMS["toy"] = System("A toy.", (
    Argument("what", "job", "Which."), Argument("code", "0", "Exit code.", kind="integer"),
    Argument("namespace", "", "Of all.", kind="name"),
), nodes)
if "stubborn" in " ".join(sys.argv):
    up.PATIENCE = up.MORE_PATIENCE = 0.3
main()
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Start the toy system: toy("what:=job") -> Popen."""
    package = tmp_path / "toy"
    package.mkdir()
    for name, code in {"__init__": "", **NODES}.items():
        (package / f"{name}.py").write_text(code)
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    if importlib.util.find_spec("rclpy") is None:  # these nodes need none
        (tmp_path / "rclpy.py").write_text("")
    (tmp_path / "tmp").mkdir()
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    more = {"PYTHONPATH": path, "TMPDIR": str(tmp_path / "tmp")}
    running = []

    def start(*arguments: str) -> subprocess.Popen:
        running.append(
            subprocess.Popen(
                [sys.executable, str(driver), "up", "toy", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | more,
                cwd=tmp_path,
            )
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)
    assert not list((tmp_path / "tmp").iterdir()), "temporary files are left"


def read_until(process: subprocess.Popen, text: str, times: int = 1) -> str:
    """Standard error until a text has come so often."""
    seen = ""
    while seen.count(text) < times:
        line = process.stderr.readline()
        assert line, f"ended before {text!r}:\n{seen}"
        seen += line
    return seen


def test_ends_with_the_main_node(toy):
    for code in (0, 3):
        out, err = toy("what:=job", f"code:={code}", "namespace:=left").communicate(timeout=30)
        assert out == "a table\n"
        assert "job    | progress\n" in err and "polite | ready\n" in err or code
        assert "--ros-args -r __node:=job -r __ns:=/left --params-file FILE" in err
        assert "error" not in err
    process = toy("what:=job", "code:=3")
    process.communicate(timeout=30)
    assert process.returncode == 3


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_all_in_order(toy, number, code):
    process = toy("what:=polite")
    read_until(process, "ready", times=2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "polite | bye\n" in err and "gentle | bye\n" in err
    assert "warning" not in err and "error" not in err


def test_a_signal_at_any_moment_is_seen(tmp_path):
    """One that came just before a time-out once let a silent system wait for ever."""
    code = """
import signal, time
from smac_ros import up
from smac_ros.system import NodeSpec
runner, came = up.Runner([NodeSpec("sh", "sh", package="none")]), []
signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
signal.setitimer(signal.ITIMER_REAL, 37e-5, 37e-5)
for _ in range(500):
    runner._print(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(came) > 500, came
"""
    (tmp_path / "rclpy.py").write_text("")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True, timeout=60
    )


def test_ctrl_c_is_heard_above_a_flood_of_lines(toy):
    process = toy("what:=floods")
    while "polite" not in (line := process.stderr.readline()) or "ready" not in line:
        assert line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_who_does_not_listen_is_killed(toy):
    process = toy("what:=stubborn")
    read_until(process, "ready")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    told = ["stubborn did not end: SIGTERM", "stubborn | not me", "stubborn did not end: SIGKILL"]
    assert [err.index(text) for text in told] == sorted(err.index(text) for text in told)


def test_a_dead_node_ends_the_system(toy):
    process = toy("what:=fails")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "error: node fails has ended with exit code 1, its last lines:\n" in err
    assert "  a line before the end\n  the gripper is on fire\n" in err
    assert "Traceback" not in err


def test_a_main_node_that_crashes(toy):
    process = toy("what:=crash")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "error: node crash has ended with signal SIGSEGV" in err


def test_what_is_not_required_may_end(toy):
    out, err = toy("what:=optional").communicate(timeout=30)
    assert out == "a table\n" and "error:" not in err


def test_nothing_starts_with_wrong_arguments(toy):
    for words, text in (
        (["wat:=job"], "did you mean 'what'"),
        (["what=job"], "found 'what=job'; expected name:=value"),
        (["what:=job", "what:=fails"], "what: found two values"),
    ):
        process = toy(*words)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 2 and text in err and not out
        assert "Traceback" not in err


def test_print_and_show_args_start_nothing(toy):
    out, err = toy("code:=4", "--print").communicate(timeout=30)
    assert "/job  (the system ends with it)\n  toy job\n  code: 4\n" in out and not err
    out, _ = toy("--show-args").communicate(timeout=30)
    assert "code" in out and "Exit code." in out


def test_systems_are_listed(toy):
    out, _ = toy("--list").communicate(timeout=30)
    assert all(name in out for name in ("sawyer_sim", "meta_test", "mujoco_sim", "toy"))


def test_without_rclpy(monkeypatch):
    found = importlib.util.find_spec
    hidden = lambda name: None if name == "rclpy" else found(name)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", hidden)
    with pytest.raises(InputError, match=r"pip install 'smac_ros\[ros\]'"):
        up.Runner([NodeSpec("policy_node", "policy")])


def test_a_program_that_is_not_installed():
    spec = NodeSpec("rviz2000", "rviz", package="rviz2000")
    with pytest.raises(InputError, match="found none on PATH"):
        up.command_line(spec, None)


def test_a_program_of_an_installed_package(tmp_path, monkeypatch):
    """ROS 2 keeps a package's programs beside its libraries, not on PATH."""
    program = tmp_path / "lib" / "some_package" / "some_program"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere{os.pathsep}{tmp_path}")
    spec = NodeSpec("some_program", "node", package="some_package")
    assert up.command_line(spec, None)[0] == str(program)


def test_the_users_environment_wins(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    found = up.environment()
    assert found["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"
    assert Path(found["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()
    assert found["PYTHONUNBUFFERED"] == "1"


def test_parameter_files(tmp_path):
    parameters = {"a": 1, "b": 1.0, "c": "", "d": True, "e": "true"}
    path = up._parameter_file(NodeSpec("x", "y", parameters), tmp_path, 0)
    assert yaml.safe_load(path.read_text()) == {"/**": {"ros__parameters": parameters}}
    assert "b: 1.0" in path.read_text(), "ROS tells 1 from 1.0"
    assert up._parameter_file(NodeSpec("x", "y"), tmp_path, 0) is None
