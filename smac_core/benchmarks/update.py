"""Gradient steps a second."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smac_core.agents.context import Agent
from smac_core.algorithms import ALGORITHMS, SMAC
from smac_core.algorithms.learner import Learner
from smac_core.benchmarks.measurement import alternate, report
from smac_core.benchmarks.textbook import (
    ACTION_DIM,
    OBSERVATION_DIM,
    TASKS,
    TRANSITIONS,
    TextbookUpdate,
)
from smac_core.config import Config, load_config, override_config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.replay import Layout, Replay
from smac_core.presets import HAVE_PRESETS, PRESETS, configured
from smac_core.training.updates import Updates

REFERENCE = "reference (offline)"
PEARL_TERM = ["self_supervised.lambda_pearl=1"]  # as on MuJoCo domains: all that there is to do
PHASES = ("offline", "self_supervised")
EPISODE = 200  # steps: what MACAW's returns and BOReL's beliefs run over


def bench_update(
    scale: str, *, seconds: float, device: str, seeds: int = 0, compiled: bool = False
) -> dict[str, Any]:
    """Updates a second of both phases at a scale's sizes, on random data, and the reference's.

    MACAW's and BOReL's too, each with its own hyperparameters and with SMAC's sizes.
    ``seeds``: also of so many seeds at once, all of theirs counted. ``compiled``: also compiled.
    """
    config = load_config("sawyer", scale, PEARL_TERM)
    on_gpu = device.startswith("cuda")
    precisions = ("float32", "tf32", "bfloat16") if on_gpu else ("float32", "bfloat16")
    work = {REFERENCE: TextbookUpdate(config, random_rows().to(device)).update}
    for phase in PHASES:
        for precision in precisions:
            change = f"execution.precision={precision}"
            work[f"{phase}, {precision}"] = _steps(config, [change], phase, device)
            if precision != "tf32":
                name = f"{phase}, {precision}, matrix products alone"
                work[name] = _products_alone(config, phase, precision, device)
            if compiled:
                changes = [change, "execution.compile=true"]
                work[f"{phase}, {precision}, compiled"] = _steps(config, changes, phase, device)
            if seeds:
                name = f"{phase}, {precision}, {seeds} seeds"
                work[name] = _steps(config, [change], phase, device, seeds)
    for algorithm in HAVE_PRESETS:
        for preset in PRESETS:
            chosen = configured(config, algorithm, preset)
            learner, replay = prepare_other(chosen, algorithm, device)
            for stage in learner.offline_stages:
                learner.begin_stage(stage)
                named = "" if stage == "offline" else f" {stage}"
                work[f"{algorithm}{named}, {preset}"] = steps([(learner, replay)], stage)
    measured = alternate(work, seconds, device)
    return report("update", "updates/s", measured, REFERENCE) | {
        "scale": scale,
        "sizes": config.updates.model_dump(mode="json") | config.networks.model_dump(mode="json"),
    }


def _steps(
    config: Config, changes: list[str], phase: str, device: str, seeds: int = 1
) -> Callable[[], int]:
    config = override_config(config, changes)
    return steps([prepare(config, device, seed) for seed in range(seeds)], phase)


def steps(learners: list[tuple[Learner, Replay]], phase: str) -> Callable[[], int]:
    """What takes gradient steps as training does, and says how many, every learner's counted."""
    updates = Updates(learners, phase)
    at_once = max(learners[0][0].config.execution.graph, 1)
    return lambda: updates.take(at_once)[0] * len(learners)


def _products_alone(
    config: Config, phase: str, precision: str, device: str
) -> Callable[[], None]:
    """The arithmetic floor: an update's matrix products and nothing else."""
    sizes = _products(config, phase)
    dtype = getattr(torch, precision)
    operands = {
        size: [torch.randn(shape, dtype=dtype, device=device) for shape in (size[:2], size[1:])]
        for size in sizes
    }

    def multiply() -> None:
        for size, times in sizes.items():
            for _ in range(times):
                torch.mm(*operands[size])

    return multiply


def _products(config: Config, phase: str) -> Counter[tuple[int, int, int]]:
    """How often an update multiplies [rows, inputs] by [inputs, outputs].

    A pass through a network forward, for its weights' gradient or for its layers' inputs' gradient
    costs the same; the latter stops before the first layer where nothing lies behind it.
    """
    updates, networks = config.updates, config.networks
    ds, da, dz = OBSERVATION_DIM, ACTION_DIM, networks.latent_dim
    rows = updates.meta_batch * updates.rl_batch
    policy = [ds + dz, *networks.policy_hidden, 2 * da]
    critic = [ds + da + dz, *networks.critic_hidden, 1]
    passes = [  # rows, widths, passes, of them those that leave out the first layer
        (rows, policy, 4, 1),  # a', a~, and backwards
        (rows, critic, 2 * 5, 2),  # both heads: Q', Q(a), Q(a~), and backwards
        (
            updates.meta_batch * updates.context_batch,
            [ds + da + 1, *networks.encoder_hidden, 2 * dz],
            3 if phase == "offline" else 1,
            phase == "offline",
        ),
    ]
    if phase == "offline":
        passes.append((rows, [ds + da + dz, *networks.decoder_hidden, 1], 3, 0))
    else:
        passes.append((rows, critic, 2, 0))  # PEARL's term: back to the action
    products: Counter[tuple[int, int, int]] = Counter()
    for n, widths, times, short in passes:
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            products[n, inputs, outputs] += times - (short if layer == 0 else 0)
    return products


def prepare(config: Config, device: str, seed: int = 0) -> tuple[SMAC, Replay]:
    """A learner of the configuration's sizes and random data for both phases."""
    generator = torch.Generator(device).manual_seed(seed)
    torch.manual_seed(seed)
    agent = Agent(OBSERVATION_DIM, ACTION_DIM, config.networks).to(device)
    rows = random_rows().to(device)
    replay = Replay(Layout(OBSERVATION_DIM, ACTION_DIM), list(rows), TRANSITIONS, device)
    for task in range(TASKS):
        replay.append(task, rows[task, : TRANSITIONS // 2], exploration=True)
    return SMAC(config, agent, generator), replay


def prepare_other(config: Config, algorithm: str, device: str) -> tuple[Learner, Replay]:
    """A learner of another algorithm, and random data in episodes."""
    generator = torch.Generator(device).manual_seed(0)
    torch.manual_seed(0)
    agent = ALGORITHMS[algorithm].make_agent(config, OBSERVATION_DIM, ACTION_DIM).to(device)
    rows, layout = random_rows(), Layout(OBSERVATION_DIM, ACTION_DIM)
    learner = ALGORITHMS[algorithm](config, agent, generator)
    learner.prepare(random_dataset(rows))
    return learner, Replay(layout, list(rows.to(device)), TRANSITIONS, device)


def random_dataset(rows: torch.Tensor) -> Dataset:
    """Rows [TASKS, TRANSITIONS, width] as episodes that end by the clock."""
    ends = np.arange(1, TRANSITIONS + 1) % EPISODE == 0
    tasks = []
    for number, batch in enumerate(rows):
        parts = Layout(OBSERVATION_DIM, ACTION_DIM).unpack(batch)[:3]
        observations, actions, rewards = (part.contiguous().numpy() for part in parts)
        following = np.roll(observations, -1, 0)
        arrays = (observations, actions, rewards, following, np.zeros_like(ends), ends)
        tasks.append(TaskData(*arrays, {"number": number}))
    names = {"observation_names": OBSERVATION_DIM, "action_names": ACTION_DIM}
    names |= {"observation_units": OBSERVATION_DIM, "action_units": ACTION_DIM}
    more = {name: [""] * count for name, count in names.items()}
    more |= {"rate": None, "contract": None, "fingerprint": "", "command": "", "git": "", "seed": 0}
    return Dataset(path=Path("random"), domain="", horizon=EPISODE, train=tasks, test=[], **more)


def random_rows() -> torch.Tensor:
    """Transitions [TASKS, TRANSITIONS, width] of standardised observations."""
    generator = torch.Generator().manual_seed(0)
    layout = Layout(OBSERVATION_DIM, ACTION_DIM)
    rows = torch.randn(TASKS, TRANSITIONS, layout.width, generator=generator)
    rows[..., OBSERVATION_DIM : OBSERVATION_DIM + ACTION_DIM].tanh_()
    rows[..., -1] = 0
    return rows
