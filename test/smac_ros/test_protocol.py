"""The job's episodes, and the scores and the table that come of them, by hand-worked numbers."""

import itertools
import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from smac_core import checkpoint
from smac_core.config import load_config
from smac_core.errors import InputError
from smac_ros.messages import Begin, End
from smac_ros.protocol import (
    Job,
    JobFailed,
    Played,
    Stopped,
    choose_tasks,
    meta_episode,
    practice_episodes,
    run_configuration,
)
from smac_ros.scores import Rewards, Score, Scores, difference, make_table, table_rows

TRAIN = [{"behavior": "push", "number": i} for i in range(5)]
TEST = [{"behavior": name, "number": i} for i, name in enumerate(["push", "pull"] * 3)]


def begin(start: int = 100, steps: int = 3) -> Begin:
    return Begin(1, 1, start, steps, "meta_test", "exploit", 1, 0)


def end(steps: int = 3, last: int = 103) -> End:
    return End(1, 1, steps, last)


# Rewards


def test_a_reward_sent_again_counts_once():
    rewards = Rewards()
    for stamp, reward, success in [(100, 9.0, True), (101, -1.0, False), (102, -0.5, True)]:
        rewards.add(stamp, reward, success)
    rewards.add(102, -0.5, True)
    assert rewards.score(begin(), end(), exact=True) is None, "the third is missing"
    rewards.add(103, -0.25, False)
    assert rewards.score(begin(), end(), exact=True) == Score(-1.75, False)
    rewards.add(104, 50.0, True)  # a step of nobody's
    assert rewards.score(begin(), end(), exact=True) == Score(-1.75, False)
    rewards.clear()
    assert rewards.score(begin(), end(), exact=True) is None


def test_in_real_time_rewards_up_to_the_last_observation_count():
    rewards = Rewards()
    rewards.add(101, 1.0, False)
    assert rewards.score(begin(), end(), exact=False) is None
    rewards.add(103, 2.0, True)
    rewards.add(104, 4.0, False)
    assert rewards.score(begin(), end(), exact=False) == Score(3.0, True)


# Episodes


def test_practice_episodes():
    settings = load_config("sawyer", "cpu").self_supervised  # 4 and 6
    explored, adapted = practice_episodes(settings, TRAIN[3], 3, (2, 1), group=7)
    assert (len(explored), len(adapted)) == (4, 6)
    for episode in explored + adapted:
        assert (episode.scene, episode.task, episode.group) == (TRAIN[3], 3, 7)
        assert not episode.deterministic
    first, last = explored[0], adapted[-1]
    assert (first.mode, first.latent, first.purpose) == ("explore", "step", "exploration")
    assert (last.mode, last.latent, last.purpose) == ("exploit", "sample", "adapted")
    assert (first.context, last.context) == (0, 4)
    places = [episode.place for episode in explored + adapted]
    assert len(set(places)) == 10


def test_a_meta_episode():
    settings = load_config("sawyer", "cpu").evaluation
    explored, last = meta_episode(settings, TEST[0], (0, 1), group=9)
    assert [e.mode for e in (*explored, last)] == ["adapt", "adapt", "exploit"]
    assert [e.context for e in (*explored, last)] == [0, 0, 2]
    assert last.latent == settings.posterior_latent and explored[0].latent == "step"
    assert all(e.deterministic and e.task == -1 for e in (*explored, last))
    assert len({e.seeds(0) for e in (*explored, last)}) == 3


def test_seeds_follow_from_the_place_alone():
    settings = load_config("sawyer", "cpu").evaluation
    once, again = (meta_episode(settings, TEST[0], (4, 0), group)[1] for group in (1, 2))
    assert once.seeds(3) == again.seeds(3)
    assert len({once.seeds(3), once.seeds(4), once.seeds(3, attempt=1)}) == 3
    assert all(0 <= number < 2**31 for number in once.seeds(3))


def test_fewer_tasks_keep_the_behaviours_mixed():
    """With a stride of three, 20 of the 60 held-out tasks were all of the same behaviour."""
    tasks = [{"behavior": "abc"[i % 3]} for i in range(60)]
    chosen = choose_tasks(tasks, 20)
    assert len(chosen) == 20 and chosen == sorted(set(chosen))
    counts = [sum(i % 3 == b for i in chosen) for b in range(3)]
    assert sorted(counts) == [6, 7, 7]
    assert choose_tasks(tasks, 3) == [0, 1, 2]
    assert choose_tasks(tasks, 0) == choose_tasks(tasks, 100) == list(range(60))
    assert choose_tasks([{}] * 10, 5) == [0, 2, 4, 6, 8]


# The job


@dataclass
class Script:
    """A stage that plays everything at once and keeps what it was asked for."""

    lost: list[set[int]] = field(default_factory=list)
    stop_after: int = 10**9
    version: int = 0
    asked: list = field(default_factory=list)

    def play(self, episode):
        episodes = [one for one in self.asked if not isinstance(one, str)]
        if len(episodes) == self.stop_after:
            raise Stopped
        self.asked.append(episode)
        number = len(episodes) + 1
        start = episode.begin(session=1, id=number, start=0, steps=1, seed=0, weights=0)
        score = Score(float(number), True) if episode.purpose == "meta_test" else None
        return Played(start, End(1, number, 1, 1), score)

    def await_labels(self, played):
        self.asked.append(f"labels of {len(played)}")
        return self.lost.pop(0) if self.lost else set()

    def await_learner(self):
        self.asked.append("learner")
        self.version += 1

    def say(self, text, *, now=False, **shown):
        pass


@pytest.fixture
def config():
    config = load_config("sawyer", "cpu", ["self_supervised.tasks_per_iteration=2"])
    practice = {"exploration_trajectories": 2, "adapted_trajectories": 1}
    return config.model_copy(
        update={
            "self_supervised": config.self_supervised.model_copy(update=practice),
            "evaluation": config.evaluation.model_copy(update={"repeats": 1}),
        }
    )


def make_job(stage, config, iterations=1, meta_test="none", seed=0) -> Job:
    return Job(stage, config, TRAIN, TEST, [0, 3], iterations, meta_test, seed, itertools.count(1))


def test_an_iteration_of_practice(config):
    stage = Script()
    make_job(stage, config).run()
    asked = [one if isinstance(one, str) else one.purpose for one in stage.asked]
    task = ["exploration", "exploration", "labels of 2", "adapted"]
    assert asked == [*task, *task, "labels of 6", "learner"]
    groups = [one.group for one in stage.asked if not isinstance(one, str)]
    assert groups == [1, 1, 1, 2, 2, 2]


def test_tasks_are_drawn_as_in_self_training(config):
    stages = [Script(), Script()]
    for stage in stages:
        make_job(stage, config, iterations=3, seed=5).run()
    drawn = [[e.task for e in s.asked if not isinstance(e, str)][::3] for s in stages]
    random = np.random.default_rng(5)
    wanted = [random.choice(5, 2, replace=False).tolist() for _ in range(3)]
    assert drawn[0] == drawn[1] == sum(wanted, [])


def test_exploration_without_labels_is_played_again(config):
    stage = Script(lost=[{2}])
    make_job(stage, config).run()
    asked = [one if isinstance(one, str) else one.purpose for one in stage.asked]
    assert asked[:5] == ["exploration", "exploration", "labels of 2", "exploration", "labels of 1"]
    assert stage.asked[3].place not in [stage.asked[0].place, stage.asked[1].place]
    stage = Script(lost=[{1, 2}, {3, 4}])
    with pytest.raises(JobFailed, match="2 episodes were not labelled, nor were their repeats"):
        make_job(stage, config).run()


def test_without_any_labels_the_job_fails(config):
    practice = config.self_supervised.model_copy(update={"adapted_trajectories": 0})
    config = config.model_copy(update={"self_supervised": practice})
    make_job(Script(lost=[{1, 2, 3}]), config).run()  # a lost one is survived
    with pytest.raises(JobFailed, match="no episode"):
        make_job(Script(lost=[{1, 2, 3, 4}]), config).run()


def test_meta_tests_before_and_after_have_the_same_seeds(config):
    stage = Script()
    job = make_job(stage, config, meta_test="both")
    job.run()
    tests = [e for e in stage.asked if not isinstance(e, str) and e.purpose == "meta_test"]
    assert len(tests) == 2 * 2 * 3
    assert [e.seeds(0) for e in tests[:6]] == [e.seeds(0) for e in tests[6:]]
    assert [e.scene["number"] for e in tests[:6]] == [0, 0, 0, 3, 3, 3]
    before, after = job.scores["before"], job.scores["after"]
    assert before.returns.tolist() == [[3.0], [6.0]]
    assert before.exploration_returns.tolist() == [[1.5], [4.5]]
    assert after.returns.tolist() == [[15.0], [18.0]]  # six episodes of practice in between
    assert (before.weights, after.weights) == (0, 1)


def test_a_stop_keeps_what_is_scored(config):
    job = make_job(Script(stop_after=4), config, meta_test="before")
    with pytest.raises(Stopped):
        job.run()
    assert job.scores["before"].rows == [0]
    report = job.scores["before"].report()
    assert not report["complete"] and report["task_numbers"] == [0]
    assert report["returns"] == [[3.0]] and report["success"] == [[True]]


# The table


@pytest.fixture
def scores() -> dict[str, Scores]:
    """Two tasks of push, one of pull, two repeats."""
    tasks = [TEST[0], TEST[2], TEST[1]]
    both = {"before": Scores(tasks, [0, 2, 1], 2), "after": Scores(tasks, [0, 2, 1], 2, 7)}
    for row, values in enumerate([(-40, -20), (-20, -20), (-50, -50)]):
        for repeat, value in enumerate(values):
            both["before"].add(row, repeat, Score(value, value == -20), [Score(-50, False)])
            both["after"].add(row, repeat, Score(value + 10 * row, True), [Score(-50, False)])
    return both


def test_the_table(scores):
    lines = {(line[0], i): line[1:] for i, line in enumerate(table_rows(scores))}
    # before: task means -30, -20, -50; success 1/2, 1, 0. after: -30, -10, -30; 1, 1, 1
    names = [name for name, _ in lines]
    assert names == [
        "before: offline phase",
        "  pull",
        "  push",
        "after: weights 7",
        "  pull",
        "  push",
        "difference",
        "  pull",
        "  push",
    ]
    rows = list(lines.values())
    assert rows[0] == ("3", "50 %", "-33.3"), "no interval of so few tasks"
    assert rows[1] == ("1", "0 %", "-50.0")
    assert rows[3] == ("3", "100 %", "-23.3")
    assert rows[6] == ("3", "+50 %", "+10.0")
    assert rows[7] == ("1", "+100 %", "+20.0")
    success, returns = difference(scores["before"], scores["after"], [0, 1, 2])
    assert success.tolist() == [0.5, 0, 1] and returns.tolist() == [0, 10, 20]


def test_intervals_are_over_tasks_and_paired():
    both = {name: Scores([{}] * 5, list(range(5)), 1) for name in ("before", "after")}
    for row, (before, gain) in enumerate(
        zip([-10, -20, -30, -40, -50], [1, 2, 3, 4, 5], strict=True)
    ):
        both["before"].add(row, 0, Score(before, False), [])
        both["after"].add(row, 0, Score(before + gain, row > 0), [])
    first, last, gain = table_rows(both)
    # sd 15.81, t(4) = 2.776: 2.776 * 15.81 / sqrt 5 = 19.6; the gain's sd is a tenth of it
    assert first == ("before: offline phase", "5", "0 ± 0 %", "-30.0 ± 19.6")
    assert last[2] == "80 ± 55 %"
    assert gain == ("difference", "5", "+80 ± 55 %", "+3.0 ± 2.0")


def test_the_difference_pairs_what_both_have(scores):
    scores["after"].returns[1, 0] = np.nan  # interrupted
    rows = table_rows(scores)
    counts = {row[0]: row[1] for row in rows if not row[0].startswith(" ")}
    assert counts == {"before: offline phase": "3", "after: weights 7": "2", "difference": "2"}


def test_the_table_prints_within_80_columns(scores):
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(make_table(scores, 3, {"trajectories": 20, "transitions": 1000}))
    text = console.export_text()
    assert "3 held-out tasks, last of 3 episodes (mean ± 95 %)" in text
    assert "practice: 20 trajectories, 1000 transitions without rewards" in text
    assert "+10.0" in text
    assert json.loads(json.dumps(scores["before"].report(), allow_nan=False))["complete"]


def test_a_domain_without_success_has_no_such_column(scores):
    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    practice = {"trajectories": 20, "transitions": 1000}
    console.print(make_table(scores, 3, practice, measures_success=False))
    text = console.export_text()
    assert "return" in text and "success" not in text and "+10.0" in text
    assert text.count("%") == 1  # the title's


# The configuration


def test_numbers_may_differ_from_the_runs(tmp_path):
    import torch

    config = load_config("sawyer", "cpu")
    state = {"config": config.model_dump(mode="json")}
    place = tmp_path / "offline" / "checkpoints" / "step_0"
    checkpoint.save(place, {"x": torch.zeros(1)}, state)
    assert run_configuration(str(tmp_path)) == config
    changed = run_configuration(
        str(tmp_path), tasks_per_iteration=3, adapted_trajectories=0, horizon=7, repeats=2
    )
    assert changed.self_supervised.tasks_per_iteration == 3
    assert changed.self_supervised.adapted_trajectories == 0
    assert changed.self_supervised.exploration_trajectories == 4
    assert (changed.environment.horizon, changed.evaluation.repeats) == (7, 2)
    with pytest.raises(InputError, match="no such folder"):
        run_configuration(str(tmp_path / "nowhere"))
