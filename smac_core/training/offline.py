"""The offline phase: SMAC's (algorithm 1, lines 2 to 5) and that of all others, by stages."""

from contextlib import ExitStack
from itertools import accumulate

import torch

from smac_core.losses import Info
from smac_core.training.metrics import MetricLogger
from smac_core.training.progress import Progress, interruptible
from smac_core.training.run import Run, check_equally_far
from smac_core.training.updates import Updates, set_precision


def train_offline(*runs: Run, quiet: bool = False) -> bool:
    """Gradient steps until ``config.offline.steps``; whether it got there (Ctrl-C saves and stops).

    Several runs, seeds of one configuration and equally far, train at once.

    Raises:
        InputError: they are not equally far.
        FloatingPointError: a loss is NaN or infinite; the last good checkpoint stays.
    """
    check_equally_far(runs)
    run, settings = runs[0], runs[0].config.offline
    set_precision(run.config.execution)  # of what a stage begins with, too
    means = RunningMeans()
    with ExitStack() as stack:
        loggers = [
            stack.enter_context(MetricLogger(run.folder, resume_step=run.step or -1))
            for run in runs
        ]
        title = f"offline {run.algorithm}" + (f" x {len(runs)}" if len(runs) > 1 else "")
        bar = stack.enter_context(Progress(title, settings.steps, start=run.step, quiet=quiet))
        stop = stack.enter_context(interruptible("saving a checkpoint"))
        stage, updates = "", None
        while run.step < settings.steps and not stop.requested:
            now, end = _stage(run)
            if now != stage:
                for one in runs:
                    one.learner.begin_stage(now)
                stage, updates = now, Updates([(one.learner, one.replay) for one in runs], now)
            stops = (settings.log_every, settings.checkpoint_every)
            most = min(end - run.step, *(n - run.step % n for n in stops))
            count, info = updates.take(most)
            means.add(info, count)
            for one in runs:
                one.step += count
                one.counters["updates"] += count
            if run.step % settings.log_every == 0 or run.step == end:
                every = means.take()
                for logger, values in zip(loggers, every, strict=True):
                    logger.log("offline", run.step, values)
                shown = {k: every[0][k] for k in ("reward_error", "critic_loss") if k in every[0]}
                bar.update(run.step, **shown)
            else:
                bar.update(run.step)
            if run.step % settings.checkpoint_every == 0 and run.step < settings.steps:
                save(runs)
        save(runs)
    return run.step >= settings.steps


def _stage(run: Run) -> tuple[str, int]:
    """The stage of the offline phase that the run's next step belongs to, and where it ends."""
    stages = run.learner.offline_stages
    ends = dict(zip(stages, accumulate(stages.values()), strict=True))
    return next((stage, end) for stage, end in ends.items() if run.step < end)


def save(runs: tuple[Run, ...]) -> None:
    """A checkpoint of each."""
    for run in runs:
        run.save()


class RunningMeans:
    """Averages of scalars on the device; one copy to the host whenever they are taken."""

    def __init__(self) -> None:
        self.totals: Info = {}
        self.count = 0

    def add(self, info: Info, count: int = 1) -> None:
        """Take in the means of ``count`` updates: scalars [], or [S] of S runs."""
        self.count += count
        if not self.totals:
            self.totals = {name: value * count for name, value in info.items()}
            return
        torch._foreach_add_(list(self.totals.values()), list(info.values()), alpha=count)

    def take(self) -> list[dict[str, float]]:
        """Each run's means since the last call."""
        if not self.count:
            return []
        values = torch.stack(list(self.totals.values())).reshape(len(self.totals), -1) / self.count
        means = [dict(zip(self.totals, of_run, strict=True)) for of_run in values.T.tolist()]
        self.totals, self.count = {}, 0
        return means
