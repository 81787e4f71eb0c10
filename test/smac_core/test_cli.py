"""Every command as a user runs it, in processes of their own."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

ALL = [
    ["collect"],
    ["oracle"],
    ["data", "info"],
    ["data", "subset"],
    ["copy"],
    ["train"],
    ["self-train"],
    ["evaluate"],
    ["figures"],
    ["render"],
    ["reproduce"],
    ["bench", "update"],
    ["bench", "env"],
    ["bench", "startup"],
    ["bench", "memory"],
    ["bench", "label"],
    ["bench", "growth"],
    ["doctor"],
    ["demo"],
]


def test_help_loads_nothing_heavy(smac):
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['smac', '--help']\n"
        "from smac_ros.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'h5py', 'gymnasium', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("collect", "train", "self-train", "evaluate", "doctor"):
        assert command in done.stdout


def test_mistakes_are_answered_before_torch_is_loaded(dataset, trained, tmp_path):
    import subprocess
    import sys

    data, run = str(dataset.path), str(trained)
    (tmp_path / "notes.h5").write_text("not a dataset")
    code = (
        "import json, sys\n"
        "from smac_ros.cli import main\n"
        "for arguments, code in json.loads(sys.argv.pop()):\n"
        "    sys.argv[1:] = arguments\n"
        "    try: main()\n"
        "    except SystemExit as end:\n"
        "        if end.code != code: sys.exit(f'{arguments} ended with {end.code}')\n"
        "    if 'torch' in sys.modules: sys.exit(f'{arguments} has loaded torch')\n"
    )
    cases = [
        (["data", "info", "nosuch.h5"], 2),
        (["data", "info", data], 0),
        (["data", "subset", data, "--trajectories", "1", "--out", "part.h5"], 0),
        (["train", "nosuch.h5", "--out", "new"], 2),
        (["train", "notes.h5", "--out", "new"], 2),
        (["train", data, "--out", run], 2),
        (["train", data, "--out", "new", "--algorithm", "smack"], 2),
        (["train", data, "--out", "new", "--domain", "sawyer", "--set", "a.b=1"], 2),
        (["train", data, "--out", "new", "--device", "gpu"], 2),
        (["train", data, "--out", "new", "--resume"], 2),
        (["collect", "cheetah_velocity", "--out", data], 2),
        (["collect", "sawyer", "--out", "new.h5", "--minutes", "1"], 2),
        (["self-train", "nosuch"], 2),
        (["self-train", run, "--set", "self_supervised.iterations=none"], 2),
        (["self-train", run, "--phase", "offline"], 2),
        (["evaluate", "nosuch"], 2),
        (["evaluate", run, "--phase", "control"], 2),
        (["evaluate", run, "--tasks", "nosuch.json"], 2),
        (["copy", "nosuch", "--out", "new"], 2),
        (["copy", run, "--out", run], 2),
        (["render", "nosuch", "--out", "film.gif"], 2),
        (["render", run, "--out", "film.avi"], 2),
        (["reproduce", "fig9"], 2),
        (["demo", "--scale", "big"], 2),
        (["figures", "nosuch"], 2),
        (["contract", "show", "sawyer_sim"], 0),
        (["up", "--list"], 0),
        (["up", "sawyer_sim", "--print"], 0),
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(cases)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == sum(code == 2 for _, code in cases)
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"notes.h5", "part.h5"}


def test_what_is_known_without_torch_is_what_is_there():
    from importlib import import_module

    from smac_core.algorithms import OFFLINE
    from smac_core.cli import EXPECTED
    from smac_core.commands import checks
    from smac_core.commands.evaluate import CONTEXTS
    from smac_core.training.run import PHASES

    assert tuple(OFFLINE) == checks.ALGORITHMS
    assert PHASES == checks.PHASES
    assert tuple(CONTEXTS) == checks.CONTEXTS
    for name in EXPECTED:
        module, _, kind = name.rpartition(".")
        found = getattr(import_module(module), kind)
        assert issubclass(found, Exception) and found.__module__ == module


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_command_shows_an_example(command):
    from typer.testing import CliRunner

    from smac_core.cli import app

    shown = CliRunner().invoke(app, [*command, "--help"], terminal_width=200)
    assert shown.exit_code == 0
    assert f"smac {' '.join(command)}" in shown.output.replace("Usage: smac", "")


def test_the_whole_way_on_sawyer_at_scale_smoke(smac, smac_here, tmp_path):
    data, run = tmp_path / "sawyer.h5", tmp_path / "run"
    smac("collect", "sawyer", "--out", data, "--tasks", 3, "--scale", "smoke", "--workers", 2)
    info = json.loads(smac_here("data", "info", data, "--json").stdout)
    assert info["domain"] == "sawyer"
    assert info["splits"]["train"]["tasks"] == 3
    assert info["splits"]["train"]["transitions"] == 3 * 2 * 75

    smac("train", data, "--scale", "smoke", "--out", run)
    smac("self-train", run, "--iterations", 1, "--workers", 1)
    again = smac_here("self-train", run, check=False)
    assert again.returncode == 2
    assert "earlier run of this phase" in again.stderr and "--resume" in again.stderr
    smac_here("self-train", run, "--resume", "--iterations", 2, "--workers", 1)

    result = json.loads(smac("evaluate", run, "--context", "both", "--json", "-q").stdout)
    assert result["phase"] == "self_supervised"
    for context in ("online", "offline"):
        found = result[context]
        assert found["tasks"] == 10
        assert sum(b["tasks"] for b in found["by_behavior"].values()) == 10
        assert -50 <= found["return"]["mean"] <= 0
    drawn = smac_here("figures", run).stdout.split()
    assert {path.rsplit("/", 1)[1] for path in drawn} == {
        "learning_curve.png",
        "context_shift.png",
        "traces.png",
        "success_by_behavior.png",
    }
    for path in drawn:
        assert np.asarray(Image.open(path)).std() > 5, f"{path} is blank"

    film = tmp_path / "task.gif"
    size = ("--width", 96, "--height", 72)
    smac("render", run, "--task", 3, "--out", film, *size)
    with Image.open(film) as gif:
        assert gif.n_frames == 77  # every other frame of 3 episodes of 51
    smac_here("render", "sawyer", "--task", 0, "--out", tmp_path / "script.png", *size)
    assert Image.open(tmp_path / "script.png").size == (5 * 96, 72)


@pytest.mark.slow
def test_the_demo_runs(smac, tmp_path):
    out = tmp_path / "demo"
    done = smac("demo", "--scale", "smoke", "--workers", 0, "--out", out)
    for row in ("scripted data", "meta-BC", "SMAC, offline phase", "SMAC, self-supervised"):
        assert row in done.stdout
    for path in ("held_out_task.gif", "smac/figures/learning_curve.png", "scores.json"):
        assert (out / path).exists()


def test_train_refuses_the_wrong_file(smac, tmp_path):
    (tmp_path / "notes.h5").write_text("not a dataset")
    done = smac("train", tmp_path / "notes.h5", "--out", tmp_path / "run", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "notes.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "DATA", "--algorithm", "smack", "--out", "x"], "smac or meta_bc"),
        (["train", "DATA", "--scale", "big", "--out", "x", "--domain", "YAML"], "unknown scale"),
        (["train", "DATA", "--domain", "YAML", "--device", "cuda", "--out", "x"], "0 CUDA devices"),
        (["train", "DATA", "--domain", "YAML", "--out", "x", "--set", "a.b=1"], "unknown key 'a'"),
        (["train", "DATA", "--out", "x"], "unknown domain 'point_mass'"),
        (["evaluate", "RUN", "--context", "some"], "none or online or offline or both or all"),
        (["evaluate", "RUN", "--tasks", "nothing.json"], "nothing.json"),
        (["evaluate", "RUN", "--set", "macaw.inner_steps=5"], "a key of evaluation, environment"),
        (["train", "DATA", "--out", "x", "--preset", "own"], "found smac; expected --algorithm"),
        (["train", "DATA", "--out", "RUN", "--resume", "--set", "borel.steps=9"], "offline.steps"),
        (["evaluate", "RUN", "--phase", "control"], "a phase of: offline"),
        (["self-train", "RUN", "--phase", "offline"], "self_supervised or control"),
        (["figures", "."], "no such file"),
        (["render", "RUN", "--out", "film.avi"], ".gif or .mp4 or .png"),
        (["evaluate", "RUN", "--tasks", "nosuch:x.json"], "No module named 'nosuch'"),
        (["evaluate", "RUN", "--device", "gpu"], "auto, cpu, cuda or cuda:N"),
        (["collect", "sawyr", "--out", "x.h5"], "did you mean 'sawyer'"),
    ],
)
def test_wrong_input_ends_in_one_clear_line(
    smac, trained, dataset, domain, tmp_path, arguments, message
):
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has one")
    names = {"DATA": dataset.path, "RUN": trained, "YAML": domain}
    done = smac(*(names.get(a, a) for a in arguments), check=False, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_ctrl_c_ends_scripted_collection_and_leaves_nothing(domain, config, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from smac_core.cli import app
    from smac_core.commands.collect import collect_dataset
    from smac_core.training import collection
    from smac_core.training.progress import interruptible

    tasks, plain = [], collection.collect_task

    def interrupting(*arguments):
        tasks.append(arguments)
        if len(tasks) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*arguments)

    monkeypatch.setattr(collection, "collect_task", interrupting)
    out = tmp_path / "data.h5"
    arguments = ["collect", str(domain), "--out", str(out), "--workers", "0", "--quiet"]
    assert CliRunner().invoke(app, arguments).exit_code == 130
    assert len(tasks) == 2 and not list(tmp_path.iterdir())
    tasks.clear()
    with interruptible():  # as where it is a stage of an experiment
        assert collect_dataset(config, out, workers=0, quiet=True) is None
    assert len(tasks) == 2 and not list(tmp_path.iterdir())


def test_a_run_finds_its_dataset_from_anywhere(smac, smac_here, domain, dataset, trained, tmp_path):
    short = ["--set", "offline.steps=2", "--set", "offline.log_every=1"]
    arguments = ["--domain", domain, "--scale", "paper", "--out", "runs/a", *short]
    shutil.copy(dataset.path, tmp_path / "data.h5")
    smac("train", "data.h5", *arguments, cwd=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    run = ["evaluate", "../runs/a", "--context", "offline", "--workers", 0]
    smac_here(*run, cwd=tmp_path / "elsewhere")
    (tmp_path / "data.h5").rename(tmp_path / "moved.h5")
    done = smac_here(*run, cwd=tmp_path / "elsewhere", check=False)
    assert done.returncode == 2
    assert "no such file" in done.stderr and "--dataset" in done.stderr
    smac_here(*run, "--dataset", "../moved.h5", cwd=tmp_path / "elsewhere")


def test_a_damaged_checkpoint_is_told(smac_here, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    weights = sorted((run / "offline" / "checkpoints").glob("*/weights.safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[:1000])
    done = smac_here("evaluate", run, "--workers", 0, check=False)
    assert done.returncode == 2
    assert "weights.safetensors" in done.stderr and "damaged" in done.stderr


def test_seeds_train_at_once_and_in_sittings(smac, smac_here, domain, dataset, tmp_path):
    out = tmp_path / "runs"
    sizes = ["--set", "offline.steps=60", "--set", "self_supervised.iterations=1"]
    train = ["train", dataset.path, "--domain", domain, "--out", out, "--seeds", "0,3"]
    train += ["--scale", "paper", "--quiet"]
    done = smac(*train, *sizes, "--minutes", "0.00001", check=False)
    assert done.returncode == 75, done.stderr  # the time was up
    smac_here(*train, "--resume")
    folders = [out / "seed_0", out / "seed_3"]
    shown = smac("self-train", *folders, "--workers", "0", "--quiet").stdout
    assert shown.split() == [str(folder / "self_supervised") for folder in folders]
    results = [
        json.loads(smac_here("evaluate", folder, "--workers", "0", "--json", "--quiet").stdout)
        for folder in folders
    ]
    assert results[0]["online"]["return"] != results[1]["online"]["return"]
    refused = smac_here(*train[:-1], "--seed", "1", check=False)
    assert refused.returncode == 2 and "--seeds: found" not in refused.stdout
    assert "one of the two" in refused.stderr


def test_doctor_knows_what_is_there(smac):
    found = json.loads(smac("doctor", "--json").stdout)
    assert found["ok"]
    assert "torch" in json.dumps(found)
