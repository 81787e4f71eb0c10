"""Transitions a second of making offline data."""

from contextlib import ExitStack, closing
from typing import Any

from smac_core.benchmarks.environment import ALONE, alone, bench_tasks, random_actions, stepping
from smac_core.benchmarks.measurement import alternate, report
from smac_core.config import load_config
from smac_core.training.collection import collect, worker_processes

TASKS, TRAJECTORIES = 4, 10  # of one measured call; smac collect takes more of both


def bench_collect(domain: str, *, seconds: float) -> dict[str, Any]:
    """Transitions a second of the behaviour policy, as ``smac collect`` makes data with it.

    The processes are there before time counts. The reference is one environment under fixed
    actions: what the policy and the keeping of data cost shows in one worker's ratio.
    """
    config = load_config(domain, "paper")
    tasks = bench_tasks(config)
    with ExitStack() as stack:
        env = stack.enter_context(closing(alone(config)))
        actions = random_actions(env)
        work = {
            ALONE: stepping(
                env,
                tasks,
                config.environment.horizon,
                lambda n: env.step(actions[n % len(actions)]),
            )
        }
        for workers in (1, 2):
            executor = stack.enter_context(worker_processes(workers))

            def make_data(executor=executor) -> int:
                """Number of transitions made."""
                made = collect(
                    config,
                    tasks[:TASKS],
                    split="train",
                    trajectories=TRAJECTORIES,
                    seed=0,
                    executor=executor,
                )
                return sum(len(data.rewards) for data in made)

            name = f"collect, {workers} worker{'s' * (workers != 1)}, transitions"
            work[name] = make_data
        measured = alternate(work, seconds, "cpu")
    return report("collect", "1/s", measured, ALONE) | {"domain": domain}
