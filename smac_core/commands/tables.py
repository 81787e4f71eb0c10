"""The tables of ``smac reproduce``: methods, what they gain over each other, the oracle's share.

Intervals are over tasks, each task's value being its mean over seeds and repeats; a difference is
taken task by task, so that what makes a task hard cancels.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.commands.experiments import DATA, METHODS, PAIRS
from smac_core.figures import CONTEXTS, load_evaluations
from smac_core.intervals import interval
from smac_core.phases import ONLINE

COLUMNS = ["method", "context", "behavior", "tasks", "seeds"]
ARRAYS = {"success": "success", "return": "returns"}  # of an evaluation, by measure

# an evaluation's arrays by method and context, then by seed
Found = dict[tuple[str, str], dict[int, dict[str, np.ndarray]]]


def measures(scores: list[dict[str, Any]]) -> list[str]:
    """What is measured in a domain; some environments know no success."""
    known = scores[0]["config"]["environment"]["measures_success"]
    return ["success", "return"] if known else ["return"]


def load(folders: Sequence[Path], scores: list[dict[str, Any]]) -> Found:
    """Arrays of the evaluations on held-out tasks, of each method, context and finished seed."""
    stochastic = not scores[0]["config"]["evaluation"]["deterministic_exploration"]
    found: Found = {}
    for name, method in METHODS.items():
        for folder, score in zip(folders, scores, strict=True):
            evaluations = load_evaluations(folder / method.run)
            for context in score["rows"].get(name, {}).keys() & set(CONTEXTS):
                kept = "online_stochastic" if stochastic and context == "online" else context
                of_seed = evaluations[method.phase, kept]
                found.setdefault((name, context), {})[score["seed"]] = of_seed
    return dict(sorted(found.items(), key=lambda item: _order(*item[0])))


def _order(name: str, context: str) -> tuple[int, int]:
    return list(METHODS).index(name), CONTEXTS.index(context)


def table(found: Found, scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % interval of every method, context and behaviour."""
    rows = []
    data = [score["rows"][DATA]["online"] for score in scores]
    for behavior in dict.fromkeys(["all", *data[0]["by_behavior"]]):
        cells = [d if behavior == "all" else d["by_behavior"][behavior] for d in data]
        label = scores[0]["rows"][DATA]["label"]
        row = _named(label, "-", behavior, cells[0]["tasks"], len(scores))
        for measure in measures(scores):
            row[measure] = round(float(np.mean([c[measure]["mean"] for c in cells])), 4)
            half = [c[measure]["half_width_95"] or 0.0 for c in cells]
            row[f"{measure}_95"] = round(float(np.mean(half)), 4)
        rows.append(row)
    for (name, context), by_seed in found.items():
        results = list(by_seed.values())
        behaviors = results[0]["behaviors"]
        for behavior in dict.fromkeys(["all", *sorted(set(behaviors.tolist()))]):
            mine = (behaviors == behavior) | (behavior == "all")
            row = _named(METHODS[name].label, context, behavior, int(mine.sum()), len(results))
            for measure in measures(scores):
                row |= measured(measure, _by_task(results, measure)[:, mine])
            row["kl"] = round(float(np.mean([r["kl"][mine].mean() for r in results])), 3)
            if METHODS[name].phase != ONLINE:  # PEARL trains no decoder
                error = np.mean([r["decoder_error"][mine].mean() for r in results])
                row["decoder_error"] = round(float(error), 4)
            rows.append(row)
    return rows


def differences(
    found: Found, of: Sequence[str] = ("success", "return")
) -> list[dict[str, Any]]:
    """What one method gains over another, paired by task and seed."""
    rows = []
    for better, worse in PAIRS:
        for context in CONTEXTS:
            sides = [found.get((name, context), {}) for name in (better, worse)]
            seeds = [seed for seed in sides[0] if seed in sides[1]]
            if not seeds:
                continue
            labels = {"gain of": METHODS[better].label, "over": METHODS[worse].label}
            row: dict[str, Any] = labels | {"context": context, "seeds": len(seeds)}
            for measure in of:
                gained, given = (_by_task([side[s] for s in seeds], measure) for side in sides)
                row |= measured(measure, gained - given)
            rows.append(row)
    return rows


def _by_task(results: list[dict[str, np.ndarray]], measure: str) -> np.ndarray:
    """Means over repeats [seeds, tasks]."""
    return np.stack([result[ARRAYS[measure]].mean(1) for result in results])


def oracle_share(found: Found) -> dict[str, Any] | None:
    """SMAC's share of what the online oracle gains in return over the offline phase.

    From online context, of means over seeds and tasks: 1 is as good as the oracle. None where one
    of the three is missing, or the oracle gains nothing.
    """
    sides = [found.get((name, "online"), {}) for name in ("offline", "smac", "oracle")]
    seeds = [seed for seed in sides[0] if all(seed in side for side in sides)]
    if not seeds:
        return None
    offline, smac, oracle = (
        _by_task([side[seed] for seed in seeds], "return").mean(1) for side in sides
    )
    gain = float(oracle.mean() - offline.mean())
    if gain <= 0:
        return None
    by_seed = [
        round(float((s - o) / (best - o)), 3) if best > o else None
        for o, s, best in zip(offline, smac, oracle, strict=True)
    ]
    return {"share": round(float(smac.mean() - offline.mean()) / gain, 3), "by_seed": by_seed}


def markdown(
    rows: list[dict[str, Any]], gains: list[dict[str, Any]], share: dict[str, Any] | None
) -> str:
    """The table and the differences for readers."""
    behaviors = list(dict.fromkeys(row["behavior"] for row in rows if row["behavior"] != "all"))
    shown = [measure for measure in ARRAYS if measure in rows[0]]

    def cell(row: dict[str, Any], measure: str) -> str:
        factor, digits, unit = (100, 0, " %") if measure == "success" else (1, 1, "")
        mean, half = factor * row[measure], factor * row[f"{measure}_95"]
        return f"{mean:.{digits}f} ± {half:.{digits}f}{unit}"

    names = [name.replace("_", " ") for name in behaviors]
    lines = _header("method", "context", "seeds", *shown, *names)
    for row in rows:
        if row["behavior"] != "all":
            continue
        same = ("method", "context")
        parts = {r["behavior"]: r for r in rows if all(r[key] == row[key] for key in same)}
        cells = [row["method"], row["context"], str(row["seeds"])]
        cells += [cell(row, measure) for measure in shown]
        cells += [cell(parts[behavior], shown[0]) for behavior in behaviors]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_header("gain of", "over", "context", "seeds", *shown, f"{shown[0]} by seed")]
    for row in gains:
        cells = [row["gain of"], row["over"], row["context"], str(row["seeds"])]
        cells += [*(cell(row, measure) for measure in shown), row[f"{shown[0]}_by_seed"]]
        lines.append("| " + " | ".join(cells) + " |")
    if share:
        seeds = ", ".join("-" if s is None else f"{s:.2f}" for s in share["by_seed"])
        lines += [
            "",
            "SMAC's share of the online oracle's gain over the offline phase, in return and from "
            f"online context: {share['share']:.2f} (by seed: {seeds}).",
        ]
    return "\n".join(lines) + "\n"


def measured(name: str, by_seed: np.ndarray) -> dict[str, float | str]:
    """Mean, half-width of the 95 % interval over tasks, and means by seed, of [seeds, tasks]."""
    found = interval(by_seed.mean(0))
    half = found["half_width_95"] or 0.0
    seeds = " ".join(f"{value:.3f}" for value in by_seed.mean(1))
    return {name: round(found["mean"], 4), f"{name}_95": round(half, 4), f"{name}_by_seed": seeds}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as CSV; a column for every name that one of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _header(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _named(method: str, context: str, behavior: str, tasks: int, seeds: int) -> dict[str, Any]:
    return dict(zip(COLUMNS, (method, context, behavior, tasks, seeds), strict=True))
