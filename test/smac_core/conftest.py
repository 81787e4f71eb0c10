"""The point-mass domain as files: configuration, tasks, a dataset, and a run trained on it."""

import io
import json
import math
import os
import random
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import point_mass  # noqa: F401  (registers the environment; also puts it on the workers' path)
import pytest
import torch

from smac_core.commands.collect import collect_dataset
from smac_core.config import Config, load_config
from smac_core.data.dataset import Dataset
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.offline import train_offline
from smac_core.training.run import Run
from smac_ros.cli import main

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small are slower on more, and bit-exact comparisons want one order of sums."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def domain(tmp_path_factory) -> Path:
    """Path of the point-mass domain's YAML, tasks beside it."""
    folder = tmp_path_factory.mktemp("point_mass")
    rng = random.Random(0)
    train = [{"angle": rng.uniform(0, math.pi)} for _ in range(20)]
    test = [{"angle": (i + 0.5) / 10 * math.pi} for i in range(10)]
    text = (HERE / "point_mass.yaml").read_text()
    for name, tasks in (("train", train), ("test", test)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(tasks))
        text = text.replace(name.upper(), str(path))
    path = folder / "point_mass.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def config(domain) -> Config:
    return load_config(str(domain), "paper")


@pytest.fixture(scope="session")
def dataset(domain, config, tmp_path_factory) -> Dataset:
    path = tmp_path_factory.mktemp("data") / "point_mass.h5"
    collect_dataset(config, path, workers=0, quiet=True)
    return Dataset.load(path)


@pytest.fixture(scope="session")
def trained(config, dataset, tmp_path_factory) -> Path:
    """The folder of a SMAC run whose offline phase is done; copy it before you change it."""
    folder = tmp_path_factory.mktemp("runs") / "smac"
    run = Run.create(folder, config, dataset, algorithm="smac", seed=0, device="cpu")
    assert train_offline(run, quiet=True)
    return folder


@pytest.fixture
def pool(config):
    environment = config.environment
    with EnvironmentPool(environment.id, 20, workers=0, horizon=environment.horizon) as pool:
        yield pool


@pytest.fixture
def smac():
    """Run the command line as a user would: smac("train", ...) -> CompletedProcess."""

    def run(*arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-c", "from smac_ros.cli import main; main()"]
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            timeout=300,
            **options,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def smac_here(monkeypatch):
    """As ``smac``, in this process, which has loaded torch already: seconds a command less.

    For the steps around what a test is about; every command has a test as a process of its own.
    """

    def run(*arguments: str, check: bool = True, cwd=None) -> subprocess.CompletedProcess:
        command, code, threads = ["smac", *map(str, arguments)], 0, torch.get_num_threads()
        shown, told = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, redirect_stdout(shown), redirect_stderr(told):
            patch.setattr(sys, "argv", command)
            if cwd is not None:
                patch.chdir(cwd)
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
        torch.set_num_threads(threads)
        if check:
            assert code == 0, told.getvalue()
        return subprocess.CompletedProcess(command, code, shown.getvalue(), told.getvalue())

    return run
