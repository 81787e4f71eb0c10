"""The five MuJoCo domains as robots: what their topics say is what their environments say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")
pytest.importorskip("pybullet")  # the bench's other robot

from rclpy.parameter import Parameter  # noqa: E402
from robot_client import Client, mujoco  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from system_processes import Bench  # noqa: E402
from test_parity import HORIZON, Pool  # noqa: E402

from sim.mujoco.tasks import make_domain, task_set  # noqa: E402
from smac_core.config import SCALES, load_config  # noqa: E402
from smac_core.data.dataset import ARRAYS, Dataset, TaskData  # noqa: E402
from smac_core.data.dataset_writer import DatasetWriter  # noqa: E402
from smac_core.evaluation import meta_test  # noqa: E402
from smac_core.tasks import held_out_tasks, training_tasks  # noqa: E402
from smac_core.training.offline import train_offline  # noqa: E402
from smac_core.training.run import Run, load_agent  # noqa: E402
from smac_ros.base_node import reliable  # noqa: E402
from smac_ros.contract import load_contract  # noqa: E402
from smac_ros.learner_node import LearnerNode  # noqa: E402
from smac_ros.messages import stamp_ns  # noqa: E402
from smac_ros.mujoco_sim_node import MujocoSimNode  # noqa: E402
from smac_ros.policy_node import PolicyNode  # noqa: E402
from smac_ros.reward_labeler_node import RewardLabelerNode  # noqa: E402
from smac_ros.system import find_system  # noqa: E402

ROOT = Path(__file__).parents[2]
DOMAINS = {
    "cheetah_velocity": "sim:smac/CheetahVel-v0",
    "ant_direction": "sim:smac/AntDir-v0",
    "humanoid_direction": "sim:smac/HumanoidDir-v0",
    "walker_params": "sim:smac/WalkerParam-v0",
    "hopper_params": "sim:smac/HopperParam-v0",
}


@pytest.mark.parametrize("domain", DOMAINS)
def test_contract_configuration_and_simulation_agree(domain):
    """At every scale; and a whole action is the torque that the domain says it is, in N m."""
    contract, simulated = load_contract(domain), make_domain(domain)
    contract.require_lockstep()
    for scale in SCALES:
        config = load_config(domain, scale)
        environment = config.environment
        contract.check_run(environment, None, domain)
        for kind in ("observation", "action"):
            for part in (f"{kind}_names", f"{kind}_units"):
                assert tuple(getattr(environment, part)) == getattr(simulated, part)
        assert environment.id == DOMAINS[domain] and config.domain == domain
        assert environment.rate == pytest.approx(1 / simulated.dt)
        for task in (*training_tasks(config), *held_out_tasks(config)):
            simulated.validate(task)
    scale = np.concatenate([command.scale for command in contract.actions])
    high = np.concatenate([command.high for command in contract.actions])
    assert [f"{newton_metres:g} N m" for newton_metres in scale] == environment.action_units
    np.testing.assert_array_equal(high, scale)


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_episode_is_the_environment_s(ros, domain):
    """Every number of every observation and reward, in two tasks and in one that is drawn.

    The Hopper goes on until it falls, and says so with the stamp of what is observed then.
    """
    name = DOMAINS[domain]
    mujoco(ros, publish_reward=True, environment=name, contract=domain)
    client, falls = Client(ros, "mujoco_sim", domain), []
    client.node.create_subscription(Header, "terminated", falls.append, reliable(10))
    ros.until(lambda: client.node.count_publishers("terminated"), what="terminated")
    hops = domain == "hopper_params"
    env, rng = gymnasium.make(name), np.random.default_rng(0)
    tasks, seen = task_set(domain, "test"), []
    for task in (tasks[0], tasks[1], None):
        env.unwrapped.task = None
        expected, _ = env.reset(seed=3, options={"task": task} if task else None)
        stamp, terminated = client.reset(task, seed=3), False
        np.testing.assert_array_equal(client.observation(stamp), expected)
        falls.clear()
        for _ in range(200 if hops else 15):
            action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            client.command(action, stamp)
            expected, reward, terminated, *_ = env.step(action)
            stamp += client.contract.period_ns
            np.testing.assert_array_equal(client.observation(stamp), expected)
            ros.until(lambda stamp=stamp: stamp in client.rewards, what="reward")
            assert client.rewards[stamp] == (reward, 0.0, float(terminated))
            seen.append(expected)
            if terminated:
                ros.until(lambda: falls, what="terminated")
                break
        assert {stamp_ns(fall.stamp) for fall in falls} == ({stamp} if terminated else set())
    env.close()
    assert terminated or not hops
    refused = client.set(task='{"gravity": 1}')
    assert not refused.successful and "task field gravity" in refused.reason
    constant = np.ptp(seen, axis=0) == 0
    names = np.array(client.contract.observation_names)[constant]
    still = ("torso_y", "_world_", "actuation_velocity", "actuation_rotation", "contact_", "_mass")
    assert all(any(part in name for part in still) for name in names), names


def test_wrong_settings_are_refused_with_their_reason(ros):
    for parameters, reason in (
        ({"options": '{"gears": 3}'}, "mujoco_sim: options: .*gears"),
        ({"options": "[]"}, "mujoco_sim: options: .*an object of keyword arguments"),
        ({"options": "{"}, "mujoco_sim: options: .*JSON"),
        ({"options": '{"frame_skip": 0}'}, "mujoco_sim: options: .*frame_skip: found 0"),
        ({"options": '{"frame_skip": 1}'}, "rate: found 20.0; expected 100"),
        (
            {"options": '{"xml_file": "/nope.xml"}', "environment": "Ant-v5"},
            "mujoco_sim: options: .*/nope.xml does not exist; expected keyword arguments of Ant-v5",
        ),
        (
            {"options": '{"gear": 3}', "environment": "sim:smac/AntDri-v0"},
            "mujoco_sim: environment: .*AntDri",
        ),
        ({"task": '{"velocity": 1}'}, "mujoco_sim: task: .*task field velocity"),
    ):
        values = {"environment": DOMAINS["ant_direction"], "contract": "ant_direction"} | parameters
        sim = MujocoSimNode(parameter_overrides=[Parameter(k, value=v) for k, v in values.items()])
        ros.add(sim)
        sim.trigger_configure()
        sim.trigger_activate()
        assert re.search(reason, sim.diagnostics.faults["refused"], re.DOTALL)


def make_run(domain: str, folder: Path) -> Path:
    """A run that has learned next to nothing, from a few random steps."""
    settings = [f"environment.horizon={HORIZON}", "offline.steps=3"]
    config = load_config(domain, "smoke", [*settings, "evaluation.posterior_latent=mean"])
    environment = config.environment
    env, rng = gymnasium.make(environment.id), np.random.default_rng(0)
    signature = ("observation_names", "observation_units", "action_names", "action_units")
    writer = DatasetWriter(
        folder / "data.h5",
        domain=domain,
        rate=environment.rate,
        horizon=HORIZON,
        seed=0,
        command="random actions",
        **{name: getattr(environment, name) for name in signature},
    )
    with writer:
        for split, tasks in (("train", training_tasks(config)), ("test", held_out_tasks(config))):
            for task in tasks:
                rows, observation = [], env.reset(seed=0, options={"task": task})[0]
                for step in range(HORIZON):
                    action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
                    found, reward, terminated, *_ = env.step(action)
                    last = step == HORIZON - 1 and not terminated
                    rows.append((observation, action, reward, found, terminated, last))
                    observation = env.reset()[0] if terminated else found
                columns = (np.array(column) for column in zip(*rows, strict=True))
                data = dict(zip(ARRAYS, columns, strict=True))
                data["rewards"] = data["rewards"].astype(np.float32)
                writer.add_task(split, TaskData(**data, task=task, split=split))
    env.close()
    dataset = Dataset.load(folder / "data.h5")
    made = Run.create(folder / "run", config, dataset, algorithm="smac", seed=0, device="cpu")
    assert train_offline(made, quiet=True)
    return folder / "run"


class SeededPool(Pool):
    """Starts where the robot did, and gives the policy's random numbers their seed there.

    ``seeds`` are of the episodes to come: the robot's and the policy's.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.generator, self.seeds = torch.Generator(), []

    def reset(self, environments, tasks, seeds=None):
        robot, policy = self.seeds.pop(0)
        self.generator.manual_seed(policy)
        torch.randint(2**31 - 1, (1,), generator=self.generator)  # the environment's, had it none
        return super().reset(environments, tasks, [robot])


@pytest.mark.parametrize("domain", ["cheetah_velocity", "hopper_params"])
def test_a_meta_test_over_topics_is_that_of_one_process(ros, tmp_path, domain):
    """``smac up``'s robot, policy and manager against ``evaluation.meta_test``.

    To the bit, but for the last episode of the hopper, which falls and so ends its episodes early.
    """
    run, bench = make_run(domain, tmp_path), Bench(ros, tmp_path, domain)
    specs = {
        spec.name: spec.parameters
        for spec in find_system("mujoco_sim").build(
            {"domain": domain, "checkpoint": str(run), "iterations": "0"}
        )
    }
    assert list(specs) == ["mujoco_sim", "policy", "episode_manager"]
    robot, starts = bench.start(MujocoSimNode, **specs["mujoco_sim"]), []
    reset = robot.reset_world

    def reset_world(seed, task):
        starts.append(seed)
        reset(seed, task)

    robot.reset_world = reset_world
    policy = bench.start(PolicyNode, **specs["policy"], settle=0.0)
    manager = bench.manager(
        robot="mujoco_sim",
        checkpoint=str(run),
        meta_test="before",
        meta_test_tasks=2,
        horizon=HORIZON,
        seed=9,
        results=str(tmp_path),
    )
    bench.finish(manager)
    agent, config, _ = load_agent(run, "offline")
    count = config.evaluation.exploration_episodes + 1
    heard, settings = bench.recorder, config.evaluation.model_copy(update={"repeats": 1})
    bench.until(lambda: len(heard.ends) == 2 * count, "episodes")
    assert len(set(starts)) == 2 * count
    report = json.loads((tmp_path / "meta_test_before.json").read_text())
    with SeededPool(config, HORIZON) as pool:
        for row, task in enumerate(held_out_tasks(config)):
            episodes = range(row * count, (row + 1) * count)
            pool.seeds = [(starts[i], heard.begins[i].seed) for i in episodes]
            result = meta_test(
                pool,
                agent,
                [task],
                settings,
                horizon=HORIZON,
                context="online",
                generator=pool.generator,
            )
            rounded = {"rel": 1e-6}  # one process adds up in float32
            assert report["returns"][row] == pytest.approx([result.returns.item()], **rounded)
            explored = pytest.approx([result.exploration_returns.item()], **rounded)
            assert report["exploration_returns"][row] == explored
            for i in episodes:
                begin, end, steps = heard.begins[i], heard.ends[i], len(pool.rewards[i])
                assert (end.steps, end.reason) == (steps, "complete")
                assert end.terminal == (steps < HORIZON) == (domain == "hopper_params")
                stamps = [begin.start + k * bench.contract.period_ns for k in range(steps + 1)]
                assert end.last == stamps[-1]
                # a batch pads short episodes, so the posterior's sums are in another order
                same = {"rtol": 0, "atol": 1e-4 if steps < HORIZON and begin.context else 0}
                observed = np.stack([heard.observation(stamp) for stamp in stamps])
                np.testing.assert_allclose(observed, np.stack(pool.observations[i]), **same)
                rewards = np.float32([heard.rewards[stamp][0] for stamp in stamps[1:]])
                np.testing.assert_allclose(rewards, pool.rewards[i], **same)
                actions = np.stack(pool.actions[i])
                np.testing.assert_allclose(heard.actions(begin, end), actions, **same)
    assert not policy.diagnostics.counts and not heard.faults


def test_a_fall_is_the_end_of_a_labelled_trajectory(ros, tmp_path):
    """The learner must not count on rewards after it, nor the manager wait for more steps."""
    run, bench = make_run("hopper_params", tmp_path), Bench(ros, tmp_path, "hopper_params")
    specs = {
        spec.name: spec.parameters
        for spec in find_system("mujoco_sim").build(
            {"domain": "hopper_params", "checkpoint": str(run), "run": str(tmp_path / "out")}
        )
    }
    for kind, name in (
        (MujocoSimNode, "mujoco_sim"),
        (LearnerNode, "learner"),
        (RewardLabelerNode, "reward_labeler"),
        (PolicyNode, "policy"),
    ):
        bench.start(kind, **specs[name])
    manager = bench.manager(robot="mujoco_sim", checkpoint=str(run), iterations=1, horizon=HORIZON)
    bench.finish(manager)
    heard, total = bench.recorder, 3  # of PRACTICE
    bench.until(lambda: len(heard.labelled) == total, "labels")
    for end, labelled in zip(heard.ends, heard.labelled, strict=True):
        assert (end.terminal, end.reason) == (True, "complete") and end.steps < HORIZON
        assert labelled.terminals.tolist() == [0.0] * (end.steps - 1) + [1.0]
        height, pitch = labelled.next_observations[:, 0], labelled.next_observations[:, 1]
        fallen = (height <= 0.7) | (np.abs(pitch) >= 0.2)
        assert fallen.tolist() == [False] * (end.steps - 1) + [True]


@pytest.mark.slow
def test_practice_between_two_meta_tests(tmp_path):
    """``smac up mujoco_sim`` with all five nodes as processes, in lockstep."""
    run = make_run("cheetah_velocity", tmp_path)
    words = ["domain:=cheetah_velocity", f"checkpoint:={run}", "scale:=smoke", "horizon:=20"]
    code = "from smac_ros.cli import main; main()"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, "up", "mujoco_sim", *words, "run:=out", "seed:=5"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower() and "given up" not in done.stderr, done.stderr
    for name in ("before", "after"):
        found = json.loads((tmp_path / f"out/meta_test/meta_test_{name}.json").read_text())
        assert found["complete"] and np.isfinite(found["returns"]).all()
        assert found["versions"]["weights"] == (name == "after")
    assert found["practice"] == {"trajectories": 8, "transitions": 160}
    assert "practice 1/1: 8 of 8 episodes" in done.stderr
