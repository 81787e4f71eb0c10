"""PEARL's loop (Rakelly et al. 2019, algorithm 1): practise with true rewards, take gradient steps.

One run serves twice. Its first ``collection.iterations`` make the offline data of the MuJoCo
domains (appendix C.2); at ``online.iterations`` it is the online oracle. What becomes data is
recorded until the former and then left alone, so that going on changes nothing in the data.
"""

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smac_core.agents.context import LatentActor
from smac_core.algorithms.pearl import schedule
from smac_core.config import Config, differing
from smac_core.data.recording import Recording
from smac_core.data.replay import Layout
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.folder_lock import locked
from smac_core.networks import Gaussian
from smac_core.phases import ONLINE
from smac_core.presets import HAVE_PRESETS
from smac_core.tasks import held_out_tasks, training_tasks
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.metrics import MetricLogger
from smac_core.training.offline import RunningMeans, save
from smac_core.training.progress import Progress, Stop, interruptible
from smac_core.training.rollout import rollout
from smac_core.training.run import Run, check_equally_far
from smac_core.training.self_supervised import evaluate
from smac_core.training.updates import Updates


def open_run(directory: Path, config: Config, *, seed: int, device: str) -> Run:
    """Begin a PEARL run in a new folder, or go on with the one there, which may be given longer.

    Its arithmetic (``config.execution``) and other algorithms' settings may change on the way.

    Raises:
        InputError: the folder holds another run, or one of other settings; the domain has no
            section ``online``.
    """
    online = schedule(config)
    if not (directory / "run.json").exists():
        return Run.create(directory, config, None, algorithm="pearl", seed=seed, device=device)
    if not (directory / ONLINE / "checkpoints" / "latest").exists():
        raise InputError(directory, "run.json", "another run", "a PEARL run, or a new folder")
    tree = config.model_dump(mode="json")
    allowed = ("execution", *HAVE_PRESETS)
    changes = [f"{name}={json.dumps(tree[name])}" for name in allowed]
    changes.append(f"online.iterations={online.iterations}")
    run = Run.resume(directory, ONLINE, device=device, overrides=changes)
    others = differing({"seed": run.seed}, {"seed": seed})
    others += differing(*(one.model_dump(mode="json") for one in (run.config, config)))
    if others:
        key, found, asked = others[0]
        more = f" ({len(others) - 1} more differ)" if len(others) > 1 else ""
        expected = f"{asked} as now asked for{more}; the same to go on, or a new folder"
        raise InputError(directory / "run.json", key, found, expected)
    return run


@contextmanager
def opened_run(directory: Path, config: Config, *, seed: int, device: str) -> Iterator[Run]:
    """``open_run`` with the folder to ourselves.

    Raises:
        InputError: also where another process is at work in it.
    """
    schedule(config)  # before there is a folder
    with locked(directory):
        yield open_run(directory, config, seed=seed, device=device)


def meta_train(
    *runs: Run, pool: EnvironmentPool, until: int | None = None, quiet: bool = False
) -> bool:
    """Iterations ``until`` so many are done, or all; whether it got there.

    Before the first, every task gets ``online.initial_transitions`` of the untrained policy. Ctrl-C
    saves and stops, also within an iteration. Held-out returns go to the metrics every
    ``evaluate_every`` iterations. Several runs, seeds of one configuration and equally far, take
    turns in practice and their gradient steps at once.

    Raises:
        InputError: they are not equally far.
        FloatingPointError: a loss is NaN or infinite; the last good checkpoint stays.
    """
    check_equally_far(runs)
    run, settings = runs[0], runs[0].config.online
    iterations = settings.iterations if until is None else until
    per_iteration = settings.gradient_steps
    start = run.step * per_iteration + run.iteration_updates
    total = iterations * per_iteration
    if start >= total:
        return True
    updates = Updates([(run.learner, run.replay) for run in runs], ONLINE)
    means = RunningMeans()
    with ExitStack() as stack:
        loggers = [
            stack.enter_context(MetricLogger(run.folder, resume_step=run.step if start else -1))
            for run in runs
        ]
        stop = stack.enter_context(interruptible("saving a checkpoint"))
        for one in runs:
            if not one.counters["transitions"]:
                if not prepare(one, pool, stop, quiet=quiet):
                    return False
                one.save()
        if start == 0:
            for one, logger in zip(runs, loggers, strict=True):
                logger.log(ONLINE, 0, _scores(one, pool))
        title = "PEARL" + (f" x {len(runs)}" if len(runs) > 1 else "")
        progress = Progress(title, total, start=start, unit="updates", quiet=quiet)
        bar = stack.enter_context(progress)
        while run.step < iterations and not stop.requested:
            if run.iteration_updates == 0:
                for one in runs:
                    one.practice = practise(one, pool)
            while run.iteration_updates < per_iteration:
                count, info = updates.take(per_iteration - run.iteration_updates)
                means.add(info, count)
                for one in runs:
                    one.iteration_updates += count
                    one.counters["updates"] += count
                done = run.step * per_iteration + run.iteration_updates
                bar.update(done, iteration=run.step + 1)
                if stop.requested:
                    break
            if run.iteration_updates < per_iteration:
                break
            for one, logger, losses in zip(runs, loggers, means.take(), strict=True):
                values, one.practice = one.practice | losses | one.counters, {}
                one.step, one.iteration_updates = one.step + 1, 0
                if one.step % settings.evaluate_every == 0 or one.step in _ends(one.config):
                    values |= _scores(one, pool)
                    bar.update(done, held_out=values["test/return"])
                logger.log(ONLINE, one.step, values)
                logger.flush()  # an iteration takes seconds; who watches the file sees each
                if one.recording is not None and one.step == one.config.collection.iterations:
                    finish_recording(one, pool, one.recording)
            if run.step % settings.checkpoint_every == 0 and run.step < iterations:
                save(runs)
        save(runs)
    return run.step >= iterations


def _ends(config: Config) -> tuple[int, ...]:
    """Iterations after which a run may be used: its data, and itself."""
    collection = config.collection
    data = (collection.iterations,) if collection.source == "pearl" else ()
    return (*data, config.online.iterations)


def _scores(run: Run, pool: EnvironmentPool) -> dict[str, float]:
    scores = evaluate(run, pool)
    del scores["test/decoder_error"]  # it has none that learns
    return scores


def prepare(run: Run, pool: EnvironmentPool, stop: Stop, *, quiet: bool = False) -> bool:
    """Every task's initial transitions, z ~ p(z), into both buffers, and the standardiser's scales.

    Whether it was done: where it is stopped, nothing has changed, and it is done anew.
    """
    wanted = run.config.online.initial_transitions
    tasks, done = list(range(run.replay.tasks)), 0
    collected: dict[int, list[Tensor]] = {}
    state = run.generator.get_state()
    with Progress("initial data", len(tasks), unit="tasks", quiet=quiet) as bar:
        while done < len(tasks):
            if stop.requested:
                run.generator.set_state(state)
                return False
            episodes = math.ceil(wanted / run.config.environment.horizon)
            group = tasks[done : done + max(1, pool.size // episodes)]
            collected |= _until(run, pool, training_tasks(run.config), group, wanted, adapted=False)
            done += len(group)
            bar.update(done)
    width = run.agent.observation_dim
    paths = [rows[:, :width].cpu().numpy() for task in tasks for rows in collected[task]]
    run.agent.standardizer.fit(paths, run.config.networks.standardize)
    for task in tasks:
        _store(run, task, collected[task], exploration=True)
    return True


def practise(run: Run, pool: EnvironmentPool) -> dict[str, float]:
    """An iteration's trajectories in a few tasks, into the replay; mean returns of both kinds.

    First z ~ p(z), into both buffers; the encoder's starts anew, so that histories come from the
    present policy (oyster). Then z ~ q(z | h), into the RL buffer.
    """
    settings, parameters = run.config.online, training_tasks(run.config)
    many = min(settings.tasks_per_iteration, len(parameters))
    chosen = run.choices.choice(len(parameters), many, replace=False).tolist()
    scalars = {}
    for kind, wanted in (
        ("exploration", settings.exploration_transitions),
        ("adapted", settings.adapted_transitions),
    ):
        if not wanted:
            continue
        adapted = kind == "adapted"
        collected = _until(run, pool, parameters, chosen, wanted, adapted=adapted)
        for task in chosen:
            if not adapted:
                run.replay.context.clear(task)
            _store(run, task, collected[task], exploration=not adapted)
        reward = run.replay.layout.context_width - 1
        returns = [float(rows[:, reward].sum()) for task in chosen for rows in collected[task]]
        scalars[f"{kind}_return"] = float(np.mean(returns))
    return scalars


def finish_recording(run: Run, pool: EnvironmentPool, recording: Recording) -> None:
    """Add held-out tasks to what is recorded: exploration, and as many adapted trajectories.

    They are never trained on; evaluation from offline context adapts to them. Training's random
    numbers stay as they are.
    """
    generator = torch.Generator(run.agent.device).manual_seed(run.seed)
    tasks, count = held_out_tasks(run.config), run.config.collection.test_trajectories
    repeated = [task for task in tasks for _ in range(count)]
    agent, layout = run.agent, run.replay.layout
    explored = _roll(run, pool, repeated, agent.prior(len(repeated)).sample(generator), generator)
    whole = [part.reshape(len(tasks), -1, *part.shape[2:]) for part in explored]
    history = Trajectories(*whole)
    posterior = agent.infer(history.observations, history.actions, history.rewards, history.present)
    posterior = Gaussian(*(part.repeat_interleave(count, 0) for part in posterior))
    adapted = _roll(run, pool, repeated, posterior.sample(generator), generator)
    rows = [_raw_rows(layout, trajectories) for trajectories in (explored, adapted)]
    recording.finish(
        [
            tuple(part[first : first + count] for part in rows)
            for first in range(0, len(repeated), count)
        ]
    )


def _until(
    run: Run,
    pool: EnvironmentPool,
    parameters: list[dict],
    tasks: list[int],
    wanted: int,
    *,
    adapted: bool,
) -> dict[int, list[Tensor]]:
    """At least so many transitions of each task: raw rows [L, width] of whole trajectories.

    ``adapted``: z ~ q(z | h) of a history from the task's encoder buffer, else z ~ p(z); one z a
    trajectory.
    """
    agent, generator, horizon = run.agent, run.generator, run.config.environment.horizon
    collected: dict[int, list[Tensor]] = {task: [] for task in tasks}
    while True:
        lacking = {task: wanted - sum(map(len, rows)) for task, rows in collected.items()}
        episodes = [t for t in tasks for _ in range(math.ceil(max(0, lacking[t]) / horizon))]
        if not episodes:
            return collected
        posterior = agent.prior(len(episodes))
        if adapted:
            places = torch.tensor(episodes, device=agent.device)
            size = run.config.online.context_batch
            context = run.replay.context.sample(places, size, generator)
            with torch.no_grad():
                posterior = agent.encoder(context)
        scenes = [parameters[task] for task in episodes]
        found = _roll(run, pool, scenes, posterior.sample(generator), generator)
        for task, rows in zip(episodes, _raw_rows(run.replay.layout, found), strict=True):
            collected[task].append(rows)


def _roll(
    run: Run, pool: EnvironmentPool, tasks: list[dict], z: Tensor, generator: torch.Generator
) -> Trajectories:
    return rollout(
        pool,
        LatentActor(run.agent, z, deterministic=False, generator=generator),
        tasks,
        horizon=run.config.environment.horizon,
        generator=generator,
    )


def _raw_rows(layout: Layout, trajectories: Trajectories) -> list[Tensor]:
    """Each trajectory's rows [L, width], not standardised."""
    rows = layout.pack(*trajectories[:5])
    return [row[present] for row, present in zip(rows, trajectories.present, strict=True)]


def _store(run: Run, task: int, trajectories: list[Tensor], *, exploration: bool) -> None:
    """Append raw trajectories [L, width] to the replay, standardised, and record them."""
    layout, standardizer = run.replay.layout, run.agent.standardizer
    for rows in trajectories:
        batch = layout.unpack(rows)
        scaled = batch._replace(
            observations=standardizer(batch.observations),
            next_observations=standardizer(batch.next_observations),
        )
        run.replay.append(task, layout.pack(*scaled), exploration=exploration)
        run.counters["transitions"] += len(rows)
        if run.recording is not None:
            run.recording.add(task, rows, exploration=exploration)
