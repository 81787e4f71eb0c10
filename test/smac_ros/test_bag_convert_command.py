"""``smac bag convert`` as a user gives it, and its page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from written_bags import CONTRACT, MS, STORE, bag, check, task

from smac_core.data.dataset import Dataset
from smac_core.training.progress import interruptible
from smac_ros.bags import one_bag

ROOT = Path(__file__).parents[2]
pytest_plugins = ["bag_fixtures", "point_mass_run"]


class TestCommand:
    def test_asked_to_stop(self, tmp_path, converted):
        with bag(tmp_path) as made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
        with interruptible() as stop, pytest.raises(one_bag.Stopped):
            stop.requested = True
            converted(task(), made)
        assert not list((tmp_path / "out").iterdir())

    def test_tables_warnings_and_strict(self, tmp_path, smac_here):
        with bag(tmp_path, "[monday]") as made:
            made.walk(0, 5)
            made.mark(0, 0, 5)
            made.begin(1, 10, 15)
            made.joints("joint_states", 600 * MS, position={"z": 1.0})
        (tmp_path / "contract.yaml").write_text(CONTRACT)
        (tmp_path / "TASKS.yaml").write_text(task())
        command = ("bag", "convert", made.path, "--contract", tmp_path / "contract.yaml", "--out")
        tasks = ("--tasks", tmp_path / "TASKS.yaml")
        done = smac_here(*command, tmp_path / "data.h5", *tasks)
        shown = "".join(done.stdout.split())  # a long path takes two lines
        for words in ("[monday]", "/joint_states", "1unreadable", "1withoutend"):
            assert words in shown, words
        assert done.stdout.endswith(f"{tmp_path / 'data.h5'}\n{tmp_path / 'data.report.json'}\n")
        assert done.stderr.count("warning: ") == 2
        done = smac_here(*command, tmp_path / "other.h5", *tasks, "--strict", check=False)
        assert done.returncode == 2 and "1 without end" in done.stdout
        assert done.stderr.endswith("found 2 warnings; nothing is written; expected none\n")
        assert not list(tmp_path.glob("other*"))

    def test_ctrl_c(self, tmp_path, smac_here, monkeypatch):
        """Pressed while the first episode is labelled: what follows is not read."""
        monkeypatch.setattr(one_bag, "BATCH", 8)
        with bag(tmp_path / "bags") as made:
            for number in range(3):
                made.walk(60 * number, 60 * number + 9)
                made.mark(number, 60 * number, 60 * number + 9)
        (tmp_path / "interrupted_rewards.py").write_text(
            "import signal\n\n"
            "def reward(observations, actions, next_observations, task):\n"
            "    signal.raise_signal(signal.SIGINT)\n"
            "    return observations[:, 0]\n"
        )
        (tmp_path / "contract.yaml").write_text(CONTRACT)
        (tmp_path / "TASKS.yaml").write_text(task("{function: 'interrupted_rewards:reward'}"))
        done = smac_here(
            *("bag", "convert", tmp_path / "bags", "--contract", tmp_path / "contract.yaml"),
            *("--tasks", tmp_path / "TASKS.yaml", "--out", tmp_path / "out" / "data.h5"),
            check=False,
        )
        assert done.returncode == 130
        assert not list((tmp_path / "out").iterdir())

    def test_as_a_user_runs_it(self, tmp_path, smac, smac_here, domain):
        """Convert in a process, look at it, train on it."""
        names = []
        for name, last in (("monday", 20), ("tuesday", 15)):
            with bag(tmp_path / "bags", name, contract=CONTRACT) as made:
                for number in range(3):
                    first = 30 * number
                    made.walk(first, first + last)
                    made.mark(number, first, first + last)
            names.append(made.path)
        (tmp_path / "TASKS.yaml").write_text(
            "tasks:\n"
            + "".join(
                f"- {{name: {name}, task: {{angle: {angle}}}, bags: {name}, "
                "reward: {topic: reward}}\n"
                for name, angle in (("monday", 0.5), ("tuesday", 1.5))
            )
        )
        own = tmp_path / "point_mass.yaml"
        text = domain.read_text().replace("0.1 m", "0.5 m/s")
        own.write_text(text)
        done = smac(
            *("bag", "convert", tmp_path / "bags", "--tasks", tmp_path / "TASKS.yaml"),
            *("--out", tmp_path / "data.h5", "--json", "--domain", own),
        )
        report = json.loads(done.stdout)
        assert report["warnings"] == []
        assert "converting: " in done.stderr
        data = Dataset.load(tmp_path / "data.h5")
        assert [len(task) for task in data.train] == [60, 45]
        assert data.action_units == ["0.5 m/s"] * 2
        assert " bag convert " in data.command
        smac_here(
            *("train", tmp_path / "data.h5", "--domain", own, "--scale", "paper"),
            *("--set", "offline.steps=2", "--set", "updates.meta_batch=2", "--out"),
            tmp_path / "run",
        )
        assert (tmp_path / "run" / "offline" / "checkpoints" / "latest").exists()


def blocks(page: str) -> list[str]:
    """The code blocks of the page's section on conversion."""
    text = (ROOT / "doc" / page).read_text().partition("\n## Converting\n")[2]
    return re.findall(r"```(?:yaml|python)\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)


def test_the_page_s_example(tmp_path, converted):
    """TASKS.yaml and the function of doc/bags.md, on the recordings that they speak of."""
    tasks, function = blocks("bags.md")
    (tmp_path / "my_rewards.py").write_text(function)
    rows = "".join(f"{1700000000 + 0.1 * k:.1f},{k}\n" for k in range(40))
    (tmp_path / "labels.csv").write_text("stamp,value\n" + rows)
    for name in ("monday", "tuesday"):
        with bag(tmp_path, name) as made:
            made.walk(0, 10)
            made.begin(0, 0, 10, task=0)
            made.end(0, 0, 10)
            made.walk(20, 26)
            made.begin(1, 20, 26, task=1)
            made.end(1, 20, 26)
            for k in range(30):
                number = STORE.types["std_msgs/msg/Float64"](data=float(k))
                made.write("distance", number, 100 * MS * k)
    assert "wed*" in tasks  # a recording that is not there would be refused
    with bag(tmp_path, "wednesday") as made:
        made.begin(0, 0, 4)
        made.walk(0, 4)
        made.end(0, 0, 4)
        made.write("distance", STORE.types["std_msgs/msg/Float64"](data=9.0), 0)
    bags = [tmp_path / name for name in ("monday", "tuesday", "wednesday")]
    data, report = converted(tasks, *bags)
    left, teleoperated, by_hand, by_function = data.train
    (right,) = data.test
    check(left, (0, 10), (20, 26), (0, 10), (20, 26), (0, 4))
    # received as the step's observation is due: (tick, next tick] by stamps 2 ms behind receipt
    check(right, (0, 10), rewards=False)
    assert right.rewards.tolist() == [-k for k in range(1, 11)]
    assert right.task == {"angle": 1.2, "behavior": "reach"}
    check(teleoperated, (0, 10), (20, 26), rewards=False)
    assert teleoperated.rewards.tolist() == [*range(1, 11), *range(21, 27)]
    check(by_hand, (5, 10), (20, 25), (0, 10), rewards=False)  # step 26 is received at 2.602 s
    expected = [*[-1] * 4, 1, *[-1] * 5, *[-1] * 5, *[1] * 4, -1]  # steps 10; 6 to 9
    assert by_hand.rewards.tolist() == expected
    check(by_function, (0, 10), (20, 26), rewards=False)
    np.testing.assert_allclose(by_function.rewards[:3], [-(2 - k) * 2**0.5 for k in range(3)])
    assert data.horizon == 10
