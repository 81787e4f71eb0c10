"""The self-supervised phase (algorithm 1, lines 6 to 12), its control and its upper bound.

``self_supervised``: practise without rewards, label with the decoder, train actor and critic.
``control``: as many updates on the offline data alone; what it gains is not self-supervision's.
``true_rewards``: the same practice labelled by the environment; what better labels would give.
``test_scenes``: practise in the held-out tasks' scenes, still without rewards (figure 8, red).
``test_scenes_true_rewards``: in these scenes with their rewards, the held-out tasks' data beside
the training tasks' (figure 8, black).
"""

from contextlib import ExitStack
from pathlib import Path

import torch

from smac_core.config import Config
from smac_core.errors import InputError
from smac_core.evaluation import meta_test
from smac_core.tasks import held_out_tasks
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.metrics import MetricLogger
from smac_core.training.offline import RunningMeans, save
from smac_core.training.practice import PracticeAhead, practise
from smac_core.training.progress import Progress, interruptible
from smac_core.training.run import Run, check_equally_far, make_replay, replayed_tasks
from smac_core.training.updates import Updates


def begin(
    directory: Path,
    phase: str,
    *,
    device: str,
    dataset_path: Path | None = None,
    overrides: list[str] = (),
) -> Run:
    """Start a phase from the offline phase's last checkpoint; arguments as in ``Run.resume``.

    Raises:
        InputError: the phase has begun already, or the algorithm has no self-supervised phase.
    """
    if (directory / phase).exists():
        raise InputError(
            directory / phase, "folder", "an earlier run of this phase", "--resume, or remove it"
        )
    run = Run.resume(
        directory, "offline", device=device, dataset_path=dataset_path, overrides=overrides
    )
    require_self_supervision(directory, run.algorithm)
    if run.step < run.config.offline.steps:
        raise InputError(
            directory,
            "offline steps",
            run.step,
            f"{run.config.offline.steps}; finish them with smac train --resume",
        )
    run.phase, run.step = phase, 0
    tasks = replayed_tasks(run.dataset, phase)
    if len(tasks) > len(run.dataset.train):
        capacity = run.config.self_supervised.online_capacity
        run.replay = make_replay(run.agent, tasks, capacity, device)
    run.save()  # from here on the phase can be resumed, however it ends
    return run


def require_self_supervision(directory: Path, algorithm: str) -> None:
    """Raises InputError unless a run's algorithm has these phases."""
    if algorithm != "smac":
        expected = "smac; others have no self-supervised phase"
        raise InputError(directory, "algorithm", algorithm, expected)


def self_train(*runs: Run, pool: EnvironmentPool, quiet: bool = False) -> bool:
    """Iterations until ``config.self_supervised.iterations``; whether it got there.

    One iteration practises in a few training tasks and then takes the gradient steps. Ctrl-C saves
    and stops, also within an iteration. Held-out returns go to the metrics every
    ``evaluate_every`` iterations. Several runs, seeds of one configuration and equally far, take
    turns in practice and their gradient steps at once.

    Raises:
        InputError: they are not equally far.
    """
    check_equally_far(runs)
    run, settings = runs[0], runs[0].config.self_supervised
    per_iteration = updates_per_iteration(run)
    total = settings.iterations * per_iteration
    start = run.step * per_iteration + run.iteration_updates
    updates = Updates([(run.learner, run.replay) for run in runs], "self_supervised")
    means = RunningMeans()
    with ExitStack() as stack:
        loggers = [
            stack.enter_context(MetricLogger(run.folder, resume_step=run.step if start else -1))
            for run in runs
        ]
        progress = Progress(run.phase, total, start=start, unit="updates", quiet=quiet)
        bar = stack.enter_context(progress)
        stop = stack.enter_context(interruptible("saving a checkpoint"))
        if start == 0:
            for one, logger in zip(runs, loggers, strict=True):
                logger.log(one.phase, 0, evaluate(one, pool))
        practises = run.phase != "control"
        ahead = PracticeAhead(runs, pool) if practises and settings.practise_ahead else None
        if ahead:
            stack.callback(ahead.close)
        else:  # one that a checkpoint kept would grow old
            for one in runs:
                one.practising = None
        while run.step < settings.iterations and not stop.requested:
            if run.iteration_updates == 0 and ahead:
                ahead.begin(run.step)
                for one, scalars in zip(runs, ahead.store(), strict=True):
                    one.practice = scalars
            elif run.iteration_updates == 0 and practises:
                for one in runs:
                    one.practice = practise(one, pool)
            if ahead and run.step + 1 < settings.iterations:
                ahead.begin(run.step + 1)
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
            losses = means.take()
            if ahead:
                ahead.wait()
            for one, logger, more in zip(runs, loggers, losses, strict=True):
                values, one.practice = one.practice | more | one.counters, {}
                one.step, one.iteration_updates = one.step + 1, 0
                if one.step % settings.evaluate_every == 0 or one.step == settings.iterations:
                    values |= evaluate(one, pool)
                logger.log(one.phase, one.step, values)
                logger.flush()  # an iteration takes seconds; who watches the file sees each
            if run.step % settings.checkpoint_every == 0 and run.step < settings.iterations:
                save(runs)
        save(runs)
    return run.step >= settings.iterations


def updates_per_iteration(run: Run) -> int:
    """Gradient steps that an iteration's transitions are worth."""
    ratio = run.config.self_supervised.gradient_steps_per_transition
    return max(1, round(transitions_per_iteration(run.config) * ratio))


def transitions_per_iteration(config: Config) -> int:
    """Practised in an iteration where no episode ends early."""
    settings = config.self_supervised
    trajectories = settings.exploration_trajectories + settings.adapted_trajectories
    return settings.tasks_per_iteration * trajectories * config.environment.horizon


def evaluate(run: Run, pool: EnvironmentPool) -> dict[str, float]:
    """Held-out tasks from online context, as scalars for the metrics; one repeat a task.

    (A curve wants points more than precision; ``smac evaluate`` repeats.)
    """
    generator = torch.Generator(run.agent.device).manual_seed(run.seed)  # leaves training's alone
    result = meta_test(
        pool,
        run.agent,
        held_out_tasks(run.config),
        run.config.evaluation.model_copy(update={"repeats": 1}),
        horizon=run.config.environment.horizon,
        context="online",
        generator=generator,
    )
    return {
        "test/return": float(result.returns.mean()),
        "test/success": float(result.success.mean()),
        "test/exploration_return": float(result.exploration_returns.mean()),
        "test/kl": float(result.kl.mean()),
        "test/decoder_error": float(result.decoder_error.mean()),
    }
