import os
import signal

import gymnasium
import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError

from smac_core.errors import InputError
from smac_core.tasks import load_tasks
from smac_core.training.environment_host import BatchHost
from smac_core.training.environment_pool import EnvironmentPool, EnvironmentPoolError

ID = "point_mass:smac_test/PointMass-v0"
BATCH_ID = "test_environment_pool:smac_test/Points-v0"
TASKS = [{"angle": 0.3 * i} for i in range(5)]


def roll(pool: EnvironmentPool, episodes: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = [pool.reset(episodes, [TASKS[i] for i in episodes])]
    for _ in range(4):
        actions = rng.uniform(-1, 1, (len(episodes), 2)).astype(np.float32)
        found += pool.step(np.array(episodes), actions)
    return found


def test_workers_give_what_one_process_gives():
    with (
        EnvironmentPool(ID, 5, workers=0, horizon=10) as alone,
        EnvironmentPool(ID, 5, workers=2, horizon=10) as spread,
    ):
        for episodes in ([0, 1, 2, 3, 4], [4, 1], [2]):
            for a, b in zip(roll(alone, episodes), roll(spread, episodes), strict=True):
                np.testing.assert_array_equal(a, b)


def test_results_are_copies():
    with EnvironmentPool(ID, 2, workers=0, horizon=10) as pool:
        pool.reset([0, 1], TASKS[:2])
        first = pool.step(np.array([0, 1]), np.ones((2, 2), np.float32))
        before = first.observations.copy()
        pool.step(np.array([0, 1]), np.ones((2, 2), np.float32))
        np.testing.assert_array_equal(first.observations, before)


def test_a_failing_environment_is_told_with_its_traceback():
    with EnvironmentPool(ID, 2, workers=1, horizon=10, kwargs={"fail": True}) as pool:
        with pytest.raises(EnvironmentPoolError, match="the point fell off the table"):
            roll(pool, [0, 1])
        assert pool.reset([0], TASKS[:1]).shape == (1, 2), "the worker lives on"


def test_a_dead_worker_is_told():
    with EnvironmentPool(ID, 2, workers=1, horizon=10) as pool:
        pool.reset([0], TASKS[:1])
        os.kill(pool._workers[0].process.pid, signal.SIGKILL)
        with pytest.raises(EnvironmentPoolError, match="worker died"):
            roll(pool, [0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_task_that_the_environment_does_not_know_is_named(workers):
    with EnvironmentPool(ID, 1, workers=workers, horizon=10) as pool:
        with pytest.raises(InputError, match=rf"{ID}: task: found KeyError: 'angle'; expected"):
            pool.reset([0], [{"place": 1}])
        assert pool.reset([0], TASKS[:1]).shape == (1, 2)


def test_close_ends_the_workers():
    pool = EnvironmentPool(ID, 2, workers=2, horizon=10)
    processes = [worker.process for worker in pool._workers]
    pool.close()
    pool.close()
    assert not any(process.is_alive() for process in processes)


def test_work_may_be_done_while_the_workers_step():
    with (
        EnvironmentPool(ID, 5, workers=2, horizon=10) as pool,
        EnvironmentPool(ID, 5, workers=0, horizon=10) as alone,
    ):
        actions = np.full((3, 2), 0.5, np.float32)
        chosen = np.array([4, 0, 2])
        for one in (pool, alone):
            one.reset(range(5), TASKS)
            one.step_async(chosen, actions)
            with pytest.raises(AlreadyPendingCallError):
                one.step_async(chosen, actions)
            with pytest.raises(AlreadyPendingCallError):
                one.reset([1], TASKS[:1])
            np.testing.assert_allclose(one.step_wait().observations, 0.05 * np.ones((3, 2)))
            with pytest.raises(NoAsyncCallError):
                one.step_wait()
            assert (one.reset([1], TASKS[:1]) == 0).all()


def test_a_failed_step_is_over():
    with EnvironmentPool(ID, 2, workers=2, horizon=10, kwargs={"fail": True}) as pool:
        pool.reset([0, 1], TASKS[:2])
        both, actions = np.arange(2), np.zeros((2, 2), np.float32)
        for _ in range(2):
            pool.step(both, actions)
        with pytest.raises(EnvironmentPoolError, match="fell off"):
            pool.step(both, actions)
        pool.reset([0, 1], TASKS[:2])
        assert (pool.step(both, actions).observations == 0).all(), "no answer is left over"


class Points(gymnasium.vector.VectorEnv):
    """Points on a line that move by their actions, as one batch; reached beyond ``goal``."""

    def __init__(self, num_envs: int, max_episode_steps: int, goal: float = 1.0):
        self.num_envs, self.goal = num_envs, goal
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}
        self.positions = np.zeros((num_envs, 1), np.float32)

    def reset_at(self, indices, tasks, seeds):
        starts = [task["start"] + (seed or 0) for task, seed in zip(tasks, seeds, strict=True)]
        self.positions[indices, 0] = starts
        return self.positions[indices]

    def step_at(self, indices, actions):
        self.positions[indices] += actions
        reached = self.positions[indices, 0] > self.goal
        return self.positions[indices], -self.positions[indices, 0], reached, reached

    def close_extras(self, **_):
        pass


class Point(gymnasium.Env):
    """A point of its own: knows its spaces and cannot step, so that only the batch can."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goal: float = 1.0):
        self.goal = goal


gymnasium.register("smac_test/Points-v0", entry_point=Point, vector_entry_point=Points)


@pytest.mark.parametrize("workers", [0, 2])
def test_environments_that_step_as_a_batch(workers):
    with EnvironmentPool(BATCH_ID, 5, workers=workers, horizon=10, kwargs={"goal": 3.5}) as pool:
        assert (pool.observation_dim, pool.action_dim) == (1, 1)
        found = pool.reset([0, 1, 2, 3, 4], [{"start": i} for i in range(5)])
        np.testing.assert_array_equal(found[:, 0], [0, 1, 2, 3, 4])
        chosen = np.array([3, 0, 4])
        step = pool.step(chosen, np.array([[0.25], [0.5], [-1]], np.float32))
        np.testing.assert_array_equal(step.observations[:, 0], [3.25, 0.5, 3])
        np.testing.assert_array_equal(step.rewards, [-3.25, -0.5, -3])
        assert not step.terminated.any()
        np.testing.assert_array_equal(pool.reset([2], [{"start": 0}], [7]), [[7]])
        step = pool.step(np.arange(5), np.full((5, 1), 0.5, np.float32))
        np.testing.assert_array_equal(step.observations[:, 0], [1, 1.5, 7.5, 3.75, 3.5])
        np.testing.assert_array_equal(step.success, [False, False, True, True, False])
        np.testing.assert_array_equal(step.terminated, step.success)


def test_a_mujoco_domain_is_stepped_as_a_batch():
    """What the pool gives is what the same environments give one by one."""
    ids, tasks = np.arange(3), load_tasks("sim:mujoco/task_sets/ant_direction_train.json")[:3]
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 3, 8)).astype(np.float32)
    with EnvironmentPool("sim:smac/AntDir-v0", 3, workers=0, horizon=200) as pool:
        assert isinstance(pool._local, BatchHost)
        first = pool.reset(ids, tasks, [5, 6, 7])
        steps = [pool.step(ids, action) for action in actions]
    for index, task in enumerate(tasks):
        env = gymnasium.make("sim:smac/AntDir-v0", max_episode_steps=200)
        observation, _ = env.reset(seed=5 + index, options={"task": task})
        np.testing.assert_array_equal(first[index], observation)
        for step, action in zip(steps, actions[:, index], strict=True):
            observation, reward, terminated, _, _ = env.step(action)
            np.testing.assert_array_equal(step.observations[index], observation)
            assert step.rewards[index] == np.float32(reward)
            assert step.terminated[index] == terminated
