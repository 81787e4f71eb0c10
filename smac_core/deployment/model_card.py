"""The README.md of a hub folder: YAML for the hub's search, then text and numbers for people."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from smac_core.config import Config

ALGORITHMS = {  # name, what it does, the method's paper
    "smac": (
        "SMAC",
        "meta-trained on data labelled once, able to improve by practice without rewards",
        "Pong et al., Offline Meta-Reinforcement Learning with Online Self-Supervision, 2022",
    ),
    "meta_bc": ("meta-BC", "meta-trained by imitation, a comparison", ""),
    "pearl": (
        "PEARL",
        "meta-trained online with rewards, a comparison",
        "Rakelly et al., Efficient Off-Policy Meta-RL via Probabilistic Context Variables, 2019",
    ),
    "macaw": (
        "MACAW",
        "adapts by gradient steps, a comparison",
        "Mitchell et al., Offline Meta-Reinforcement Learning with Advantage Weighting, 2021",
    ),
    "borel": (
        "BOReL",
        "carries a belief about the task from step to step, a comparison",
        "Dorfman et al., Offline Meta Reinforcement Learning, 2021",
    ),
}
BY_CONTEXT = ("smac", "meta_bc", "pearl")


class Result(NamedTuple):
    """One evaluation that the run keeps, of just these weights."""

    tasks: str
    context: str
    count: int
    repeats: int
    returns: dict[str, float | None]
    success: dict[str, float | None] | None
    command: str


def results(run: Path, phase: str, step: int) -> Iterator[Result]:
    """How the weights that a phase had after ``step`` steps adapt, by ``RUN/evaluations``."""
    for path in sorted((run / "evaluations").glob(f"{phase}_*.json")):
        told = json.loads(path.read_text())
        if told.get("phase") != phase or told.get("step") != step:
            continue  # of earlier weights, or of a phase whose name begins alike
        for source in ("online", "offline"):
            if (found := told.get(source)) is None:
                continue
            tasks, _, context = path.stem.removeprefix(f"{phase}_").partition(f"_{source}")
            yield Result(
                tasks.removeprefix("tasks-"),
                source + context,
                found["tasks"],
                found["repeats"],
                found["return"],
                found["success"] if told.get("measures_success", True) else None,
                told["command"],
            )


def model_card(
    run: Path,
    told: dict[str, Any],
    config: Config,
    parameters: int,
    license: str,
    has_contract: bool,
) -> str:
    """The card's text.

    Args:
        told: what config.json says.
        parameters: how many numbers the networks have.
        license: of the weights.
        has_contract: whether contract.yaml is there.
    """
    name, does, paper = ALGORITHMS[told["algorithm"]]
    found = list(results(run, told["phase"], told["step"]))
    title = f"{name} on {told['domain']}"
    return "\n".join(
        [
            "---",
            yaml.safe_dump(_front_matter(told, found, license, title), sort_keys=False).strip(),
            "---",
            "",
            f"# {title}",
            "",
            f"A policy for the domain `{told['domain']}`, {does}. Phase `{told['phase']}`, "
            f"{told['step']} {_steps(told['phase'])}, {parameters:,} parameters.",
            *([f"\nMethod: {paper}."] if paper else []),
            "",
            *_facts(told, config, has_contract),
            "## Results",
            "",
            *_table(found),
            "## Use",
            "",
            *_use(told, has_contract),
            "## Intended use and limits",
            "",
            *_limits(told, config),
        ]
    )


def _steps(phase: str) -> str:
    return "gradient steps" if phase == "offline" else "iterations"


def _front_matter(
    told: dict[str, Any], found: list[Result], license: str, title: str
) -> dict[str, Any]:
    reported = [
        {
            "task": {"type": "reinforcement-learning", "name": "meta-test"},
            "dataset": {
                "type": told["domain"],
                "name": f"{told['domain']}, tasks {result.tasks}, {result.context} context",
            },
            "metrics": [
                {"type": kind, "name": kind, "value": round(value["mean"], 4)}
                for kind, value in (("return", result.returns), ("success", result.success))
                if value is not None
            ],
        }
        for result in found
    ]
    content: dict[str, Any] = {
        "license": license.lower(),  # as hubs have it
        "library_name": "smac_ros",
        "pipeline_tag": "reinforcement-learning",
        "tags": [
            *("reinforcement-learning", "meta-reinforcement-learning", "robotics", "ros2"),
            *(told["algorithm"], told["domain"]),
        ],
    }
    if reported:
        content["model-index"] = [{"name": title, "results": reported}]
    return content


def _facts(told: dict[str, Any], config: Config, has_contract: bool) -> list[str]:
    environment = config.environment
    contract = "`contract.yaml`" if has_contract else "none came with the data"

    def listed(names: list[str], units: list[str]) -> str:
        return ", ".join(f"{name} ({unit})" for name, unit in zip(names, units, strict=True))

    rows = {
        "environment": f"`{environment.id}`, {environment.horizon} steps an episode, "
        f"{environment.rate:g} Hz",
        "observations": listed(environment.observation_names, environment.observation_units),
        "actions": listed(environment.action_names, environment.action_units),
        "ROS contract": contract,
        "configuration": f"scale `{config.scale}`, seed {told['seed']}; all of it in `config.json`",
        "trained by": f"`{told['command']}`",
        "code": f"commit `{told['commit']}`, "
        + ", ".join(f"{name} {version}" for name, version in told["versions"].items()),
        "data": f"fingerprint `{told['dataset']}`" if told["dataset"] else "its own practice alone",
    }
    return ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items()), ""]


def _table(found: list[Result]) -> list[str]:
    if not found:
        return ["The run kept no evaluation of these weights: `smac evaluate` makes one.", ""]

    def shown(value: dict[str, float | None] | None, scale: float, digits: int) -> str:
        if value is None:
            return "not measured"
        half = value["half_width_95"]
        around = "" if half is None else f" ± {scale * half:.{digits}f}"
        return f"{scale * value['mean']:.{digits}f}{around}"

    rows = [
        f"| {r.tasks} | {r.context} | {r.count} x {r.repeats} | {shown(r.returns, 1, 1)} "
        f"| {shown(r.success, 100, 0)} | `{r.command}` |"
        for r in found
    ]
    return [
        "The episode after adaptation: mean and 95 % half width over tasks, success in percent. "
        "Online context is the policy's own exploration, offline context is recorded data of the "
        "task.",
        "",
        "| tasks | context | tasks x repeats | return | success | command |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _use(told: dict[str, Any], has_contract: bool) -> list[str]:
    lines = ["With smac_ros installed, in this folder:", "", "```sh"]
    lines += ["smac evaluate . --tasks test"]
    if told["algorithm"] in BY_CONTEXT:
        contract = "$PWD/contract.yaml" if has_contract else "CONTRACT"
        if not has_contract:
            lines += ["# CONTRACT: a name in config/contracts, or your robot's .yaml file"]
        lines += [
            "smac export . --onnx --out onnx",
            f"ros2 run smac_ros policy_node --ros-args -p checkpoint:=$PWD -p contract:={contract}",
        ]
    lines += ["```", "", "From Python:", "", "```python"]
    lines += [
        "from pathlib import Path",
        "from smac_core.training.run import load_agent",
        "",
        f'agent, config, state = load_agent(Path("."), "{told["phase"]}")',
        "```",
        "",
    ]
    return lines


def _limits(told: dict[str, Any], config: Config) -> list[str]:
    tasks = f"`{config.tasks.train}`"
    return [
        f"Made for research on `{told['domain']}`: robots whose observations and actions are those "
        f"above, in those units, at {config.environment.rate:g} Hz, in tasks like those it was "
        f"trained on ({tasks}). Elsewhere its actions mean nothing.",
        "",
        "It knows no safety: what it commands has to pass a robot's own limits and a stop within "
        "reach (the ROS contract has limits, a watchdog and a safe command). Results are from "
        "the evaluations named in the table and from nothing else; where they are from a "
        "simulation, they say nothing about a real robot.",
        "",
    ]
