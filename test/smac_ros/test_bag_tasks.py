"""What TASKS.yaml may say, how topics are found, and what a conversion reports."""

from pathlib import Path

import pytest
from written_bags import CONTRACT, EPOCH, LATENCY, MS, bag, check, task

from smac_core.errors import InputError
from smac_ros.bags.conversion import Refused, recorded_contract
from smac_ros.bags.topics import Names

ROOT = Path(__file__).parents[2]
pytest_plugins = ["bag_fixtures"]


class TestTaskFile:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("tasks: []", "line 1: tasks: found .*at least one entry"),
            (task(episodes="{gaps: 0.1}"), "line 3: tasks.0..episodes.gaps: found 0.1 s; .*0.15 s"),
            (task(episodes="{gap: 1}"), "line 3: .*unknown key 'gap'; .*did you mean 'gaps'"),
            (task(episodes="{gaps: 1, markers: all}"), "line 3: .*found markers and gaps"),
            (task(episodes="{intervals: [[2, 1]]}"), "line 3: .*intervals.0.: .*start before end"),
            (task(episodes="{intervals: [[1, 2000000000]]}"), "line 3: .*both from the rec"),
            (task(episodes="{intervals: {bog: [[1, 2]]}}"), "line 3: .*did you mean 'bag'"),
            (
                task(episodes="{intervals: [[2023-11-14 10:00:00, 2023-11-14 10:00:01]]}"),
                "line 3: .*without a time zone",
            ),
            (task(reward="{csv: none.csv}"), "line 4: tasks.0..reward.csv: .*no such file"),
            (task(reward="{topic: rewards}"), "line 4: .*without type and path; .*is reward"),
            (task(reward="{success: [[0, 1]], time: receive}"), "line 4: .*time beside success"),
            (task(reward="{}"), "line 4: tasks.0..reward: found none of them"),
            (task().replace("reward:", "rewards:"), "line 4: .*did you mean 'reward'"),
            (task() + task().removeprefix("tasks:\n"), "line 5: .*'walk' again"),
            (task() + "  bags: [monday]\n", "line 5: tasks.0..bags.0.: found 'monday'"),
            (task("{function: 'math:nothing'}"), "task walk: reward.function: found math:nothing"),
            (task(episodes="{intervals: [[9, 10]]}"), "intervals.0.: found 9 s to 10 s, outside"),
            (
                # in another time zone: not a task without any success
                task("{success: [['2023-11-14T22:13:20+02:00', '2023-11-14T22:13:21+02:00']]}"),
                r"success.0.: found 2023-11-14T20:13:20.000Z to .*; expected times in bag "
                r".2023-11-14T22:13:20.000Z to 2023-11-14T22:13:20.304Z, 0 to 0.304 s",
            ),
            (task(episodes="{intervals: [[1, 1700000000000]]}"), "line 3: .*found 1700000000000;"),
        ],
    )
    def test_what_is_wrong_is_told_by_line(self, tmp_path, converted, text, told):
        with bag(tmp_path) as made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
        with pytest.raises(InputError, match=told) as caught:
            converted(text, made)
        assert "TASKS.yaml" in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_seconds_need_the_recordings_name_where_there_are_two(self, tmp_path, converted):
        for name in ("monday", "tuesday"):
            with bag(tmp_path, name) as made:
                made.walk(0, 30)
        both = [tmp_path / "monday", tmp_path / "tuesday"]
        with pytest.raises(InputError, match="line 3: .*each of 2 recordings"):
            converted(task(episodes="{intervals: [[0, 1]]}"), *both)
        episodes = "{intervals: {monday: [[0, 0.3]], 'tues*': [[1, 1.25]]}}"
        text = task(episodes=episodes) + "- {name: t, bags: ./tuesday, episodes: {gaps: 1}, "
        text += "reward: {topic: reward}}\n- {name: u, reward: {success: {monday: [[0, 1]]}}, "
        data, report = converted(text + "episodes: {intervals: {monday: [[0, 1]]}}}", *both)
        check(data.train[0], (0, 3), (10, 12))
        check(data.train[1], (0, 30))
        assert len(data.train[2]) == 10
        assert [len(own["tasks"]) for own in report["bags"]] == [2, 2]
        text = task(reward="{success: {monday: [[0, 1]]}}", episodes="{gaps: 1}")
        with pytest.raises(InputError, match="reward.success: found nothing for tuesday"):
            converted(text, *both, overwrite=True)
        text = task(episodes="{intervals: {monday: [[0, 1]], tuesday: [[0, 1], [4, 5]]}}")
        with pytest.raises(InputError, match=r"episodes.intervals.tuesday\[1\]: found 4 s to 5 s"):
            converted(text, *both, overwrite=True)
        (tmp_path / "labels.csv").write_text("0.15,1\n0.25,2\n")
        text = task("{csv: labels.csv, time: receive}", "{gaps: 1}")
        with pytest.raises(InputError, match="reward.csv: found labels.csv with .* for 2 record"):
            converted(text, *both, overwrite=True)
        data, _ = converted(text, both[0], overwrite=True)
        assert data.train[0].rewards.tolist() == [1, 2]

    def test_a_name_of_two_recordings(self, tmp_path, converted):
        """What was noted down of one must not label the other."""
        for folder in ("left", "right"):
            with bag(tmp_path / folder) as made:
                made.walk(0, 5)
        both = [tmp_path / "left" / "bag", tmp_path / "right" / "bag"]
        with pytest.raises(InputError, match="line 3: .*found 2 recordings: .*a path that tells"):
            converted(task(episodes="{intervals: {bag: [[0, 0.3]]}}"), *both)
        data, _ = converted(task(episodes="{intervals: {left/bag: [[0, 0.3]]}}"), *both)
        check(data.train[0], (0, 3))


class TestNames:
    def test_a_robots_namespace(self, tmp_path, converted):
        with bag(tmp_path, namespace="/robot1") as made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
        for options in ({}, {"names": Names("robot1")}):
            data, _ = converted(task(), made, overwrite=True, **options)
            check(data.train[0], (0, 3))
        with pytest.raises(InputError, match="no /robot2/joint_states .*one of /robot1/joint_"):
            converted(task(), made, names=Names("robot2"), overwrite=True)

    def test_two_robots_have_to_be_told_apart(self, tmp_path, converted):
        made = bag(tmp_path, namespace="/robot1")
        with made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
            made.namespace = "/robot2"
            made.walk(5, 9)
            made.mark(0, 5, 9)
        with pytest.raises(InputError, match="--namespace robot1 or robot2"):
            converted(task(), made)
        with pytest.raises(InputError, match="--remap: topic: .*did you mean 'joint_states'"):
            converted(task(), made, names=Names.parse("", ["joint_state:=/robot2/joint_states"]))
        remaps = [f"{topic}:=/robot2/{topic}" for topic in ("joint_states", "joint_command")]
        remaps += ["reward:=/robot2/reward", "episode:=/robot2/episode"]
        data, _ = converted(task(), made, names=Names.parse("", remaps))
        check(data.train[0], (5, 9))
        data, _ = converted(task(), made, names=Names.parse("/robot2/", []), overwrite=True)
        check(data.train[0], (5, 9))

    def test_topics_of_two_robots_are_not_taken_for_one_s(self, tmp_path, converted):
        made = bag(tmp_path)
        with made:
            for k in range(4):
                made.observe(k)
                made.reward(k)
            made.namespace = "/robot1"
            made.walk(0, 3)
        _, report = converted(task(episodes="{gaps: 1}"), made)
        (warning,) = report["warnings"]
        assert "several namespaces (/joint_states, /robot1/joint_command)" in warning

    def test_a_contract_that_disagrees_is_shown(self, tmp_path, converted):
        with bag(tmp_path, contract=CONTRACT.replace("scale: 0.5", "scale: 0.25")) as made:
            made.walk(0, 3)
            made.mark(0, 0, 3)
        told = r"bag: its contract: actions scale\[0\]: found 0.25; expected 0.5, as in contract"
        with pytest.raises(InputError, match=told):
            converted(task(), made)


    def test_the_contract_that_recordings_carry(self, tmp_path):
        slower = CONTRACT.replace("rate: 10.0", "rate: 5.0")
        other = CONTRACT.replace("max_age: 0.05", "max_age: 0.06")
        texts = {"monday": CONTRACT, "tuesday": CONTRACT + "# the same", "wednesday": slower}
        for name, text in (texts | {"thursday": other, "friday": None}).items():
            with bag(tmp_path, name, contract=text) as made:
                made.walk(0, 3)
        monday, tuesday, wednesday, thursday, friday = (
            tmp_path / f"{name}day" for name in ("mon", "tues", "wednes", "thurs", "fri")
        )
        assert recorded_contract([monday, tuesday]).text == CONTRACT
        with pytest.raises(InputError, match="wednesday: its contract: rate: found 5.0; expected"):
            recorded_contract([monday, wednesday])
        with pytest.raises(InputError, match="thursday: contract: found other topics, .*monday"):
            recorded_contract([monday, thursday])
        with pytest.raises(InputError, match="friday: contract: found none .*--contract NAME"):
            recorded_contract([monday, friday])


class TestReport:
    def test_what_is_silently_wrong_in_recordings_of_others(self, tmp_path, converted):
        """A copy beside its original, headers without time, a clock ahead, actions out of reach."""
        names = ("original", "copy")
        for name in names:
            with bag(tmp_path, name) as made:
                for k in range(30):
                    made.observe(k)
                    made.command(k)
                    early = 100 * MS * k - 2 * LATENCY - 100 * MS
                    made.joints("reward", 100 * MS * k, max(early, 0), position={"reward": 1})
                made.walk(200, 220)
        _, report = converted(task(episodes="{gaps: 1}"), *(tmp_path / name for name in names))
        found = [warning.partition(": ")[2] for warning in report["warnings"]]
        assert found == [
            *2
            * [
                "/reward: its clock is 0.106 s ahead of the other topics'",
                "task walk: 20 of 49 actions are beyond +-1, where no policy of ours can go; "
                "scale in the contract says what 1 is",
            ],
            f"the same messages as {tmp_path / 'original'}, or a part of them",
        ]

    def test_headers_without_time(self, tmp_path, converted):
        with bag(tmp_path) as made:
            for k in range(10):
                made.observe(k)
                receive = 100 * MS * k
                made.joints("joint_command", -EPOCH, receive, velocity={"x": 0, "y": 0})
        with pytest.raises(Refused) as caught:
            converted(task("{success: [[0, 1]]}", "{gaps: 1}"), made)
        told = caught.value.report["warnings"][0].partition(": ")[2]
        assert told.startswith("/joint_command: 10 of 10 headers have no time (0); time: receive")

    def test_simulated_time_beside_dates(self, tmp_path, converted):
        with bag(tmp_path) as made:
            for k in range(1, 10):
                made.observe(k)
                made.joints("joint_command", 100 * MS * k - EPOCH, 0, velocity={"x": 0, "y": 0})
        with pytest.raises(Refused) as caught:
            converted(task("{success: [[0, 1]]}", "{gaps: 1}"), made)
        told = caught.value.report["warnings"][0].partition(": ")[2]
        assert told == "/joint_command: simulated time; but dates on /joint_states"

    def test_a_clock_that_is_off(self, tmp_path, converted):
        with bag(tmp_path) as made:
            for k in range(30):
                made.observe(k, receive=100 * MS * k + 170_000 * MS)
                made.command(k, receive=100 * MS * k + 170_000 * MS)
                made.reward(k)
        text = task("{success: [[0, 1]]}", "{gaps: 1.0}")
        _, report = converted(text, made)
        assert [topic["clock"] for topic in report["bags"][0]["topics"]] == [-170.0] * 2
        (warning,) = report["warnings"]
        assert warning.endswith("header stamps are 170.0 s behind the recorder's clock")

    def test_a_simulation_s_clock_that_the_recorder_s_does_not_follow(self, tmp_path, converted):
        with bag(tmp_path) as made:
            for k in range(60):
                receive = 10 * MS * k  # at ten times the recorder's speed
                for topic in ("joint_states", "joint_command")[: 2 if k < 30 else 1]:
                    kind = {"joint_states": "position", "joint_command": "velocity"}[topic]
                    # time stands, as between episodes, for 9 s of the recorder's clock
                    receive += 9000 * MS if k >= 40 else 0
                    values = {"x": k / 128, "y": -k / 128}
                    made.joints(topic, 100 * MS * k - EPOCH, receive, **{kind: values})
        _, report = converted(task("{success: [[0, 1]]}", "{gaps: 0.2}"), made, strict=True)
        assert report["warnings"] == []
        topics = report["bags"][0]["topics"]
        assert [(topic["clock"], topic["simulated"]) for topic in topics] == [(None, True)] * 2
        assert report["bags"][0]["tasks"][0]["transitions"] == 30

    def test_a_clock_that_the_others_do_not_have(self, tmp_path, converted):
        with bag(tmp_path) as made:
            for k in range(30):
                made.observe(k)
                made.command(k)
                receive = 100 * MS * k + LATENCY
                made.joints("reward", 100 * MS * k - 170_000 * MS, receive, position={"reward": 1})
        with pytest.raises(Refused) as caught:
            converted(task(episodes="{gaps: 1.0}"), made)
        told = "task walk: found no transitions (29 steps: no reward)"
        assert told in str(caught.value)
        report = caught.value.report
        assert report["bags"][0]["tasks"][0]["transitions_left_out"] == {"no reward": 29}
        told = "/reward: its clock is 170.0 s behind the other topics'"
        assert any(text.endswith(told) for text in report["warnings"])
        assert not list((tmp_path / "out").iterdir())

    def test_what_else_is_told_and_strict(self, tmp_path, converted):
        with bag(tmp_path) as made:
            made.walk(0, 20)
            made.mark(0, 0, 20)
            made.joints("joint_states", 2100 * MS, position={"z": 1})
            for k in (22, 23):
                made.observe(k)
            made.joints("joint_states", 2250 * MS, 2400 * MS, position={"x": 0, "y": 0})
            made.joints("joint_states", 9000 * MS, 2500 * MS, position={"x": 0, "y": 0})
        data, report = converted(task(), made)
        check(data.train[0], (0, 20))
        joints = report["bags"][0]["topics"][0]
        assert joints["messages"] == 26
        assert (joints["out_of_order"], joints["jumps"]) == (1, 1)
        assert sum(joints["unreadable"].values()) == 1
        assert joints["held_too_long"] == 0.0
        assert len(report["warnings"]) == 3
        before = data.path.read_bytes()
        with pytest.raises(Refused, match="--strict: found 3 warnings; nothing"):
            converted(task(), made, strict=True, overwrite=True)
        assert data.path.read_bytes() == before
        assert {path.name for path in data.path.parent.iterdir()} == {"data.h5", "data.report.json"}

    def test_samples_that_are_held_too_long(self, tmp_path, converted):
        with bag(tmp_path) as made:
            for k in range(20):
                if k not in (4, 5):
                    made.observe(k)
                made.command(k)
        data, report = converted(task("{success: [[0, 1]]}", "{gaps: 0.5}"), made)
        assert report["bags"][0]["topics"][0]["held_too_long"] == pytest.approx(2 / 19, abs=1e-6)
        left_out = report["bags"][0]["tasks"][0]["transitions_left_out"]
        assert left_out == {"stale joint_states": 3} and len(data.train[0]) == 16
        assert any("10.5 % of control steps" in text for text in report["warnings"])

    def test_a_clock_that_is_set_back(self, tmp_path, converted):
        """As by a simulation that starts again: what was whole before it stays."""
        with bag(tmp_path) as made:
            made.walk(50, 53)
            made.mark(0, 50, 53)
            late = 6000 * MS  # by the recorder's clock
            made.begin(1, 0, 3, receive=late)
            for k in range(4):
                made.observe(k, receive=late + 100 * MS * k)
                if k < 3:
                    made.command(k, receive=late + 100 * MS * k)
            made.end(1, 0, 3, receive=late + 400 * MS)
        data, report = converted(task("{success: [[0, 9]]}"), made)
        check(data.train[0], (50, 53), (0, 3), rewards=False)
        assert sum("jump" in text for text in report["warnings"]) == 2

    def test_no_episode_is_of_two_clocks(self, tmp_path, converted):
        """One that a restart cut short must not go on with the stamps of the next run."""
        with bag(tmp_path) as made:
            made.walk(20, 32)
            made.begin(0, 25, 35)
            for k in range(40):
                for one in (made.observe, made.command, made.reward):
                    one(k, receive=100 * MS * k + 5000 * MS)
            made.end(0, 25, 35, receive=9200 * MS)
            made.begin(1, 30, 34, receive=9300 * MS)
            made.end(1, 30, 34, receive=9400 * MS)
        data, report = converted(task(), made)
        check(data.train[0], (30, 34))
        own = report["bags"][0]["tasks"][0]
        assert own["episodes_dropped"] == {"the clock was set back in it": 1}
