"""The manager against scripted robot, policy, labeler and learner."""

import json

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy.node
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TwistStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from smac_core import checkpoint
from smac_core.config import load_config
from smac_core.tasks import load_tasks
from smac_ros.base_node import latched, reliable
from smac_ros.episode_manager_node import EpisodeManagerNode
from smac_ros.messages import Begin, End, Trajectory, pack_trajectory, parse_marker, set_stamp

STEPS, PRACTISED = 4, 4  # of an episode; of an iteration: 2 tasks x (1 + 1)


class Rest(rclpy.node.Node):
    """Robot, policy, labeler and learner in one node; ``faults`` says what goes wrong.

    ``faults``: begin's number (from 1) -> "silent" (never ends), "broken" (ends badly), "deaf"
    (no reward of the last step), "unlabelled".
    """

    def __init__(self, practice: bool = True, robot: bool = True):
        super().__init__("robot")
        self.begins: list[Begin] = []
        self.foreign_ends: list[End] = []
        self.resets: list[dict] = []
        self.faults: dict[int, str] = {}
        self.refuses_reset = False
        self.stamp, self.version, self.trajectories, self.owed = 1000, 0, 0, 0
        self.learns, self.labelled, self.loses = True, 0, set()
        for name, value in (("task", ""), ("seed", 0), ("publish_reward", False)):
            self.declare_parameter(name, value)
        if robot:
            self.create_service(Trigger, "~/reset", self._reset)
        self.create_publisher(TwistStamped, "hand_command", reliable(1))
        self.reward = self.create_publisher(JointState, "reward", reliable(10))
        self.markers = self.create_publisher(String, "episode", reliable(100))
        self.create_subscription(String, "episode", self._on_marker, reliable(100))
        if practice:
            self.create_subscription(String, "episode", lambda _: None, reliable(100))
            self.labels = self.create_publisher(PointCloud2, "labelled_trajectories", reliable(100))
            self.progress = self.create_publisher(DiagnosticArray, "learner/progress", latched())
            self._tell()

    def _tell(self):
        values = {
            "version": self.version,
            "trajectories": self.trajectories,
            "updates_owed": self.owed,
        }
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        self.progress.publish(DiagnosticArray(status=[DiagnosticStatus(values=pairs)]))

    def _reset(self, request, response):
        names = ("task", "seed", "publish_reward")
        self.resets.append({name: self.get_parameter(name).value for name in names})
        response.success = not self.refuses_reset
        self.stamp += 1000
        response.message = json.dumps({"stamp": self.stamp})
        return response

    def _on_marker(self, message):
        marker = parse_marker(message.data)
        if isinstance(marker, End):
            if marker.reason.startswith("given up"):
                self.foreign_ends.append(marker)
            return
        self.begins.append(marker)
        fault = self.faults.get(len(self.begins), "")
        if fault == "silent":
            return
        steps = marker.steps if fault != "deaf" else marker.steps - 1
        if self.get_parameter("publish_reward").value:
            for stamp in [*range(steps), steps - 1]:  # the last one is sent again
                self._publish_reward(marker.start + 1 + stamp, success=stamp == marker.steps - 1)
        reason = "the hand is stuck" if fault == "broken" else "complete"
        done = End(marker.session, marker.id, marker.steps, marker.start + marker.steps, reason)
        self.markers.publish(String(data=done.to_json()))
        if marker.purpose != "meta_test" and reason == "complete" and fault != "unlabelled":
            self._label(marker)

    def _publish_reward(self, stamp: int, success: bool):
        message = JointState(name=["reward", "success"], position=[-0.5, float(success)])
        set_stamp(message.header.stamp, stamp)
        self.reward.publish(message)

    def _label(self, begin: Begin):
        n = begin.steps
        trajectory = Trajectory(
            session=begin.session,
            episode=begin.id,
            group=begin.group,
            sequence=self.labelled,
            task=begin.task,
            exploration=begin.purpose == "exploration",
            weights=begin.weights,
            stamp=begin.start,
            times=np.zeros(n),
            observations=np.zeros((n, 13), np.float32),
            actions=np.zeros((n, 4), np.float32),
            rewards=np.full(n, -0.25, np.float32),
            next_observations=np.zeros((n, 13), np.float32),
            terminals=np.zeros(n, np.float32),
        )
        self.labels.publish(pack_trajectory(trajectory))
        self.labelled += 1
        self.trajectories += self.labelled not in self.loses
        if self.learns and self.labelled % PRACTISED == 0:
            self.version += 1
        self._tell()


@pytest.fixture
def run_folder(tmp_path):
    """A run whose configuration asks for two tasks and 1 + 1 trajectories of 4 steps."""
    changes = [
        f"environment.horizon={STEPS}",
        "self_supervised.tasks_per_iteration=2",
        "self_supervised.exploration_trajectories=1",
        "self_supervised.adapted_trajectories=1",
    ]
    config = load_config("sawyer", "smoke", changes)
    place = tmp_path / "run" / "offline" / "checkpoints" / "step_0"
    state = {"config": config.model_dump(mode="json")}
    checkpoint.save(place, {"x": torch.zeros(1)}, state)
    return tmp_path / "run"


@pytest.fixture
def manager(ros, run_folder):
    def make(**changes):
        settings = {
            "checkpoint": str(run_folder),
            "robot": "robot",
            "iterations": 1,
            "meta_test_tasks": 2,
            "timeout": 5.0,
            "seed": 3,
        } | changes
        given = [Parameter(name, value=value) for name, value in settings.items()]
        return ros.start(EpisodeManagerNode(parameter_overrides=given))

    return make


def finish(ros, node, timeout=30.0) -> int:
    ros.until(lambda: node.exit_code is not None, timeout, "the job")
    return node.exit_code


def call(ros, name: str) -> Trigger.Response:
    return ros.call(ros.node("caller").create_client(Trigger, name), Trigger.Request())


def test_the_whole_job(ros, manager, tmp_path, capfd):
    rest = ros.add(Rest())
    node = manager(iterations=2, meta_test="both", results=str(tmp_path / "results"))
    assert finish(ros, node) == 0, node.diagnostics.faults
    purposes = [begin.purpose for begin in rest.begins]
    tests, practice = ["meta_test"] * 6, ["exploration", "adapted"] * 2
    assert purposes == [*tests, *practice, *practice, *tests]
    assert [b.weights for b in rest.begins] == [0] * 10 + [1] * 4 + [2] * 6
    assert len({b.session for b in rest.begins}) == 1
    assert [b.id for b in rest.begins] == list(range(1, 21))
    assert [b.mode for b in rest.begins[:8]] == [*["adapt", "adapt", "exploit"] * 2, "explore"] + [
        "exploit"
    ]
    assert [b.context for b in rest.begins[:8]] == [0, 0, 2, 0, 0, 2, 0, 1]
    assert all(b.start == 2000 + 1000 * i for i, b in enumerate(rest.begins))
    # the robot was put into each scene, and said what it is worth only in a meta-test
    config = load_config("sawyer", "smoke")
    test, train = load_tasks(config.tasks.test), load_tasks(config.tasks.train)
    scenes = [json.loads(reset["task"]) for reset in rest.resets]
    for begin, scene, reset in zip(rest.begins, scenes, rest.resets, strict=True):
        assert reset["publish_reward"] == (begin.purpose == "meta_test")
        assert scene in test if begin.task == -1 else scene == train[begin.task]
    assert [r["seed"] for r in rest.resets[:6]] == [r["seed"] for r in rest.resets[-6:]]
    # what came of it
    for name, weights, trajectories in (("before", 0, 0), ("after", 2, 8)):
        report = json.loads((tmp_path / "results" / f"meta_test_{name}.json").read_text())
        assert report["returns"] == [[-2.0], [-2.0]]  # 4 x -0.5; the repeated one counts once
        assert report["success"] == [[True], [True]]
        assert report["complete"] and report["versions"]["weights"] == weights
        assert report["practice"] == {
            "trajectories": trajectories,
            "transitions": trajectories * STEPS,
        }
        assert report["seed"] == 3 and report["settings"]["horizon"] == STEPS
    printed = capfd.readouterr()
    assert "before: offline phase" in printed.out and "after: weights 2" in printed.out
    assert "practice: 8 trajectories, 32 transitions without rewards" in printed.out
    assert "meta-test after: 2/2 meta-episodes, success 100 %" in printed.err
    assert "practice 2/2: 4 of 4 episodes" in printed.err
    assert "label mean -0.25; learner version 1" in printed.err


def test_equal_seeds_make_equal_episodes(ros, manager):
    rest = ros.add(Rest())
    seen = []
    for seed in (3, 3, 4):
        node = manager(seed=seed, meta_test="after")
        assert finish(ros, node) == 0
        ros.executor.remove_node(node)
        ros.nodes.remove(node)
        node.on_shutdown(None)
        node.destroy_node()
        seen.append([(b.seed, b.task, b.mode, b.group) for b in rest.begins])
        seen[-1] += [(reset["seed"], reset["task"]) for reset in rest.resets]
        rest.begins.clear()
        rest.resets.clear()
    assert seen[0] == seen[1] != seen[2]


def test_failed_episodes_are_played_again(ros, manager):
    rest = ros.add(Rest(practice=False))
    rest.faults = {1: "silent", 2: "broken", 5: "deaf"}
    node = manager(iterations=0, meta_test="before", meta_test_tasks=1, timeout=0.5)
    assert finish(ros, node) == 0, node.diagnostics.faults
    assert [b.id for b in rest.begins] == [1, 2, 3, 4, 5, 6]
    assert [b.context for b in rest.begins] == [0, 0, 0, 0, 2, 2]
    assert len({b.seed for b in rest.begins}) == 6
    assert len({b.group for b in rest.begins}) == 1
    (given_up,) = rest.foreign_ends
    assert given_up.id == 1 and "did not end it within" in given_up.reason
    assert node.diagnostics.counts["episodes given up"] == 3


def test_an_episode_that_always_fails_ends_the_job(ros, manager, capfd):
    rest = ros.add(Rest(practice=False))
    rest.faults = dict.fromkeys(range(4, 20), "broken")
    node = manager(iterations=0, meta_test="before")
    assert finish(ros, node) == 1
    assert len(rest.begins) == 6
    assert node.diagnostics.faults["job"] == (
        "an episode was given up 3 times, the last time: the hand is stuck"
    )
    assert "the hand is stuck" in capfd.readouterr().err


def test_episodes_that_a_human_interrupts_are_repeated(ros, manager, capfd):
    """However often, with the same seeds, and only once the robot is the policy's again."""
    rest = ros.add(Rest(practice=False))
    control = rest.create_publisher(String, "control", latched())
    rest.faults = dict.fromkeys((1, 2, 3, 4), "silent")
    node = manager(iterations=0, meta_test="before", meta_test_tasks=1)
    for number in range(1, 5):
        ros.until(lambda number=number: len(rest.begins) == number, what=f"begin {number}")
        begin, resets = rest.begins[-1], len(rest.resets)
        end = End(begin.session, begin.id, 0, begin.start, "interrupted: paused by a test")
        words = [lambda: control.publish(String(data="paused")),
                 lambda end=end: rest.markers.publish(String(data=end.to_json()))]  # fmt: skip
        for say in words if number % 2 else reversed(words):  # topics keep no order
            say()
        ros.until(lambda: node._conductor._control == "paused", what="the word")
        expected = {"episodes interrupted": number}
        ros.until(lambda expected=expected: node.diagnostics.counts == expected, what="its count")
        assert (len(rest.begins), len(rest.resets)) == (number, resets)
        control.publish(String(data="policy"))
    assert finish(ros, node) == 0, node.diagnostics.faults
    assert "episodes given up" not in node.diagnostics.counts
    assert len({b.seed for b in rest.begins[:5]}) == 1 and len({b.id for b in rest.begins}) == 7
    assert "waits for its ~/resume" in capfd.readouterr().err


def test_rewards_of_an_operator(ros, manager, monkeypatch, capfd):
    """The robot keeps its own to itself, and the job waits for whoever gives them."""
    monkeypatch.setattr("smac_ros.episode_manager_node.WAITING", 0.2)
    rest = ros.add(Rest(practice=False))
    node = manager(iterations=0, meta_test="before", meta_test_tasks=1, rewards="operator")
    ros.until(lambda: "an operator (which publishes reward)" in capfd.readouterr().err, 10.0)
    human = ros.node("operator")
    rewards = human.create_publisher(JointState, "reward", reliable(10))

    def pay(message: String) -> None:
        marker = parse_marker(message.data)
        for step in range(STEPS if isinstance(marker, Begin) else 0):
            reward = JointState(name=["reward", "success"], position=[1.0, 1.0])
            set_stamp(reward.header.stamp, marker.start + 1 + step)
            rewards.publish(reward)

    human.create_subscription(String, "episode", pay, reliable(100))
    assert finish(ros, node) == 0, node.diagnostics.faults
    assert not any(reset["publish_reward"] for reset in rest.resets)


def test_a_reset_that_fails_ends_the_job(ros, manager):
    rest = ros.add(Rest(practice=False))
    rest.refuses_reset = True
    node = manager(iterations=0, meta_test="before")
    assert finish(ros, node) == 1
    assert not rest.begins and "/robot/reset" in node.diagnostics.faults["job"]


def test_missing_labels(ros, manager):
    """The first exploration is repeated; a lost adapted one only counts."""
    rest = ros.add(Rest())
    rest.faults = {1: "unlabelled", 3: "unlabelled"}
    node = manager(meta_test="none", timeout=0.5)
    finish(ros, node)
    purposes = [begin.purpose for begin in rest.begins]
    assert purposes == ["exploration", "exploration", "adapted", "exploration", "adapted"]
    assert node.diagnostics.counts["labels missing"] == 2
    assert node.diagnostics.counts["iterations with less practice"] == 1
    assert node.exit_code == 0 and rest.version == 0, "three are too few for an iteration"


def test_practice_lost_on_the_way_to_the_learner(ros, manager, monkeypatch):
    """A learner that does with fewer trajectories is not waited for until the time is out."""
    monkeypatch.setattr("smac_ros.conductor.QUIET", 0.2)
    rest = ros.add(Rest())
    rest.loses = {2, 5}
    node = manager(meta_test="none", iterations=3, timeout=20.0)
    assert finish(ros, node, 15.0) == 0
    assert node.diagnostics.counts["iterations with less practice"] == 2
    assert [b.weights for b in rest.begins[::PRACTISED]] == [0, 1, 2]


def test_a_learner_that_does_not_learn_ends_the_job(ros, manager):
    rest = ros.add(Rest())
    rest.learns, rest.owed = False, 12
    node = manager(meta_test="none", timeout=0.5)
    assert finish(ros, node) == 1
    assert "owes 12 updates and does not go on" in node.diagnostics.faults["job"]


def test_what_is_missing_is_said(ros, manager, monkeypatch, capfd):
    monkeypatch.setattr("smac_ros.episode_manager_node.WAITING", 0.2)
    node = manager()
    text = ""

    def told():
        nonlocal text
        text += capfd.readouterr().err
        return "learner/progress" in text

    ros.until(told)
    for name in ("/robot/reset", "hand_command", "labelled_trajectories", "learner/progress"):
        assert name in text
    assert call(ros, "episode_manager/stop").success
    assert finish(ros, node) == 0


def test_pause_start_and_stop(ros, manager, tmp_path, capfd):
    rest = ros.add(Rest(practice=False))
    settings = {"iterations": 0, "meta_test": "before", "meta_test_tasks": 0}
    node = manager(start=False, exit_when_done=False, results=str(tmp_path), **settings)
    assert not call(ros, "episode_manager/pause").success, "there is no job"
    rest.faults = {5: "silent"}
    assert call(ros, "episode_manager/start").message == "begins"
    ros.until(lambda: len(rest.begins) == 5)
    assert call(ros, "episode_manager/pause").success
    begin = rest.begins[-1]
    done = End(begin.session, begin.id, STEPS, begin.start + STEPS)
    for stamp in range(STEPS):
        rest._publish_reward(begin.start + 1 + stamp, False)
    rest.markers.publish(String(data=done.to_json()))
    text = ""

    def paused():
        nonlocal text
        text += capfd.readouterr().err
        return "paused" in text

    ros.until(paused)
    assert len(rest.begins) == 5
    rest.faults = {8: "silent"}
    assert call(ros, "episode_manager/start").message == "goes on"
    ros.until(lambda: len(rest.begins) == 8)
    assert call(ros, "episode_manager/stop").success
    begin = rest.begins[-1]
    rest.markers.publish(
        String(data=End(begin.session, begin.id, 0, begin.start, "broken").to_json())
    )
    ros.until(lambda: not node._thread.is_alive())
    assert len(rest.begins) == 8 and node.exit_code is None
    report = json.loads((tmp_path / "meta_test_before.json").read_text())
    assert len(report["tasks"]) == 2 and not report["complete"]
    # and once more
    rest.faults = {}
    assert call(ros, "episode_manager/start").message == "begins"
    ros.until(lambda: len(rest.begins) >= 12)


def test_leaving_in_an_episode_tells_the_policy(ros, manager):
    rest = ros.add(Rest(practice=False))
    rest.faults = {2: "silent"}
    node = manager(iterations=0, meta_test="before")
    ros.until(lambda: len(rest.begins) == 2)
    node.deactivate()
    assert not node._thread.is_alive()
    ros.until(lambda: rest.foreign_ends)
    assert "leaves" in rest.foreign_ends[0].reason
    assert node.exit_code is None  # deactivated by someone: no reason to end the process


def test_a_contract_of_another_robot_is_refused(ros, tmp_path):
    node = ros.add(
        EpisodeManagerNode(parameter_overrides=[Parameter("contract", value="half_cheetah")])
    )
    node.trigger_configure()
    reason = node.diagnostics.faults["refused"]
    assert "observation_names" in reason and "hand_x" in reason and "rootz" in reason


def test_a_reward_that_is_no_number_is_refused(ros, manager):
    rest = ros.add(Rest(practice=False))
    node = manager(iterations=0, meta_test="before", meta_test_tasks=1)
    bad = JointState(name=["reward", "success"], position=[float("nan"), 0.0])
    rest.reward.publish(bad)
    ros.until(lambda: "rewards refused" in node.diagnostics.counts)


def test_a_job_whose_results_cannot_be_kept_is_over(ros, manager, monkeypatch):
    ros.add(Rest(practice=False))

    def fail(*_):
        raise ValueError("out of range float values are not JSON compliant")

    monkeypatch.setattr("smac_ros.episode_manager_node.write_json", fail)
    node = manager(
        iterations=0, meta_test="before", meta_test_tasks=1, results="there", exit_when_done=True
    )
    ros.until(lambda: node.exit_code is not None)
    assert node.exit_code == 1 and "not kept" in node.diagnostics.faults["results"]


def test_a_robot_reset_by_hand(ros, manager, capfd):
    rest = ros.add(Rest(practice=False, robot=False))
    rest.set_parameters([Parameter("publish_reward", value=True)])
    node = manager(reset="manual", robot="", iterations=0, meta_test="before", meta_test_tasks=1)
    for number in range(1, 4):
        text = ""

        def asked():
            nonlocal text
            text += capfd.readouterr().err
            return "set up the scene" in text

        ros.until(asked)
        assert len(rest.begins) == number - 1
        assert call(ros, "episode_manager/start").message == "goes ahead"
        ros.until(lambda number=number: len(rest.begins) == number)
    assert finish(ros, node) == 0
    assert abs(rest.begins[0].start - node.get_clock().now().nanoseconds) < 60e9


def test_wrong_settings_are_refused(ros, run_folder):
    from rclpy.lifecycle import TransitionCallbackReturn

    for settings, text in (
        ({"robot": ""}, "robot: found no name"),
        ({"checkpoint": str(run_folder / "nowhere")}, "no such folder"),
        ({"contract": "sawer_sim"}, "did you mean 'sawyer_sim'"),
    ):
        given = {"checkpoint": str(run_folder), "start": False} | settings
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        node = ros.add(EpisodeManagerNode(parameter_overrides=overrides))
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert text in node.diagnostics.faults["refused"]
