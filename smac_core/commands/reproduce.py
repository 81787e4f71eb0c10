"""``smac reproduce``: the paper's experiments over several seeds, resumable.

OUT/seed_0, seed_1 ...  one pipeline each (data seeds too)
RESULTS/table.csv       one row a method, context and behaviour
RESULTS/curves.csv      held-out return against the second phase, a column a seed
RESULTS/experiment.json the command, seeds, commit, machine and time behind them
RESULTS/*.png           figures 2 and 5 for the domain
"""

import csv
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.commands.pipeline import ROWS
from smac_core.figures import COLORS, CONTEXT_COLORS, NAMES, load_evaluations, load_metrics
from smac_core.intervals import interval
from smac_core.training.run import write_json

COLUMNS = ["method", "context", "behavior", "tasks", "seeds"]
MEASURES = ["success", "return"]


def summarize(folders: list[Path], out: Path) -> list[dict[str, Any]]:
    """Write table, curves, figures and provenance of finished pipelines; the table's rows.

    Intervals are over tasks, each task's value being its mean over seeds and repeats; a difference
    is taken task by task, so that what makes a task hard cancels.
    """
    scores = [json.loads((folder / "scores.json").read_text()) for folder in folders]
    out.mkdir(parents=True, exist_ok=True)
    rows = table(folders, scores)
    _write_csv(out / "table.csv", rows)
    gains = differences(folders)
    _write_csv(out / "differences.csv", gains)
    (out / "table.md").write_text(markdown(rows, gains))
    _write_csv(out / "curves.csv", curves(folders))
    write_json(
        out / "experiment.json",
        {
            "commands": [score["command"] for score in scores],
            "seeds": [score["seed"] for score in scores],
            "commits": sorted({score["commit"] for score in scores}),
            "scale": scores[0]["scale"],
            "machine": {"processor": processor(), "cores": os.cpu_count()},
            "seconds": [score["seconds"] for score in scores],
            "offline data": [score["data"] for score in scores],
            "config": scores[0]["config"],
        },
    )
    draw(folders, out)
    return rows


def table(folders: list[Path], scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % interval of every method, context and behaviour."""
    rows = []
    data = [score["rows"]["scripted data"]["online"] for score in scores]
    for behavior in ["all", *data[0]["by_behavior"]]:
        cells = [d if behavior == "all" else d["by_behavior"][behavior] for d in data]
        row = _named("scripted data", "-", behavior, cells[0]["tasks"], len(scores))
        for measure in MEASURES:
            row[measure] = round(float(np.mean([c[measure]["mean"] for c in cells])), 4)
            half = [c[measure]["half_width_95"] or 0.0 for c in cells]
            row[f"{measure}_95"] = round(float(np.mean(half)), 4)
        rows.append(row)
    for method, (name, phase) in ROWS.items():
        for context in CONTEXT_COLORS:
            found = [load_evaluations(f / name).get((phase, context)) for f in folders]
            if any(result is None for result in found):
                continue
            behaviors = found[0]["behaviors"]
            for behavior in ["all", *sorted(set(behaviors.tolist()))]:
                mine = (behaviors == behavior) | (behavior == "all")
                row = _named(method, context, behavior, int(mine.sum()), len(folders))
                for measure, key in zip(MEASURES, ("success", "returns"), strict=True):
                    by_seed = np.stack([result[key][mine].mean(1) for result in found])
                    row |= _measured(measure, by_seed.mean(0))
                    row[f"{measure}_by_seed"] = " ".join(f"{v:.3f}" for v in by_seed.mean(1))
                row["kl"] = round(float(np.mean([r["kl"][mine].mean() for r in found])), 3)
                error = np.mean([r["decoder_error"][mine].mean() for r in found])
                row["decoder_error"] = round(float(error), 4)
                rows.append(row)
    return rows


def differences(folders: list[Path]) -> list[dict[str, Any]]:
    """What one method gains over another, paired by task."""
    pairs = [
        ("SMAC, self-supervised", "control: no new data"),
        ("SMAC, self-supervised", "SMAC, offline phase"),
        ("SMAC, in the test scenes", "control: no new data"),
        ("control: no new data", "SMAC, offline phase"),
        ("oracle: true rewards", "SMAC, self-supervised"),
        ("SMAC, offline phase", "meta-BC"),
    ]
    rows = []
    for better, worse in pairs:
        for context in CONTEXT_COLORS:
            results = [
                [load_evaluations(f / name).get((phase, context)) for f in folders]
                for name, phase in (ROWS[better], ROWS[worse])
            ]
            if any(result is None for side in results for result in side):
                continue
            row: dict[str, Any] = {"gain of": better, "over": worse, "context": context}
            for measure, key in zip(MEASURES, ("success", "returns"), strict=True):
                sides = [np.stack([r[key].mean(1) for r in side]) for side in results]
                gain = sides[0] - sides[1]  # [seeds, tasks]
                row |= _measured(measure, gain.mean(0))
                row[f"{measure}_by_seed"] = " ".join(f"{v:.3f}" for v in gain.mean(1))
            rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]], gains: list[dict[str, Any]]) -> str:
    """The table and the differences for readers."""
    behaviors = list(dict.fromkeys(row["behavior"] for row in rows if row["behavior"] != "all"))

    def cell(row: dict[str, Any], measure: str) -> str:
        factor, digits, unit = (100, 0, " %") if measure == "success" else (1, 1, "")
        mean, half = factor * row[measure], factor * row[f"{measure}_95"]
        return f"{mean:.{digits}f} ± {half:.{digits}f}{unit}"

    names = [name.replace("_", " ") for name in behaviors]
    lines = [
        "| method | context | success | return | " + " | ".join(names) + " |",
        "|" + "---|" * (4 + len(names)),
    ]
    for row in rows:
        if row["behavior"] != "all":
            continue
        same = ("method", "context")
        parts = {r["behavior"]: r for r in rows if all(r[key] == row[key] for key in same)}
        cells = [row["method"], row["context"], cell(row, "success"), cell(row, "return")]
        cells += [cell(parts[behavior], "success") for behavior in behaviors]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| gain of | over | context | success | return | success by seed |"]
    lines.append("|" + "---|" * 6)
    for row in gains:
        cells = [row["gain of"], row["over"], row["context"]]
        cells += [cell(row, "success"), cell(row, "return"), row["success_by_seed"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def curves(folders: list[Path]) -> list[dict[str, Any]]:
    """Held-out return and success during the second phase, mean and deviation over seeds."""
    rows = []
    for phase in NAMES:
        paths = [folder / "smac" / phase / "metrics.csv" for folder in folders]
        if phase == "offline" or not all(path.exists() for path in paths):
            continue
        for measure in ("return", "success", "exploration_return", "kl", "decoder_error"):
            series = [load_metrics(path, f"test/{measure}") for path in paths]
            if len({len(steps) for steps, _ in series}) != 1:
                continue  # a seed that is still running
            values = np.stack([values for _, values in series])
            for index, step in enumerate(series[0][0]):
                column = values[:, index]
                rows.append(
                    {
                        "phase": phase,
                        "iteration": int(step),
                        "measure": measure,
                        "mean": round(float(column.mean()), 4),
                        "std": round(float(column.std()), 4),
                        "by_seed": " ".join(f"{v:.4f}" for v in column),
                    }
                )
    return rows


def draw(folders: list[Path], out: Path) -> None:
    """Figure 5 (learning curves with the others as lines) and figure 2 (context shift)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, measure, factor in zip(axes, ("success", "return"), (100, 1), strict=True):
        for phase in ("self_supervised", "control", "true_rewards", "test_scenes"):
            rows = [r for r in curves(folders) if r["phase"] == phase and r["measure"] == measure]
            if not rows:
                continue
            x = [r["iteration"] for r in rows]
            mean = factor * np.array([r["mean"] for r in rows])
            std = factor * np.array([r["std"] for r in rows])
            axis.plot(x, mean, color=COLORS[phase], label=NAMES[phase])
            axis.fill_between(x, mean - std, mean + std, color=COLORS[phase], alpha=0.15, lw=0)
        scores = [json.loads((f / "scores.json").read_text())["rows"] for f in folders]
        for method, style in (("meta-BC", "--"), ("scripted data", ":")):
            values = [s[method]["online"][measure]["mean"] for s in scores if method in s]
            if values:
                axis.axhline(factor * np.mean(values), ls=style, color="#55a868", label=method)
        axis.set(xlabel="iteration after the offline phase")
        axis.set_ylabel("success (%)" if measure == "success" else measure)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(f"held-out tasks after adaptation, online context, {len(folders)} seed(s)")
    _save(pyplot, figure, out / "fig5")

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2))
    phases = ("offline", "control", "self_supervised", "true_rewards", "test_scenes")
    loaded = [load_evaluations(folder / "smac") for folder in folders]
    phases = [p for p in phases if all((p, c) in e for e in loaded for c in CONTEXT_COLORS)]
    if not phases:
        return
    for number, (context, color) in enumerate(CONTEXT_COLORS.items()):
        kl = np.concatenate([e["offline", context]["kl"].ravel() for e in loaded])
        axes[0].hist(kl, 30, color=color, alpha=0.6, label=f"{context} context")
        for place, phase in enumerate(phases):
            tasks = np.mean([e[phase, context]["success"].mean(1) for e in loaded], 0)
            axes[1].bar(
                place + 0.4 * (number - 0.5),
                100 * tasks.mean(),
                0.38,
                yerr=100 * (interval(tasks)["half_width_95"] or 0.0),
                color=color,
                capsize=2,
            )
    axes[0].set(xlabel="KL(posterior || prior) after the offline phase")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set_xticks(
        range(len(phases)), [NAMES[p].split(" (")[0] for p in phases], fontsize=8, rotation=15
    )
    axes[1].set(ylabel="success (%)")
    figure.tight_layout()
    _save(pyplot, figure, out / "fig2")


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor()


def _named(method: str, context: str, behavior: str, tasks: int, seeds: int) -> dict[str, Any]:
    return dict(zip(COLUMNS, (method, context, behavior, tasks, seeds), strict=True))


def _measured(name: str, tasks: np.ndarray) -> dict[str, float]:
    found = interval(tasks)
    half = found["half_width_95"] or 0.0
    return {name: round(found["mean"], 4), f"{name}_95": round(half, 4)}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _save(pyplot, figure, stem: Path) -> None:
    figure.savefig(stem.with_suffix(".png"), dpi=120, bbox_inches="tight")
    pyplot.close(figure)
