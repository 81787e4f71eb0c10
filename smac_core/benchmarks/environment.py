"""Environment steps and resets a second."""

import functools
import importlib
import itertools
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import gymnasium
import numpy as np

from smac_core.benchmarks.measurement import alternate, report
from smac_core.config import Config, load_config
from smac_core.tasks import training_tasks
from smac_core.training.environment_host import make_environment, steps_in_batches
from smac_core.training.environment_pool import EnvironmentPool

POOL = 20  # environments, and tasks that they are in
ENGINE, ALONE = "engine alone, steps", "one environment, steps"
SYNC, ASYNC = "Gymnasium's SyncVectorEnv, steps", "Gymnasium's AsyncVectorEnv, steps"
GYMNASIUM = {  # its own environment of a domain's model
    "cheetah_velocity": "HalfCheetah-v5",
    "ant_direction": "Ant-v5",
    "humanoid_direction": "Humanoid-v5",
    "walker_params": "Walker2d-v5",
    "hopper_params": "Hopper-v5",
}


def bench_env(domain: str, *, seconds: float) -> dict[str, Any]:
    """Steps a second of one environment, of pools and of batches, and resets.

    The reference is plain engine stepping: the physics of a control step and nothing else, in the
    same scenes with the robot holding still, as an environment gives it by ``step_engine()``; where
    it has none, one environment. Of a domain that is stepped in batches the reference is
    Gymnasium's vector environment over the same robots.
    """
    config = load_config(domain, "paper")
    horizon = config.environment.horizon
    with ExitStack() as stack:
        env, bare, reset = (stack.enter_context(closing(alone(config))) for _ in range(3))
        # before there are threads: Gymnasium's processes are forks of this one
        together = batches(config, stack) if steps_in_batches(env.spec) else {}
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
        reference = next(iter(work))
        if together:
            reference = SYNC
            work |= {name: batch_stepping(batch, actions) for name, batch in together.items()}
        measured = alternate(work, seconds, "cpu")
    return report("env", "1/s", measured, reference) | {"domain": domain}


def batches(config: Config, stack: ExitStack) -> dict[str, gymnasium.vector.VectorEnv]:
    """``POOL`` of a domain's robots in its own batch and in Gymnasium's vector environments.

    Robot i is in task i and has the same seed everywhere; what Gymnasium itself makes of the
    domain's model is without tasks. ``stack`` closes them, also where a later one fails.
    """
    environment, tasks = config.environment, bench_tasks(config)
    found: dict[str, gymnasium.vector.VectorEnv] = {}

    def add(name: str, batch: gymnasium.vector.VectorEnv) -> None:
        found[name] = stack.enter_context(closing(batch))
        batch.reset(seed=0)

    def one(task: dict[str, Any]) -> gymnasium.Env:
        env = make_environment(environment.id, environment.kwargs, environment.horizon)
        env.reset(options={"task": task})  # which stays
        return env

    makers = {"": [functools.partial(one, task) for task in tasks]}
    if other := GYMNASIUM.get(config.domain):
        makers[f", {other}"] = [functools.partial(_quiet, other, environment.horizon)] * POOL
    for name, kind in ((ASYNC, "AsyncVectorEnv"), (SYNC, "SyncVectorEnv")):  # which forks first
        for robot, made in makers.items():
            add(name + robot, getattr(gymnasium.vector, kind)(made))
    for threads in (1, 2):
        batch = gymnasium.make_vec(
            environment.id,
            num_envs=POOL,
            vectorization_mode="vector_entry_point",
            max_episode_steps=environment.horizon,
            threads=threads,
            **environment.kwargs,
        )
        batch.reset_at(np.arange(POOL), tasks, [None] * POOL)
        add(f"batch, {threads} thread{'s' * (threads != 1)}, steps", batch)
    return found


def _quiet(environment_id: str, horizon: int) -> gymnasium.Env:
    """One of Gymnasium's own; MuJoCo tells what it thinks of their files on the screen and in a log
    in the working directory."""
    mujoco = importlib.import_module("mujoco")  # that of the environment, which brings it along
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        return make_environment(environment_id, {}, horizon)
    finally:
        mujoco.set_mju_user_warning(None)


def batch_stepping(batch: gymnasium.vector.VectorEnv, actions: np.ndarray) -> Callable[[], int]:
    """A call steps all of a batch, each robot elsewhere in ``actions``; robots start anew by
    themselves. It tells how many steps that were."""
    numbers, everyone = itertools.count(), np.arange(batch.num_envs)
    actions = actions * batch.single_action_space.high  # the Humanoid of Gymnasium's own has 0.4

    def call() -> int:
        batch.step(actions[(next(numbers) + 25 * everyone) % len(actions)])
        return batch.num_envs

    return call


def alone(config: Config) -> gymnasium.Env:
    """One environment, its tasks prepared, without a time limit of its own."""
    env = make_environment(config.environment.id, config.environment.kwargs, 10**9)
    for task in bench_tasks(config):
        env.reset(options={"task": task})
    return env


def bench_tasks(config: Config) -> list[dict[str, Any]]:
    """The first training tasks, as many as a pool has environments, repeated where too few."""
    return list(itertools.islice(itertools.cycle(training_tasks(config)), POOL))


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
    """A call is ``step`` with the number of calls so far, after a reset where an episode begins.

    What ``step`` returns is Gymnasium's five of a step, or nothing.
    """
    numbers, over = itertools.count(), False

    def call() -> None:
        nonlocal over
        number = next(numbers)
        if over or number % horizon == 0:
            env.reset(options={"task": tasks[number // horizon % len(tasks)]})
        found = step(number)
        over = found is not None and found[2]

    return call


def pool_stepping(
    pool: EnvironmentPool, tasks: list[dict], horizon: int, actions: np.ndarray
) -> Callable[[], int]:
    """A call steps all of the pool, each environment in its task and elsewhere in ``actions``.

    It tells how many steps that were. Where an episode has ended it begins again.
    """
    numbers, everyone = itertools.count(), np.arange(pool.size)

    def call() -> int:
        number = next(numbers)
        if number % horizon == 0:
            pool.reset(everyone, tasks)
        step = pool.step(everyone, actions[(number + 25 * everyone) % len(actions)])
        over = np.flatnonzero(step.terminated)
        if len(over):
            pool.reset(over, [tasks[robot] for robot in over])
        return pool.size

    return call
