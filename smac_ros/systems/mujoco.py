"""MuJoCo robots: practice in a domain, a policy, or the robot alone."""

import difflib
import json
from typing import Any

from smac_core.config import config_directory, domains, load_config
from smac_core.errors import InputError
from smac_ros.systems.arguments import PRACTICE
from smac_ros.systems.practice import policy_spec, practice_nodes
from smac_ros.systems.runs import check_agent, check_contract, configuration, run_folder
from smac_ros.systems.specification import SHIPPED, Argument, NodeSpec

MUJOCO = (
    Argument("domain", "", "One of the MuJoCo domains, such as cheetah_velocity; empty: no tasks."),
    Argument("environment", "HalfCheetah-v5", "One of Gymnasium's, where no domain is given."),
    Argument(
        "contract",
        "",
        "A name in config/contracts, or a .yaml file; empty: the domain's, without one "
        "half_cheetah.",
    ),
    Argument(
        "checkpoint",
        "",
        "Run folder, or without practice an export's: to practise with in the domain, without one "
        "for a policy; empty: the robot alone. None is shipped.",
        kind="run",
    ),
    *PRACTICE,
)
_ALONE = ("seed", "clock", "factor", "namespace", "record")  # of PRACTICE, of a robot alone, too


def mujoco_sim(values: dict[str, Any]) -> list[NodeSpec]:
    domain, checkpoint = values["domain"], values["checkpoint"]
    contract = values["contract"] or domain or "half_cheetah"
    _refuse_unused(values)
    values = values | {"contract": contract}
    parameters = {name: values[name] for name in ("contract", "clock", "factor", "seed")}
    world = {"environment": values["environment"]}
    if domain:
        world = _world(domain, checkpoint)
    check_contract(contract)
    robot = NodeSpec("mujoco_sim_node", "mujoco_sim", parameters | world)
    if not checkpoint:
        return [robot]
    if domain:
        return practice_nodes(values, robot)
    check_agent(checkpoint)
    return [robot, policy_spec(values, "")]


def _refuse_unused(values: dict[str, Any]) -> None:
    """Raise InputError for what a MuJoCo robot's other arguments leave without effect."""
    domain, checkpoint = values["domain"], values["checkpoint"]
    if checkpoint == SHIPPED:
        expected = f"a run's folder: none is shipped for {domain or 'a MuJoCo robot'}"
        raise InputError("argument", "checkpoint", checkpoint, expected)
    unused = {}
    if not (domain and checkpoint):
        expected = "its default, as nothing practises without a domain and a checkpoint"
        unused = {argument.name: expected for argument in PRACTICE if argument.name not in _ALONE}
    if domain:
        unused["environment"] = f"its default, as {domain} has its own"
    for argument in MUJOCO:
        name = argument.name
        if name in unused and values[name] != argument.parse(argument.default):
            raise InputError("argument", name, values[name], unused[name])


def _world(domain: str, checkpoint: str) -> dict[str, str]:
    """A domain's environment, as the run has it that is to act there."""
    contracts = config_directory() / "contracts"
    known = [name for name in domains() if (contracts / f"{name}.yaml").is_file()]
    if domain not in known:
        close = difflib.get_close_matches(domain, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError("argument", "domain", repr(domain), f"one of {', '.join(known)}{hint}")
    environment = load_config(domain, "paper").environment.model_dump()
    if checkpoint:
        check_agent(checkpoint)
        config = configuration(checkpoint)
        if config["domain"] != domain:
            raise InputError(run_folder(checkpoint), "domain", repr(config["domain"]), domain)
        environment = config["environment"]
    options = environment.get("kwargs")
    return {"environment": environment["id"], "options": json.dumps(options) if options else ""}
