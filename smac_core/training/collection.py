"""Offline data from a behaviour policy: labelled trajectories of many tasks, in parallel."""

import importlib
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import gymnasium
import numpy as np

from smac_core.config import Config
from smac_core.data.dataset import TaskData
from smac_core.training.environment_host import make_environment


def collect(
    config: Config,
    tasks: list[dict[str, Any]],
    *,
    split: str,
    trajectories: int,
    seed: int,
    executor: ProcessPoolExecutor | None,
) -> Iterator[TaskData]:
    """Each task's data, in order. The numbers depend on the seed alone, not on the workers.

    ``executor``: see `worker_processes`; None does the work in this process.

    A task's trajectories have ``config.collection.length`` steps each; the behaviour policy does
    not know which task is rewarded.
    """
    environment, collection = config.environment, config.collection
    job = (
        (environment.id, environment.kwargs, collection.length),
        (collection.policy, collection.policy_kwargs),
        split,
        trajectories,
    )
    seeds = np.random.SeedSequence([seed, split == "test"]).spawn(len(tasks))
    if executor is None:
        for task, task_seed in zip(tasks, seeds, strict=True):
            yield collect_task(*job, task, task_seed)
        return
    futures = [
        executor.submit(collect_task, *job, task, task_seed)
        for task, task_seed in zip(tasks, seeds, strict=True)
    ]
    for future in futures:
        yield future.result()


@contextmanager
def worker_processes(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes to collect in, ended afterwards; none of their own for one worker or fewer.

    What they have not finished by then, they leave after the trajectory that they are at.
    """
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    executor = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(over,))
    try:
        yield executor
    finally:
        over.set()
        executor.shutdown(cancel_futures=True)


def collect_task(
    environment: tuple[str, dict[str, Any], int],
    policy: tuple[str, dict[str, Any]],
    split: str,
    trajectories: int,
    task: dict[str, Any],
    seed: np.random.SeedSequence,
) -> TaskData:
    """All trajectories of one task."""
    length = environment[2]
    env = make_environment(*environment)
    policy_seed, *episode_seeds = seed.generate_state(1 + trajectories).tolist()
    behavior = make_policy(*policy, env, policy_seed)
    ds, da = env.observation_space.shape[0], env.action_space.shape[0]
    size = trajectories * length
    observations, next_observations = np.empty((2, size, ds), np.float32)
    actions = np.empty((size, da), np.float32)
    rewards = np.empty(size, np.float32)
    terminals, timeouts = np.zeros((2, size), bool)
    row = 0
    for episode_seed in episode_seeds:
        if _over is not None and _over.is_set():
            raise CancelledError
        observation, _ = env.reset(seed=episode_seed, options={"task": task})
        behavior.reset()
        for step in range(length):
            action = behavior.act(observation)
            following, reward, terminated, _, _ = env.step(action)
            observations[row], actions[row], rewards[row] = observation, action, reward
            next_observations[row], terminals[row] = following, terminated
            timeouts[row] = step == length - 1 and not terminated
            observation = following
            row += 1
            if terminated:
                break
    env.close()
    arrays = (observations, actions, rewards, next_observations, terminals, timeouts)
    return TaskData(*(array[:row] for array in arrays), task=task, split=split)


def make_policy(name: str, kwargs: dict[str, Any], env: gymnasium.Env, seed: int) -> Any:
    """A behaviour policy by its "module:Class".

    It is made with the environment, a seed and its own arguments, and has ``reset()``, to be called
    after the environment's, and ``act(observation)``.
    """
    module, _, class_name = name.partition(":")
    return getattr(importlib.import_module(module), class_name)(env, seed=seed, **kwargs)


_over: Event | None = None  # of a worker: set where nobody waits for its work any more


def _begin_worker(over: Event) -> None:
    global _over
    _over = over
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
