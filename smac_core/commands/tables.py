"""The tables of ``smac reproduce``: methods, what they gain over each other, the oracle's share.

Intervals are over tasks, each task's value being its mean over seeds and repeats; a difference is
taken task by task, so that what makes a task hard cancels.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.commands.evaluate import evaluation_file, kept_as
from smac_core.commands.experiments import DATA_ROW, METHODS, ORACLES, PAIRS
from smac_core.config import override_config, parse_config
from smac_core.figures import CONTEXTS
from smac_core.intervals import interval
from smac_core.phases import ONLINE

COLUMNS = ["method", "context", "behavior", "tasks", "seeds"]
ARRAYS = {"success": "success", "return": "returns"}  # of an evaluation, by measure
LOADED = (*ARRAYS.values(), "kl", "decoder_error", "behaviors")

# an evaluation's arrays by method and context, then by seed
Found = dict[tuple[str, str], dict[int, dict[str, np.ndarray]]]


def measures(scores: list[dict[str, Any]]) -> list[str]:
    """What is measured in a domain; some environments know no success."""
    known = scores[0]["config"]["environment"]["measures_success"]
    return ["success", "return"] if known else ["return"]


def load(folders: Sequence[Path], scores: list[dict[str, Any]]) -> Found:
    """Arrays of the evaluations on held-out tasks, of each method, context and finished seed."""
    config = parse_config(scores[0]["config"], "scores.json")
    found: Found = {}
    for name, method in METHODS.items():
        settings = override_config(config, list(method.evaluation)).evaluation
        for folder, score in zip(folders, scores, strict=True):
            for context in score["rows"].get(name, {}).keys() & set(CONTEXTS):
                kept = kept_as(context, settings, config.evaluation)
                path = evaluation_file(folder / method.run, method.phase, kept)
                with np.load(path.with_suffix(".npz")) as arrays:
                    of_seed = {array: arrays[array] for array in LOADED}
                found.setdefault((name, context), {})[score["seed"]] = of_seed
    return dict(sorted(found.items(), key=lambda item: _order(*item[0])))


def _order(name: str, context: str) -> tuple[int, int]:
    return list(METHODS).index(name), CONTEXTS.index(context)


def table(found: Found, scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % interval of every method, context and behaviour."""
    rows = _data_rows(scores)
    for (name, context), by_seed in found.items():
        results = list(by_seed.values())
        behaviors = results[0]["behaviors"]
        for behavior in dict.fromkeys(["all", *sorted(set(behaviors.tolist()))]):
            mine = (behaviors == behavior) | (behavior == "all")
            row = _named(METHODS[name].label, context, behavior, int(mine.sum()), len(results))
            for measure in measures(scores):
                row |= measured(measure, _by_task(results, measure)[:, mine])
            kl = np.mean([r["kl"][mine].mean() for r in results])
            if np.isfinite(kl):  # MACAW has no posterior
                row["kl"] = round(float(kl), 3)
            error = np.mean([r["decoder_error"][mine].mean() for r in results])
            if METHODS[name].phase != ONLINE and np.isfinite(error):  # PEARL trains no decoder
                row["decoder_error"] = round(float(error), 4)
            rows.append(row)
    return rows


def _data_rows(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The offline data's own, over the tasks that every seed has a whole trajectory of.

    Scores that an earlier version wrote do not tell tasks apart: no interval is known.
    """
    rows = []
    data = [score["rows"][DATA_ROW]["online"] for score in scores]
    label = scores[0]["rows"][DATA_ROW]["label"]
    told = [d.get("by_task", {}) for d in data]
    common = [number for number in told[0] if all(number in tasks for tasks in told)]
    for behavior in dict.fromkeys(["all", *data[0]["by_behavior"]]):
        mine = [n for n in common if behavior in ("all", told[0][n]["behavior"])]
        cells = [d if behavior == "all" else d["by_behavior"][behavior] for d in data]
        row = _named(label, "-", behavior, len(mine) or cells[0]["tasks"], len(scores))
        for measure in measures(scores):
            if mine:
                by_seed = np.array([[tasks[n][measure] for n in mine] for tasks in told])
                row |= measured(measure, by_seed)
            else:
                mean = float(np.mean([cell[measure]["mean"] for cell in cells]))
                row |= {measure: round(mean, 4), f"{measure}_95": None}
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

    From online context, of means over seeds and tasks: 1 is as good as the oracle, whose better
    row it is. None where one of the three is missing, or the oracle gains nothing.
    """
    evaluated = {name: len(found.get((name, "online"), {})) for name in ORACLES}
    most = max(evaluated.values())  # seeds; not all may have the second row
    names = ["offline", "smac", *(name for name in ORACLES if evaluated[name] == most)]
    sides = [found.get((name, "online"), {}) for name in names]
    seeds = [seed for seed in sides[0] if all(seed in side for side in sides)]
    if not seeds:
        return None
    offline, smac, *oracles = (
        _by_task([side[seed] for seed in seeds], "return").mean(1) for side in sides
    )
    best = int(np.argmax([oracle.mean() for oracle in oracles]))
    label, oracle = METHODS[names[2 + best]].label, oracles[best]
    gain = float(oracle.mean() - offline.mean())
    if gain <= 0:
        return None
    by_seed = [
        round(float((after - before) / (top - before)), 3) if top > before else None
        for before, after, top in zip(offline, smac, oracle, strict=True)
    ]
    share = round(float(smac.mean() - offline.mean()) / gain, 3)
    return {"oracle": label, "share": share, "by_seed": by_seed}


def markdown(
    rows: list[dict[str, Any]], gains: list[dict[str, Any]], share: dict[str, Any] | None
) -> str:
    """The table and the differences for readers."""
    behaviors = list(dict.fromkeys(row["behavior"] for row in rows if row["behavior"] != "all"))
    shown = [measure for measure in ARRAYS if measure in rows[0]]

    def cell(row: dict[str, Any], measure: str) -> str:
        factor, digits, unit = (100, 0, " %") if measure == "success" else (1, 1, "")
        half = row[f"{measure}_95"]
        error = "" if half is None else f" ± {factor * half:.{digits}f}"
        return f"{factor * row[measure]:.{digits}f}{error}{unit}"

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
            f"SMAC's share of the oracle's gain ({share['oracle']}) over the offline phase, in "
            f"return and from online context: {share['share']:.2f} (by seed: {seeds}).",
        ]
    return "\n".join(lines) + "\n"


def measured(name: str, by_seed: np.ndarray) -> dict[str, float | str | None]:
    """Mean, half-width of the 95 % interval over tasks, and means by seed, of [seeds, tasks].

    A single task has no interval: None.
    """
    found = interval(by_seed.mean(0))
    half = found["half_width_95"]
    half = None if half is None else round(half, 4)
    seeds = " ".join(f"{value:.3f}" for value in by_seed.mean(1))
    return {name: round(found["mean"], 4), f"{name}_95": half, f"{name}_by_seed": seeds}


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
