import os
import signal

import numpy as np
import pytest

from smac_core.training.environment_pool import EnvironmentPool, EnvironmentPoolError

ID = "point_mass:smac_test/PointMass-v0"
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


def test_close_ends_the_workers():
    pool = EnvironmentPool(ID, 2, workers=2, horizon=10)
    processes = [worker.process for worker in pool._workers]
    pool.close()
    pool.close()
    assert not any(process.is_alive() for process in processes)
