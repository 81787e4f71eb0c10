"""Figures of a run, drawn from its metrics and evaluations alone."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from smac_core.errors import InputError
from smac_core.intervals import interval

COLORS = {
    "offline": "#4c72b0",
    "self_supervised": "#c44e52",
    "control": "#8c8c8c",
    "true_rewards": "#222222",
    "test_scenes": "#8172b3",
}
CONTEXT_COLORS = {"offline": "#4c72b0", "online": "#dd8452"}
NAMES = {
    "offline": "offline phase",
    "self_supervised": "self-supervised",
    "control": "control (no new data)",
    "true_rewards": "true rewards (oracle)",
    "test_scenes": "practice in test scenes",
}


def draw(run: Path) -> list[Path]:
    """All figures that a run has results for, as PNG in RUN/figures.

    Raises:
        InputError: the folder is no run, or has neither metrics nor evaluations to draw.
    """
    if not (run / "run.json").exists():
        raise InputError(run, "run.json", "no such file", "a run's folder")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    evaluations = load_evaluations(run)
    folder = run / "figures"
    drawn = []
    for name, figure in (
        ("learning_curve", _learning_curve(pyplot, run)),
        ("context_shift", _context_shift(pyplot, evaluations)),
        ("traces", _traces(pyplot, evaluations)),
        ("success_by_behavior", _success(pyplot, evaluations)),
    ):
        if figure is None:
            continue
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120, bbox_inches="tight")
        pyplot.close(figure)
        drawn.append(path)
    if not drawn:
        raise InputError(
            run, "results", "none", "a self-supervised phase or evaluations (smac evaluate)"
        )
    return drawn


def load_metrics(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one metric in a metrics.csv."""
    with path.open(newline="") as file:
        rows = [
            (int(r["step"]), float(r["value"])) for r in csv.DictReader(file) if r["name"] == name
        ]
    steps, values = zip(*rows, strict=True) if rows else ((), ())
    return np.array(steps), np.array(values)


def load_evaluations(run: Path) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Arrays of every evaluation on the held-out tasks, by (phase, context)."""
    found = {}
    for phase in COLORS:
        for context in CONTEXT_COLORS:
            path = run / "evaluations" / f"{phase}_test_{context}.npz"
            if path.exists():
                with np.load(path) as arrays:
                    found[phase, context] = dict(arrays)
    return found


def _learning_curve(pyplot, run: Path):
    """Figure 5: held-out return against the second phase's updates."""
    curves = {}
    for phase in NAMES:
        path = run / phase / "metrics.csv"
        if phase != "offline" and path.exists():
            curves[phase] = [load_metrics(path, f"test/{what}") for what in ("return", "success")]
    curves = {phase: both for phase, both in curves.items() if len(both[0][0])}
    if not curves:
        return None
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for phase, both in curves.items():
        for axis, (steps, values), factor in zip(axes, both, (1, 100), strict=True):
            axis.plot(steps, factor * values, "o-", color=COLORS[phase], label=NAMES[phase], ms=3)
    axes[0].set(xlabel="iteration after the offline phase", ylabel="return")
    axes[1].set(xlabel="iteration after the offline phase", ylabel="success (%)")
    axes[1].legend(frameon=False, fontsize=8)
    figure.suptitle("held-out tasks after adaptation, online context")
    return figure


def _context_shift(pyplot, evaluations):
    """Figure 2: KL(posterior || prior) and return, from offline and from online context."""
    phases = [p for p in COLORS if all((p, c) in evaluations for c in CONTEXT_COLORS)]
    if not phases:
        return None
    figure, axes = pyplot.subplots(2, len(phases), figsize=(3 * len(phases), 5), squeeze=False)
    largest = max(evaluations[p, c]["kl"].max() for p in phases for c in CONTEXT_COLORS)
    bins = np.linspace(0, largest, 30)
    low = min(evaluations[p, c]["returns"].mean() for p in phases for c in CONTEXT_COLORS)
    for column, phase in enumerate(phases):
        for place, (context, color) in enumerate(CONTEXT_COLORS.items()):
            result = evaluations[phase, context]
            axes[0, column].hist(
                result["kl"].ravel(), bins, alpha=0.6, color=color, label=f"{context} context"
            )
            means = result["returns"].mean(1)
            error = interval(means)["half_width_95"] or 0.0
            axes[1, column].bar(place, means.mean(), yerr=error, color=color, capsize=4)
        axes[0, column].set(title=NAMES[phase], xlabel="KL(posterior || prior)")
        axes[1, column].set_xticks(range(len(CONTEXT_COLORS)), list(CONTEXT_COLORS))
        axes[1, column].set(ylabel="return" if column == 0 else "", ylim=(1.3 * min(low, 0), None))
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def _traces(pyplot, evaluations):
    """Figures 6 and 7: where the first two observation dimensions went after adaptation.

    The longer of the two lies across.
    """
    phases = [p for p in ("offline", "self_supervised") if (p, "online") in evaluations]
    if not phases:
        return None
    everything = evaluations[phases[0], "online"]["observations"][..., :2].astype(float)
    across = int(np.argmax(np.ptp(everything.reshape(-1, 2), axis=0)))
    figure, axes = pyplot.subplots(
        len(phases), 1, figsize=(7, 2.6 * len(phases)), squeeze=False, sharex=True, sharey=True
    )
    for axis, phase in zip(axes[:, 0], phases, strict=True):
        for context, color in CONTEXT_COLORS.items():
            if (phase, context) not in evaluations:
                continue
            paths = evaluations[phase, context]["observations"].astype(float)
            for number, path in enumerate(paths[:: max(1, len(paths) // 60)]):
                label = f"{context} context" if number == 0 else None
                horizontal, vertical = path[:, across], path[:, 1 - across]
                axis.plot(horizontal, vertical, color=color, alpha=0.35, lw=0.8, label=label)
        axis.set(title=NAMES[phase], ylabel=f"{'xy'[1 - across]} (m)", aspect="equal")
    axes[-1, 0].set(xlabel=f"{'xy'[across]} (m)")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return figure


def _success(pyplot, evaluations):
    """Success of the last episode by desired behaviour, online context."""
    phases = [p for p in COLORS if (p, "online") in evaluations]
    if not phases:
        return None
    figure, axis = pyplot.subplots(figsize=(7, 3.2))
    width = 0.8 / len(phases)
    for number, phase in enumerate(phases):
        result = evaluations[phase, "online"]
        groups = defaultdict(list)
        for behavior, success in zip(result["behaviors"], result["success"].mean(1), strict=True):
            groups[str(behavior)].append(success)
        names = sorted(groups)
        for place, name in enumerate(names):
            values = np.array(groups[name])
            error = interval(values)["half_width_95"] or 0.0
            axis.bar(
                place + (number - (len(phases) - 1) / 2) * width,
                100 * values.mean(),
                width,
                yerr=100 * error,
                color=COLORS[phase],
                capsize=2,
                label=NAMES[phase] if place == 0 else None,
            )
    axis.set_xticks(range(len(names)), [n.replace("_", " ") for n in names])
    axis.set(ylabel="success (%)", ylim=(0, 100))
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.25))
    return figure
