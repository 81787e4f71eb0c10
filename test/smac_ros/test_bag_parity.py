"""A recorded robot, the live path and one process: the same arrays, to the bit, and trainable."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import Trigger
from system_processes import SHIPPED, Bench

from smac_core.agents.context import LatentActor
from smac_core.data.dataset import Dataset
from smac_core.tasks import load_tasks
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.rollout import rollout
from smac_core.training.run import load_agent
from smac_ros.bags.decoding import Decoder
from smac_ros.bags.reading import Bag
from smac_ros.base_node import reliable
from smac_ros.messages import Begin
from smac_ros.policy_node import PolicyNode
from smac_ros.recorder_node import RecorderNode
from smac_ros.reward_labeler_node import RewardLabelerNode

pytest_plugins = ["point_mass_run"]  # the fixture smac_here

HORIZON = 25
TASKS = (0, 1)  # of the training set, and one that is held out
EPISODES = 2  # of each
TASK = """
- name: {name}
  split: {split}
  task: {scene}
  episodes: {{markers: {{task: {index}}}}}
  reward: {{topic: reward}}
"""


class Session:
    """A simulated Sawyer, its policy and labeler over topics, while a recorder listens."""

    def __init__(self, bench: Bench, folder):
        self.bench = bench
        self.robot = bench.robot()
        self.recorder = bench.start(RecorderNode, (("__node", "bag_recorder"),), out=str(folder))
        common = {"checkpoint": "shipped", "clock": "lockstep"}
        bench.start(PolicyNode, **common, settle=0.0)
        bench.start(RewardLabelerNode, **common)
        node = bench.ros.node("manager", namespace=bench.namespace)
        self.markers = node.create_publisher(String, "episode", reliable(100))
        name = self.robot.get_name()
        self._set = node.create_client(SetParametersAtomically, f"{name}/set_parameters_atomically")
        self._reset = node.create_client(Trigger, f"{name}/reset")
        bench.until(lambda: self.markers.get_subscription_count() == 4, "who listens to episodes")
        publishers = self.recorder.count_publishers
        topics = [self.recorder.resolve_topic_name(a.topic) for a in bench.contract.actions]
        bench.until(lambda: all(publishers(topic) for topic in topics), "the policy's commands")

    def play(self, number: int, index: int, scene: dict, seed: int) -> None:
        """One episode, with its rewards, to its end."""
        drawn = torch.randint(2**31 - 1, (1,), generator=torch.Generator().manual_seed(seed))
        values = {"task": json.dumps(scene), "seed": drawn.item(), "publish_reward": True}
        request = SetParametersAtomically.Request(
            parameters=[
                ParameterMessage(name=key, value=Parameter(key, value=value).get_parameter_value())
                for key, value in values.items()
            ]
        )
        assert self.bench.ros.call(self._set, request).result.successful
        stamp = json.loads(self.bench.ros.call(self._reset, Trigger.Request()).message)["stamp"]
        begin = Begin(
            session=1,
            id=number,
            start=stamp,
            steps=HORIZON,
            purpose="exploration",
            mode="explore",
            group=index,
            seed=seed,
            task=index,
        )
        self.markers.publish(String(data=begin.to_json()))
        heard = self.bench.recorder
        self.bench.until(lambda: len(heard.labelled) == number + 1, "labels")

    def close(self, rewards: int) -> None:
        """Once the robot's last messages are in the bag, too."""
        last = self.bench.recorder.ends[-1].last
        self.bench.until(lambda: last in self.bench.recorder.rewards, "the last reward")
        counts = self.recorder._recording.counts
        row = [source.name.rpartition("/")[2] for source in self.recorder._sources].index("reward")
        self.bench.until(lambda: counts[row] >= rewards, "the last reward in the bag")
        self.bench.leave(self.recorder)
        assert not self.recorder.diagnostics.counts


def test_no_episode_begins_before_the_recorder_listens(ros, tmp_path):
    """``record:=`` of a system: the first episode is as whole as the others."""
    bench = Bench(ros, tmp_path, "sawyer_sim")
    bench.robot()
    bench.start(PolicyNode, checkpoint="shipped", clock="lockstep", settle=0.0)
    manager = bench.manager(meta_test="before", horizon=5, recorder="bag_recorder")
    heard, name = bench.recorder, manager.get_name()
    waits = "waits for bag_recorder (which listens to hand_command)"
    bench.until(lambda: heard.shown(name, "phase") == waits, "that it waits")
    assert not heard.begins
    node = bench.start(RecorderNode, (("__node", "bag_recorder"),), out=str(tmp_path / "bag"))
    bench.finish(manager)
    bench.until(lambda: len(heard.ends) == len(heard.begins) == 3, "episodes")
    stamps = sorted({stamp for stamp, _, _ in heard.commands})
    counts, names = node._recording.counts, [source.name for source in node._sources]
    row = names.index(node.resolve_topic_name("hand_command"))
    bench.until(lambda: counts[row] >= len(stamps) == 15, "commands")
    bench.leave(node)
    command = bench.contract.actions[0]
    with Bag(tmp_path / "bag") as bag:
        messages = list(bag.messages([names[row]]))
    decoded = Decoder(command).decode(*zip(*(message[1:] for message in messages), strict=True))
    assert sorted(set(decoded.stamps.tolist())) == stamps


def in_one_process(config, agent, episodes) -> list:
    """The same episodes, as ``smac evaluate`` would play them: [(task's index, trajectory)]."""
    environment = config.environment
    pool = EnvironmentPool(
        environment.id, 1, workers=0, horizon=HORIZON, kwargs=environment.kwargs
    )
    found = []
    for index, scene, seed in episodes:
        generator = torch.Generator().manual_seed(seed)
        actor = LatentActor(agent, None, deterministic=False, generator=generator)
        played = rollout(pool, actor, [scene], horizon=HORIZON, generator=generator)
        found.append((index, played))
    pool.close()
    return found


def test_a_recorded_robot_is_that_of_one_process(ros, tmp_path, smac_here):
    """Converted it equals what one process logs and what the labeler saw live; and it trains."""
    bench = Bench(ros, tmp_path, "sawyer_sim")
    agent, config, _ = load_agent(SHIPPED, "offline")
    scenes = [*load_tasks(config.tasks.train)[: len(TASKS)], load_tasks(config.tasks.test)[0]]
    episodes = [
        (index, scene, 100 * index + k)
        for index, scene in enumerate(scenes)
        for k in range(EPISODES)
    ]
    session = Session(bench, tmp_path / "bag")
    for number, (index, scene, seed) in enumerate(episodes):
        session.play(number, index, scene, seed)
    session.close(len(episodes) * HORIZON)

    names = [f"task_{index}" for index in range(len(scenes))]
    splits = ["train"] * len(TASKS) + ["test"]
    tasks = [
        TASK.format(name=name, split=split, scene=json.dumps(scene), index=index)
        for index, (name, split, scene) in enumerate(zip(names, splits, scenes, strict=True))
    ]
    (tmp_path / "tasks.yaml").write_text("tasks:" + "".join(tasks))
    words = ("--contract", "sawyer_sim", "--tasks", tmp_path / "tasks.yaml", "--strict")
    smac_here("bag", "convert", tmp_path / "bag", *words, "--out", tmp_path / "data.h5")
    dataset = Dataset.load(tmp_path / "data.h5")
    assert (len(dataset.train), len(dataset.test)) == (len(TASKS), 1)

    logged = in_one_process(config, agent, episodes)
    live = bench.recorder.labelled
    for index, data in enumerate((*dataset.train, *dataset.test)):
        mine = [trajectory for task, trajectory in logged if task == index]
        seen = [trajectory for trajectory in live if trajectory.task == index]
        assert len(mine) == len(seen) == EPISODES and len(data.rewards) == EPISODES * HORIZON
        for name in ("observations", "actions", "rewards", "next_observations"):
            got = getattr(data, name)
            log = np.concatenate([getattr(trajectory, name)[0].numpy() for trajectory in mine])
            assert got.dtype == log.dtype == np.float32
            np.testing.assert_array_equal(got, log, err_msg=name)
            if name != "rewards":  # the labeler gives its own
                heard = np.concatenate([getattr(trajectory, name) for trajectory in seen])
                np.testing.assert_array_equal(got, heard, err_msg=f"live {name}")
        assert data.rewards.any() and not data.terminals.any()
        assert np.flatnonzero(data.timeouts).tolist() == [HORIZON - 1, 2 * HORIZON - 1]

    run = tmp_path / "run"
    changes = ("--set", "offline.steps=6", "--set", "offline.checkpoint_every=3")
    smac_here("train", tmp_path / "data.h5", "--scale", "smoke", "--out", run, *changes, "--quiet")
    assert (run / "offline/checkpoints/latest").exists()
    rows = (run / "offline/metrics.csv").read_text().splitlines()
    assert len(rows) > 1
    assert not bench.recorder.faults
