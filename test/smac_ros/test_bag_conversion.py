"""Recordings to datasets: transitions by hand, from markers, silences and intervals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from written_bags import CONTRACT, EPOCH, LATENCY, MS, STORE, WrittenBag, bag, check, steps, task

from smac_core.errors import InputError
from smac_ros.bags import one_bag, samples
from smac_ros.bags.conversion import report_path
from smac_ros.bags.reading import Bag
from smac_ros.contract import Contract

ROOT = Path(__file__).parents[2]
pytest_plugins = ["bag_fixtures", "point_mass_run"]


class TestMarkers:
    def test_by_hand(self, tmp_path, converted):
        with bag(tmp_path) as made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
            made.walk(10, 14)
            made.mark(1, 10, 14, terminal=True)
        data, report = converted(task(), made)
        (walk,) = data.train
        check(walk, (0, 3), (10, 14))
        assert walk.terminals.tolist() == [False] * 6 + [True]
        assert walk.timeouts.tolist() == [False, False, True] + [False] * 4
        assert walk.task == {"name": "walk"}
        assert (data.domain, data.rate, data.horizon) == ("point_mass", 10.0, 4)
        assert data.action_names == ["dx", "dy"] and data.action_units == ["0.5 m/s"] * 2
        assert data.contract == CONTRACT
        (own,) = report["bags"]
        assert own["tasks"][0]["transitions"] == 7
        assert report["warnings"] == []
        assert json.loads(report_path(data.path).read_text()) == report

    def test_those_that_are_none_are_told(self, tmp_path, converted):
        with bag(tmp_path) as made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
            made.mark(0, 0, 3, steps=1)  # the manager's, after the policy's: the first one counts
            made.walk(10, 14)
            made.begin(1, 10, 14)
            made.end(1, 10, 14, steps=2, last=EPOCH + 1200 * MS, reason="taken over")
            made.begin(2, 20, 24)
            made.end(2, 20, 24, steps=0, last=EPOCH + 2000 * MS, reason="given up")
            made.end(3, 20, 24)
            made.text("episode", "{}", 2500 * MS)
            made.walk(30, 33)
            made.begin(4, 30, 33)
        data, report = converted(task(), made)
        check(data.train[0], (0, 3), (10, 12))
        own = report["bags"][0]["tasks"][0]
        assert (own["episodes"], own["episodes_interrupted"]) == (2, 1)
        assert own["episodes_dropped"] == {
            "no transitions (given up)": 1,
            "without begin": 1,
            "without end": 1,
            "marker that cannot be read": 1,
        }
        assert len(report["warnings"]) == 5

    def test_chosen_by_purpose_and_task(self, tmp_path, converted):
        marks = [("exploration", 0), ("adapted", 1), ("meta_test", 1), ("exploration", 2)]
        with bag(tmp_path) as made:
            for number, (purpose, index) in enumerate(marks):
                made.walk(10 * number, 10 * number + 2)
                made.begin(number, 10 * number, 10 * number + 2, purpose=purpose, task=index)
                made.end(number, 10 * number, 10 * number + 2)
        chosen = {
            "{markers: {purpose: adapted}}": [1],
            "{markers: {purpose: [adapted, exploration], task: [0, 1]}}": [0, 1],
            "{markers: {task: 1}}": [1],
            "{markers: {task: 1, purpose: meta_test}}": [2],
            "markers": [0, 1, 3],  # practice, as the reward labeler has it
            "{markers: all}": [0, 1, 2, 3],
        }
        text = "tasks:\n"
        for number, episodes in enumerate(chosen):
            text += task(episodes=episodes, name=f"t{number}").removeprefix("tasks:\n")
        data, report = converted(text, made)
        for found, numbers in zip(data.train, chosen.values(), strict=True):
            check(found, *((10 * number, 10 * number + 2) for number in numbers))
        left = [task["episodes_not_chosen"] for task in report["bags"][0]["tasks"]]
        assert left == [len(marks) - len(numbers) for numbers in chosen.values()]
        mixed = "its recorded rewards are of 3 tasks (0, 1, 2); markers: {task: ...} takes one"
        assert sum(warning.endswith(mixed) for warning in report["warnings"]) == 2

    def test_the_robots_own_end(self, tmp_path, converted):
        """What was commanded since is no step; a fall whose transition is lost ends by time."""
        with bag(tmp_path) as made:
            made.walk(0, 4)
            made.stamp("terminated", 300 * MS)
            made.mark(0, 0, 3)
            for k in (10, 11, 13):  # the observation of step 12 was lost
                made.observe(k)
                made.reward(k)
            made.command(10)
            made.command(11)
            made.mark(1, 10, 12, terminal=True)
        data, report = converted(task(), made)
        check(data.train[0], (0, 3), (10, 11))
        assert data.train[0].terminals.tolist() == [False, False, True, False]
        assert data.train[0].timeouts.tolist() == [False, False, False, True]
        own = report["bags"][0]["tasks"][0]
        assert own["transitions_left_out"] == {"stale joint_states": 1}
        assert any("1 terminal transition left out" in text for text in report["warnings"])

    def test_longer_than_the_horizon(self, tmp_path, converted):
        with bag(tmp_path) as made:
            made.walk(0, 5)
            made.mark(0, 0, 5, terminal=True)
            made.walk(10, 12)
            made.mark(1, 10, 12)
        data, report = converted(task(), made, horizon=3)
        check(data.train[0], (0, 3), (10, 12))
        assert data.horizon == 3 and not data.train[0].terminals.any()
        assert report["bags"][0]["tasks"][0]["transitions_beyond_horizon"] == 2


class TestWithoutMarkers:
    def test_silences(self, tmp_path, converted):
        """Of commands while the robot goes on telling, of the robot, and of all."""
        with bag(tmp_path) as made:
            made.walk(0, 4)
            for k in range(5, 40):
                made.observe(k)
            made.walk(40, 43)
            for k in range(43, 50):
                made.command(k)
            made.walk(70, 72)
        data, report = converted(task(episodes="{gaps: 0.5}"), made)
        check(data.train[0], (0, 4), (40, 43), (70, 72))
        assert not data.train[0].terminals.any()
        topics = {topic["name"]: topic for topic in report["bags"][0]["topics"]}
        assert topics["/joint_states"]["gaps"] == 1
        assert topics["/joint_states"]["longest_gap"] == 2.7
        assert topics["/joint_command"]["gaps"] == 2

    def test_silence_divided_by_the_robots_own_end(self, tmp_path, converted):
        with bag(tmp_path) as made:
            made.walk(0, 3)
            made.command(3)
            made.stamp("terminated", 300 * MS)
            made.walk(4, 9)
        data, _ = converted(task(episodes="{gaps: 0.5, shortest: 2}"), made)
        check(data.train[0], (0, 3), (4, 9))
        assert np.flatnonzero(data.train[0].terminals).tolist() == [2]

    @pytest.mark.parametrize(
        "intervals",
        [
            "[[0.0, 0.3], [1.0, 1.55]]",
            "[[2023-11-14T22:13:20Z, 2023-11-14T22:13:20.31Z], [1700000001.0, 1700000001.55]]",
            "{bag: [[0, 0.3], ['2023-11-14T23:13:21+01:00', 1700000001.55]]}",
        ],
    )
    def test_intervals_of_receipt(self, tmp_path, converted, intervals):
        with bag(tmp_path) as made:
            made.walk(0, 30)
        data, _ = converted(task(episodes=f"{{intervals: {intervals}}}"), made)
        check(data.train[0], (0, 3), (10, 15))

    def test_intervals_on_a_simulation_clock(self, tmp_path, converted):
        """A player shows times of receipt; what they cut is found by its stamps all the same."""
        with bag(tmp_path) as made:
            for k in range(31):
                receive = 2 * LATENCY + 200 * MS * k  # at half of the recorder's speed
                made.observe(k, receive=receive)
                made.command(k, receive=receive)
        reward = "{success: [[2.0, 2.7]]}"
        data, _ = converted(task(reward, "{intervals: [[2.0, 3.05]]}"), made)
        check(data.train[0], (10, 15), rewards=False)
        # received at 2.2 (step 11), 2.4 and 2.6; step 14 at 2.8 is outside
        assert data.train[0].rewards.tolist() == [1, 1, 1, 0, 0]


class TestRewards:
    def make(self, tmp_path) -> WrittenBag:
        with bag(tmp_path) as made:
            made.walk(0, 5)
            made.mark(0, 0, 5)
        return made

    def test_many_tasks_of_one_reading(self, tmp_path, converted, monkeypatch):
        made, readings, read = self.make(tmp_path), [], Bag.batches
        monkeypatch.setattr(Bag, "batches", lambda *a: readings.append(1) or read(*a))
        # seconds, or ns, by the header's clock; the last sample in (tick, next tick] counts
        (tmp_path / "labels.csv").write_text(
            f"stamp,value\n{(EPOCH + 100 * MS) / 1e9:.1f},1\n\n1700000000.15,2\n"
            "1700000000.2,3\n1700000000300000000,4\n1700000000.35,5\n1700000000.5,nan\n"
        )
        (tmp_path / "by_receipt.csv").write_text("0.1,1\n0.15,0\n0.19,2\n0.3,3\n0.4,4\n0.5,5\n")
        (tmp_path / "rewards_of_walks.py").write_text(
            "def far(observations, actions, next_observations, task):\n"
            "    return task['gain'] * (next_observations[:, 0] - actions[:, 1])\n"
        )
        data, report = converted(
            "tasks:\n"
            "- {name: a, reward: {topic: reward}}\n"
            "- {name: b, split: test, reward: {csv: labels.csv}}\n"
            "- {name: c, reward: {csv: by_receipt.csv, time: receive}}\n"
            "- {name: d, reward: {success: [[0.05, 0.11], [0.3, 0.41]], outside: -1}}\n"
            "- name: e\n  task: {gain: 2.0}\n  reward: {function: 'rewards_of_walks:far'}\n"
            "- name: f\n"
            "  reward: {topic: joint_states, type: sensor_msgs/msg/JointState,\n"
            "           path: 'position[y]', scale: 2.0, offset: 1.0}\n",
            made,
        )
        a, c, d, e, f = data.train
        (b,) = data.test
        assert len(readings) == 1
        check(a, (0, 5))
        # 0.5 has NaN
        check(b, (0, 4), rewards=False)
        assert b.rewards.tolist() == [1, 3, 4, 5]
        assert c.rewards.tolist() == [1, 2, 3, 4, 5]
        assert d.rewards.tolist() == [1, -1, 1, 1, -1]
        k = np.arange(5)
        assert e.task == {"gain": 2.0}
        np.testing.assert_array_equal(e.rewards, np.float32(2 * (k + 1 + k / 128)))
        assert f.rewards.tolist() == [-1, -3, -5, -7, -9]
        left_out = [own["transitions_left_out"] for own in report["bags"][0]["tasks"]]
        assert left_out == [{}, {"not finite": 1}, {}, {}, {}, {}]

    @pytest.mark.parametrize(
        ("code", "found"),
        [
            ("return 1 / 0", "ZeroDivisionError: division by zero (broken_%d.py, line 2)"),
            ("return observations", "an array of shape (5, 2)"),
        ],
    )
    def test_a_function_that_fails(self, tmp_path, converted, code, found):
        made = self.make(tmp_path)
        name = f"broken_{len(code)}"
        arguments = "observations, actions, next_observations, task"
        (tmp_path / f"{name}.py").write_text(f"def reward({arguments}):\n    {code}\n")
        with pytest.raises(InputError) as caught:
            converted(task(f"{{function: '{name}:reward'}}"), made)
        assert caught.value.found == found.replace("%d", str(len(code)))
        assert not list((tmp_path / "out").iterdir())

    def test_a_csv_that_is_none(self, tmp_path, converted):
        (tmp_path / "labels.csv").write_text("stamp,value\n1.0,2\none,3\n")
        with pytest.raises(InputError, match="labels.csv: line 3: found 'one,3'"):
            converted(task("{csv: labels.csv}"), self.make(tmp_path))
        (tmp_path / "labels.csv").write_text("1700000000000,1\n1700000000100,2\n")  # ms
        with pytest.raises(InputError, match="line 1: found '1700000000000,1'; .*; s, or ns since"):
            converted(task("{csv: labels.csv}"), tmp_path / "bag")


class TestStorage:
    def test_the_same_from_every_storage(self, tmp_path, converted):
        plain = {"storage": "mcap"}, {"storage": "sqlite3"}
        modes = [{"mode": mode, **one} for one in plain for mode in ("file", "message")]
        modes.append({"storage": "mcap", "mode": "storage"})
        fingerprints = set()
        for number, options in enumerate([*plain, *modes]):
            with bag(tmp_path, f"bag{number}", **options) as made:
                made.walk(0, 5)
                made.mark(0, 0, 5, terminal=True)
            data, report = converted(task(), made, overwrite=True)
            assert report["warnings"] == []
            fingerprints.add(data.fingerprint)
        assert len(fingerprints) == 1


class TestManyRecordings:
    def test_one_is_open_at_a_time(self, tmp_path, converted, monkeypatch):
        """There may be more of them than a process may have open files."""
        paths, opened, read = [], [], Bag.batches
        for number in range(12):
            with bag(tmp_path, f"bag{number}", storage=("mcap", "sqlite3")[number % 2]) as made:
                made.walk(number, number + 2)
                made.mark(0, number, number + 2)
            paths.append(made.path)

        def count(*arguments):
            opened.append(len(os.listdir("/dev/fd")) - before)
            return read(*arguments)

        monkeypatch.setattr(Bag, "batches", count)
        before = len(os.listdir("/dev/fd"))
        data, _ = converted(task(), *paths)
        check(data.train[0], *((number, number + 2) for number in range(12)))
        assert len(opened) == 12 and max(opened) <= 4  # the dataset, and what Python likes

    def test_all_that_cannot_be_used_are_told_at_once(self, tmp_path, converted):
        with bag(tmp_path, "good") as made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
        with bag(tmp_path, "no_command") as other:
            other.observe(0)
        empty = tmp_path / "empty.mcap"
        empty.write_bytes(b"")
        with pytest.raises(InputError) as caught:
            converted(task(), made, other, empty)
        told = str(caught.value).splitlines()
        assert "no_command: topics: found no /joint_command" in told[0]
        assert "empty.mcap: file: found 0 bytes" in told[1] and len(told) == 2


class TestOtherContracts:
    def test_times_of_receipt_and_a_stream_that_is_not_there(self, tmp_path, converted, contract):
        """Arrays without headers; the last observation answers the last command."""
        numbers = "type: std_msgs/msg/Float64MultiArray"
        text = CONTRACT.replace("type: sensor_msgs/msg/JointState", numbers)
        text = text.replace("position[x, y]", "data[0:2]").replace("velocity[x, y]", "data[0:2]")
        text = text.replace("time: header", "time: receive").replace("position[reward]", "data[0]")
        camera = "  - {topic: camera, type: geometry_msgs/msg/PointStamped, time: header, "
        camera += "align: as_of, max_age: 0.2, missing: -1.0, "
        camera += "fields: [{path: point.x, names: [object], unit: m}]}\n"
        own = Contract.from_text(text.replace("actions:", camera + "actions:"), "own.yaml")
        array = STORE.types["std_msgs/msg/Float64MultiArray"]
        layout = STORE.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        with bag(tmp_path) as made:
            for k in range(6):
                for topic, value, delay in (("joint_states", k, 0), ("joint_command", k / 256, 3)):
                    data = np.array([value, -value], float)
                    message = array(layout=layout, data=data)
                    if topic == "joint_states" or k < 5:
                        made.write(topic, message, (100 * k + delay) * MS)
        reward = "{success: [[0.45, 1]]}"
        data, report = converted(task(reward, "{gaps: 0.5}"), made, contract=own)
        (walk,) = data.train
        expected = steps(0, 5)
        np.testing.assert_array_equal(walk.observations[:, :2], expected["observations"])
        np.testing.assert_array_equal(walk.next_observations[:, :2], expected["next_observations"])
        np.testing.assert_array_equal(walk.actions, expected["actions"])
        assert (walk.observations[:, 2] == -1).all()
        assert walk.rewards.tolist() == [0, 0, 0, 0, 1]
        (warning,) = report["warnings"]
        assert warning.endswith("no /camera: it reads as missing")

    def test_rows_of_another_domain_are_refused(self, tmp_path, converted, config):
        with bag(tmp_path) as made:
            made.walk(0, 3)
        names = config.environment.model_copy(update={"observation_names": ["x", "z"]})
        other = config.model_copy(update={"environment": names})
        with pytest.raises(InputError, match=r"observation_names\[1\]"):
            converted(task(episodes="{gaps: 1}"), made, config=other)

    def test_no_ros_is_needed(self, tmp_path):
        """Nothing of rclpy is loaded by the command, nor torch."""
        code = "import sys, smac_ros.bags.conversion; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        loaded = set(done.stdout.split())
        assert "smac_ros.bags.one_bag" in loaded
        assert loaded.isdisjoint({"rclpy", "torch", "std_msgs"})


class TestMemoryAndSpeed:
    def test_one_episode_is_held_at_a_time(self, tmp_path, converted, monkeypatch):
        """40 episodes of 5 s: what is held does not grow with the recording."""
        most = {}
        monkeypatch.setattr(one_bag, "BATCH", 32)
        monkeypatch.setattr(samples, "KEPT", 1000 * MS)
        for count in (4, 40):
            with bag(tmp_path, f"of_{count}") as made:
                for number in range(count):
                    first = 60 * number
                    made.begin(number, first, first + 50)
                    made.walk(first, first + 50)
                    made.end(number, first, first + 50)
            for episodes in ("markers", "{gaps: 0.5}"):
                data, report = converted(task(episodes=episodes), made, overwrite=True)
                check(data.train[0], *((60 * n, 60 * n + 50) for n in range(count)))
                most[count, episodes] = report["bags"][0]["most_samples_held"]
        # of three topics: an episode's, what may come late (2 s), and what is decoded at once
        assert max(most.values()) <= 3 * (51 + 21) + 32
        assert most[40, "markers"] <= most[4, "markers"] + 32

    def test_the_same_whatever_the_batches(self, tmp_path, converted, monkeypatch):
        """Samples out of order, a clock set back, silences: with any cut between batches."""
        rng = np.random.default_rng(0)
        with bag(tmp_path) as made:
            for k in rng.permutation(60).tolist():
                receive = int(100 * MS * k + rng.integers(0, 90) * MS)
                made.observe(k, receive=100 * MS * k + int(rng.integers(0, 250)) * MS)
                if k % 20 > 2:
                    made.command(k, receive=receive)
                made.reward(k)
            made.mark(0, 5, 15)
            made.mark(1, 25, 35)
            for k in range(3, 20):
                made.observe(k, receive=100 * MS * k + 9000 * MS)
                made.command(k, receive=100 * MS * k + 9000 * MS)
                made.reward(k, receive=100 * MS * k + 9000 * MS)
        text = task() + task(episodes="{gaps: 0.3}", name="gaps").removeprefix("tasks:\n")
        fingerprints = set()
        for size in (7, 50, 10_000):
            monkeypatch.setattr(one_bag, "BATCH", size)
            data, report = converted(text, made, overwrite=True)
            fingerprints.add(data.fingerprint)
            assert [len(task.trajectories) for task in data.train] == [2, 4]
        assert len(fingerprints) == 1
