"""Over topics and in one process: the same episodes, posteriors, labels and replay, to the bit."""

import itertools
import json

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")

from system_processes import PRACTICE, SHIPPED, Bench

from smac_core.agents.context import LatentActor, choose
from smac_core.data.trajectories import Trajectories
from smac_core.evaluation import meta_test
from smac_core.tasks import load_tasks
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.labelling import Labeler, label
from smac_core.training.online import open_run
from smac_core.training.rollout import rollout
from smac_core.training.run import load_agent, load_dataset
from smac_ros.learner_node import LearnerNode
from smac_ros.policy_node import PolicyNode
from smac_ros.protocol import choose_tasks
from smac_ros.reward_labeler_node import RewardLabelerNode

HORIZON = 50


@pytest.fixture
def plain(ros, tmp_path):
    """A bench with the contract ``sawyer_sim`` itself, whose limits a policy never meets."""
    made = Bench(ros, tmp_path, "sawyer_sim")
    yield made
    assert not made.recorder.faults, "commands outside the contract's limits"


class Pool(EnvironmentPool):
    """One environment of this process that remembers its episodes."""

    def __init__(self, config, horizon: int):
        environment = config.environment
        super().__init__(environment.id, 1, workers=0, horizon=horizon, kwargs=environment.kwargs)
        self.observations, self.actions, self.rewards, self.success = [], [], [], []

    def reset(self, environments, tasks, seeds=None):
        first = super().reset(environments, tasks, seeds)
        for rows in (self.observations, self.actions, self.rewards, self.success):
            rows.append([])
        self.observations[-1].append(first[0])
        return first

    def step(self, environments, actions):
        self.actions[-1].append(actions[0].copy())
        result = super().step(environments, actions)
        self.observations[-1].append(result.observations[0])
        self.rewards[-1].append(result.rewards[0])
        self.success[-1].append(result.success[0])
        return result


@pytest.fixture
def shipped():
    """The shipped agent, its configuration, its checkpoint's state and a pool."""
    agent, config, state = load_agent(SHIPPED, "offline")
    pool = Pool(config, HORIZON)
    yield agent, config, state, pool
    pool.close()


def seeds_in_turn(seeds):
    """A generator for several episodes one after another, each with a seed of its own.

    With it comes what tells it that another step was taken.
    """
    generator, steps, following = torch.Generator(), itertools.count(1), iter(seeds)
    generator.manual_seed(next(following))

    def advance(_: int) -> None:
        if next(steps) % HORIZON == 0:
            generator.manual_seed(next(following, 0))

    return generator, advance


def test_a_meta_test_is_that_of_one_process(plain, shipped, tmp_path):
    """``evaluation.meta_test`` and the three nodes: every number of every episode."""
    agent, config, _, pool = shipped
    plain.robot()
    policy = plain.start(PolicyNode, checkpoint="shipped", clock="lockstep", settle=0.0)
    manager = plain.manager(
        meta_test="before", meta_test_tasks=2, horizon=HORIZON, seed=9, results=str(tmp_path)
    )
    heard = plain.recorder
    plain.finish(manager)
    count = config.evaluation.exploration_episodes + 1
    plain.until(lambda: len(heard.ends) == len(heard.begins) == 2 * count, "episodes")
    assert [begin.mode for begin in heard.begins[:count]] == ["adapt"] * (count - 1) + ["exploit"]

    settings = config.evaluation.model_copy(update={"repeats": 1})
    tasks = load_tasks(config.tasks.test)
    report = json.loads((tmp_path / "meta_test_before.json").read_text())
    for row, number in enumerate(choose_tasks(tasks, 2)):
        episodes = range(row * count, (row + 1) * count)
        generator, advance = seeds_in_turn([heard.begins[i].seed for i in episodes])
        result = meta_test(
            pool,
            agent,
            [tasks[number]],
            settings,
            horizon=HORIZON,
            context="online",
            generator=generator,
            advance=advance,
        )
        for i in episodes:
            begin, end = heard.begins[i], heard.ends[i]
            assert (end.id, end.steps, end.reason) == (begin.id, HORIZON, "complete")
            stamps = [begin.start + k * plain.contract.period_ns for k in range(HORIZON + 1)]
            assert end.last == stamps[-1]
            observations = np.stack([heard.observation(stamp) for stamp in stamps])
            np.testing.assert_array_equal(observations, np.stack(pool.observations[i]))
            np.testing.assert_array_equal(heard.actions(begin, end), np.stack(pool.actions[i]))
            measured = [heard.rewards[stamp] for stamp in stamps[1:]]
            assert measured == list(zip(pool.rewards[i], pool.success[i], strict=True))
        assert report["returns"][row] == [result.returns.item()]
        assert report["success"][row] == [bool(result.success.item())]
        assert report["exploration_returns"][row] == [result.exploration_returns.item()]
        history = [
            torch.from_numpy(np.concatenate([np.stack(rows[i]) for i in episodes[:-1]]))[None]
            for rows in ([o[:-1] for o in pool.observations], pool.actions, pool.rewards)
        ]
        posterior = agent.infer(*history)
        inferred = np.stack([part[0].numpy() for part in posterior])
        assert any(np.array_equal(inferred, seen) for seen in heard.posteriors), row
        assert posterior.kl_from_standard_normal().item() == result.kl.item() > 0
    np.testing.assert_array_equal(heard.posteriors[-1], inferred)
    assert not policy.diagnostics.counts


def test_practice_is_that_of_one_process(plain, shipped, tmp_path):
    """Algorithm 1, lines 7 to 9: trajectories, labels, z from what was labelled, replay's rows."""
    agent, config, state, pool = shipped
    plain.robot()
    learner = plain.start(
        LearnerNode, run=str(tmp_path / "run"), device="cpu", transitions_per_iteration=10**6
    )
    common = {"checkpoint": "shipped", "clock": "lockstep"}
    labeler = plain.start(RewardLabelerNode, **common, seed=4)
    policy = plain.start(PolicyNode, **common, settle=0.0)
    many = 2
    manager = plain.manager(
        iterations=1, tasks_per_iteration=many, horizon=HORIZON, wait_for_learner=False, seed=6
    )
    heard = plain.recorder
    total = many * (PRACTICE["exploration_trajectories"] + PRACTICE["adapted_trajectories"])
    plain.finish(manager)
    plain.until(lambda: len(heard.labelled) == total, "labels")
    plain.until(lambda: learner._training.pending == total * HORIZON, "what the learner received")

    histories = load_dataset(SHIPPED, state)
    same = Labeler(agent, histories, config, seed=4)
    expected = open_run(SHIPPED, tmp_path / "other", device="cpu")
    scenes = load_tasks(config.tasks.train)
    explored: dict[int, list] = {}
    for begin, got in zip(heard.begins, heard.labelled, strict=True):
        assert (got.episode, got.group, got.task) == (begin.id, begin.group, begin.task)
        generator = torch.Generator().manual_seed(begin.seed)
        z = None
        if begin.mode == "exploit":
            context = [torch.cat(parts, 1) for parts in zip(*explored[begin.group], strict=True)]
            z = choose(agent.infer(*context), "sample", generator)
        one = rollout(
            pool,
            LatentActor(agent, z, deterministic=False, generator=generator),
            [scenes[begin.task]],
            horizon=HORIZON,
            generator=generator,
        )
        tasks, number = torch.tensor([begin.task]), config.self_supervised.labelling_context
        rewards = label(agent, same.replay, one, tasks, number, same.generator(begin.seed))
        for name in ("observations", "actions", "next_observations"):
            np.testing.assert_array_equal(getattr(got, name), getattr(one, name)[0].numpy())
        np.testing.assert_array_equal(got.rewards, rewards[0].numpy())
        assert not got.terminals.any() and got.exploration == (begin.mode == "explore")
        if begin.mode == "explore":
            rows = one.observations, one.actions, rewards
            explored.setdefault(begin.group, []).append(rows)
        rows = one.rows(expected.agent.standardizer, expected.replay.layout, rewards)
        expected.replay.append(begin.task, rows[0], exploration=begin.mode == "explore")
    assert len(explored) == many and not torch.isnan(Trajectories(*one).rewards).any()
    for name in ("rl", "context"):
        mine, other = (getattr(run.replay, name) for run in (learner._training.run, expected))
        assert mine.online_written == other.online_written
        rows = [buffer.online_state()[0]["online"] for buffer in (mine, other)]
        assert torch.equal(*rows), name
    assert sum(expected.replay.rl.online_written) == total * HORIZON
    for node in (policy, labeler, learner):
        unusual = {k: v for k, v in node.diagnostics.counts.items() if "another run" not in k}
        assert not unusual, node.get_name()
