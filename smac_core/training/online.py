"""The self-supervised phase with practice that others collect and label, as it comes in.

The same alternation as ``self_supervised.self_train``: an iteration's transitions, then the
gradient steps that they are worth. The learner's node puts it on topics.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch

from smac_core.checkpoint import load_state
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.training.offline import RunningMeans
from smac_core.training.run import Run, copy_offline, identity
from smac_core.training.self_supervised import begin, require_self_supervision
from smac_core.training.updates import Updates

PHASE = "self_supervised"


def open_run(
    source: Path | None,
    directory: Path,
    *,
    device: str,
    dataset_path: Path | None = None,
    overrides: list[str] = (),
    seed: int | None = None,
) -> Run:
    """Go on with the self-supervised phase in ``directory``, or begin it there from ``source``.

    ``source``, a run with a finished offline phase, is never written to; None: there is a phase to
    go on with. ``seed`` begins with other random numbers than the source's next ones.

    Raises:
        InputError: ``directory`` is the source, holds another run, or there is nothing to begin
            with; what ``Run.resume`` and ``self_supervised.begin`` raise.
    """
    more = {"device": device, "dataset_path": dataset_path, "overrides": overrides}
    if source is not None:
        if source.resolve() == directory.resolve():
            expected = "a folder of the new run's own: the one it starts from stays as it is"
            raise InputError(directory, "folder", "the checkpoint's run", expected)
        if not (source / "run.json").is_file():
            raise InputError(source, "run.json", "no such file", "a run's folder")
        if (directory / "run.json").exists():
            found = json.loads((directory / "run.json").read_text()).get("copy_of")
            if found != identity(source):
                expected = f"one that began from {source}, or a new folder"
                raise InputError(directory, "run.json", "another run", expected)
    if (directory / PHASE / "checkpoints" / "latest").exists():
        return Run.resume(directory, PHASE, **more)
    if source is None:
        raise InputError(directory, "folder", f"no phase {PHASE}", "a run to begin it from")
    if not (directory / "run.json").exists():
        algorithm = load_state(source / "offline" / "checkpoints")["algorithm"]
        require_self_supervision(source, algorithm)  # before there is a folder
        copy_offline(source, directory, dataset_path)
    shutil.rmtree(directory / PHASE, ignore_errors=True)  # of a process killed while beginning
    run = begin(directory, PHASE, **more)
    if seed is not None:
        run.generator.manual_seed(seed)
        run.choices = np.random.default_rng(seed)
        run.save()
    return run


class OnlineTraining:
    """Takes labelled trajectories into a run's replay and owes gradient steps for them.

    Transitions whose steps are not done are counted in the run (``pending``), so that a
    checkpoint keeps the debt along with the data.

    Args:
        run: of the phase ``self_supervised``.
        transitions: an iteration; 0: as many as configured for ``self_train``. As many
            trajectories as that are at full length do, too: steps that could not be used must not
            keep an iteration from its end.
        ratio: gradient steps a transition; 0: as configured.
    """

    def __init__(self, run: Run, *, transitions: int = 0, ratio: float = 0.0):
        settings = run.config.self_supervised
        trajectories = settings.exploration_trajectories + settings.adapted_trajectories
        horizon = run.config.environment.horizon
        self.run = run
        self.transitions = transitions or settings.tasks_per_iteration * trajectories * horizon
        self.ratio = ratio or settings.gradient_steps_per_transition
        self.trajectories = math.ceil(self.transitions / horizon)
        self._cut_short = False
        self._explorers_feed_encoder = not settings.freeze_context_buffer
        self._updates = Updates([(run.learner, run.replay)], PHASE)
        self._means = RunningMeans()
        for name in ("pending", "pending_trajectories"):
            run.counters.setdefault(name, 0)

    @property
    def pending(self) -> int:
        """Transitions in the replay for which gradient steps are still to be taken."""
        return self.run.counters["pending"]

    @property
    def ready(self) -> bool:
        """Whether an iteration is complete: next are gradient steps, not trajectories."""
        enough = self.run.counters["pending_trajectories"] >= self.trajectories
        return self.pending >= self.transitions or enough or self._cut_short

    def cut_short(self) -> None:
        """Let the iteration do with the transitions that there are, if there are any."""
        self._cut_short = self.pending > 0

    @property
    def owed(self) -> int:
        """Gradient steps left of the iteration in progress; 0 while its transitions come in."""
        if not self.ready:
            return 0
        return max(max(1, round(self.pending * self.ratio)) - self.run.iteration_updates, 0)

    def receive(
        self,
        task: int,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        next_observations: np.ndarray,
        terminals: np.ndarray,
        *,
        exploration: bool,
    ) -> None:
        """Append a trajectory: [H, ds], [H, da], [H], [H, ds], [H], float32, raw units.

        Raises:
            InputError: no such task, longer than the replay keeps, or not finite.
        """
        run = self.run
        if not 0 <= task < run.replay.tasks:
            expected = f"0 to {run.replay.tasks - 1}, a task of {run.dataset.path}"
            raise InputError("labelled trajectory", "task", task, expected)
        trajectory = Trajectories.one(
            observations,
            actions,
            next_observations,
            rewards,
            terminals,
            device=run.agent.device,
        )
        layout, standardize = run.replay.layout, run.agent.standardizer
        rows = trajectory.rows(standardize, layout, trajectory.rewards)[0]
        try:
            run.replay.append(task, rows, exploration=exploration and self._explorers_feed_encoder)
        except ValueError as error:
            expected = "finite numbers, no more than self_supervised.online_capacity rows"
            raise InputError("labelled trajectory", "rows", error, expected) from None
        run.counters["transitions"] += len(rows)
        run.counters["pending"] += len(rows)
        run.counters["pending_trajectories"] += 1

    def update(self) -> None:
        """One gradient step of actor and critic, or as many of those owed as are taken at once."""
        count, info = self._updates.take(self.owed)
        self._means.add(info, count)
        self.run.iteration_updates += count
        self.run.counters["updates"] += count

    def finish(self) -> dict[str, float]:
        """End an iteration whose steps are done; its mean losses and the run's counters.

        Raises:
            FloatingPointError: a loss or a network is not finite; nothing of it should be kept.
        """
        run = self.run
        values = next(iter(self._means.take()), {})
        broken = [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]
        for network, module in run.learner.networks.items():
            for name, value in module.named_parameters():
                if not torch.isfinite(value).all():
                    broken.append(f"{network}.{name} is not finite")
        if broken:
            step = run.step + 1
            raise FloatingPointError(f"{run.phase}, step {step}: {', '.join(broken)}")
        run.step, run.iteration_updates, self._cut_short = run.step + 1, 0, False
        run.counters |= {"pending": 0, "pending_trajectories": 0}
        return values | {name: run.counters[name] for name in ("updates", "transitions")}
