"""``smac up`` with the whole system: robot, policy, labeler, learner and episode manager."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")

from smac_ros.bags.decoding import Decoder, decode_text
from smac_ros.bags.reading import Bag
from smac_ros.contract import load_contract
from smac_ros.messages import Begin, End, parse_marker

ROOT = Path(__file__).parents[2]
SMALL = (
    "horizon:=20",
    "tasks_per_iteration:=2",
    "exploration_trajectories:=2",
    "adapted_trajectories:=1",
    "meta_test_tasks:=2",
)

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """start("sawyer_sim", "iterations:=1") -> Popen of ``smac up`` in a folder of its own."""
    running = []

    def begin(*words: str) -> subprocess.Popen:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        code = "from smac_ros.cli import main; main()"
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", code, "up", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": path},
                cwd=tmp_path,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:  # a fault: it may fail a test, but not halt the others
            process.kill()
            raise


def test_practice_between_two_meta_tests(start, tmp_path):
    """In lockstep a second run with the same seed comes to the very same weights and scores."""
    found = []
    for run in ("one", "two"):
        process = start("sawyer_sim", "iterations:=1", *SMALL, f"run:={run}", "seed:=5")
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert "error" not in err.lower() and "given up" not in err, err
        reports = {
            name: json.loads((tmp_path / run / "meta_test" / f"meta_test_{name}.json").read_text())
            for name in ("before", "after")
        }
        for name, report in reports.items():
            assert report["complete"] and len(report["tasks"]) == 2
            assert report["versions"]["weights"] == (name == "after")
            assert all(-20 <= value <= 0 for (value,) in report["returns"])
        assert reports["after"]["practice"] == {"trajectories": 6, "transitions": 120}
        assert "practice: 6 trajectories, 120 transitions" in out
        assert "practice 1/1: 6 of 6 episodes" in err
        weights = tmp_path / run / "self_supervised/checkpoints/step_00000001/weights.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        found.append((digest, [report["returns"] for report in reports.values()]))
    assert found[0] == found[1]


def test_ctrl_c_keeps_what_was_scored(start, tmp_path):
    process = start("sawyer_sim", "iterations:=1000", *SMALL, "run:=run")
    line, seen = "", ""
    while "practice" not in line:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "before: offline phase" in out and "Traceback" not in err
    assert (tmp_path / "run" / "meta_test" / "meta_test_before.json").exists()
    assert (tmp_path / "run" / "self_supervised" / "checkpoints" / "latest").exists()


def test_in_real_time(start, tmp_path):
    """And recorded, whole, by the robot's clock, which is twice as fast."""
    words = ("horizon:=20", *SMALL[-1:], "record:=bag")
    process = start("meta_test", "clock:=real_time", "factor:=2", *words)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "before: offline phase" in out
    contract = load_contract("sawyer_sim")
    with Bag(tmp_path / "bag") as bag:
        assert bag.contract_text == contract.text and not bag.notes
        texts = [decode_text(raw) for _, _, raw in bag.messages(["/episode"])]
        markers = [parse_marker(text) for text in texts]
        ends = {marker.id: marker for marker in markers if isinstance(marker, End)}
        begins = [marker for marker in markers if isinstance(marker, Begin)]
        assert len(begins) == len(ends) == 6
        for stream in contract.observations:
            samples = list(bag.messages([f"/{stream.topic}"]))
            decoded = Decoder(stream).decode(*zip(*((s[1], s[2]) for s in samples), strict=True))
            stamps = set(decoded.stamps.tolist())
            for begin in begins:
                span = range(begin.start, ends[begin.id].last + 1, contract.period_ns)
                assert len(span) >= 21 and stamps.issuperset(span), stream.topic
            late = decoded.receives - decoded.stamps
            assert abs(late).max() < 10**9, "its own clock, which began at 0"


def test_a_namespace_of_its_own(start):
    process = start("meta_test", "namespace:=left", "horizon:=10", "meta_test_tasks:=1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "before: offline phase" in out


def test_a_mujoco_robot_alone(start):
    process = start("mujoco_sim")
    time.sleep(3)  # it says nothing when all is well
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "error" not in err.lower(), err
