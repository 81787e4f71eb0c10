"""The self-supervised phase (algorithm 1, lines 6 to 12), its control and its upper bound.

``self_supervised``: practise without rewards, label with the decoder, train actor and critic.
``control``: as many updates on the offline data alone; what it gains is not self-supervision's.
``true_rewards``: the same practice labelled by the environment; what better labels would give.
``test_scenes``: practise in the held-out tasks' scenes, still without rewards (figure 8, red).
"""

from pathlib import Path

import torch
from torch import Tensor

from smac_core.agent import Agent
from smac_core.algorithms.smac import SMAC
from smac_core.errors import InputError
from smac_core.evaluation import meta_test
from smac_core.networks import Gaussian
from smac_core.tasks import load_tasks
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.labelling import label
from smac_core.training.metrics import MetricLogger
from smac_core.training.offline import RunningMeans
from smac_core.training.progress import Progress, interruptible
from smac_core.training.rollout import Trajectories, rollout
from smac_core.training.run import Run


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
    if not isinstance(run.learner, SMAC):
        raise InputError(
            directory, "algorithm", run.algorithm, "smac; others have no self-supervised phase"
        )
    if run.step < run.config.offline.steps:
        raise InputError(
            directory,
            "offline steps",
            run.step,
            f"{run.config.offline.steps}; finish them with smac train --resume",
        )
    run.phase, run.step = phase, 0
    run.save()  # from here on the phase can be resumed, however it ends
    return run


def self_train(run: Run, pool: EnvironmentPool, *, quiet: bool = False) -> bool:
    """Iterations until ``config.self_supervised.iterations``; whether it got there.

    One iteration practises in a few training tasks and then takes the gradient steps. Ctrl-C saves
    and stops, also within an iteration. Held-out returns go to the metrics every
    ``evaluate_every`` iterations.
    """
    settings = run.config.self_supervised
    trajectories = settings.exploration_trajectories + settings.adapted_trajectories
    transitions = settings.tasks_per_iteration * trajectories * run.config.environment.horizon
    updates = max(1, round(transitions * settings.gradient_steps_per_transition))
    total = settings.iterations * updates
    start = run.step * updates + run.iteration_updates
    means = RunningMeans()
    with (
        MetricLogger(run.folder, resume_step=run.step or -1) as metrics,
        Progress(run.phase, total, start=start, unit="updates", quiet=quiet) as bar,
        interruptible("saving a checkpoint") as stop,
    ):
        if start == 0:
            metrics.log(run.phase, 0, evaluate(run, pool))
        while run.step < settings.iterations and not stop.requested:
            values: dict[str, float] = {}
            if run.iteration_updates == 0 and run.phase != "control":
                values = practise(run, pool)
            while run.iteration_updates < updates and not stop.requested:
                means.add(run.learner.self_supervised_update(run.replay))
                run.iteration_updates += 1
                run.counters["updates"] += 1
                bar.update(run.step * updates + run.iteration_updates, iteration=run.step + 1)
            if run.iteration_updates < updates:
                break
            run.step, run.iteration_updates = run.step + 1, 0
            values |= means.take() | run.counters
            if run.step % settings.evaluate_every == 0 or run.step == settings.iterations:
                values |= evaluate(run, pool)
            metrics.log(run.phase, run.step, values)
            metrics.flush()  # an iteration takes seconds; who watches the file sees each
            if run.step % settings.checkpoint_every == 0 and run.step < settings.iterations:
                run.save()
        run.save()
    return run.step >= settings.iterations


def practise(run: Run, pool: EnvironmentPool) -> dict[str, float]:
    """Lines 7 to 9: collect trajectories, label them, append them; figures on both."""
    settings, agent = run.config.self_supervised, run.agent
    scenes, many = [task.task for task in run.dataset.train], settings.tasks_per_iteration
    if run.phase == "test_scenes":
        scenes = load_tasks(run.config.tasks.test)  # what they ask for is never looked at
    practised = run.choices.choice(len(scenes), many, replace=many > len(scenes))
    labelled_as = practised  # whose offline history labels, and whose buffers receive
    another = settings.labelling_task == "uniform" and run.phase != "true_rewards"
    if another or run.phase == "test_scenes":
        labelled_as = run.choices.integers(run.replay.tasks, size=many)
    values: dict[str, float] = {}
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
            z = z.sample(run.generator)
        elif settings.exploration_latent == "trajectory":
            z = agent.prior(many * count).sample(run.generator)
        collected = rollout(
            pool,
            agent,
            [scenes[i] for i in practised.repeat(count)],
            z,
            horizon=run.config.environment.horizon,
            deterministic=settings.deterministic_exploration,
            generator=run.generator,
        )
        places = labelled_as.repeat(count)
        if run.phase == "true_rewards":
            rewards = collected.rewards
        else:
            tasks = torch.as_tensor(places, device=agent.device)
            rewards = label(
                agent, run.replay, collected, tasks, settings.labelling_context, run.generator
            )
        if labelled_as is practised:  # else the environment's rewards are another task's
            error = ((rewards - collected.rewards) ** 2)[collected.present].mean()
            values[f"{kind}_label_error"] = error.item()
        explores = kind == "exploration" and not settings.freeze_context_buffer
        rows = collected.rows(agent, run.replay.layout, rewards)
        for place, row, present in zip(places, rows, collected.present, strict=True):
            run.replay.append(int(place), row[present], exploration=explores)
        posterior = _posterior(agent, collected, rewards, many) if kind == "exploration" else None
        values[f"{kind}_labelled_reward"] = rewards[collected.present].mean().item()
        run.counters["transitions"] += int(collected.present.sum())
    return values


def _posterior(agent: Agent, collected: Trajectories, rewards: Tensor, tasks: int) -> Gaussian:
    """q(z | h) [tasks, dz] given all trajectories of each task, adjacent ones in ``collected``."""
    parts = (collected.observations, collected.actions, rewards, collected.present)
    return agent.infer(*(part.reshape(tasks, -1, *part.shape[2:]) for part in parts))


def evaluate(run: Run, pool: EnvironmentPool) -> dict[str, float]:
    """Held-out tasks from online context, as scalars for the metrics; one repeat a task.

    (A curve wants points more than precision; ``smac evaluate`` repeats.)
    """
    generator = torch.Generator(run.agent.device).manual_seed(run.seed)  # leaves training's alone
    result = meta_test(
        pool,
        run.agent,
        load_tasks(run.config.tasks.test),
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
