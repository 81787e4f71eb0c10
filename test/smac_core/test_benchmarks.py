"""The benchmarks, with settings that make them quick; what they measure decides nothing here."""

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from smac_core.benchmarks import environment, growth, memory


@pytest.fixture
def bench():
    """Run ``smac bench`` in this process, where torch is loaded already; its JSON."""
    from typer.testing import CliRunner

    from smac_core.cli import app

    def run(*arguments) -> dict:
        done = CliRunner().invoke(app, ["bench", *map(str, arguments), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


def test_startup_measures_every_command(bench):
    found = bench("startup", "--rounds", 1)
    results = found["results"]
    assert found["better"] == "lower" and results[found["reference"]]["ratio"] == 1
    assert {"smac --help", "smac train nosuch.h5 --out nosuch", "smac up --list"} <= set(results)
    helps = [row["median"] for name, row in results.items() if name.endswith("--help")]
    assert found["slowest"]["help"] == max(helps)


@pytest.mark.slow  # three fresh processes, two of which load torch: what it measures
def test_memory_of_fresh_processes(bench):
    found = bench("memory", "--case", "smoke", "--updates", 2)
    results = found["results"]
    assert set(results) == {"import torch", "smoke"}
    assert results["smoke"]["median"] > results["import torch"]["median"] > 50


def test_memory_of_training_is_told_part_by_part(tmp_path, capsys):
    memory.main("data", "smoke", str(tmp_path))
    memory.main("train", "smoke", str(tmp_path), "2", "1")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    parts = ("dataset", "replay", "offline", "practice", "self_supervised", "peak")
    peaks = [found[name] for name in parts]
    # the kernel counts pages in batches, a little apart from one reading to the next
    assert all(later > earlier - 1 for earlier, later in pairwise(peaks))
    settings = memory.case_config("smoke").self_supervised
    trajectories = settings.exploration_trajectories + settings.adapted_trajectories
    assert found["practised"] == settings.tasks_per_iteration * trajectories * 50


def test_the_largest_domain_has_the_papers_sizes():
    config = memory.case_config("humanoid")
    environment, collection = config.environment, config.collection
    assert (len(environment.observation_names), len(environment.action_names)) == (376, 17)
    assert collection.rl_transitions == 1200
    assert config.networks.policy_hidden == [300, 300, 300]


def test_update_reports_every_way(bench):
    found = bench("update", "--scale", "smoke", "--seconds", 0.2, "--seeds", 2)
    results = found["results"]
    ways = {f"{p}, {w}" for p in ("offline", "self_supervised") for w in ("float32", "bfloat16")}
    ways |= {f"{way}, {more}" for way in ways for more in ("2 seeds", "matrix products alone")}
    stages = ("macaw", "borel belief", "borel")
    ways |= {f"{stage}, {preset}" for stage in stages for preset in ("own", "matched")}
    assert set(results) == ways | {"reference (offline)"}
    assert results["reference (offline)"]["ratio"] == 1
    assert all(row["lowest"] <= row["median"] <= row["highest"] for row in results.values())


def test_env_compares_pools_with_one_environment(bench, domain):
    """A domain whose environment has no ``step_engine``: one environment is the reference."""
    found = bench("env", "--domain", domain, "--seconds", 0.1)
    assert found["reference"] == "one environment, steps" and found["unit"] == "1/s"
    pools = [name for name in found["results"] if name.startswith("pool of 20")]
    assert len(pools) == 3 and all(found["results"][name]["lowest"] > 0 for name in pools)


@pytest.mark.slow  # a process for each environment of two of them
def test_env_compares_a_batch_with_gymnasium_s(bench, monkeypatch):
    """Over the same robots, and with Gymnasium's own environment of the same model."""
    pytest.importorskip("mujoco")
    monkeypatch.setattr(environment, "POOL", 2)
    found = bench("env", "--domain", "hopper_params", "--seconds", 0.1)
    kinds = {"batch, 1 thread", "batch, 2 threads"}
    for kind in ("SyncVectorEnv", "AsyncVectorEnv"):
        kinds |= {f"Gymnasium's {kind}", f"Gymnasium's {kind}, Hopper-v5"}
    results = {name.replace(", steps", ""): row for name, row in found["results"].items()}
    assert kinds < results.keys() and all(row["lowest"] > 0 for row in results.values())
    assert found["reference"] == "Gymnasium's SyncVectorEnv, steps"


def test_collect_counts_transitions(bench, domain):
    found = bench("collect", "--domain", domain, "--seconds", 0.1)
    names = [f"collect, {workers}, transitions" for workers in ("1 worker", "2 workers")]
    assert list(found["results"]) == [found["reference"], *names]
    assert found["domain"] == str(domain)


def test_rollout_tells_what_the_policy_costs(bench, domain):
    quick = ("--workers", 0, "--seconds", 0.1, "--device", "cpu")
    found = bench("rollout", "--domain", domain, *quick)
    assert list(found["results"]) == ["pool alone", "rollout"]
    policy, simulation = found["share"]["policy"], found["share"]["simulation"]
    assert min(policy, simulation) > 0 and policy + simulation < 1


def test_label_counts_transitions(bench):
    found = bench("label", "--scale", "smoke", "--trajectories", 8, "--steps", 5, "--seconds", 0.1)
    assert set(found["results"]) == {found["reference"], "in a batch"}
    assert found["trajectories"] == 8 and found["unit"] == "transitions/s"


def test_growth_fits_lines_and_draws_them(bench, tmp_path):
    path = tmp_path / "growth.png"
    found = bench("growth", "--scale", "smoke", "--seconds", 0.01, "--out", path)
    assert len(found["results"]) == 2 * sum(map(len, growth.SIZES.values()))
    assert len(found["fits"]) == 2 * len(growth.SIZES)
    assert np.asarray(Image.open(path)).std() > 5


def test_a_fit_tells_a_line_from_a_parabola():
    sizes = np.array([1, 2, 4, 8])
    line = growth.fit(sizes, 3 + 0.5 * sizes)
    assert (line["a"], line["b"], line["r_squared"]) == (3, 0.5, 1) and line["linear"]
    level = growth.fit(sizes, np.array([3.0, 3.1, 2.9, 3.1]))
    assert level["linear"], "a level line is one, whatever R^2 says"
    square = growth.fit(sizes, 0.1 + sizes**2.0)
    assert not square["linear"] and square["exponent"] > 1.5
