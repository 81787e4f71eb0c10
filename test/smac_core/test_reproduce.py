"""``smac reproduce``: its stages, locks, tables and figures."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smac_core.commands import paper_figures, pipeline
from smac_core.commands.experiments import FIGURES, METHODS, choose_methods
from smac_core.commands.pipeline import EvaluationJob, Pipeline, claimed
from smac_core.commands.reproduce import complete, left_out, write_results
from smac_core.commands.tables import differences, markdown, measured, oracle_share, table
from smac_core.config import load_config, override_config
from smac_core.errors import InputError
from smac_core.folder_lock import locked
from smac_core.training.run import Run

SHORT = (
    "offline.steps=20",
    "offline.log_every=10",
    "self_supervised.iterations=1",
    "self_supervised.evaluate_every=1",
    "evaluation.repeats=1",
)
METHODS_RUN = ("meta_bc", "offline", "control", "smac", "actor_ablation")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def short(config):
    return override_config(config, list(SHORT))


@pytest.fixture(scope="module")
def finished(short, tmp_path_factory) -> Path:
    """Two seeds of the point mass with all that figures 2, 5 and 6 show."""
    base = tmp_path_factory.mktemp("experiment")
    more = {"workers": 0, "quiet": True, "announce": lambda text: None}
    for seed in (0, 1):
        for methods, compares in ((METHODS_RUN, False), (("offline", "smac"), True)):
            one = Pipeline(base / f"seed_{seed}", short, seed, methods, compares, **more)
            with claimed([one]):
                pipeline.run([one])
    return base


# ---------------------------------------------------------------------------------- command line
@pytest.mark.slow
def test_reproduce_runs_skips_and_summarizes(smac, smac_here, domain, tmp_path):
    arguments = ["reproduce", "fig5", "--domain", domain, "--scale", "paper", "--seeds", "0,1"]
    arguments += ["--out", tmp_path / "runs", "--results", tmp_path / "results", "--at-once", 2]
    arguments += ["--workers", 0, "-q"]
    chosen = ["--methods", "offline,control,smac,sac_ablation"]
    for override in SHORT:
        arguments += ["--set", override]
    smac(*arguments, *chosen)
    results = tmp_path / "results"
    # data; 4 methods x 2 contexts
    assert len(rows_of(results / "table.csv")) == 1 + 4 * 2
    seed = tmp_path / "runs" / "point_mass_paper" / "seed_1"
    assert {p.name for p in seed.iterdir() if p.is_dir()} == {"smac", "smac_sac_ablation"}
    assert {p.name for p in results.iterdir()} == {
        "table.csv",
        "differences.csv",
        "table.md",
        "experiment.json",
        "fig5.csv",
        "fig5.png",
        "fig5.svg",
    }
    checkpoints = sorted((tmp_path / "runs").rglob("weights.safetensors"))
    before = [p.stat().st_mtime_ns for p in checkpoints]
    smac_here("reproduce", "fig6", *arguments[2:])
    assert before == [p.stat().st_mtime_ns for p in checkpoints], "nothing is trained again"
    assert np.asarray(Image.open(results / "fig6.png")).std() > 5


@pytest.mark.slow
def test_a_mujoco_domain_from_pearl_to_the_oracles_share(smac, smac_here, tmp_path):
    arguments = ["reproduce", "fig5", "--domain", "cheetah_velocity", "--scale", "smoke", "-q"]
    arguments += ["--seeds", "0", "--out", tmp_path, "--workers", 0]
    methods = ("smac", "macaw", "borel", "borel_two_episodes", "oracle", "oracle_trajectory")
    chosen = ["--methods", ",".join(methods)]
    stopped = smac_here(*arguments, *chosen, "--minutes", "0.00001", check=False)
    assert stopped.returncode == 75, stopped.stderr
    smac(*arguments, *chosen)
    seed, results = tmp_path / "cheetah_velocity_smoke/seed_0", tmp_path / "cheetah_velocity_smoke"
    scores = json.loads((seed / "scores.json").read_text())
    assert set(scores["rows"]) == {"data", *methods}
    assert set(scores["rows"]["macaw"]) == {"label", "online", "offline"}
    (kept,) = seed.glob("borel/evaluations/*_after_1.json")
    assert json.loads(kept.read_text())["protocol"]["exploration_episodes"] == 1
    for oracle, latent in (("oracle", "step"), ("oracle_trajectory", "trajectory")):
        assert set(scores["rows"][oracle]) == {"label", "online"}
        name = "online_test_online" + ("_trajectory" if latent == "trajectory" else "")
        kept = json.loads((seed / f"pearl/evaluations/{name}.json").read_text())
        assert kept["protocol"]["exploration_latent"] == latent
        assert kept["online"] == scores["rows"][oracle]["online"]
    columns = set(rows_of(results / "results/table.csv")[0])
    assert "return" in columns and "success" not in columns
    refused = smac_here("reproduce", "fig6", *arguments[2:], check=False)
    assert refused.returncode == 2
    assert "position in the plane: found none in cheetah_velocity" in refused.stderr


def test_wrong_input_is_refused_at_once(smac, tmp_path):
    done = smac("reproduce", "fig8", "--methods", "smac,magic", check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "found magic; expected some of offline,smac,test_scenes" in done.stderr
    assert not list(tmp_path.iterdir())


def test_which_methods_a_domain_has(config):
    assert "oracle" not in choose_methods("fig5", "", config)
    with pytest.raises(InputError, match="none in point_mass"):
        choose_methods("fig5", "smac,oracle", config)
    with pytest.raises(InputError, match="found control; expected some of offline,smac"):
        choose_methods("fig2", "control", config)
    assert choose_methods("fig5", "smac,meta_bc", config) == ("meta_bc", "smac")
    for methods in ("", "smac"):
        with pytest.raises(InputError, match="updates.actor: found pearl; expected awac"):
            choose_methods("fig5", methods, override_config(config, ["updates.actor=pearl"]))
    sawyer = load_config("sawyer", "smoke")
    assert choose_methods("fig5", "", sawyer) == FIGURES["fig5"].methods


# ------------------------------------------------------------------------------------- going on
class Killed(BaseException):
    """As good as kill -9: nothing in the pipeline catches it."""


def test_a_pipeline_killed_between_stages_goes_on(short, finished, tmp_path, monkeypatch):
    more = {"workers": 0, "quiet": True, "announce": lambda text: None}
    one = Pipeline(tmp_path / "seed_0", short, 0, METHODS_RUN, **more)
    stage, stages = pipeline.stage, []

    def work_then_die(name, *arguments):
        stage(name, *arguments)
        if name not in stages:
            stages.append(name)
            raise Killed

    monkeypatch.setattr(pipeline, "stage", work_then_die)
    for attempt in range(20):
        try:
            with claimed([one]):
                (scores,) = pipeline.run([one])
            break
        except Killed:
            assert len(stages) == attempt + 1
    assert stages[0] == "collecting labelled data" and len(stages) == attempt >= 7
    assert stages[-1] == "adapting to held-out tasks"
    uninterrupted = json.loads((finished / "seed_0" / "scores.json").read_text())["rows"]
    assert scores["rows"] == uninterrupted


@pytest.mark.parametrize("phase", ["offline", "self_supervised"])
def test_a_run_killed_before_its_first_checkpoint_begins_again(
    short, dataset, tmp_path, monkeypatch, phase
):
    one = Pipeline(tmp_path, short, 0, ("smac",), quiet=True)
    (tmp_path / "data.h5").symlink_to(dataset.path)
    method, save = METHODS["smac"], Run.save
    if phase == "self_supervised":
        assert pipeline.train_offline(one.offline_run(method), quiet=True)

    def half(run):
        (run.folder / "checkpoints" / ".step_00000000.tmp").mkdir(parents=True)
        raise Killed

    monkeypatch.setattr(Run, "save", half)
    with pytest.raises(Killed):
        one.offline_run(method) if phase == "offline" else one.second_run(method)
    monkeypatch.setattr(Run, "save", save)
    run = one.offline_run(method) if phase == "offline" else one.second_run(method)
    assert run.phase == phase and run.step == 0
    assert (tmp_path / "smac" / "run.json").exists()


def test_settings_from_before_an_option_existed_are_the_same(short, tmp_path):
    one = Pipeline(tmp_path, short, 0, ("smac",))
    one.claim()
    path = tmp_path / "pipeline.json"
    kept = json.loads(path.read_text())
    del kept["config"]["updates"]["actor"], kept["config"]["borel"]
    kept["config"]["macaw"]["temperature"] = 0.1  # MACAW has not run here
    path.write_text(json.dumps(kept))
    one.claim()
    assert json.loads(path.read_text())["config"]["borel"]["steps"] == short.borel.steps
    kept = json.loads(path.read_text())
    kept["config"]["macaw"]["temperature"] = 0.1
    (tmp_path / "macaw").mkdir()
    (tmp_path / "macaw" / "run.json").write_text("{}")
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="config.macaw.temperature: found 0.1"):
        one.claim()
    shutil.rmtree(tmp_path / "macaw")
    kept["config"]["updates"]["actor"] = "pearl"
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="config.updates.actor: found pearl; expected awac, as"):
        one.claim()
    kept["config"]["updates"]["actor"] = "awac"
    kept["config"]["online"] = {"iterations": 7}
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="config.online: found .*; expected None, as"):
        one.claim()  # a section that only the folder has


# ---------------------------------------------------------------------------------------- locks
@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a seed's folder until its input ends or it is killed."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom smac_core.folder_lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "base" / "seed_0")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait(timeout=30)
    process.stdout.close()


def test_a_seed_is_one_processs_and_free_when_that_dies(holder, short, tmp_path):
    base = tmp_path / "base"
    mine = [Pipeline(base / f"seed_{seed}", short, seed, ("smac",)) for seed in (0, 1)]
    with pytest.raises(InputError, match=f"process {holder.pid} at work") as refused, claimed(mine):
        pytest.fail("both are at work")
    assert str(base / "seed_0") in str(refused.value)
    with claimed(mine[1:]):  # another seed is nobody's
        assert (base / "seed_1" / ".lock").read_text() == f"{os.getpid()}\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=30)
    with claimed(mine):
        assert (base / "seed_0" / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_second_reproduce_of_a_seed_ends_at_once(holder, smac, domain, tmp_path):
    base = tmp_path / "point_mass_paper"
    (tmp_path / "base").rename(base)  # the lock goes with the file
    arguments = ["reproduce", "fig5", "--domain", domain, "--scale", "paper", "--seeds", "1,0"]
    done = smac(*arguments, "--out", tmp_path, "-q", check=False)
    assert done.returncode == 2
    assert f"seed_0: lock: found process {holder.pid} at work" in done.stderr
    assert not list(base.rglob("data.h5"))


def test_who_waits_comes_after(holder, tmp_path):
    entered = threading.Event()

    def wait_and_enter():
        with locked(tmp_path / "base" / "seed_0", wait=True):
            entered.set()

    waiting = threading.Thread(target=wait_and_enter, daemon=True)
    waiting.start()
    assert not entered.wait(0.2), "both are in there"
    holder.stdin.close()  # which ends it
    assert entered.wait(10)
    waiting.join(10)
    assert not waiting.is_alive()


# --------------------------------------------------------------------------------------- tables
def evaluation(returns, success=None) -> dict[str, np.ndarray]:
    returns = np.array(returns, float)
    return {
        "returns": returns,
        "success": np.zeros_like(returns) if success is None else np.array(success, float),
        "kl": np.full_like(returns, 2.0),
        "decoder_error": np.full_like(returns, 0.5),
        "behaviors": np.array(["reach", "wait"]),
    }


BEHAVIOR = {
    "tasks": 1,
    "return": {"mean": -4.0, "half_width_95": None},
    "success": {"mean": 1.0, "half_width_95": None},
}
TASKS = [("1", "wait", -9.0), ("0", "reach", -3.0), ("2", "wait", -5.0)]
SCORES = [
    {
        "seed": seed,
        "config": {"environment": {"measures_success": True}},
        "rows": {
            "data": {
                "label": "scripted data",
                "online": {
                    "tasks": 2,
                    "return": {"mean": -4.0 - seed, "half_width_95": 1.0},
                    "success": {"mean": 0.5, "half_width_95": None},
                    "by_behavior": dict.fromkeys(("reach", "wait"), BEHAVIOR),
                    # task 1 has no whole trajectory in seed 0's data, which tell of it no more
                    "by_task": {
                        number: {"behavior": behavior, "return": value - seed, "success": 0.5}
                        for number, behavior, value in TASKS[seed:]
                    },
                },
            }
        },
    }
    for seed in (0, 1)
]
FOUND = {
    # 2 tasks x 2 repeats
    ("offline", "online"): {0: evaluation([[1, 3], [5, 7]]), 1: evaluation([[3, 5], [7, 9]])},
    ("smac", "online"): {
        0: evaluation([[4, 6], [6, 8]], [[0, 1], [1, 1]]),
        1: evaluation([[8, 8], [8, 8]]),
    },
    ("oracle", "online"): {0: evaluation([[9, 9], [9, 9]])},
}


def test_the_table_by_hand():
    rows = {(row["method"], row["behavior"]): row for row in table(FOUND, SCORES)}
    data = rows["scripted data", "all"]
    # tasks 0 and 2, over seeds: (-3 - 4) / 2 and (-5 - 6) / 2
    assert (data["return"], data["success"], data["tasks"], data["seeds"]) == (-4.5, 0.5, 2, 2)
    assert data["return_95"] == measured("return", np.array([[-3.5, -5.5]]))["return_95"] > 0
    waits = rows["scripted data", "wait"]
    assert (waits["return"], waits["return_95"], waits["tasks"]) == (-5.5, None, 1)
    offline = rows["SMAC, offline phase", "all"]
    # tasks, over seeds and repeats: (2 + 4) / 2 and (6 + 8) / 2; t at 97.5 % for n = 2 by the
    # expansion that smac_core.intervals uses
    assert offline["return"] == 5 and offline["return_by_seed"] == "4.000 6.000"
    assert offline["return_95"] == measured("return", np.array([[3.0, 7.0]]))["return_95"]
    smac = rows["SMAC, self-supervised", "reach"]
    assert (smac["return"], smac["success"], smac["tasks"]) == ((5 + 8) / 2, 0.25, 1)
    assert rows["online oracle (PEARL)", "all"]["seeds"] == 1
    assert "decoder_error" not in rows["online oracle (PEARL)", "all"]
    earlier = deepcopy(SCORES)  # scores of before tasks were told apart
    del earlier[1]["rows"]["data"]["online"]["by_task"]
    row = table({}, earlier)[0]
    assert (row["return"], row["return_95"], row["tasks"]) == (-4.5, None, 2)


def test_differences_are_paired_by_task_and_seed():
    rows = {(row["gain of"], row["over"]): row for row in differences(FOUND)}
    gain = rows["SMAC, self-supervised", "SMAC, offline phase"]
    # seed 0: 5 - 2 and 7 - 6; seed 1: 8 - 4 and 8 - 8
    assert gain["return"] == ((3 + 4) / 2 + (1 + 0) / 2) / 2
    assert gain["return_by_seed"] == "2.000 2.000" and gain["seeds"] == 2
    over = rows["online oracle (PEARL)", "SMAC, self-supervised"]
    assert over["seeds"] == 1 and over["return"] == ((9 - 5) + (9 - 7)) / 2
    assert over["success"] == -(0.5 + 1) / 2


def test_the_share_of_the_oracles_gain():
    share = oracle_share(FOUND)  # seed 0 alone has an oracle: (6 - 4) / (9 - 4)
    assert share == {"oracle": "online oracle (PEARL)", "share": 0.4, "by_seed": [0.4]}
    better = {("oracle_trajectory", "online"): {0: evaluation([[14, 14], [14, 14]])}}
    label = METHODS["oracle_trajectory"].label
    assert oracle_share(FOUND | better) == {"oracle": label, "share": 0.2, "by_seed": [0.2]}
    more = {("oracle", "online"): dict.fromkeys((0, 1), FOUND["oracle", "online"][0])}
    # the better one is of one seed alone: (6 - 4) / (9 - 4) and (8 - 6) / (9 - 6)
    assert oracle_share(FOUND | better | more)["by_seed"] == [0.4, 0.667]
    assert oracle_share({key: FOUND[key] for key in list(FOUND)[:2]}) is None
    worse = FOUND | {("oracle", "online"): {0: evaluation([[1, 1], [1, 1]])}}
    assert oracle_share(worse) is None
    text = markdown(table(FOUND, SCORES), differences(FOUND), share)
    assert "0.40 (by seed: 0.40)" in text and "| online oracle (PEARL) | online | 1 |" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| scripted data"))
    assert line.endswith("| 50 ± 0 % | -4.5 ± 9.7 | 50 % | 50 % |"), "an unknown interval is not 0"


# -------------------------------------------------------------------------------------- figures
def results(figure: str, finished: Path, short, tmp_path):
    """A figure's rows as its CSV has them, and the picture drawn from these."""
    methods = choose_methods(figure, "offline,smac", short) if figure != "fig5" else ("smac",)
    assert len(write_results(figure, methods, finished, short, tmp_path)) == 2
    folders = complete(finished, methods, short)
    scores = [json.loads((folder / "scores.json").read_text()) for folder in folders]
    rows = paper_figures.ROWS[figure](figure, folders, scores)
    kept = rows_of(tmp_path / f"{figure}.csv")
    assert [{k: str(v) for k, v in row.items()} for row in rows] == [
        {k: v for k, v in row.items() if v} for row in kept
    ]
    return rows, paper_figures.DRAWINGS[figure](figure, rows, scores), folders


def test_figure_5_draws_its_csv(finished, short, tmp_path):
    rows, picture, folders = results("fig5", finished, short, tmp_path)
    lines = {
        (axis.get_ylabel(), line.get_label()): line for axis in picture.axes for line in axis.lines
    }
    for measure, label, factor in (("return", "return", 1), ("success", "success (%)", 100)):
        for name in ("smac", "control", "actor_ablation"):
            mine = [row for row in rows if (row["method"], row["measure"]) == (name, measure)]
            line = lines[label, METHODS[name].label]
            np.testing.assert_array_equal(line.get_xdata(), [row["steps"] for row in mine])
            drawn = [factor * row["mean"] for row in mine]
            np.testing.assert_allclose(line.get_ydata(), drawn)
        for name in ("data", "meta_bc"):
            (row,) = (r for r in rows if (r["method"], r["measure"]) == (name, measure))
            label_of = "scripted data" if name == "data" else METHODS[name].label
            assert lines[label, label_of].get_ydata()[0] == pytest.approx(factor * row["mean"])
    # an iteration: 4 tasks, 4 trajectories of 20 steps
    smac = [row for row in rows if (row["method"], row["measure"]) == ("smac", "return")]
    assert [(row["iteration"], row["steps"]) for row in smac] == [(0, 0), (1, 4 * 4 * 20)]
    metrics = [rows_of(folder / "smac/self_supervised/metrics.csv") for folder in folders]
    last = [
        next(float(r["value"]) for r in of_seed if (r["name"], r["step"]) == ("test/return", "1"))
        for of_seed in metrics
    ]
    assert smac[1]["mean"] == pytest.approx(np.mean(last), abs=1e-4)
    assert smac[1]["std"] == pytest.approx(abs(last[0] - last[1]) / 2**0.5, abs=1e-4)


def test_figure_2_draws_its_csv(finished, short, tmp_path):
    rows, picture, folders = results("fig2", finished, short, tmp_path)
    # 2 phases, 2 seeds; 10 held-out and 4 training tasks; 3 contexts
    assert len(rows) == 2 * 2 * (10 + 4) * 3
    bars = [axis for axis in picture.axes if axis.get_ylabel() == "return after adaptation"]
    assert len(bars) == 4
    order = [(p, t) for p in ("offline", "self_supervised") for t in ("test", "train")]
    for axis, (phase, tasks) in zip(bars, order, strict=True):
        for bar, context in zip(
            axis.patches, ("offline", "online", "online_stochastic"), strict=True
        ):
            wanted = {"phase": phase, "tasks": tasks, "context": context}
            mine = [row["return"] for row in rows if wanted.items() <= row.items()]
            assert bar.get_height() == pytest.approx(np.mean(mine))
    stored = np.load(folders[1] / "smac/evaluations/offline_test_online_stochastic.npz")["kl"]
    wanted = {"phase": "offline", "tasks": "test", "context": "online_stochastic", "seed": 1}
    kl = [row["kl"] for row in rows if wanted.items() <= row.items()]
    np.testing.assert_allclose(kl, stored.ravel(), atol=1e-4)


@pytest.mark.parametrize("figure", ["fig6", "fig7"])
def test_traces_are_those_of_the_evaluations(figure, finished, short, tmp_path):
    rows, picture, folders = results(figure, finished, short, tmp_path)
    sources = {"offline", "online"} | ({"exploration", "data"} if figure == "fig7" else set())
    assert {row["source"] for row in rows} == sources
    panel = next(a for a in picture.axes if a.get_title() == "after\nself-supervision")
    wanted = {"phase": "self_supervised", "source": "online", "trajectory": 3}
    mine = [row for row in rows if wanted.items() <= row.items()]
    path = np.load(folders[0] / "smac/evaluations/self_supervised_test_online.npz")["paths"][3, 0]
    assert len(mine) == len(path) == 21
    np.testing.assert_allclose([(row["x"], row["y"]) for row in mine], path, atol=1e-3)
    drawn = [np.column_stack(line.get_data()) for line in panel.lines]
    x_y = np.array([(row["x"], row["y"]) for row in mine])
    assert any(d.shape == x_y.shape and (d == x_y).all() for d in drawn)


def test_results_are_of_finished_seeds_of_the_same_settings(finished, short):
    both = [finished / "seed_0", finished / "seed_1"]
    assert complete(finished, ("smac", "control"), short) == both
    assert complete(finished, ("smac", "test_scenes"), short) == []
    assert complete(finished, ("smac",), short, compares_contexts=True) == both
    assert complete(finished, ("control",), short, compares_contexts=True) == []
    other = override_config(short, ["updates.kl_weight=1"])
    assert complete(finished, ("smac",), other) == []
    reasons = left_out(finished, ("smac",), other)
    assert reasons["seed_1"] == f"it has updates.kl_weight {short.updates.kl_weight}, not 1.0"


def test_what_a_seed_lacks_or_others_have_changed_in_it(finished, short, tmp_path, monkeypatch):
    base = tmp_path / "base"
    shutil.copytree(finished, base)
    first = Pipeline(base / "seed_0", short, 0, METHODS_RUN, quiet=True)
    # an option that came after the scores
    scores = json.loads((base / "seed_0/scores.json").read_text())
    del scores["config"]["updates"]["actor"]
    (base / "seed_0/scores.json").write_text(json.dumps(scores))
    assert complete(base, METHODS_RUN, short) == [base / "seed_0", base / "seed_1"]
    # who looks again adds a command and is not taken for who made the runs
    run = base / "seed_0/smac/run.json"
    run.write_text(json.dumps(json.loads(run.read_text()) | {"commit": "0123"}))
    monkeypatch.setattr(pipeline, "command", lambda: "smac again")
    looked = first.scores()
    assert looked["commands"] == [*scores["commands"], "smac again"]
    assert looked["stages"]["smac"]["commits"] == ["0123"]
    assert looked["stages"] | {"smac": None} == scores["stages"] | {"smac": None}
    write_results("fig5", ("smac",), base, short, tmp_path / "out")
    made = json.loads((tmp_path / "out/experiment.json").read_text())
    assert "0123" in made["commits"]["smac"] and len(made["commits"]["smac"]) == 2
    assert {"offline data", "smac/control", "smac/evaluations"} <= made["commits"].keys()
    # a phase that has not been evaluated as often as it was to be
    metrics = base / "seed_1/smac/control/metrics.csv"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(line for line in lines if not line.startswith("control,0,")))
    with pytest.raises(InputError, match="control/metrics.csv: .* found 1; expected 0, 1"):
        write_results("fig5", ("smac",), base, short, tmp_path / "out")
    # one that is not finished is not drawn
    for name in ("scores.json", "smac/control/metrics.csv"):
        shutil.copy(finished / "seed_1" / name, base / "seed_1" / name)
    second = json.loads((base / "seed_1/scores.json").read_text())
    del second["rows"]["control"]
    (base / "seed_1/scores.json").write_text(json.dumps(second))
    write_results("fig5", ("smac",), base, short, tmp_path / "out")
    drawn = {row["method"] for row in rows_of(tmp_path / "out/fig5.csv")}
    assert drawn == {"smac", "actor_ablation", "data", "meta_bc"}
    # an evaluation that somebody has repeated otherwise
    job = EvaluationJob("smac")
    assert not first.missing(job)
    path = base / "seed_0/smac/evaluations/self_supervised_test_online.json"
    kept = json.loads(path.read_text())
    for change in ({"evaluation_seed": 5}, {"protocol": kept["protocol"] | {"repeats": 2}}):
        path.write_text(json.dumps(kept | change))
        assert first.missing(job)
        assert "evaluated otherwise" in left_out(base, (), short)["seed_0"]
    sampled = ("evaluation.deterministic_exploration=false",)
    assert not first.missing(EvaluationJob("smac", "test", "offline", sampled)), "explores nothing"
    assert not first.missing(EvaluationJob("smac", "test", "online", sampled))
    del kept["protocol"]["deterministic_exploration"]  # there was no such option
    path.write_text(json.dumps(kept))
    assert not first.missing(job)
