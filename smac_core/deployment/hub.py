"""``smac export --hub-folder``: weights and what they are, in files that model hubs show.

FOLDER/model.safetensors   the agent's weights, under the names of its state_dict
FOLDER/config.json         what ``load_agent`` needs, and where the weights come from
FOLDER/contract.yaml       the ROS contract that the data came with, if they did
FOLDER/README.md           the model card, see ``model_card``

No optimiser, no replay: such a folder can act and be evaluated, not trained on.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from smac_core.deployment.new_folder import new_folder
from smac_core.errors import InputError

FORMAT = "smac-hub"
SCHEMA_VERSION = 1
CONFIG = "config.json"
MODEL = "model.safetensors"
CONTRACT = "contract.yaml"
KEPT = (  # of a checkpoint's state
    *("domain", "algorithm", "phase", "step", "seed", "observation_dim", "action_dim"),
    *("command", "commit", "versions", "config"),
)
MADE = "what smac export --hub-folder writes"


def hub_phase(folder: Path) -> str | None:
    """The phase whose weights are in a hub folder; None: it is none.

    Raises:
        InputError: there are such weights, and nothing that could be read beside them.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        content = error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        if not isinstance(phase := content.get("phase"), str) or not phase:
            raise InputError(path, "phase", phase, f"a phase: {MADE}")
        return phase
    if (folder / MODEL).is_file():
        found = content if isinstance(content, Exception) else "another's"
        raise InputError(path, "content", found, f"{MADE} beside {MODEL}")
    return None


def read_config(folder: Path) -> dict[str, Any]:
    """A hub folder's config.json.

    Raises:
        InputError: an incomplete one, or one of a newer version.
    """
    path = folder / CONFIG
    told = json.loads(path.read_text())
    if (version := told.get("schema_version")) != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        advice = ": the folder is newer than this program; update smac_ros" if newer else ""
        raise InputError(path, "schema_version", version, f"{SCHEMA_VERSION}{advice}")
    for key in (*KEPT, "run", "model_sha256", "dataset"):
        if key not in told:
            raise InputError(path, key, "nothing", MADE)
    return told


def export_hub_folder(
    run: Path, phase: str, out: Path, *, license: str, overwrite: bool = False
) -> Path:
    """Write the weights of a phase's last checkpoint to a new folder.

    Args:
        license: of the weights, an SPDX name in small letters, as hubs have it.

    Raises:
        InputError: ``out`` is taken.
        CheckpointError: the phase has no usable checkpoint.
    """
    from safetensors.torch import save_file

    from smac_core.deployment.model_card import model_card
    from smac_core.training.run import identity, load_agent

    agent, config, state = load_agent(run, phase)
    tensors = {name: tensor.contiguous() for name, tensor in agent.state_dict().items()}
    with new_folder(out, CONFIG, overwrite=overwrite) as folder:
        save_file(tensors, folder / MODEL, {"format": "pt"})
        content = {key: state[key] for key in KEPT} | {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "library": "smac_ros",
            "run": state.get("run") or {"name": run.resolve().name, "id": identity(run)},
            "dataset": state["dataset"] and state["dataset"]["fingerprint"],
            "model_sha256": hashlib.sha256((folder / MODEL).read_bytes()).hexdigest(),
        }
        (folder / CONFIG).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        if state["contract"] is not None:
            (folder / CONTRACT).write_text(state["contract"])
        parameters = sum(parameter.numel() for parameter in agent.parameters())
        card = model_card(run, content, config, parameters, license, state["contract"] is not None)
        (folder / "README.md").write_text(card)
    return out


def read_hub_folder(
    folder: Path, phase: str, device: str = "cpu"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors ("agent." before their names) and state, as ``checkpoint.load`` gives them.

    Raises:
        InputError: another phase's weights, a file missing, damaged or of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    state = read_config(folder)
    if state["phase"] != phase:
        raise InputError(folder / CONFIG, "phase", state["phase"], phase)
    path = folder / MODEL
    if not path.is_file():
        raise InputError(path, "file", "no such file", f"the weights that {CONFIG} speaks of")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != state["model_sha256"]:
        expected = f"{state['model_sha256']}, as {CONFIG} says: the file is damaged or another's"
        raise InputError(path, "sha256", digest, expected)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise InputError(path, "content", error, "a safetensors file") from None
    contract = folder / CONTRACT
    state["contract"] = contract.read_text() if contract.is_file() else None
    if state["dataset"] is not None:  # nowhere here: whoever needs it is told to say where
        state["dataset"] = {"path": "dataset.h5", "fingerprint": state["dataset"]}
    return {f"agent.{name}": tensor.to(device) for name, tensor in tensors.items()}, state
