"""What a contract and a run's folder say, before anything starts."""

import json
from pathlib import Path
from typing import Any

from smac_core.config import config_directory
from smac_core.deployment.folders import exported_configuration
from smac_core.errors import InputError
from smac_ros.systems.specification import SHIPPED


def check_contract(name: str) -> None:
    contract_domain(name)


def contract_domain(name: str) -> str:
    from smac_ros.contract import load_contract

    return load_contract(name).domain


def run_folder(checkpoint: str) -> Path:
    shipped = config_directory().parent / "pretrained" / "sawyer"
    return shipped if checkpoint in ("", SHIPPED) else Path(checkpoint)


def is_run(checkpoint: str) -> bool:
    return (run_folder(checkpoint) / "run.json").is_file()


def check_agent(checkpoint: str, *, practises: bool = False) -> None:
    """Raise InputError unless a checkpoint is a run or, where it only acts, an export of one."""
    if is_run(checkpoint):
        return
    folder, expected = run_folder(checkpoint), "a run's folder, as smac train makes it"
    if exported_configuration(folder) is None:
        raise InputError(folder, "run.json", "no such file", f"{expected}, or an export's")
    if practises:
        expected += ": practice trains it further; with iterations:=0 an export is tested"
        raise InputError(folder, "checkpoint", "an export", expected)


def configuration(checkpoint: str) -> dict[str, Any]:
    """What a run was configured with."""
    folder = run_folder(checkpoint)
    if is_run(checkpoint):
        return json.loads((folder / "run.json").read_text())["config"]
    return exported_configuration(folder).tree
