"""The offline phase (algorithm 1, lines 2 to 5), and its meta behaviour cloning counterpart."""

import torch

from smac_core.losses import Info
from smac_core.training.metrics import MetricLogger
from smac_core.training.progress import Progress, interruptible
from smac_core.training.run import Run


def train_offline(run: Run, *, quiet: bool = False) -> bool:
    """Gradient steps until ``config.offline.steps``; whether it got there (Ctrl-C saves and stops).

    Raises:
        FloatingPointError: a loss is NaN or infinite; the last good checkpoint stays.
    """
    settings = run.config.offline
    means = RunningMeans()
    with (
        MetricLogger(run.folder, resume_step=run.step or -1) as metrics,
        Progress(f"offline {run.algorithm}", settings.steps, start=run.step, quiet=quiet) as bar,
        interruptible("saving a checkpoint") as stop,
    ):
        while run.step < settings.steps and not stop.requested:
            means.add(run.learner.offline_update(run.replay))
            run.step += 1
            run.counters["updates"] += 1
            if run.step % settings.log_every == 0 or run.step == settings.steps:
                values = means.take()
                metrics.log("offline", run.step, values)
                shown = {k: values[k] for k in ("reward_error", "critic_loss") if k in values}
                bar.update(run.step, **shown)
            else:
                bar.update(run.step)
            if run.step % settings.checkpoint_every == 0 and run.step < settings.steps:
                run.save()
        run.save()
    return run.step >= settings.steps


class RunningMeans:
    """Averages of scalars on the device; one copy to the host whenever they are taken."""

    def __init__(self) -> None:
        self.totals: Info = {}
        self.count = 0

    def add(self, info: Info) -> None:
        self.count += 1
        if not self.totals:
            self.totals = {name: value.clone() for name, value in info.items()}
            return
        torch._foreach_add_(list(self.totals.values()), list(info.values()))

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        if not self.count:
            return {}
        values = (torch.stack(list(self.totals.values())) / self.count).tolist()
        means = dict(zip(self.totals, values, strict=True))
        self.totals, self.count = {}, 0
        return means
