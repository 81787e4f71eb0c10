"""How the cost of an update grows with tasks, context and batch, one at a time."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.benchmarks.measurement import alternate, report
from smac_core.benchmarks.update import PHASES, prepare, steps
from smac_core.config import Config, load_config, override_config

SIZES = {
    "meta_batch": (1, 2, 4, 8, 16),
    "context_batch": (16, 32, 64, 128, 256, 512),
    "rl_batch": (32, 64, 128, 256, 512),
}
NAMES = {
    "meta_batch": "tasks",
    "context_batch": "context transitions a task",
    "rl_batch": "RL transitions a task",
}
LINEAR = 0.98  # R^2 from which the cost is called linear
LEVEL = 0.1  # of a time: or how far none is from the line, which may be nearly level


def bench_growth(scale: str, *, seconds: float, device: str) -> dict[str, Any]:
    """Milliseconds of an update of both phases, and straight lines through them.

    ``seconds`` are spent on each size and phase.
    """
    config = load_config("sawyer", scale)
    measured: dict[str, list[float]] = {}
    fits: dict[str, dict[str, Any]] = {}
    for axis, sizes in SIZES.items():
        rates = _measure(config, axis, seconds, device)
        for phase in PHASES:
            times = [[1e3 / rate for rate in rates[size, phase]] for size in sizes]
            measured |= {f"{axis} {n}, {phase}": t for n, t in zip(sizes, times, strict=True)}
            fits[f"{axis}, {phase}"] = fit(sizes, np.median(times, 1))
    reference = f"meta_batch {SIZES['meta_batch'][0]}, offline"
    content = report("growth", "ms", measured, reference, better="lower")
    fixed = {axis: getattr(config.updates, axis) for axis in SIZES}
    return content | {"scale": scale, "fixed": fixed, "fits": fits}


def _measure(
    config: Config, axis: str, seconds: float, device: str
) -> dict[tuple[int, str], list[float]]:
    """Updates a second by (size, phase), the sizes taking turns."""
    _, replay = prepare(config, device)  # the same data for all, and in memory once
    work = {}
    for size in SIZES[axis]:
        learner, _ = prepare(override_config(config, [f"updates.{axis}={size}"]), device)
        for phase in PHASES:
            work[size, phase] = steps([(learner, replay)], phase)
    return alternate(work, seconds, device)


def fit(sizes: tuple[int, ...], times: np.ndarray) -> dict[str, Any]:
    """The straight line a + b n through times [k] at sizes [k] n, and how well it fits.

    ``deviation`` is the largest distance from the line as a share of the time measured: R^2 says
    little where the line is nearly level. ``exponent`` is p where time grows as n^p between the two
    largest sizes; well beyond 1 would be worse than linear.
    """
    slope, base = np.polyfit(sizes, times, 1)
    rest = times - (base + slope * np.array(sizes))
    spread = times - times.mean()
    r_squared = 1 - float(rest @ rest) / float(spread @ spread)
    deviation = float(np.abs(rest / times).max())
    exponent = np.log(times[-1] / times[-2]) / np.log(sizes[-1] / sizes[-2])
    return {
        "a": round(float(base), 4),
        "b": round(float(slope), 6),
        "r_squared": round(r_squared, 4),
        "deviation": round(deviation, 4),
        "exponent": round(float(exponent), 3),
        "linear": r_squared >= LINEAR or deviation <= LEVEL,
    }


def show_fits(content: dict[str, Any]) -> None:
    """The lines, one a size and phase."""
    for axis, phase in product(SIZES, PHASES):
        line = content["fits"][f"{axis}, {phase}"]
        print(
            f"{phase}: {line['a']:.2f} + {line['b']:.4f} n ms for n {NAMES[axis]}, "
            f"R^2 {line['r_squared']:.3f}, at most {line['deviation']:.0%} off"
            f"{'' if line['linear'] else ': not linear'}"
        )


def draw(content: dict[str, Any], out: Path) -> None:
    """Three panels, tasks, context and batch: what was measured, and the lines through it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from smac_core.figures import COLORS
    from smac_core.figures import NAMES as PHASE_NAMES

    figure, axes = pyplot.subplots(1, len(SIZES), figsize=(10, 3.2), layout="constrained")
    for axis, (name, sizes) in zip(axes, SIZES.items(), strict=True):
        for phase in PHASES:
            rows = [content["results"][f"{name} {size}, {phase}"] for size in sizes]
            median, low, high = (
                np.array([row[key] for row in rows]) for key in ("median", "lowest", "highest")
            )
            style = {"color": COLORS[phase], "label": PHASE_NAMES[phase]}
            axis.errorbar(sizes, median, [median - low, high - median], fmt="o", ms=4, **style)
            line = content["fits"][f"{name}, {phase}"]
            ends = np.array([0, sizes[-1]])
            axis.plot(ends, line["a"] + line["b"] * ends, color=COLORS[phase], lw=1)
        axis.set(xlabel=NAMES[name], xlim=(0, None), ylim=(0, None))
    axes[0].set(ylabel="an update (ms)")
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)
