"""Figures of a run, drawn from its metrics and evaluations alone; and what all figures share."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.errors import InputError
from smac_core.intervals import interval

COLORS = {
    "offline": "#4c72b0",
    "self_supervised": "#c44e52",
    "control": "#8c8c8c",
    "true_rewards": "#64b5cd",
    "test_scenes": "#dd8452",
    "test_scenes_true_rewards": "#937860",
    "online": "#222222",
}
CONTEXTS = ("offline", "online")
CONTEXT_COLORS = {"offline": "#4c72b0", "online": "#dd8452", "online_stochastic": "#55a868"}
CONTEXT_NAMES = {
    "offline": "offline context",
    "online": "online context",
    "online_stochastic": "online context, sampled actions",
}
NAMES = {
    "offline": "offline phase",
    "self_supervised": "self-supervised",
    "control": "control (no new data)",
    "true_rewards": "true rewards",
    "test_scenes": "practice in test scenes",
    "test_scenes_true_rewards": "true rewards in test scenes",
    "online": "PEARL, true rewards",
}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "smac",  # the same picture is the same file
}


def plotter() -> Any:
    """Matplotlib's pyplot without a screen, in the style of all figures."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(STYLE)
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, stem: Path) -> list[Path]:
    """STEM.png and STEM.svg; the figure is closed."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for path in files:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=120, bbox_inches="tight", metadata=metadata)
    plotter().close(figure)
    return files


def draw(run: Path) -> list[Path]:
    """All figures that a run has results for, as PNG and SVG in RUN/figures: the PNG files.

    Raises:
        InputError: the folder is no run, or has neither metrics nor evaluations to draw.
    """
    if not (run / "run.json").exists():
        raise InputError(run, "run.json", "no such file", "a run's folder")
    pyplot = plotter()
    evaluations = load_evaluations(run)
    drawn = []
    for name, figure in (
        ("learning_curve", _learning_curve(pyplot, run)),
        ("context_shift", _context_shift(pyplot, evaluations)),
        ("traces", _traces(pyplot, evaluations)),
        ("success_by_behavior", _success(pyplot, evaluations)),
    ):
        if figure is not None:
            drawn.append(save(figure, run / "figures" / name)[0])
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


def load_evaluations(
    run: Path, tasks: str = "test"
) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Arrays of every evaluation on a set of tasks, by (phase, context)."""
    found = {}
    for phase in COLORS:
        for context in CONTEXT_COLORS:
            path = run / "evaluations" / f"{phase}_{tasks}_{context}.npz"
            if path.exists():
                with np.load(path) as arrays:
                    found[phase, context] = dict(arrays)
    return found


def horizontally(paths: np.ndarray) -> int:
    """Which of two coordinates [..., 2] lies across: the one that extends further."""
    flat = paths.reshape(-1, 2)
    return int(np.argmax(np.nanmax(flat, 0) - np.nanmin(flat, 0)))


def _learning_curve(pyplot, run: Path):
    """Figure 5: held-out return against the second phase's iterations."""
    curves = {}
    for phase in NAMES:
        path = run / phase / "metrics.csv"
        if phase != "offline" and path.exists():
            curves[phase] = [load_metrics(path, f"test/{what}") for what in ("return", "success")]
    curves = {phase: both for phase, both in curves.items() if len(both[0][0])}
    if not curves:
        return None
    shown = 2 if any(values.any() for _, (_, values) in curves.values()) else 1
    figure, axes = pyplot.subplots(
        1, shown, figsize=(4.5 * shown, 3.2), squeeze=False, layout="constrained"
    )
    for phase, both in curves.items():
        for axis, (steps, values), factor in zip(axes[0], both, (1, 100), strict=False):
            axis.plot(steps, factor * values, "o-", color=COLORS[phase], label=NAMES[phase], ms=3)
    for axis, name in zip(axes[0], ("return", "success (%)"), strict=False):
        axis.set(xlabel="iteration", ylabel=name)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle("held-out tasks after adaptation, online context")
    return figure


def _context_shift(pyplot, evaluations):
    """Figure 2: KL(posterior || prior) and return, from offline and from online context."""
    phases = [p for p in COLORS if all((p, c) in evaluations for c in CONTEXTS)]
    phases = [p for p in phases if np.isfinite(evaluations[p, "online"]["kl"]).all()]
    if not phases:  # or there is no posterior (MACAW)
        return None
    figure, axes = pyplot.subplots(
        2,
        len(phases),
        figsize=(3 * len(phases), 5),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    largest = max(evaluations[p, c]["kl"].max() for p in phases for c in CONTEXTS)
    bins = np.linspace(0, largest, 30)
    for column, phase in enumerate(phases):
        for place, context in enumerate(CONTEXTS):
            color, label = CONTEXT_COLORS[context], CONTEXT_NAMES[context]
            result = evaluations[phase, context]
            axes[0, column].hist(result["kl"].ravel(), bins, alpha=0.6, color=color, label=label)
            means = result["returns"].mean(1)
            error = interval(means)["half_width_95"] or 0.0
            axes[1, column].bar(place, means.mean(), yerr=error, color=color, capsize=4)
        axes[0, column].set(title=NAMES[phase], xlabel="KL(posterior || prior)")
        axes[1, column].set_xticks(range(len(CONTEXTS)), CONTEXTS)
    axes[0, 0].set(ylabel="evaluations")
    axes[1, 0].set(ylabel="return")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _traces(pyplot, evaluations):
    """Figure 6: where the robot went after adaptation; the longer direction lies across."""
    phases = [p for p in ("offline", "self_supervised") if (p, "online") in evaluations]
    phases = [p for p in phases if "paths" in evaluations[p, "online"]]
    if not phases:
        return None
    across = horizontally(evaluations[phases[0], "online"]["paths"])
    figure, axes = pyplot.subplots(
        len(phases),
        1,
        figsize=(7, 2.6 * len(phases)),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for axis, phase in zip(axes[:, 0], phases, strict=True):
        for context in CONTEXTS:
            paths = evaluations.get((phase, context), {}).get("paths", np.empty((0, 0, 0, 2)))
            walked = paths.reshape(-1, *paths.shape[2:])
            style = {"color": CONTEXT_COLORS[context], "alpha": 0.35, "lw": 0.8}
            for number, path in enumerate(walked[:: max(1, len(walked) // 60)]):
                label = CONTEXT_NAMES[context] if number == 0 else None
                axis.plot(path[:, across], path[:, 1 - across], label=label, **style)
        axis.set(title=NAMES[phase], ylabel=f"{'xy'[1 - across]} (m)", aspect="equal")
    axes[-1, 0].set(xlabel=f"{'xy'[across]} (m)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _success(pyplot, evaluations):
    """Success of the last episode by desired behaviour, online context."""
    phases = [p for p in COLORS if (p, "online") in evaluations]
    if not phases or set(evaluations[phases[0], "online"]["behaviors"].tolist()) == {"all"}:
        return None
    figure, axis = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
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
    figure.legend(loc="outside upper center", ncols=3)
    return figure
