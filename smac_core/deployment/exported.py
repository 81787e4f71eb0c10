"""An export by ``smac export --onnx``: three ONNX files and what they say of themselves.

EXPORT/policy.onnx    observation [n, ds], z [n, dz], noise [n, da] -> action [n, da]
EXPORT/encoder.onnx   observations [N, ds], actions [N, da], rewards [N] -> each row's factor of the
                      posterior, a Gaussian: mean [N, dz], precision [N, dz]
EXPORT/decoder.onnx   observations [N, ds], actions [N, da], z [N, dz] -> rewards [N]
EXPORT/export.json    ``Description``

All in raw units, float32: standardisation is within the files. Without noise (zeros) the policy is
deterministic. Loads no torch.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smac_core import __version__
from smac_core.config import Environment
from smac_core.errors import InputError
from smac_core.installation import require

if TYPE_CHECKING:
    import onnxruntime

FORMAT = "smac-export"
SCHEMA_VERSION = 1
DESCRIPTION = "export.json"
PARTS = ("policy", "encoder", "decoder")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Origin(_Section):
    """Which weights these are."""

    name: str  # of the run's folder
    id: str  # of the run
    algorithm: str
    phase: str
    step: int
    seed: int
    command: str  # that trained it
    commit: str
    dataset: str | None  # its fingerprint
    weights_sha256: str  # of the file with them, a checkpoint's or a hub folder's


class Maker(_Section):
    """What exported them."""

    command: str
    commit: str
    versions: dict[str, str]


class StandardizationNumbers(_Section):
    """(observation - mean) / deviation, kept within +-largest. For information: it is done inside.

    ``largest`` null: nothing is cut off.
    """

    mean: list[float]
    deviation: list[float]
    largest: float | None


class Latent(_Section):
    """How z comes about; the prior is N(0, I) in ``dim`` dimensions.

    The posterior of N rows has the precision sum_i p_i (with ``prior_factor``: 1 + that), and the
    mean sum_i p_i m_i over its precision.
    """

    dim: int = Field(gt=0)
    prior_factor: bool
    scale: str  # what softplus gave in the encoder; done inside
    exploration: Literal["step", "trajectory"]  # as the run is evaluated
    deterministic_exploration: bool
    posterior: Literal["sample", "mean"]


class File(_Section):
    """One ONNX file; -1 in a shape: any number."""

    file: str
    sha256: str
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    # largest difference from PyTorch of each output, relative to 1 + its size, and what was allowed
    differences: dict[str, float]
    tolerance: float


class Description(_Section):
    """What is in export.json."""

    format: Literal["smac-export"] = FORMAT
    schema_version: Literal[1] = SCHEMA_VERSION
    run: Origin
    made_by: Maker
    domain: str
    environment: Environment  # names, units and rate among others
    config: dict[str, Any]  # all of the run's configuration, as smac_core.config has it
    contract: str | None  # text of the ROS contract that the data came with
    observation_dim: int = Field(gt=0)
    action_dim: int = Field(gt=0)
    latent: Latent
    standardization: StandardizationNumbers
    policy: File
    encoder: File
    decoder: File


def is_export(folder: Path) -> bool:
    """Whether a folder is an export rather than a run, or what is left of one."""
    names = (DESCRIPTION, *(f"{part}.onnx" for part in PARTS))
    return any((folder / name).is_file() for name in names)


class ExportedAgent:
    """The networks of an export, each opened when it is first needed and checked by its hash.

    May be shared between controllers: running it changes nothing in it.

    Raises:
        InputError: no export, a damaged one, or one of a newer version; no onnxruntime.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.description = read_description(folder / DESCRIPTION)
        self._runtime = require("onnxruntime", "running an export")
        self._runtime.set_default_logger_severity(3)  # else it tells of graphics cards it misses
        self.policy  # noqa: B018 - what is damaged is told before anything moves
        self.encoder  # noqa: B018

    @property
    def observation_dim(self) -> int:
        return self.description.observation_dim

    @property
    def action_dim(self) -> int:
        return self.description.action_dim

    @property
    def latent_dim(self) -> int:
        return self.description.latent.dim

    @cached_property
    def policy(self) -> onnxruntime.InferenceSession:
        return self._open("policy")

    @cached_property
    def encoder(self) -> onnxruntime.InferenceSession:
        return self._open("encoder")

    @cached_property
    def decoder(self) -> onnxruntime.InferenceSession:
        return self._open("decoder")

    def _open(self, part: str) -> onnxruntime.InferenceSession:
        told: File = getattr(self.description, part)
        path = self.folder / told.file
        if not path.is_file():
            raise InputError(path, "file", "no such file", f"the {part}, as {DESCRIPTION} says")
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != told.sha256:
            expected = f"{told.sha256}, as {DESCRIPTION} says: the file is damaged or another's"
            raise InputError(path, "sha256", digest, expected)
        try:
            return open_session(content)
        except Exception as error:  # it has a dozen kinds of its own
            made = self.description.made_by.versions.get("onnxruntime", "another")
            expected = f"what onnxruntime {self._runtime.__version__} can run; made with {made}"
            raise InputError(path, "model", str(error).strip(), expected) from None

    def infer(
        self, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of q(z | h), [dz] float32 each, of a raw history [N, ds], [N, da], [N].

        N is at least 1; the product of the rows' factors is computed in float64.
        """
        rows = {"observations": observations, "actions": actions, "rewards": rewards}
        means, precisions = (part.astype(np.float64) for part in self.encoder.run(None, rows))
        precision = precisions.sum(0) + self.description.latent.prior_factor
        mean = (precisions * means).sum(0) / precision
        return mean.astype(np.float32), (1 / precision).astype(np.float32)

    def label(self, observations: np.ndarray, actions: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Decoded rewards [N] float32 of a raw trajectory [N, ds], [N, da] and z [dz]."""
        z = np.broadcast_to(z.astype(np.float32), (len(observations), self.latent_dim))
        rows = {"observations": observations, "actions": actions, "z": np.ascontiguousarray(z)}
        return self.decoder.run(None, rows)[0]


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """A session on one thread of the CPU: networks this small are slower on more."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def read_description(path: Path) -> Description:
    """What export.json says.

    Raises:
        InputError: there is none, a damaged one, or one of a newer version.
    """
    if not path.is_file():
        raise InputError(path, "file", "no such file", "an export (`smac export RUN --onnx`)")
    try:
        return Description.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "content"
        found = "nothing" if first["type"] == "missing" else repr(first["input"])[:200]
        expected = first["msg"]
        if field == "schema_version" and isinstance(first["input"], int):
            expected = f"{SCHEMA_VERSION}: the export is newer than this program; update smac_ros"
        elif first["type"] == "extra_forbidden":
            expected = f"only what smac_ros {__version__} knows"
        raise InputError(path, field, found, expected) from None
