"""Many robots at once: the same as one at a time."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

pytest.importorskip("mujoco")

import sim
from sim.mujoco.tasks import DOMAINS, task_set

IDS = {
    spec["entry_point"].split(":")[0].split(".")[-1]: id for id, spec in sim.ENVIRONMENTS.items()
}


def make(name):
    return gymnasium.make(IDS[name]).unwrapped


def make_many(name, number, **options):
    return gymnasium.make_vec(IDS[name], num_envs=number, **options)


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("threads", [1, 2])
def test_batched_equals_single_episodes_that_end_early_included(name, threads):
    number, rng = 4, np.random.default_rng(0)
    many, ones = make_many(name, number, threads=threads), [make(name) for _ in range(number)]
    tasks = task_set(name, "test")[:number]
    started = many.reset_at(np.arange(number), tasks, list(range(number)))
    for index, env in enumerate(ones):
        start, _ = env.reset(seed=index, options={"task": tasks[index]})
        assert started.dtype == np.float32 and np.array_equal(started[index], start)
    ended = 0
    for _ in range(50):
        indices = np.flatnonzero(rng.random(number) < 0.7)  # a part of them, in disorder
        rng.shuffle(indices)
        actions = rng.uniform(-1.2, 1.2, (len(indices), *many.single_action_space.shape))
        observations, rewards, terminated, success = many.step_at(indices, actions)
        assert not success.any() and terminated.dtype == success.dtype == bool
        for row, index in enumerate(indices):
            observation, value, over, _, _ = ones[index].step(actions[row])
            assert observations[row] == pytest.approx(observation, rel=1e-6, abs=1e-6)
            assert rewards[row] == pytest.approx(value, abs=1e-6) and terminated[row] == over
            if over:
                ended += 1
                task = tasks[(index + ended) % number]
                again = many.reset_at(np.array([index]), [task], [None])
                assert np.array_equal(again[0], ones[index].reset(options={"task": task})[0])
    assert ended > 0 or name not in ("humanoid_direction", "hopper_params")  # these fall soon
    many.close()


def test_gymnasium_s_interface_with_its_own_as_judge():
    """Resets, time limits and starting anew in the next step, as SyncVectorEnv has them."""
    options = {"num_envs": 3, "max_episode_steps": 12}
    ours = gymnasium.make_vec(IDS["hopper_params"], **options)
    theirs = gymnasium.make_vec(IDS["hopper_params"], vectorization_mode="sync", **options)
    assert type(ours).__name__ == "HopperParamsVectorEnv"
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    task = task_set("hopper_params", "test")[1]
    first = ours.reset(seed=7, options={"task": task})[0]
    assert np.array_equal(first, theirs.reset(seed=7, options={"task": task})[0])
    rng = np.random.default_rng(0)
    cut = 0
    for _ in range(40):
        actions = rng.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
        results = list(zip(ours.step(actions)[:4], theirs.step(actions)[:4], strict=True))
        for one, other in results:
            assert one.dtype == other.dtype and one == pytest.approx(other, abs=1e-6)
        cut += results[3][0].sum()
    assert cut > 0
    ours.close(), theirs.close()


def test_tasks_of_their_own():
    tasks = task_set("cheetah_velocity", "test")[:3]
    many = make_many("cheetah_velocity", 3)
    start, _ = many.reset(seed=[4, 4, 4], options={"tasks": tasks})
    assert many.tasks == tasks and np.array_equal(start[0], start[2])
    observations, rewards, *_ = many.step(np.zeros((3, 6)))
    speed = (observations[:, 17] - start[:, 17]) / 0.05  # from the torso's x
    wanted = [task["velocity"] for task in tasks]
    assert rewards == pytest.approx(-np.abs(speed - wanted), abs=1e-5)
    with pytest.raises(ValueError, match="speed"):
        many.reset(options={"speed": 1})


def test_one_that_diverges_ends_and_leaves_the_others_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning here
    runs = []
    for disturbed in (False, True):
        many = make_many("ant_direction", 3)
        start, _ = many.reset(seed=0, options={"task": {"direction": 0.0}})
        if disturbed:
            many._physics[1, -1] = 1e12
        runs.append(many.step_at(np.arange(3), np.zeros((3, 8))))
    (calm, calm_rewards, *_), (shown, rewards, terminated, _) = runs
    assert terminated.tolist() == [False, True, False]
    assert np.array_equal(shown[1, :26], start[1, :26])
    assert np.array_equal(shown[[0, 2]], calm[[0, 2]])
    assert np.array_equal(rewards[[0, 2]], calm_rewards[[0, 2]]) and np.isfinite(rewards).all()


def test_wrong_calls_are_refused():
    many = make_many("hopper_params", 2)
    with pytest.raises(RuntimeError, match="reset"):
        many.step_at(np.arange(2), np.zeros((2, 3)))
    many.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: found shape \(2, 4\), expected \(2, 3\)"):
        many.step_at(np.arange(2), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="body_mass"):
        many.reset_at(np.array([0]), [{"body_mass": 1}], [None])
    for option in ("num_envs", "threads"):
        with pytest.raises(ValueError, match=f"{option}: found 0"):
            gymnasium.make_vec(IDS["hopper_params"], **{option: 0})
    assert [len(part) for part in many.step_at(np.array([], int), np.zeros((0, 3)))] == [0] * 4


def test_importing_sim_loads_no_mujoco():
    code = "import sys, sim; assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
