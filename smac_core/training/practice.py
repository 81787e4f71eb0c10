"""Practice (algorithm 1, lines 7 to 9): trajectories without rewards, labelled for the replay."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_core.agents.context import Agent, LatentActor
from smac_core.data.trajectories import Trajectories
from smac_core.networks import Gaussian
from smac_core.phases import has_true_rewards, in_test_scenes
from smac_core.tasks import held_out_tasks
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.labelling import label
from smac_core.training.rollout import rollout
from smac_core.training.run import Run


class Practice(NamedTuple):
    """An iteration's labelled trajectories, not yet in the replay."""

    trajectories: list[tuple[int, Tensor, bool]]  # task, rows [L, width], whether it explores
    scalars: dict[str, float]


class Random(NamedTuple):
    """Where practice has its random numbers from."""

    generator: torch.Generator  # on the agent's device
    choices: np.random.Generator  # which tasks


def practise(run: Run, pool: EnvironmentPool) -> dict[str, float]:
    """Collect trajectories, label them, append them; figures on both."""
    return store(run, collect(run, pool, run.agent, Random(run.generator, run.choices)))


def store(run: Run, practice: Practice) -> dict[str, float]:
    """Append an iteration's practice to the replay; its scalars."""
    for task, rows, exploration in practice.trajectories:
        run.replay.append(task, rows, exploration=exploration)
        run.counters["transitions"] += len(rows)
    return practice.scalars


def collect(
    run: Run,
    pool: EnvironmentPool,
    agent: Agent,
    random: Random,
    advance: Callable[[int], None] | None = None,
) -> Practice:
    """Collect trajectories of an agent and label them; changes nothing but ``random``.

    ``advance``: told how many environment steps were taken.
    """
    settings = run.config.self_supervised
    scenes, many = [task.task for task in run.dataset.train], settings.tasks_per_iteration
    test_scenes, true_rewards = in_test_scenes(run.phase), has_true_rewards(run.phase)
    if test_scenes and true_rewards:
        scenes = [task.task for task in run.dataset.test]
    elif test_scenes:
        scenes = held_out_tasks(run.config)  # what they ask for is never looked at
    practised = random.choices.choice(len(scenes), many, replace=many > len(scenes))
    labelled_as = practised  # whose offline history labels, and whose buffers receive
    another = test_scenes or settings.labelling_task == "uniform"
    if another and not true_rewards:
        labelled_as = random.choices.integers(run.replay.tasks, size=many)
    elif test_scenes:  # their buffers are behind the training tasks'
        labelled_as = practised + len(run.dataset.train)
    trajectories: list[tuple[int, Tensor, bool]] = []
    scalars: dict[str, float] = {}
    posterior = None
    for kind, count in (
        ("exploration", settings.exploration_trajectories),
        ("adapted", settings.adapted_trajectories),
    ):
        if count == 0:
            continue
        z = None
        if posterior is not None:
            z = Gaussian(*(part.repeat_interleave(count, 0) for part in posterior))
            z = z.sample(random.generator)
        elif settings.exploration_latent == "trajectory":
            z = agent.prior(many * count).sample(random.generator)
        certain = settings.deterministic_exploration
        actor = LatentActor(agent, z, deterministic=certain, generator=random.generator)
        collected = rollout(
            pool,
            actor,
            [scenes[i] for i in practised.repeat(count)],
            horizon=run.config.environment.horizon,
            generator=random.generator,
            advance=advance,
        )
        places = labelled_as.repeat(count)
        if true_rewards:
            rewards = collected.rewards
        else:
            tasks = torch.as_tensor(places, device=agent.device)
            context = settings.labelling_context
            rewards = label(agent, run.replay, collected, tasks, context, random.generator)
        if labelled_as is practised:  # else the environment's rewards are another task's
            error = ((rewards - collected.rewards) ** 2)[collected.present].mean()
            scalars[f"{kind}_label_error"] = error.item()
        explores = kind == "exploration" and not settings.freeze_context_buffer
        rows = collected.rows(agent.standardizer, run.replay.layout, rewards)
        for place, row, present in zip(places, rows, collected.present, strict=True):
            trajectories.append((int(place), row[present], explores))
        posterior = _posterior(agent, collected, rewards, many) if kind == "exploration" else None
        scalars[f"{kind}_labelled_reward"] = rewards[collected.present].mean().item()
    return Practice(trajectories, scalars)


def _posterior(agent: Agent, collected: Trajectories, rewards: Tensor, tasks: int) -> Gaussian:
    """q(z | h) [tasks, dz] given all trajectories of each task, adjacent ones in ``collected``."""
    parts = (collected.observations, collected.actions, rewards, collected.present)
    return agent.infer(*(part.reshape(tasks, -1, *part.shape[2:]) for part in parts))


class PracticeAhead:
    """Practises for the next iteration in a thread while gradient steps are taken.

    The policy that practises is so an iteration older than without. Which one it is (a copy,
    ``run.practising``) goes into checkpoints, and an iteration's random numbers follow from the
    run's seed and the iteration: practice that a checkpoint cut off is done again, number for
    number.
    """

    def __init__(self, runs: tuple[Run, ...], pool: EnvironmentPool):
        self._runs, self._pool = runs, pool
        self._executor = ThreadPoolExecutor(1, "practice")
        self._work: list[Future[Practice]] = []
        self._closing = False
        device = runs[0].agent.device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def begin(self, iteration: int) -> None:
        """Begin the practice of an iteration, if it has not begun."""
        if self._work:
            return
        for run in self._runs:
            run.practising = run.practising or deepcopy(run.agent).requires_grad_(False)
            self._work.append(self._executor.submit(self._collect, run, iteration))

    def _collect(self, run: Run, iteration: int) -> Practice:
        seeds = np.random.SeedSequence([run.seed, iteration]).generate_state(2, np.uint64)
        generator = torch.Generator(run.agent.device).manual_seed(int(seeds[0]) >> 1)
        random = Random(generator, np.random.default_rng(int(seeds[1])))
        if self._stream is None:
            return collect(run, self._pool, run.practising, random, self._proceed)
        self._stream.wait_stream(torch.cuda.default_stream(run.agent.device))
        with torch.cuda.stream(self._stream):  # not behind captured updates
            practice = collect(run, self._pool, run.practising, random, self._proceed)
            self._stream.synchronize()
        return practice

    def _proceed(self, steps: int) -> None:
        if self._closing:
            raise CancelledError

    def wait(self) -> None:
        """Until the environments are free."""
        for work in self._work:
            work.result()

    def store(self) -> list[dict[str, float]]:
        """Wait for the practice that was begun and append it; each run's scalars."""
        practices = [work.result() for work in self._work]
        self._work = []
        for run in self._runs:
            run.practising = None
        return [store(run, p) for run, p in zip(self._runs, practices, strict=True)]

    def close(self) -> None:
        """End the practice under way after its present step; a resumed run does it again."""
        self._closing = True
        self._executor.shutdown(wait=True, cancel_futures=True)
