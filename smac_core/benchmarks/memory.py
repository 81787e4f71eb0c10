"""Peak resident memory of a training process, each case in a process of its own.

Nothing is imported at the top that the reference process would have to carry.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CASES = ("smoke", "cpu", "paper", "humanoid")  # scales of sawyer, and the paper's largest domain
REFERENCE = "import torch"
LIMIT = 2000.0  # MB that training on a CPU shall stay under


def bench_memory(cases: Sequence[str], *, updates: int, iterations: int) -> dict[str, Any]:
    """Peak MB of: loading data, ``updates`` offline updates, the practice of ``iterations``, as
    many self-supervised updates and a checkpoint, on random data of a domain's sizes.

    Raises:
        InputError: no such case.
        RuntimeError: a process has failed; its last lines are in the message.
    """
    from smac_core.benchmarks.measurement import report
    from smac_core.errors import InputError

    for case in cases:
        if case not in CASES:
            raise InputError("--case", "name", case, " or ".join(CASES))
    measured = {REFERENCE: [_child("reference")["peak"]]}
    parts: dict[str, Any] = {}
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="smac_memory_") as folder:
            _child("data", case, folder)
            found = _child("train", case, folder, str(updates), str(iterations))
        measured[case] = [found.pop("peak")]
        parts[case] = found
    content = report("memory", "MB", measured, REFERENCE, better="lower")
    return content | {
        "limit": LIMIT,
        "updates": updates,
        "iterations": iterations,
        "cases": parts,
    }


def peak() -> float:
    """The most memory that this process has had resident so far, in MB.

    From /proc, since getrusage counts what the process was before it became this program.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3  # KiB


def case_config(case: str):
    """The ``Config`` of a scale of sawyer, or of Humanoid-Dir at scale ``paper``."""
    from smac_core.config import load_config

    if case == "humanoid":
        return load_config("humanoid_direction", "paper")
    return load_config("sawyer", case)


def write_data(case: str, folder: Path) -> None:
    """A dataset of the case's sizes; its numbers are rounded, to compress in little time."""
    import numpy as np

    from smac_core.commands.collect import dataset_writer
    from smac_core.data.dataset import TaskData
    from smac_core.tasks import training_tasks

    config = case_config(case)
    environment, collection = config.environment, config.collection
    if collection.source == "pearl":
        length, size = environment.horizon, collection.rl_transitions
    else:
        length, size = collection.length, collection.trajectories * collection.length
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32).astype(np.float16).astype(np.float32)

    ds, da = len(environment.observation_names), len(environment.action_names)
    states, actions = numbers(size + 1, ds), numbers(size, da).clip(-1, 1)
    ends = np.arange(1, size + 1) % length == 0
    with dataset_writer(config, folder / "data.h5", seed=0) as writer:
        for number in range(len(training_tasks(config))):
            arrays = (states[:-1], actions, numbers(size), states[1:], np.zeros(size, bool), ends)
            writer.add_task("train", TaskData(*arrays, task={"number": number}))


def train(case: str, folder: Path, updates: int, iterations: int) -> dict[str, float]:
    """Both phases, shortened; peaks in MB after each part, and practised transitions."""
    import torch

    from smac_core.config import override_config
    from smac_core.data.dataset import Dataset
    from smac_core.training.offline import train_offline
    from smac_core.training.run import Run
    from smac_core.training.updates import Updates

    config = override_config(case_config(case), [f"offline.steps={updates}"])
    found = {}
    data = Dataset.load(folder / "data.h5")
    found["dataset"] = peak()
    run = Run.create(folder / "run", config, data, algorithm="smac", seed=0, device="cpu")
    found["replay"] = peak()
    train_offline(run, quiet=True)
    found["offline"] = peak()
    settings, many = config.self_supervised, config.self_supervised.tasks_per_iteration
    for iteration in range(iterations):
        tasks = (torch.arange(many) + iteration * many) % run.replay.tasks
        for _ in range(settings.exploration_trajectories):
            _practise(run, tasks, exploration=True)
        for _ in range(settings.adapted_trajectories):
            _practise(run, tasks, exploration=False)
    found["practice"] = peak()
    steps = Updates([(run.learner, run.replay)], "self_supervised")
    for _ in range(updates):
        steps.take(1)
    found["self_supervised"] = peak()
    run.save()
    return found | {"practised": sum(run.replay.rl.online_written), "peak": peak()}


def _practise(run, tasks, *, exploration: bool) -> None:
    """A random trajectory in each task, labelled and appended as practice is."""
    import torch

    from smac_core.data.trajectories import Trajectories
    from smac_core.training.labelling import label

    agent, shape = run.agent, (len(tasks), run.config.environment.horizon)
    observations = torch.randn(*shape, agent.observation_dim)
    actions = torch.rand(*shape, agent.action_dim) * 2 - 1
    zeros, following = torch.zeros(shape), observations.roll(-1, 1)
    present = torch.ones(shape, dtype=torch.bool)
    collected = Trajectories(observations, actions, zeros, following, zeros, ~present, present)
    context = run.config.self_supervised.labelling_context
    rewards = label(agent, run.replay, collected, tasks, context, run.generator)
    rows = collected.rows(agent.standardizer, run.replay.layout, rewards)
    for task, row in zip(tasks.tolist(), rows, strict=True):
        run.replay.append(task, row, exploration=exploration)


def _child(*arguments: str) -> dict[str, Any]:
    """What a process of this module, started afresh, has printed."""
    command = [sys.executable, "-m", "smac_core.benchmarks.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = "\n".join(done.stderr.splitlines()[-5:])
        raise RuntimeError(f"{' '.join(arguments)}: exit code {done.returncode}\n{lines}")
    return json.loads(done.stdout.splitlines()[-1])


def main(job: str, *arguments: str) -> None:
    """One measurement, in a process of its own: its peaks as JSON."""
    found: dict[str, float] = {}
    if job == "reference":
        import torch  # noqa: F401
    elif job == "data":
        write_data(arguments[0], Path(arguments[1]))
    else:
        case, folder, *counts = arguments
        found = train(case, Path(folder), *map(int, counts))
    print(json.dumps({name: round(value, 1) for name, value in found.items()} | {"peak": peak()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
