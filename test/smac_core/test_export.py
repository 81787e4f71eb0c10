"""smac export: what leaves is what was trained, whole, and never in another's place."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from smac_core import checkpoint
from smac_core.agents.context import Agent
from smac_core.algorithms import ALGORITHMS
from smac_core.config import load_config
from smac_core.controller import Controller
from smac_core.deployment import export as exporting
from smac_core.deployment import model_card
from smac_core.deployment.exported import ExportedAgent, Origin
from smac_core.deployment.hub import hub_phase
from smac_core.deployment.onnx_controller import OnnxController
from smac_core.errors import InputError
from smac_core.training.run import load_agent, load_context_agent, pretrained_directory, write_json

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
SHIPPED = pretrained_directory() / "sawyer"
CLOSE = 1e-5  # of an action


@pytest.fixture(scope="module")
def agent():
    agent, _, _ = load_context_agent(SHIPPED, "offline")
    return agent.requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The shipped run, exported; copy it before you change it."""
    out = tmp_path_factory.mktemp("export") / "sawyer"
    exporting.export_onnx(SHIPPED, "offline", out)
    return out


@pytest.fixture(scope="module")
def exported(folder) -> ExportedAgent:
    return ExportedAgent(folder)


def history(agent, rows: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Rows like the data's, [n, ds], [n, da], [n]."""
    rng = np.random.default_rng(seed)
    mean, deviation = agent.standardizer.mean.numpy(), agent.standardizer.deviation.numpy()
    seen = mean + deviation * rng.normal(size=(rows, agent.observation_dim))
    done = rng.uniform(-1, 1, (rows, agent.action_dim))
    paid = rng.choice([-1.0, 0.0], rows)
    return tuple(array.astype(np.float32) for array in (seen, done, paid))


def save_run(place: Path, algorithm: str = "smac") -> Path:
    """A run of untrained networks."""
    config = load_config("sawyer", "smoke")
    agent = ALGORITHMS[algorithm].make_agent(config, 13, 4)
    sizes = {"observation_dim": 13, "action_dim": 4}
    told = {"config": config.model_dump(mode="json"), "domain": "sawyer", "seed": 0, **sizes}
    told |= {"algorithm": algorithm, "phase": "offline", "step": 1, "dataset": None}
    told |= {"contract": "rate: 24\n", "command": "smac train", "commit": "unknown", "versions": {}}
    tensors = {f"agent.{name}": value for name, value in agent.state_dict().items()}
    checkpoint.save(place / "offline" / "checkpoints" / "step_00000001", tensors, told)
    write_json(place / "run.json", told | {"id": "1"})
    return place


# ONNX


def test_deterministic_actions_are_those_of_torch(agent, exported):
    mine, right = OnnxController(exported), Controller(agent)
    for controller in (mine, right):
        controller.add(*history(agent, 50))
        controller.add(*history(agent, 3, seed=1))
        controller.begin("exploit", seed=0, deterministic=True, latent="mean")
    np.testing.assert_allclose(mine.z, right.z, atol=CLOSE)
    seen, _, _ = history(agent, 200, seed=2)
    seen[::10] *= 1000  # far outside the data
    for observation in seen:
        found, expected = mine.act(observation), right.act(observation)
        np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize(
    ("mode", "latent"), [("explore", "step"), ("explore", "trajectory"), ("exploit", "sample")]
)
def test_a_drawn_z_is_what_the_policy_is_given(agent, exported, mode, latent):
    controller = OnnxController(exported)
    controller.add(*history(agent, 50))
    controller.begin(mode, seed=4, deterministic=True, latent=latent)
    latents = []
    for observation in history(agent, 20, seed=3)[0]:
        action = controller.act(observation)
        latents.append(controller.z)
        rows = torch.from_numpy(observation)[None], torch.from_numpy(controller.z)[None]
        expected = agent.act(*rows, deterministic=True)
        np.testing.assert_allclose(action, expected[0].numpy(), rtol=0, atol=CLOSE)
    assert len(np.unique(latents, axis=0)) == (20 if latent == "step" else 1)


def test_sampled_actions_are_the_policys(agent, exported):
    """Before tanh they are normal: their mean and deviation are those of torch's distribution."""
    controller = OnnxController(exported)
    controller.add(*history(agent, 50))
    controller.begin("exploit", seed=0, deterministic=False, latent="mean")
    observation = history(agent, 1, seed=5)[0][0]
    actions = np.array([controller.act(observation) for _ in range(4000)], np.float64)
    with torch.no_grad():
        standardized = agent.standardizer(torch.from_numpy(observation)[None])
        told = agent.policy(standardized, torch.from_numpy(controller.z)[None])
    deviation = told.log_std[0].exp().numpy()
    drawn = np.arctanh(actions.clip(-1 + 1e-7, 1 - 1e-7))
    inside = np.abs(told.mean[0].numpy()) + 4 * deviation < 7  # tanh keeps no digits further out
    assert inside.any()
    standard = ((drawn - told.mean[0].numpy()) / deviation)[:, inside]
    np.testing.assert_allclose(standard.mean(0), 0, atol=4 / 4000**0.5)
    np.testing.assert_allclose(standard.std(0), 1, atol=0.06)


def test_a_seed_is_an_episode(agent, exported):
    controller, (seen, _, _) = OnnxController(exported), history(agent, 5)

    def episode(seed: int) -> np.ndarray:
        controller.begin("explore", seed=seed, deterministic=False, latent="step")
        return np.array([controller.act(observation) for observation in seen])

    first = episode(1)
    assert not np.array_equal(first, episode(2))
    np.testing.assert_array_equal(first, episode(1))
    controller.begin("explore", seed=1, deterministic=True, latent="step")  # no noise is left
    quiet = controller.act(seen[0])
    rows = torch.from_numpy(seen[:1]), torch.from_numpy(controller.z)[None]
    np.testing.assert_allclose(quiet, agent.act(*rows, deterministic=True)[0], atol=CLOSE)


@pytest.mark.parametrize("rows", [1, 2, 400])
def test_the_posterior_is_that_of_torch(agent, exported, rows):
    mine, right = OnnxController(exported), Controller(agent)
    for controller in (mine, right):
        np.testing.assert_array_equal(controller.posterior[0], np.zeros((1, 5)))
        np.testing.assert_array_equal(controller.posterior[1], np.ones((1, 5)))
        controller.add(*history(agent, rows))
    for found, expected in zip(mine.posterior, right.posterior, strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    mine.forget()
    np.testing.assert_array_equal(mine.posterior.mean, np.zeros((1, 5)))


@pytest.mark.parametrize(
    ("scale", "prior_factor", "standardize"),
    [
        ("variance", False, "none"),
        ("standard_deviation", True, "deviation"),
        ("standard_deviation", False, "movement"),
    ],
)
def test_other_encoders_and_scales(tmp_path, scale, prior_factor, standardize):
    """One number of z is known to the smallest variance that there is."""
    config = load_config("sawyer", "smoke")
    changes = {"encoder_scale": scale, "encoder_prior_factor": prior_factor}
    networks = config.networks.model_copy(update=changes | {"standardize": standardize})
    config = config.model_copy(update={"networks": networks})
    torch.manual_seed(0)
    agent = Agent(13, 4, networks).requires_grad_(False)
    agent.encoder.body[-1].bias[networks.latent_dim] = -40
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(10, 20, 13)) * 0.1 + rng.normal(size=(10, 1, 13)) + 3
    agent.standardizer.fit(list(seen.astype(np.float32)), standardize)
    texts = dict.fromkeys(("name", "id", "algorithm", "phase", "command", "commit"), "made up")
    origin = Origin(**texts, step=0, seed=0, dataset=None, weights_sha256="")
    exporting.export_agent(agent, config, origin, None, tmp_path / "out")
    mine, right = OnnxController(ExportedAgent(tmp_path / "out")), Controller(agent)
    for controller in (mine, right):
        controller.add(*history(agent, 300))
        controller.begin("exploit", seed=0, deterministic=True, latent="mean")
    for found, expected in zip(mine.posterior, right.posterior, strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=CLOSE)
    assert mine.posterior.variance[0, 0] == pytest.approx(1e-7 / 300, rel=1e-3)
    for observation in history(agent, 20, seed=1)[0]:
        np.testing.assert_allclose(mine.act(observation), right.act(observation), atol=CLOSE)


def test_rewards_are_decoded_as_by_torch(agent, exported):
    (seen, done, _), z = history(agent, 30), np.linspace(-2, 2, 5, dtype=np.float32)
    expected = agent.label(*(torch.from_numpy(x)[None] for x in (seen, done, z)))
    np.testing.assert_allclose(exported.label(seen, done, z), expected[0], rtol=1e-4, atol=1e-5)


def test_bad_observations_are_refused(exported):
    controller = OnnxController(exported)
    controller.begin("explore", seed=0, deterministic=False, latent="step")
    with pytest.raises(FloatingPointError, match="not finite"):
        controller.act(np.full(13, np.nan, np.float32))
    with pytest.raises(ValueError, match=r"found shape \(12,\)"):
        controller.act(np.zeros(12, np.float32))
    with pytest.raises(ValueError, match="expected explore: step or trajectory"):
        controller.begin("explore", seed=0, deterministic=False, latent="mean")


def test_newer_weights_of_other_sizes_are_refused(exported, tmp_path):
    controller = OnnxController(exported)
    exporting.export_onnx(save_run(tmp_path / "run"), "offline", tmp_path / "other")
    other = ExportedAgent(tmp_path / "other")
    assert (other.observation_dim, other.latent_dim) == (13, 5)
    controller.swap(other)
    assert controller.agent is other
    object.__setattr__(other.description.latent, "dim", 6)  # frozen
    with pytest.raises(ValueError, match="latent_dim: found 6; expected 5"):
        OnnxController(exported).swap(other)


def test_what_an_export_says_of_itself(agent, exported):
    told = exported.description
    run = json.loads((SHIPPED / "run.json").read_text())
    assert (told.run.commit, told.run.command) == (run["commit"], run["command"])
    assert told.run.dataset == run["dataset"]["fingerprint"]
    names = run["config"]["environment"]["observation_names"]
    assert (told.environment.observation_names, told.environment.rate) == (names, 24.0)
    assert told.policy.inputs == {"observation": [-1, 13], "z": [-1, 5], "noise": [-1, 4]}
    assert told.encoder.outputs == {"mean": [-1, 5], "precision": [-1, 5]}
    scale = told.standardization
    assert scale.largest == 10.0
    torch.testing.assert_close(torch.tensor(scale.mean), agent.standardizer.mean)
    torch.testing.assert_close(torch.tensor(scale.deviation), agent.standardizer.deviation)
    assert 0 < max(told.policy.differences.values()) < 1e-5  # rounding, and something was compared


def test_a_file_that_computes_something_else_is_no_export(tmp_path, monkeypatch):
    """Rounding alone is beyond such a tolerance; a wrong graph is beyond the real one."""
    monkeypatch.setattr(exporting, "TOLERANCE", 1e-12)
    with pytest.raises(InputError, match="policy.onnx: action: found a difference"):
        exporting.export_onnx(SHIPPED, "offline", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_another_product_of_factors_is_no_export(agent, exported, monkeypatch):
    monkeypatch.setattr(agent.encoder, "prior_factor", not agent.encoder.prior_factor)
    with pytest.raises(InputError, match="posterior mean of 1 rows: found a difference"):
        exporting._check_posterior(agent, exported)


@pytest.mark.parametrize("algorithm", ["macaw", "borel"])
def test_agents_without_a_context_encoder_are_refused(tmp_path, algorithm):
    run = save_run(tmp_path / "run", algorithm)
    with pytest.raises(InputError, match=f"algorithm: found {algorithm}; expected smac, meta_bc"):
        exporting.export_onnx(run, "offline", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_exports_are_told(folder, tmp_path):
    def refused(change) -> str:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        change(copy)
        with pytest.raises(InputError) as caught:
            ExportedAgent(copy)
        return str(caught.value)

    def edit(**changes):
        def change(copy: Path) -> None:
            told = json.loads((copy / "export.json").read_text())
            (copy / "export.json").write_text(json.dumps(told | changes))

        return change

    said = refused(lambda c: (c / "policy.onnx").unlink())
    assert "policy.onnx: file: found no such file" in said
    said = refused(lambda c: (c / "encoder.onnx").write_bytes(b"no"))
    assert "encoder.onnx: sha256" in said and "damaged" in said
    assert "newer than this program" in refused(edit(schema_version=2))
    assert "wheels: found 4; expected only what smac_ros" in refused(edit(wheels=4))
    assert "observation_dim: found 'two'" in refused(edit(observation_dim="two"))
    assert "export.json: file" in refused(lambda c: (c / "export.json").unlink())
    assert "Invalid JSON" in refused(lambda c: (c / "export.json").write_text("{"))

    def other_runtime(copy: Path) -> None:  # whole, but of a kind that this runtime does not know
        (copy / "policy.onnx").write_bytes(b"no")
        told = json.loads((copy / "export.json").read_text())
        edit(policy=told["policy"] | {"sha256": hashlib.sha256(b"no").hexdigest()})(copy)

    said = refused(other_runtime)
    assert "policy.onnx: model: " in said and f"what onnxruntime {onnxruntime.__version__}" in said


# The command


def test_the_command_exports_and_overwrites_nothing_unasked(smac, smac_here, tmp_path, monkeypatch):
    out = tmp_path / "sawyer_onnx"
    done = smac("export", SHIPPED, "--onnx", "--out", out)
    assert done.stdout == f"{out}\n"
    assert "policy.onnx: largest difference from PyTorch: action " in done.stderr
    ExportedAgent(out)
    again = smac_here("export", SHIPPED, "--onnx", "--out", out, check=False)
    assert again.returncode == 2 and "or --overwrite" in again.stderr
    (out / "policy.onnx").write_bytes(b"no")
    told = json.loads(
        smac_here("export", SHIPPED, "--onnx", "--out", out, "--overwrite", "--json").stdout
    )
    assert told["policy"]["sha256"] == ExportedAgent(out).description.policy.sha256
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    monkeypatch.chdir(out)
    inside = smac_here("export", SHIPPED, "--onnx", "--out", ".", "--overwrite", check=False)
    assert inside.returncode == 2 and "the folder that you are in" in inside.stderr
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    wrong = smac_here("export", SHIPPED, "--onnx", "--out", mine, "--overwrite", check=False)
    assert wrong.returncode == 2 and "no export.json" in wrong.stderr
    assert (mine / "thesis.txt").exists()
    both = smac_here("export", SHIPPED, "--onnx", "--hub-folder", check=False)
    assert both.returncode == 2 and "one of --onnx and --hub-folder" in both.stderr


def test_without_onnx_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="pip install onnx"):
        exporting.export_onnx(SHIPPED, "offline", tmp_path / "out")


# Hub folders


def test_a_hub_folder_is_the_agent_again(smac_here, agent, tmp_path):
    out = tmp_path / "hub"
    assert smac_here("export", SHIPPED, "--hub-folder", "--out", out).stdout == f"{out}\n"
    files = {"model.safetensors", "config.json", "README.md"}
    assert {path.name for path in out.iterdir()} == files
    again, config, state = load_agent(out, "offline")
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    (seen, _, _), z = history(agent, 9), torch.ones(9, 5)
    mine, right = (a.act(torch.from_numpy(seen), z, deterministic=True) for a in (again, agent))
    torch.testing.assert_close(mine, right, rtol=0, atol=0)
    assert state["step"] == 12000 and config.domain == "sawyer"
    smac_here("export", out, "--onnx", "--out", tmp_path / "onnx")
    told = ExportedAgent(tmp_path / "onnx").description
    assert told.run.name == "sawyer" and told.run.step == 12000
    for words in (
        ("self-train", out),
        ("train", SHIPPED / "history.h5", "--out", out, "--resume"),
    ):
        wrong = smac_here(*words, check=False)
        assert wrong.returncode == 2 and "found an export without checkpoints" in wrong.stderr


def test_a_hub_folder_has_the_results_of_its_weights(trained, smac_here, tmp_path):
    run = tmp_path / "point_mass"
    shutil.copytree(trained, run)
    results = json.loads(smac_here("evaluate", run, "--workers", 0, "--json", "-q").stdout)
    stale = json.loads((run / "evaluations" / "offline_test_online.json").read_text())
    write_json(run / "evaluations" / "offline_train_online.json", stale | {"step": 1})
    out = Path(smac_here("export", run, "--hub-folder", "--license", "MIT").stdout.strip())
    assert out == run / "exports" / "offline_hub"
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["license"] == "mit" and told["library_name"] == "smac_ros"
    (reported,) = told["model-index"][0]["results"]
    mean = results["online"]["return"]["mean"]
    assert reported["metrics"][0] == {"type": "return", "name": "return", "value": round(mean, 4)}
    assert f"| test | online | 10 x {results['protocol']['repeats']} | {mean:.1f} ±" in text
    assert "| train |" not in text  # of earlier weights
    # and it evaluates to the same
    again = smac_here("evaluate", out, "--workers", 0, "--json", "-q").stdout
    assert json.loads(again)["online"] == results["online"]


def test_a_hub_folder_with_a_contract_and_damaged_ones(smac_here, tmp_path):
    assert model_card.ALGORITHMS.keys() == ALGORITHMS.keys()
    run, out = save_run(tmp_path / "run", "macaw"), tmp_path / "hub"
    smac_here("export", run, "--hub-folder", "--out", out)
    assert (out / "contract.yaml").read_text() == "rate: 24\n"
    assert load_agent(out, "offline")[2]["contract"] == "rate: 24\n"
    with pytest.raises(InputError, match="phase: found offline; expected control"):
        load_agent(out, "control")
    assert hub_phase(out) == "offline" and hub_phase(run) is None
    (out / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"model.safetensors: sha256.*damaged"):
        load_agent(out, "offline")
    again = ("export", run, "--hub-folder", "--out", out, "--overwrite")
    (out / ".git").mkdir()  # a clone of the hub's repository
    wrong = smac_here(*again, check=False)
    assert wrong.returncode == 2 and "found a git repository" in wrong.stderr
    (out / ".git").rmdir()
    mine = (out / "config.json").read_text()
    (out / "config.json").write_text('{"model_type": "bert"}')  # a model of somebody else's
    wrong = smac_here(*again, check=False)
    assert wrong.returncode == 2 and "config.json: format: found another's" in wrong.stderr
    (out / "config.json").write_text(mine)
    (out / "model.safetensors").unlink()
    with pytest.raises(InputError, match="found no such file"):
        load_agent(out, "offline")
    told = json.loads((out / "config.json").read_text())
    write_json(out / "config.json", told | {"schema_version": 2})
    with pytest.raises(InputError, match="newer than this program"):
        load_agent(out, "offline")
    (out / "model.safetensors").touch()
    (out / "config.json").unlink()
    with pytest.raises(InputError, match=r"config.json: content.*No such file"):
        hub_phase(out)


def test_the_page_shows_how_to_run_an_export(agent, folder, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "doc" / "deployment.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shutil.copytree(folder, tmp_path / "sawyer_onnx")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    controller = Controller(agent)
    controller.add(*names["history"].values())
    controller.begin("exploit", seed=0, deterministic=True, latent="mean")
    expected = controller.act(names["observation"][0])
    np.testing.assert_allclose(names["action"][0], expected, rtol=0, atol=CLOSE)
