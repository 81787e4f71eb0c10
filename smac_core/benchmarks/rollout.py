"""Environment steps a second of a policy rolled out in a pool of environments."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from smac_core.agents.context import Agent, LatentActor
from smac_core.benchmarks.environment import POOL, bench_pool, bench_tasks
from smac_core.benchmarks.measurement import alternate, report
from smac_core.config import load_config
from smac_core.data.trajectories import Trajectories
from smac_core.training.rollout import rollout

SEED = 0


def bench_rollout(domain: str, *, seconds: float, workers: int, device: str) -> dict[str, Any]:
    """Steps a second of ``rollout`` with an untrained policy of the paper's size.

    The reference takes the same actions, recorded, in the same tasks: the simulation alone.
    """
    config = load_config(domain, "paper")
    horizon, tasks = config.environment.horizon, bench_tasks(config)
    with bench_pool(config, workers) as pool:
        torch.manual_seed(SEED)
        agent = Agent(pool.observation_dim, pool.action_dim, config.networks).to(device)
        generator = torch.Generator(device)
        spent = {"policy": 0.0, "simulation": 0.0}

        def episodes() -> Trajectories:
            generator.manual_seed(SEED)
            z = agent.prior(POOL).sample(generator)
            actor = LatentActor(agent, z, deterministic=False, generator=generator)
            return rollout(pool, actor, tasks, horizon=horizon, generator=generator)

        def roll() -> int:
            return int(episodes().present.sum())

        recorded = episodes()
        actions, present = recorded.actions.cpu().numpy(), recorded.present.cpu().numpy()
        generator.manual_seed(SEED)
        agent.prior(POOL).sample(generator)  # drawn before the seeds, as in roll
        seeds = torch.randint(2**31 - 1, (POOL,), device=device, generator=generator).tolist()

        def replay() -> int:
            pool.reset(range(POOL), tasks, seeds)
            for t in range(horizon):
                alive = np.flatnonzero(present[:, t])
                if len(alive):
                    pool.step(alive, actions[alive, t])
            return int(present.sum())

        measured = alternate({"pool alone": replay, "rollout": roll}, seconds, device)
        agent.act = _timed(agent.act, spent, "policy", device)
        pool.step = _timed(pool.step, spent, "simulation", device)
        began = time.perf_counter()
        roll()
        whole = time.perf_counter() - began
    return report("rollout", "steps/s", measured, "pool alone") | {
        "domain": domain,
        "workers": workers,
        "share": {name: round(value / whole, 3) for name, value in spent.items()},
    }


def _timed(call: Callable, spent: dict[str, float], name: str, device: str) -> Callable:
    """``call`` that adds its seconds to ``spent[name]``."""

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments, **options)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        spent[name] += time.perf_counter() - began
        return result

    return timed
