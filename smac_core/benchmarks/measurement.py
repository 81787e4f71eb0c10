"""Rates in turns, medians with their spread and ratios, and what they were measured on.

Torch is not loaded here: not every benchmark needs it.
"""

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

ROUNDS = 5  # measurements of which the median counts


def alternate(
    work: dict[str, Callable[[], Any]], seconds: float, device: str
) -> dict[str, list[float]]:
    """Calls a second of each piece of work: ``ROUNDS`` rounds, taking turns, so that a change in
    the machine's load meets them all. A call that returns an int counts as so many."""

    def wait() -> None:
        if device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()

    rates: dict[str, list[float]] = {name: [] for name in work}
    for call in work.values():
        call()
    for _ in range(ROUNDS):
        for name, call in work.items():
            calls, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds / ROUNDS:
                done = call()
                calls += done if isinstance(done, int) else 1
            wait()
            rates[name].append(calls / (time.perf_counter() - began))
    return rates


def report(
    name: str,
    unit: str,
    measured: dict[str, list[float]],
    reference: str,
    better: Literal["higher", "lower"] = "higher",
) -> dict[str, Any]:
    """Medians, spreads and ratios to the reference, with what they were measured on.

    ``better`` says which numbers are: rates want to be high, seconds and megabytes low.
    """
    medians = {key: statistics.median(values) for key, values in measured.items()}
    return {
        "benchmark": name,
        "unit": unit,
        "better": better,
        "results": {
            key: {
                "median": round(medians[key], 3),
                "lowest": round(min(values), 3),
                "highest": round(max(values), 3),
                "ratio": round(medians[key] / medians[reference], 3),
            }
            for key, values in measured.items()
        },
        "reference": reference,
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "torch": importlib.metadata.version("torch"),
        },
    }


def machine() -> dict[str, Any]:
    """What this process runs on; GPU and threads as torch sees them, where it has been used."""
    torch = sys.modules.get("torch")
    gpu = torch is not None and torch.cuda.is_available()
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "threads": torch.get_num_threads() if torch else None,
    }


def show(content: dict[str, Any]) -> None:
    """A report as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", f"median {content['unit']}", "lowest", "highest", "ratio")
    for name, row in content["results"].items():
        table.add_row(
            name, *(f"{row[key]:,.2f}" for key in ("median", "lowest", "highest", "ratio"))
        )
    Console().print(table)
    place = content["machine"]
    torch = f", {place['threads']} torch threads, GPU: {place['gpu']}" if place["threads"] else ""
    print(f"{place['cores']} cores{torch}")
