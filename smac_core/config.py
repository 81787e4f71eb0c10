"""Typed configuration: one YAML file a domain (config/domains), three scales by name.

The top level of a domain's file is the paper's setting; ``scales`` holds what ``smoke`` and ``cpu``
change in it. Unknown keys are refused with a suggestion.
"""

import difflib
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCALES = ("smoke", "cpu", "paper")

Standardization = Literal["none", "deviation", "movement"]


class ConfigError(ValueError):
    """A configuration that cannot be used: file, key, what was found and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Environment(_Section):
    """Which Gymnasium environment, and how long an episode is."""

    id: str  # Gymnasium id, "module:namespace/Name-v0"
    horizon: int = Field(gt=0)  # steps an episode, training and evaluation (table 2)
    rate: float = Field(gt=0)  # control steps a second, Hz
    kwargs: dict[str, Any] = {}
    observation_names: list[str]
    observation_units: list[str]
    action_names: list[str]
    action_units: list[str]


class Tasks(_Section):
    """Task sets: JSON lists, each a path or "package:path inside it"."""

    train: str
    test: str


class Collection(_Section):
    """How the offline data are made (section 6)."""

    policy: str  # "module:Class" of the behaviour policy
    policy_kwargs: dict[str, Any] = {}
    trajectories: int = Field(gt=0)  # a training task
    test_trajectories: int = Field(
        gt=0
    )  # a held-out task, for evaluation from offline context only
    length: int = Field(gt=0)  # steps a trajectory


class Networks(_Section):
    latent_dim: int = Field(gt=0)
    policy_hidden: list[int]
    critic_hidden: list[int]
    encoder_hidden: list[int]
    decoder_hidden: list[int]
    encoder_scale: Literal["variance", "standard_deviation"]
    encoder_prior_factor: bool
    standardize: Standardization


class Updates(_Section):
    """One gradient step, both phases."""

    meta_batch: int = Field(gt=0)  # tasks
    rl_batch: int = Field(gt=0)  # transitions a task
    context_batch: int = Field(gt=0)  # transitions of a history
    learning_rate: float = Field(gt=0)
    discount: float = Field(ge=0, le=1)
    target_rate: float = Field(gt=0, le=1)
    reward_scale: float = Field(gt=0)
    kl_weight: float = Field(ge=0)
    awac_temperature: float = Field(gt=0)
    awac_weighting: Literal["softmax", "exponential"]
    awac_normalize: bool
    awac_largest_weight: float = Field(gt=0)
    action_clamp: float = Field(gt=0, lt=1)
    entropy_coefficient: float = Field(ge=0)


class Offline(_Section):
    steps: int = Field(gt=0)
    log_every: int = Field(gt=0)
    checkpoint_every: int = Field(gt=0)


class SelfSupervised(_Section):
    iterations: int = Field(gt=0)
    tasks_per_iteration: int = Field(gt=0)
    exploration_trajectories: int = Field(gt=0)  # a task and iteration, z ~ p(z)
    adapted_trajectories: int = Field(ge=0)  # likewise, z ~ q(z | labelled exploration)
    gradient_steps_per_transition: float = Field(gt=0)
    online_capacity: int = Field(gt=0)  # transitions kept a task
    lambda_pearl: float = Field(ge=0)
    exploration_latent: Literal["step", "trajectory"]
    deterministic_exploration: bool
    labelling_task: Literal["uniform", "same"]
    labelling_context: int = Field(gt=0)
    online_history_share: float | None = Field(ge=0, le=1)
    online_history_window: int | None = Field(None, gt=0)
    online_batch_share: float | None = Field(None, ge=0, le=1)
    freeze_context_buffer: bool
    practise_ahead: bool = False  # while updating; by a policy that is an iteration older
    evaluate_every: int = Field(gt=0)  # iterations
    checkpoint_every: int = Field(gt=0)  # iterations


class Evaluation(_Section):
    exploration_episodes: int = Field(gt=0)
    repeats: int = Field(gt=0)
    exploration_latent: Literal["step", "trajectory"]
    posterior_latent: Literal["sample", "mean"]
    train_tasks: int = Field(gt=0)  # evaluated beside all test tasks


class Execution(_Section):
    """How the arithmetic is done; the same learning by other means (doc/performance.md)."""

    # bfloat16: hidden layers only. tf32: NVIDIA GPUs only, elsewhere as float32
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    compile: bool = False  # losses through torch.compile: needs a C++ compiler, or Triton on a GPU
    graph: int = Field(8, ge=0)  # updates captured in one CUDA graph; 0: none; no effect on a CPU


class Config(_Section):
    """Everything a run depends on, save its dataset and seed."""

    domain: str
    scale: Literal["smoke", "cpu", "paper"]
    environment: Environment
    tasks: Tasks
    collection: Collection
    networks: Networks
    updates: Updates
    offline: Offline
    self_supervised: SelfSupervised
    evaluation: Evaluation
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _trajectories_fit(self) -> "Config":
        if self.self_supervised.online_capacity < self.environment.horizon:
            raise ValueError(
                f"self_supervised.online_capacity {self.self_supervised.online_capacity} holds no "
                f"trajectory of environment.horizon {self.environment.horizon} steps"
            )
        return self


def config_directory() -> Path:
    """The folder ``config``: of a source tree, an installed wheel or a colcon workspace.

    Raises:
        ConfigError: none of them has it.
    """
    for parent in Path(__file__).resolve().parents:
        for candidate in (parent / "config", parent / "share" / "smac_ros" / "config"):
            if (candidate / "domains").is_dir():
                return candidate
    raise ConfigError(f"no folder config/domains above {__file__}: the installation is incomplete")


def domains() -> list[str]:
    """Names of the domains that come with the package."""
    return sorted(path.stem for path in (config_directory() / "domains").glob("*.yaml"))


def load_config(domain: str, scale: str, overrides: list[str] = ()) -> Config:
    """A domain's configuration at a scale; ``overrides`` are "section.key=value" (value is YAML).

    ``domain`` is a name in config/domains or the path of a YAML file.

    Raises:
        ConfigError: no such domain, scale or key, or a value of the wrong type or range.
    """
    path = Path(domain)
    if path.suffix not in (".yaml", ".yml"):
        path = config_directory() / "domains" / f"{domain}.yaml"
        if not path.is_file():
            raise ConfigError(_unknown("domain", domain, domains()))
    if scale not in SCALES:
        raise ConfigError(_unknown("scale", scale, SCALES))
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, expected a mapping of sections")
    scales = tree.pop("scales", None) or {}
    for name in scales:
        if name not in SCALES:
            raise ConfigError(f"{path}: scales: {_unknown('scale', name, SCALES)}")
    tree = _merge(tree, scales.get(scale) or {})
    tree["scale"] = scale
    return parse_config(_override(tree, overrides), str(path))


def override_config(config: Config, overrides: list[str]) -> Config:
    """A copy with "section.key=value" changes; raises ConfigError as ``load_config`` does."""
    tree = config.model_dump(mode="json")
    return parse_config(_override(tree, overrides), "--set") if overrides else config


def parse_config(tree: dict[str, Any], source: str) -> Config:
    """Validate a resolved tree (of a domain's file or a run's config.json).

    Raises:
        ConfigError: with ``source``, the key, what was found and what was expected.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _override(tree: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override!r}: expected section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override!r}: the value is not YAML: {error}") from None
        tree = _merge(tree, _nest(key.strip().split("."), value))
    return tree


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "kwargs":
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _unknown(kind: str, found: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(found), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {found!r}, expected one of {', '.join(known)}{hint}"


def _explain(problem: dict[str, Any]) -> str:
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "value_error":  # ours, which names keys and values itself
        return problem["msg"].removeprefix("Value error, ")
    if problem["type"] != "extra_forbidden":
        return f"{'.'.join(location)}: {problem['msg']}, found {problem['input']!r}"
    section: type[BaseModel] = Config
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return f"{'.'.join(location)}: {_unknown('key', location[-1], list(section.model_fields))}"
