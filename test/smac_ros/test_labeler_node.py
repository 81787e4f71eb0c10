"""Labels over topics are those of the training process, and nothing is lost without a word."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

rclpy = pytest.importorskip("rclpy")

from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter as RosParameter  # noqa: E402
from sensor_msgs.msg import JointState, PointCloud2  # noqa: E402
from std_msgs.msg import Header, String, UInt8MultiArray  # noqa: E402

from smac_core import checkpoint  # noqa: E402
from smac_core.agents.context import Agent, LatentActor  # noqa: E402
from smac_core.data.trajectories import Trajectories  # noqa: E402
from smac_core.training.labelling import Labeler, label  # noqa: E402
from smac_core.training.rollout import rollout  # noqa: E402
from smac_core.training.run import Run  # noqa: E402
from smac_ros.base_node import latched, reliable  # noqa: E402
from smac_ros.messages import (  # noqa: E402
    SECOND,
    Begin,
    End,
    pack_weights,
    set_stamp,
    unpack_trajectory,
)
from smac_ros.reward_labeler_node import RewardLabelerNode  # noqa: E402

pytest_plugins = ["point_mass_run"]

PERIOD = SECOND // 10


def settings(**values):
    return [RosParameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def labeler(ros, trained, contract_file):
    """Starts a labeler; further arguments are parameters."""

    def start(**values):
        values = {"contract": str(contract_file), "checkpoint": str(trained)} | values
        node = RewardLabelerNode(parameter_overrides=settings(**values))
        return ros.start(node)

    return start


class Robot:
    """A robot, its policy and its manager in one node, and a listener to the labels."""

    def __init__(self, ros):
        self.ros, self.node = ros, ros.node("robot")
        create = self.node.create_publisher
        self.states = create(JointState, "joint_states", reliable(100))
        self.commands = create(JointState, "joint_command", reliable(100))
        self.markers = create(String, "episode", reliable(100))
        self.falls = create(Header, "terminated", reliable(10))
        self.heard = []
        self.node.create_subscription(
            PointCloud2,
            "labelled_trajectories",
            lambda m: self.heard.append(unpack_trajectory(m, 2, 2)),
            reliable(100),
        )
        self.ids = itertools.count(1)
        publishers = (self.states, self.commands, self.markers, self.falls)
        ros.until(lambda: all(p.get_subscription_count() for p in publishers))
        ros.until(lambda: self.node.count_publishers("labelled_trajectories"))

    def send(self, publisher, stamp, field, values):
        message = JointState(name=["x", "y"])
        setattr(message, field, [float(v) for v in values])
        set_stamp(message.header.stamp, stamp)
        publisher.publish(message)

    def mark(self, marker):
        self.markers.publish(String(data=marker.to_json()))

    def episode(self, observations, actions, last, *, start=10 * SECOND, **values):
        """Begin and End of an episode with all its samples, none of them sent yet."""
        count = len(actions)
        begin = Begin(
            **{
                "session": 7,
                "id": next(self.ids),
                "start": start,
                "steps": count,
                "purpose": "exploration",
                "mode": "explore",
                "group": 3,
                "seed": 11,
                "task": 2,
            }
            | values
        )
        end = End(begin.session, begin.id, count, start + count * PERIOD)
        sends = [
            lambda k=k, row=row: self.send(self.states, start + k * PERIOD, "position", row)
            for k, row in enumerate([*observations, last])
        ]
        sends += [
            lambda k=k, row=row: self.send(self.commands, start + k * PERIOD, "velocity", row)
            for k, row in enumerate(actions)
        ]
        return begin, end, sends

    def play(self, *arguments, **values):
        begin, end, sends = self.episode(*arguments, **values)
        self.mark(begin)
        for send in sends:
            send()
        self.mark(end)
        return begin, end

    def hears(self, count):
        self.ros.until(lambda: len(self.heard) >= count, what=f"{count} labelled trajectories")
        return self.heard


@pytest.fixture
def walk():
    """Observations, actions and last observation of an episode of five steps."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 2)).astype(np.float32)
    return points[:5], rng.uniform(-1, 1, (5, 2)).astype(np.float32), points[5]


def test_labels_are_those_of_the_training_process(ros, labeler, trained, config, pool):
    """Exactly, for the agent's own episodes: rollout -> label, and rollout -> topics -> node."""
    run = Run.resume(trained, "offline", device="cpu")
    generator = torch.Generator().manual_seed(5)
    chosen = [4, 9, 0]
    scenes = [run.dataset.train[task].task for task in chosen]
    actor = LatentActor(run.agent, None, deterministic=False, generator=generator)
    collected = rollout(pool, actor, scenes, horizon=20, generator=generator)
    node = labeler()
    robot = Robot(ros)
    for k, task in enumerate(chosen):
        robot.play(
            collected.observations[k].numpy(),
            collected.actions[k].numpy(),
            collected.next_observations[k, -1].numpy(),
            start=(10 + 3 * k) * SECOND,
            task=task,
            group=k,
            seed=100 + k,
            purpose="adapted" if k == 2 else "exploration",
            mode="exploit" if k == 2 else "explore",
            latent="sample" if k == 2 else "step",
        )
    same = Labeler(run.agent, run.dataset, config)
    for k, (got, task) in enumerate(zip(robot.hears(3), chosen, strict=True)):
        one = Trajectories(*(part[k : k + 1] for part in collected))
        tasks = torch.tensor([task])
        context = config.self_supervised.labelling_context
        expected = label(run.agent, run.replay, one, tasks, context, same.generator(100 + k))
        assert np.array_equal(got.rewards, expected[0].numpy())
        for name in ("observations", "actions", "next_observations"):
            assert np.array_equal(getattr(got, name), getattr(one, name)[0].numpy()), name
        assert (got.task, got.sequence, got.group, got.exploration) == (task, k, k, k < 2)
        assert got.stamp == (10 + 3 * k) * SECOND and not got.terminals.any()
        assert np.allclose(got.times, np.arange(20) / 10)
    assert node.diagnostics.counts == {}


def test_the_order_of_arrival_does_not_matter(ros, labeler, walk):
    labeler(grace=30.0)
    robot = Robot(ros)
    robot.play(*walk)
    usual = robot.hears(1)[0]
    for number, order in enumerate(("end first", "begin last", "samples last")):
        begin, end, sends = robot.episode(*walk, start=(30 + 10 * number) * SECOND)
        marks = [lambda begin=begin: robot.mark(begin), lambda end=end: robot.mark(end)]
        events = {
            "end first": [marks[1], marks[0], *sends],
            "begin last": [*sends, marks[1], marks[0]],
            "samples last": [*marks, *sends],
        }[order]
        for event in [*events, *marks, *sends[:3]]:  # and some of it again
            event()
        got = robot.hears(2 + number)[-1]
        assert np.array_equal(got.rewards, usual.rewards), order
        assert np.array_equal(got.next_observations, usual.next_observations), order
        assert got.sequence == 1 + number
    robot.play(*walk, start=80 * SECOND)
    assert len(robot.hears(5)) == 5, "repeated markers made no trajectory"


def test_labels_do_not_depend_on_what_came_before(ros, labeler, walk):
    labeler()
    robot = Robot(ros)
    robot.play(*walk, seed=1)
    robot.play(*walk, seed=2, start=20 * SECOND)
    robot.play(*walk, seed=2, start=30 * SECOND)
    first, second, again = robot.hears(3)
    assert not np.array_equal(first.rewards, second.rewards)
    assert np.array_equal(second.rewards, again.rewards)


def test_lost_samples_are_counted_and_left_out(ros, labeler, walk):
    node = labeler(grace=0.2)
    robot = Robot(ros)
    begin, end, sends = robot.episode(*walk)
    robot.mark(begin)
    for k, send in enumerate(sends):
        if k not in (2, 6 + 4):  # the third observation, the last command
            send()
    robot.mark(end)
    got = robot.hears(1)[0]
    assert np.array_equal(got.observations, walk[0][[0]])
    counts = node.diagnostics.counts
    assert counts["transitions left out, stale joint_states"] == 2
    assert counts["transitions left out, lost command"] == 1
    assert counts["transitions left out, gap"] == 1, "the step before the lost one lasted two"


def test_a_fall_is_marked_whoever_tells_of_it(ros, labeler, walk):
    """The policy; the robot, where it fell at the last step and its episode was over; or neither
    can be believed: a transition that ends there is not to be had."""
    node = labeler(grace=0.1)
    robot = Robot(ros)
    begin, end, sends = robot.episode(*walk)
    fall = Header()
    set_stamp(fall.stamp, end.last)
    robot.falls.publish(fall)
    ros.until(lambda: node._terminated, what="terminated")
    for act in (lambda: robot.mark(begin), *sends, lambda: robot.mark(end)):
        act()
    begin, end, sends = robot.episode(*walk, start=20 * SECOND)
    robot.mark(begin)
    for send in sends:
        send()
    robot.mark(replace(end, terminal=True))
    begin, end, sends = robot.episode(*walk, start=30 * SECOND)
    robot.mark(begin)
    for send in sends:
        send()
    robot.mark(replace(end, last=end.last - PERIOD * 4 // 5, terminal=True))  # a short step
    got = robot.hears(3)
    assert [t.terminals.tolist() for t in got] == [[0, 0, 0, 0, 1]] * 2 + [[0, 0, 0, 0]]
    assert node.diagnostics.counts["terminals left out"] == 1


def test_an_interrupted_episode_is_labelled_as_far_as_the_policy_went(ros, labeler, walk):
    """What the human did then is no transition of it, and nothing ends there for good."""
    labeler(grace=0.2)
    robot = Robot(ros)
    begin, _, sends = robot.episode(*walk)
    robot.mark(begin)
    for send in sends:  # the last two commands are the human's
        send()
    last = begin.start + 2 * PERIOD  # stamp of the policy's last command
    robot.mark(End(begin.session, begin.id, 3, last, "interrupted: taken over by a test"))
    (got,) = robot.hears(1)
    observations, actions, _ = walk
    np.testing.assert_array_equal(got.observations, observations[:2])
    np.testing.assert_array_equal(got.next_observations, observations[1:3])
    np.testing.assert_array_equal(got.actions, actions[:2])
    assert not got.terminals.any()


def test_what_is_not_practice_is_not_labelled(ros, labeler, walk):
    node = labeler(grace=0.1)
    robot = Robot(ros)
    robot.play(*walk, purpose="meta_test", mode="adapt")
    begin, end, sends = robot.episode(*walk, start=20 * SECOND)
    robot.mark(begin)
    robot.mark(replace(end, steps=0, last=begin.start, reason="given up"))
    robot.play(*walk, start=30 * SECOND, task=20)
    robot.markers.publish(String(data='{"event": "begin"}'))
    robot.markers.publish(String(data=json.dumps({**json.loads(begin.to_json()), "group": -1})))
    robot.play(*walk, start=40 * SECOND)
    got = robot.hears(1)
    assert [t.episode for t in got] == [4]
    assert node.diagnostics.counts == {"episodes skipped": 2, "markers refused": 2}


def test_uniform_labelling_draws_once_a_group(ros, labeler, walk):
    labeler(labelling_task="uniform")
    robot = Robot(ros)
    for k in range(12):
        robot.play(*walk, start=(10 + 2 * k) * SECOND, group=k // 2)
    tasks = [t.task for t in robot.hears(12)]
    assert tasks[::2] == tasks[1::2]
    assert len(set(tasks)) > 2 and all(0 <= task < 20 for task in tasks)


def test_newer_weights_label_what_comes_after_them(ros, labeler, trained, config, walk):
    node = labeler()
    robot = Robot(ros)
    robot.play(*walk)
    before = robot.hears(1)[0]
    run = Run.resume(trained, "offline", device="cpu")
    agent: Agent = run.agent
    with torch.no_grad():
        agent.decoder.body[-1].bias.add_(5.0)
        agent.standardizer.mean.add_(0.1)  # another run's: the histories are to follow
    description = {
        "version": 9,
        "run": "another",
        "domain": "point_mass",
        "observation_dim": 2,
        "action_dim": 2,
        "networks": config.networks.model_dump(mode="json"),
        "contract": None,
    }
    weights = robot.node.create_publisher(UInt8MultiArray, "weights", latched())
    weights.publish(pack_weights(agent.state_dict(), description))
    ros.until(lambda: node._receiver.waiting, what="weights")
    robot.play(*walk, start=20 * SECOND)
    after = robot.hears(2)[1]
    one = Trajectories.one(walk[0], walk[1], walk[0])
    expected = Labeler(agent, run.dataset, config).label(one, 2, 11)[0].numpy()
    assert np.array_equal(after.rewards, expected)
    assert (before.weights, after.weights) == (0, 9)
    weights.publish(UInt8MultiArray(data=[1, 2, 3]))
    ros.until(lambda: node._receiver.waiting)
    robot.play(*walk, start=30 * SECOND)
    assert robot.hears(3)[2].weights == 9
    assert node.diagnostics.counts == {"refused weights": 1}


def test_memory_is_bounded(ros, labeler, walk):
    node = labeler()
    robot = Robot(ros)
    for k in range(500):
        robot.send(robot.states, (10 + k) * SECOND, "position", (0, 0))
    ros.until(lambda: node._streams[0].last == 509 * SECOND and len(node._streams[0]) <= 12)
    for k in range(9):  # nine ends of which nobody saw the beginning
        robot.mark(End(1, k, 5, 509 * SECOND))
    ros.until(lambda: node.diagnostics.counts.get("episodes without begin"))
    robot.play(*walk, start=20 * SECOND)  # the simulation has started again
    assert len(robot.hears(1)[0]) == 5
    assert node.diagnostics.counts["clocks set back"] == 1


def test_what_does_not_fit_is_refused(ros, trained, contract_file, tmp_path):
    def refused(**values):
        values = {"contract": str(contract_file), "checkpoint": str(trained)} | values
        node = ros.add(RewardLabelerNode(parameter_overrides=settings(**values)))
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        return node.diagnostics.faults["refused"]

    assert "no such file" in refused(dataset=str(tmp_path / "nothing.h5"))
    assert "a phase of: offline" in refused(phase="control")
    assert "names" in refused(contract="sawyer_sim")
    other = tmp_path / "other.yaml"
    other.write_text(contract_file.read_text().replace("m/s", "cm/s"))
    folder = shutil.copytree(trained, tmp_path / "run")
    path = checkpoint.find(folder / "offline" / "checkpoints")
    tensors, state = checkpoint.load(path)
    state["dataset"]["path"] = str(trained / state["dataset"]["path"])
    checkpoint.save(path, tensors, state | {"contract": other.read_text()})
    assert "cm/s" in refused(checkpoint=str(folder))
