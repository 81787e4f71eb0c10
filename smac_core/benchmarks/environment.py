"""Environment steps and resets a second."""

import itertools
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import gymnasium
import numpy as np

from smac_core.benchmarks.measurement import alternate, report
from smac_core.config import Config, load_config
from smac_core.tasks import load_tasks
from smac_core.training.environment_host import make_environment
from smac_core.training.environment_pool import EnvironmentPool

POOL = 20  # environments, and tasks that they are in
ENGINE, ALONE = "engine alone, steps", "one environment, steps"


def bench_env(domain: str, *, seconds: float) -> dict[str, Any]:
    """Steps a second of one environment and of pools, and resets, against plain engine stepping.

    Plain is the physics of a control step and nothing else, in the same scenes with the robot
    holding still, as an environment gives it by ``step_engine()``; where it has none, one
    environment is the reference.
    """
    config = load_config(domain, "paper")
    horizon = config.environment.horizon
    with ExitStack() as stack:
        env, bare, reset = (stack.enter_context(closing(alone(config))) for _ in range(3))
        tasks, actions = bench_tasks(config), random_actions(env)
        work = {ALONE: stepping(env, tasks, horizon, lambda n: env.step(actions[n % len(actions)]))}
        if hasattr(bare.unwrapped, "step_engine"):
            engine = bare.unwrapped.step_engine
            work = {ENGINE: stepping(bare, tasks, horizon, lambda _: engine())} | work
        work["resets"] = stepping(reset, tasks, 1, lambda _: None)
        work |= {
            f"pool of {POOL}, {workers} worker{'s' * (workers != 1)}, steps": pool_stepping(
                stack.enter_context(bench_pool(config, workers)), tasks, horizon, actions
            )
            for workers in (0, 1, 2)
        }
        measured = alternate(work, seconds, "cpu")
    return report("env", "1/s", measured, next(iter(work))) | {"domain": domain}


def alone(config: Config) -> gymnasium.Env:
    """One environment, its tasks prepared, without a time limit of its own."""
    env = make_environment(config.environment.id, config.environment.kwargs, 10**9)
    for task in bench_tasks(config):
        env.reset(options={"task": task})
    return env


def bench_tasks(config: Config) -> list[dict[str, Any]]:
    """The first training tasks, as many as a pool has environments, repeated where too few."""
    return list(itertools.islice(itertools.cycle(load_tasks(config.tasks.train)), POOL))


def bench_pool(config: Config, workers: int) -> EnvironmentPool:
    """A pool of ``POOL`` environments."""
    return EnvironmentPool(
        config.environment.id,
        POOL,
        workers=workers,
        horizon=config.environment.horizon,
        kwargs=config.environment.kwargs,
    )


def random_actions(env: gymnasium.Env) -> np.ndarray:
    """Actions [512, da], uniform in [-1, 1]."""
    shape = (512, env.action_space.shape[0])
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def stepping(
    env: gymnasium.Env, tasks: list[dict], horizon: int, step: Callable[[int], Any]
) -> Callable[[], None]:
    """A call is ``step`` with the number of calls so far, after a reset where an episode begins."""
    numbers = itertools.count()

    def call() -> None:
        number = next(numbers)
        if number % horizon == 0:
            env.reset(options={"task": tasks[number // horizon % len(tasks)]})
        step(number)

    return call


def pool_stepping(
    pool: EnvironmentPool, tasks: list[dict], horizon: int, actions: np.ndarray
) -> Callable[[], int]:
    """A call steps all of the pool, each environment in its task and elsewhere in ``actions``.

    It tells how many steps that were.
    """
    numbers, everyone = itertools.count(), np.arange(pool.size)

    def call() -> int:
        number = next(numbers)
        if number % horizon == 0:
            pool.reset(everyone, tasks)
        pool.step(everyone, actions[(number + 25 * everyone) % len(actions)])
        return pool.size

    return call
