"""How long a command takes until its process ends: its help, a mistake in its arguments."""

import statistics
import subprocess
import sys
import time
from typing import Any

from smac_core.benchmarks.measurement import report

PROGRAM = "from smac_ros.cli import main; main()"  # what the installed smac does
REFERENCE = 'python -c "import torch"'
REFERENCES = {"python -c pass": "pass", REFERENCE: "import torch"}
# with the exit code that belongs to it; none of the files exists
COMMANDS = {
    "--help": 0,
    "train --help": 0,
    "data info nosuch.h5": 2,
    "train nosuch.h5 --out nosuch": 2,
    "evaluate nosuch": 2,
    "up --list": 0,
    "contract show sawyer_sim": 0,
}
LIMITS = {"help": 0.3, "mistake": 1.0}  # seconds


def bench_startup(*, rounds: int) -> dict[str, Any]:
    """Seconds of ``rounds`` fresh processes each, taking turns.

    Raises:
        RuntimeError: a command has ended otherwise than it should.
    """
    work = {name: ([sys.executable, "-c", code], 0) for name, code in REFERENCES.items()}
    for words, code in COMMANDS.items():
        work[f"smac {words}"] = ([sys.executable, "-c", PROGRAM, *words.split()], code)
    measured: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, (command, code) in work.items():
            measured[name].append(_seconds(name, command, code))
    content = report("startup", "s", measured, REFERENCE, better="lower")
    return content | {"limits": LIMITS, "slowest": slowest(measured)}


def slowest(measured: dict[str, list[float]]) -> dict[str, float]:
    """The longest median of the helps and of the other commands, in seconds."""
    medians = {n: statistics.median(v) for n, v in measured.items() if n not in REFERENCES}
    helps = [value for name, value in medians.items() if name.endswith("--help")]
    others = [value for name, value in medians.items() if not name.endswith("--help")]
    return {"help": round(max(helps), 3), "mistake": round(max(others), 3)}


def _seconds(name: str, command: list[str], code: int) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != code:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing on standard error"]
        raise RuntimeError(f"{name}: exit code {done.returncode} instead of {code}: {last[0]}")
    return seconds
