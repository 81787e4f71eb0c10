"""The paper's figures from the metrics and evaluations of finished seeds; nothing is simulated.

For each figure, ``ROWS[name]`` gives the rows behind it, which are kept as CSV, and
``DRAWINGS[name]`` draws nothing else. Figures 5 and 8 draw return and success of theirs; the rest
is there to be looked up.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.commands.experiments import DATA_ROW, FIGURES, METHODS, ORACLES
from smac_core.commands.tables import measures
from smac_core.config import parse_config
from smac_core.data.dataset import Dataset
from smac_core.errors import InputError
from smac_core.figures import (
    CONTEXT_COLORS,
    CONTEXT_NAMES,
    CONTEXTS,
    load_evaluations,
    load_metrics,
    plotter,
)
from smac_core.phases import ONLINE
from smac_core.positions import paths
from smac_core.training.self_supervised import transitions_per_iteration

Rows = list[dict[str, Any]]
Scores = list[dict[str, Any]]

CURVES = ("return", "success", "exploration_return", "kl", "decoder_error")
LABELS = {"return": "return", "success": "success (%)"}
# what has no self-supervised phase
BASELINES = tuple(name for name, m in METHODS.items() if m.algorithm in ("macaw", "borel"))
LINES = {DATA_ROW: ":", "meta_bc": "-."} | dict.fromkeys(BASELINES, (0, (3, 1, 1, 1)))
LINES |= dict.fromkeys(ORACLES, "--")
FIG8_COLORS = {"smac": "#4c72b0", "test_scenes": "#c44e52", "test_scenes_true_rewards": "#222222"}
PHASES = ("offline", "self_supervised")  # before and after, in figures 2, 6 and 7
TITLES = {"offline": "after the offline phase", "self_supervised": "after self-supervision"}
TRACES = 40  # a source and phase
POINTS = 50  # a trace
TRACE_COLORS = CONTEXT_COLORS | {"exploration": "#55a868", "data": "#c44e52"}
TRACE_NAMES = {
    "offline": "adapted to offline context",
    "online": "adapted to online context",
    "exploration": "exploration",
    "data": "offline data (training tasks)",
}


# --------------------------------------------------------------------------- learning curves: 5, 8
def learning_curves(figure: str, folders: Sequence[Path], scores: Scores) -> Rows:
    """Held-out results against self-supervised steps, over seeds: mean, deviation and each.

    Columns: method, measure, iteration, steps, mean, std, by_seed. What has no self-supervised
    phase has a row without iteration and steps, of its last checkpoint: a line. Of all methods that
    every seed has results of.

    Raises:
        InputError: a finished phase lacks some of its evaluations.
    """
    rows: Rows = []
    for name in FIGURES[figure].methods:
        method = METHODS[name]
        if method.phase in ("offline", ONLINE) or not all(name in s["rows"] for s in scores):
            continue
        files = [folder / method.run / method.phase / "metrics.csv" for folder in folders]
        for measure in CURVES:
            if measure == "success" and "success" not in measures(scores):
                continue
            series = [_evaluated(file, f"test/{measure}", scores) for file in files]
            iterations = series[0][0]
            steps = _environment_steps(folders, name, iterations, scores)
            values = np.stack([of_seed for _, of_seed in series])
            for place, iteration in enumerate(iterations.tolist()):
                named = {"method": name, "measure": measure, "iteration": iteration}
                column = values[:, place]
                rows.append(named | {"steps": int(round(steps[place]))} | _spread(column))
    for name in LINES:
        if name != DATA_ROW and name not in FIGURES[figure].methods:
            continue
        for measure in measures(scores):
            found = [score["rows"].get(name) for score in scores]
            if all(found):
                values = np.array([row["online"][measure]["mean"] for row in found])
                rows.append({"method": name, "measure": measure} | _spread(values))
    return rows


def _evaluated(file: Path, name: str, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values of a metric of a phase that is at its end."""
    if not file.exists():
        raise InputError(file, "file", "no such file", "the metrics of a finished phase")
    settings = scores[0]["config"]["self_supervised"]
    last, every = settings["iterations"], settings["evaluate_every"]
    expected = sorted({*range(0, last + 1, every), last})
    iterations, values = load_metrics(file, name)
    if iterations.tolist() != expected:
        found = ", ".join(map(str, iterations.tolist())) or "none"
        wanted = ", ".join(map(str, expected))
        wanted += "; with this folder and the phase's evaluations removed the same command makes "
        wanted += "both again"
        raise InputError(file, f"iterations of {name}", found, wanted)
    return iterations, values


def _spread(of_seeds: np.ndarray) -> dict[str, Any]:
    return {
        "mean": round(float(of_seeds.mean()), 4),
        "std": round(_deviation(of_seeds), 4),
        "by_seed": " ".join(f"{value:.4f}" for value in of_seeds),
    }


def _deviation(of_seeds: np.ndarray) -> float:
    """Standard deviation of the seeds' population, as they estimate it; 0 of a single one."""
    return float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else 0.0


def _environment_steps(
    folders: Sequence[Path], method: str, iterations: np.ndarray, scores: Scores
) -> np.ndarray:
    """Transitions practised by then, mean over seeds; the control counts what it goes without."""
    config = parse_config(scores[0]["config"], "scores.json")
    full = transitions_per_iteration(config) * iterations
    place = METHODS["smac" if method == "control" else method]
    found = []
    for folder in folders:
        file = folder / place.run / place.phase / "metrics.csv"
        logged = dict(zip(*load_metrics(file, "transitions"), strict=True)) if file.exists() else {}
        found.append([logged.get(i, n) for i, n in zip(iterations.tolist(), full, strict=True)])
    return np.mean(found, 0)


def draw_curves(figure: str, rows: Rows, scores: Scores) -> Any:
    """Figures 5 and 8: mean and standard deviation over seeds, and lines."""
    pyplot = plotter()
    shown = measures(scores)
    picture, axes = pyplot.subplots(
        1, len(shown), figsize=(1.6 + 4.4 * len(shown), 4.2), squeeze=False, layout="constrained"
    )
    for axis, measure in zip(axes[0], shown, strict=True):
        factor = 100 if measure == "success" else 1
        mine = [row for row in rows if row["measure"] == measure]
        for name in dict.fromkeys(row["method"] for row in mine):
            part = [row for row in mine if row["method"] == name]
            label, color = _label(name, scores), _color(figure, name)
            mean, std = (factor * np.array([row[key] for row in part]) for key in ("mean", "std"))
            if name in LINES:
                axis.axhline(mean[0], ls=LINES[name], color=color, label=label, lw=1.5)
                continue
            steps = np.array([row["steps"] for row in part])
            above = 4 if name == "smac" else 3
            axis.plot(steps, mean, color=color, label=label, marker="o", ms=2.5, zorder=above)
            axis.fill_between(steps, mean - std, mean + std, color=color, alpha=0.15, lw=0)
        axis.set(xlabel="self-supervised environment steps", ylabel=LABELS[measure])
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 4), useMathText=True)
    handles = axes[0, 0].get_legend_handles_labels()
    picture.legend(*handles, loc="outside lower center", ncols=3)
    picture.suptitle(f"{_domain(scores)}: held-out tasks after adaptation, {_seeds(scores)}")
    return picture


def _label(name: str, scores: Scores) -> str:
    return scores[0]["rows"][name]["label"] if name == DATA_ROW else METHODS[name].label


def _color(figure: str, name: str) -> str:
    if figure == "fig8" and name in FIG8_COLORS:
        return FIG8_COLORS[name]
    return "#b5a642" if name == DATA_ROW else METHODS[name].color


# ------------------------------------------------------------------------- the shift of contexts: 2
def context_shift(figure: str, folders: Sequence[Path], scores: Scores) -> Rows:
    """KL(posterior || prior) and return of every adaptation, by phase, tasks and context.

    Columns: phase, tasks, context, seed, task, repeat, kl, return.
    """
    rows: Rows = []
    for folder, score in zip(folders, scores, strict=True):
        for tasks in ("test", "train"):
            evaluations = load_evaluations(folder / "smac", tasks)
            for phase in PHASES:
                for context in CONTEXT_COLORS:
                    found = evaluations.get((phase, context))
                    if found is None:
                        continue
                    named = {"phase": phase, "tasks": tasks, "context": context}
                    for (task, repeat), kl in np.ndenumerate(found["kl"]):
                        where = {"seed": score["seed"], "task": task, "repeat": repeat}
                        value = round(float(found["returns"][task, repeat]), 3)
                        rows.append(named | where | {"kl": round(float(kl), 4), "return": value})
    return rows


def draw_context_shift(figure: str, rows: Rows, scores: Scores) -> Any:
    """Figure 2: distributions of the KL divergence, and returns, before and after."""
    pyplot = plotter()
    phases = [phase for phase in PHASES if any(row["phase"] == phase for row in rows)]
    kinds = [tasks for tasks in ("test", "train") if any(row["tasks"] == tasks for row in rows)]
    picture, axes = pyplot.subplots(
        len(phases),
        2 * len(kinds),
        figsize=(3.1 * 2 * len(kinds), 2.6 * len(phases) + 0.8),
        squeeze=False,
        layout="constrained",
    )
    every = [row["kl"] for row in rows]
    bins = np.linspace(min(every), max(every) + 1e-6, 31)
    for line, phase in enumerate(phases):
        for column, tasks in enumerate(kinds):
            left, right = axes[line, 2 * column : 2 * column + 2]
            if (line, column) != (0, 0):
                left.sharex(axes[0, 0])
                right.sharey(axes[0, 1])
            present = []
            for context, color in CONTEXT_COLORS.items():
                wanted = {"phase": phase, "tasks": tasks, "context": context}
                mine = [row for row in rows if wanted.items() <= row.items()]
                if not mine:
                    continue
                kl = np.array([row["kl"] for row in mine])
                shares = np.full(len(kl), 100 / len(kl))
                style = {"color": color, "label": CONTEXT_NAMES[context]}
                left.hist(kl, bins, weights=shares, histtype="stepfilled", alpha=0.35, **style)
                left.hist(kl, bins, weights=shares, histtype="step", color=color, lw=1.3)
                means, error = _over_seeds(mine)
                right.bar(len(present), means.mean(), yerr=error, color=color, capsize=4)
                present.append(context)
            names = {"test": "held-out tasks", "train": "training tasks"}[tasks]
            left.set(xlabel="KL(posterior || prior) (nat)", ylabel="adaptations (%)")
            left.set_title(f"{names}, {TITLES[phase]}", loc="left")
            right.set(ylabel="return after adaptation")
            short = {"offline": "offline", "online": "online", "online_stochastic": "sampled"}
            right.set_xticks(range(len(present)), [short[context] for context in present])
            right.grid(axis="x", visible=False)
            right.axhline(0, color="#666666", lw=0.8)
    handles = axes[0, 0].get_legend_handles_labels()
    picture.legend(*handles, loc="outside lower center", ncols=3)
    picture.suptitle(f"{_domain(scores)}: online and offline context, {_seeds(scores)}")
    return picture


def _over_seeds(rows: Rows) -> tuple[np.ndarray, float]:
    """Mean returns by seed, and their deviation."""
    seeds = dict.fromkeys(row["seed"] for row in rows)
    means = [np.mean([row["return"] for row in rows if row["seed"] == seed]) for seed in seeds]
    return np.array(means), _deviation(np.array(means))


# ------------------------------------------------------------------------------------ traces: 6, 7
def traces(figure: str, folders: Sequence[Path], scores: Scores) -> Rows:
    """Where the robot went, of the first seed: one trajectory of each held-out task and source.

    Columns: phase, source, trajectory, point, x, y (m). Sources: the contexts that it has adapted
    to; in figure 7 also its own exploration and the offline data, those of training tasks. For
    domains whose observations show where the robot is.
    """
    config = parse_config(scores[0]["config"], "scores.json")
    evaluations = load_evaluations(folders[0] / "smac")
    rows: Rows = []
    for phase in PHASES:
        walked = {
            context: evaluations[phase, context]["paths"][:, 0]
            for context in CONTEXTS
            if (phase, context) in evaluations
        }
        if figure == "fig7" and (phase, "online") in evaluations:
            walked["exploration"] = evaluations[phase, "online"]["exploration_paths"][:, 0, 0]
            walked["data"] = _offline_paths(folders[0] / "data.h5", config)
        for source, found in walked.items():
            for number, path in enumerate(found[:TRACES]):
                path = path[~np.isnan(path).any(-1)]
                chosen = np.unique(np.linspace(0, len(path) - 1, POINTS).round().astype(int))
                for point in chosen.tolist():
                    x, y = (round(float(value), 3) for value in path[point])
                    named = {"phase": phase, "source": source, "trajectory": number}
                    rows.append(named | {"point": point, "x": x, "y": y})
    return rows


def _offline_paths(data: Path, config: Any) -> np.ndarray:
    """The first whole trajectory of each training task's histories, [tasks, length + 1, 2]."""
    found = []
    histories = [task.history for task in Dataset.load(data).train]
    for history in [one for one in histories if one.whole_trajectories][:TRACES]:
        rows = history.whole_trajectories[0]
        arrays = (history.observations[rows], history.next_observations[rows])
        present = np.ones((1, len(arrays[0])), bool)
        found.append(paths(config.environment, *(array[None] for array in arrays), present)[0])
    longest = max(map(len, found), default=0)
    padded = np.full((len(found), longest, 2), np.nan, np.float32)
    for place, path in enumerate(found):
        padded[place, : len(path)] = path
    return padded


def draw_traces(figure: str, rows: Rows, scores: Scores) -> Any:
    """Figures 6 and 7: a panel each for before and after the self-supervised phase."""
    pyplot = plotter()
    phases = [phase for phase in PHASES if any(row["phase"] == phase for row in rows)]
    picture, axes = pyplot.subplots(
        1,
        len(phases),
        figsize=(4.6 * len(phases), 4.9),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="compressed",
    )
    by_trace: dict[tuple[str, str, int], Rows] = {}
    for row in rows:
        by_trace.setdefault((row["phase"], row["source"], row["trajectory"]), []).append(row)
    order = ["data", "exploration", "offline", "online"]  # what is drawn last lies on top
    for axis, phase in zip(axes[0], phases, strict=True):
        labelled = set()
        for source in order:
            color, label = TRACE_COLORS[source], TRACE_NAMES[source]
            for (of_phase, of_source, _), path in by_trace.items():
                if (of_phase, of_source) != (phase, source):
                    continue
                x, y = ([row[key] for row in path] for key in ("x", "y"))
                width, opacity = (0.8, 0.6) if source == "data" else (1.1, 0.8)
                name = None if source in labelled else label
                axis.plot(x, y, color=color, label=name, lw=width, alpha=opacity)
                labelled.add(source)
        axis.plot(*_start(rows, phase), "o", color="black", ms=4, zorder=5)
        axis.set(title=TITLES[phase].replace(" ", "\n", 1), xlabel="x (m)", aspect="equal")
    axes[0, 0].set(ylabel="y (m)")
    handles = axes[0, 0].get_legend_handles_labels()
    picture.legend(*handles, loc="outside lower center", ncols=2)
    picture.suptitle(f"{_domain(scores)}: held-out tasks, seed {scores[0]['seed']}")
    return picture


def _start(rows: Rows, phase: str) -> tuple[float, float]:
    first = next(row for row in rows if row["phase"] == phase and row["point"] == 0)
    return first["x"], first["y"]


def _domain(scores: Scores) -> str:
    return scores[0]["config"]["domain"].replace("_", " ").capitalize()


def _seeds(scores: Scores) -> str:
    return f"{len(scores)} seed{'s' if len(scores) > 1 else ''}, scale {scores[0]['scale']}"


ROWS = {
    "fig2": context_shift,
    "fig5": learning_curves,
    "fig6": traces,
    "fig7": traces,
    "fig8": learning_curves,
}
DRAWINGS = {
    "fig2": draw_context_shift,
    "fig5": draw_curves,
    "fig6": draw_traces,
    "fig7": draw_traces,
    "fig8": draw_curves,
}
