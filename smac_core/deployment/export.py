"""``smac export --onnx``: the networks of a run as ONNX files that compute what PyTorch does."""

import hashlib
import json
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smac_core import __version__, checkpoint
from smac_core.agents.context import LARGEST_STANDARDIZED, Agent
from smac_core.config import Config
from smac_core.deployment.exported import (
    DESCRIPTION,
    PARTS,
    Description,
    ExportedAgent,
    File,
    Latent,
    Maker,
    Origin,
    StandardizationNumbers,
    open_session,
)
from smac_core.deployment.hub import hub_phase
from smac_core.deployment.new_folder import new_folder
from smac_core.errors import InputError
from smac_core.installation import require
from smac_core.provenance import command, git_revision
from smac_core.training.run import identity, load_context_agent

OPSET = 17
# Largest difference allowed between an output and PyTorch's, relative to 1 + its size: what sums of
# hundreds of products in another order may differ by where inputs are far out. Of 242 runs the
# worst differed by 3e-4, the shipped one differs by 6e-6; a wrong graph is far beyond.
TOLERANCE = 1e-3
SATURATED = 1e6  # deviations: a reading that the standardiser cuts off, where it does
ROWS = (1, 2, 7, 64, 1000)  # of an input; contexts of all these lengths


class _Policy(nn.Module):
    inputs, outputs = ("observation", "z", "noise"), ("action",)

    def __init__(self, agent: Agent):
        super().__init__()
        self.agent = agent

    def forward(self, observation: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        distribution = self.agent.policy(self.agent.standardizer(observation), z)
        return distribution.unsquashed(noise).tanh()


class _Encoder(nn.Module):
    inputs, outputs = ("observations", "actions", "rewards"), ("mean", "precision")

    def __init__(self, agent: Agent):
        super().__init__()
        self.agent = agent

    def forward(
        self, observations: Tensor, actions: Tensor, rewards: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = [self.agent.standardizer(observations), actions, rewards.unsqueeze(-1)]
        return self.agent.encoder.factors(torch.cat(rows, -1))


class _Decoder(nn.Module):
    inputs, outputs = ("observations", "actions", "z"), ("rewards",)

    def __init__(self, agent: Agent):
        super().__init__()
        self.agent = agent

    def forward(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        return self.agent.decoder(self.agent.standardizer(observations), actions, z)


MODULES = dict(zip(PARTS, (_Policy, _Encoder, _Decoder), strict=True))


def export_onnx(run: Path, phase: str, out: Path, *, overwrite: bool = False) -> Description:
    """Write a phase's networks to a new folder (see ``exported``), compared with PyTorch's.

    Raises:
        InputError: the run's agent does not infer z from a context; ``out`` is taken; onnx or
            onnxruntime is not installed; a file computes something else than PyTorch.
        CheckpointError: the phase has no usable checkpoint.
    """
    agent, config, state = load_context_agent(run, phase)
    origin = _origin(run, phase, state)
    return export_agent(agent, config, origin, state["contract"], out, overwrite=overwrite)


def export_agent(
    agent: Agent,
    config: Config,
    origin: Origin,
    contract: str | None,
    out: Path,
    *,
    overwrite: bool = False,
) -> Description:
    """The same of an agent in memory, on the CPU; errors as ``export_onnx``."""
    for package in ("onnx", "onnxruntime"):
        require(package, "smac export --onnx")
    agent.requires_grad_(False)
    networks, usual = config.networks, config.evaluation
    standardizer = agent.standardizer
    largest = float(standardizer.largest)
    with new_folder(out, DESCRIPTION, overwrite=overwrite) as folder:
        description = Description(
            run=origin,
            made_by=Maker(command=command(), commit=git_revision(), versions=_versions()),
            domain=config.domain,
            environment=config.environment,
            config=config.model_dump(mode="json"),
            contract=contract,
            observation_dim=agent.observation_dim,
            action_dim=agent.action_dim,
            latent=Latent(
                dim=agent.latent_dim,
                prior_factor=networks.encoder_prior_factor,
                scale=networks.encoder_scale,
                exploration=usual.exploration_latent,
                deterministic_exploration=usual.deterministic_exploration,
                posterior=usual.posterior_latent,
            ),
            standardization=StandardizationNumbers(
                mean=standardizer.mean.tolist(),
                deviation=standardizer.deviation.tolist(),
                largest=largest if np.isfinite(largest) else None,
            ),
            **{part: _write(folder, part, MODULES[part](agent)) for part in PARTS},
        )
        (folder / DESCRIPTION).write_text(description.model_dump_json(indent=1) + "\n")
        _check_posterior(agent, ExportedAgent(folder))
    return description


def _origin(run: Path, phase: str, state: dict[str, Any]) -> Origin:
    if hub_phase(run):
        name, number, digest = state["run"]["name"], state["run"]["id"], state["model_sha256"]
    else:
        folder = checkpoint.find(run / phase / "checkpoints")
        told = json.loads((folder / checkpoint.STATE).read_text())
        if (now := told["state"]["step"]) != state["step"]:
            expected = f"{state['step']}: training went on meanwhile; export again"
            raise InputError(folder, "step", now, expected)
        digest = told["weights_sha256"]
        name, number = run.resolve().name, identity(run)
    return Origin(
        name=name,
        id=number,
        algorithm=state["algorithm"],
        phase=phase,
        step=state["step"],
        seed=state["seed"],
        command=state["command"],
        commit=state["commit"],
        dataset=state["dataset"] and state["dataset"]["fingerprint"],
        weights_sha256=digest,
    )


def _versions() -> dict[str, str]:
    import onnx
    import onnxruntime

    found = {"torch": torch, "onnx": onnx, "onnxruntime": onnxruntime, "numpy": np}
    versions = {name: module.__version__ for name, module in found.items()}
    return {"smac_ros": __version__, "python": platform.python_version()} | versions


def _write(folder: Path, part: str, module: nn.Module) -> File:
    """One ONNX file of a module whose inputs have rows in front."""
    import onnx

    path = folder / f"{part}.onnx"
    example = next(_inputs(module.agent, part))
    names = (*module.inputs, *module.outputs)
    with warnings.catch_warnings():
        # The exporter that needs no onnxscript is called legacy, and says so at every step.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(map(torch.from_numpy, example.values())),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(module.inputs),
            output_names=list(module.outputs),
            dynamic_axes={name: {0: "rows"} for name in names},
        )
    onnx.checker.check_model(str(path), full_check=True)
    content = path.read_bytes()
    session = open_session(content)
    found = session.run(list(module.outputs), example)
    differences = _compare(part, module, session)
    for name, largest in differences.items():
        if not largest <= TOLERANCE:  # also NaN
            expected = f"at most {TOLERANCE:g} from PyTorch's: it would act otherwise"
            raise InputError(path.name, name, f"a difference of {largest:g}", expected)
    return File(
        file=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        inputs={name: [-1, *array.shape[1:]] for name, array in example.items()},
        outputs={
            name: [-1, *array.shape[1:]] for name, array in zip(module.outputs, found, strict=True)
        },
        differences=differences,
        tolerance=TOLERANCE,
    )


def _compare(part: str, module: nn.Module, session: Any) -> dict[str, float]:
    """The largest difference of each output from the module's, relative to 1 + its size."""
    largest = dict.fromkeys(module.outputs, 0.0)
    for inputs in _inputs(module.agent, part):
        with torch.no_grad():
            expected = module(*map(torch.from_numpy, inputs.values()))
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(list(module.outputs), inputs)
        for name, mine, right in zip(module.outputs, found, expected, strict=True):
            largest[name] = max(largest[name], difference(mine, right.numpy()))
    return largest


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest |found - expected| / (1 + |expected|); NaN where one of them is."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float((np.abs(found - expected) / (1 + np.abs(expected))).max())


def _inputs(agent: Agent, part: str) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of each of ROWS: typical, far outside the data, all zero, rows that are all equal."""
    rng = np.random.default_rng(0)
    mean, deviation = agent.standardizer.mean.numpy(), agent.standardizer.deviation.numpy()
    cut = bool(torch.isfinite(agent.standardizer.largest))
    saturated = SATURATED if cut else LARGEST_STANDARDIZED
    sizes = {"actions": agent.action_dim, "z": agent.latent_dim, "noise": agent.action_dim}
    for rows in ROWS:
        for kind in ("typical", "saturated", "zero", "equal"):
            far = {"typical": 1.0, "saturated": saturated, "zero": 0.0, "equal": 1.0}[kind]
            inputs = {}
            for name in MODULES[part].inputs:
                if name in ("observation", "observations"):
                    values = mean + far * deviation * rng.normal(size=(rows, len(mean)))
                elif name == "rewards":
                    values = min(far, 1e3) * rng.normal(size=rows)
                elif name == "actions":
                    values = np.clip(far * rng.normal(size=(rows, sizes[name])), -1, 1)
                else:  # standard normal, and as far out as it will ever be drawn
                    values = min(far, 6) * rng.normal(size=(rows, sizes[name])).clip(-1.5, 1.5)
                if kind == "equal":
                    values = np.repeat(values[:1], rows, 0)
                inputs[name] = values.astype(np.float32)
            yield inputs


def _check_posterior(agent: Agent, exported: ExportedAgent) -> None:
    """Raise InputError unless contexts of all lengths give the posteriors of ``Agent.infer``."""
    for rows in _inputs(agent, "encoder"):
        expected = agent.infer(*(torch.from_numpy(part)[None] for part in rows.values()))
        for name, mine, right in zip(
            ("mean", "variance"), exported.infer(*rows.values()), expected, strict=True
        ):
            found = difference(mine, right[0].numpy())
            if not found <= TOLERANCE:
                allowed = f"at most {TOLERANCE:g} from PyTorch's"
                field = f"posterior {name} of {len(rows['rewards'])} rows"
                raise InputError("encoder.onnx", field, f"a difference of {found:g}", allowed)
