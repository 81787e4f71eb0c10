"""Typed configuration: one YAML file a domain (config/domains), three scales by name.

The top level of a domain's file is the paper's setting; ``scales`` holds what ``smoke`` and ``cpu``
change in it. Unknown keys are refused with a suggestion.
"""

import difflib
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

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
    measures_success: bool = True  # whether info["success"] says anything; else only returns count
    observation_names: list[str]
    observation_units: list[str]
    action_names: list[str]
    action_units: list[str]


class Tasks(_Section):
    """Task sets: JSON lists, each a path or "package:path inside it"."""

    train: str
    test: str
    train_count: int | None = Field(None, gt=0)  # the list's first; null: all
    test_count: int | None = Field(None, gt=0)


class ScriptedCollection(_Section):
    """Offline data from a behaviour policy (section 6, Sawyer)."""

    source: Literal["scripted"] = "scripted"
    policy: str  # "module:Class" of the behaviour policy
    policy_kwargs: dict[str, Any] = {}
    trajectories: int = Field(gt=0)  # a training task
    test_trajectories: int = Field(
        gt=0
    )  # a held-out task, for evaluation from offline context only
    length: int = Field(gt=0)  # steps a trajectory


class PearlCollection(_Section):
    """Offline data from the buffers of a PEARL run that is stopped early (section 6, MuJoCo).

    The run's schedule is the section ``online``.
    """

    source: Literal["pearl"] = "pearl"
    iterations: int = Field(gt=0)  # of PEARL, then it is stopped (appendix C.2: 100, Cheetah 50)
    rl_transitions: int = Field(1200, gt=0)  # a task, of its RL buffer (section 6)
    rl_part: Literal["first", "last"] = "last"  # which of them (appendix C.2; Cheetah: first)
    # a task, the last of its encoder buffer (appendix C.2); 0: histories come from the RL part
    context_transitions: int = Field(400, ge=0)
    # held-out tasks, for evaluation from offline context only: so many exploration trajectories of
    # the final agent, and as many after adapting to them
    test_trajectories: int = Field(3, gt=0)


COLLECTIONS = {"scripted": ScriptedCollection, "pearl": PearlCollection}


def _source(collection: Any) -> str | None:
    """Which of COLLECTIONS is meant; files from before there were two do not say."""
    if isinstance(collection, dict):
        return collection.get("source", "scripted")
    return getattr(collection, "source", None)


Collection = Annotated[
    Annotated[ScriptedCollection, Tag("scripted")] | Annotated[PearlCollection, Tag("pearl")],
    Discriminator(_source),
]


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
    # equation (2); PEARL's term instead (actor ablation, section 6); the same with SAC's entropy in
    # the critic's target too (SAC ablation, figure 5)
    actor: Literal["awac", "pearl", "sac"] = "awac"

    @model_validator(mode="after")
    def _sac_has_entropy(self) -> "Updates":
        if self.actor == "sac" and self.entropy_coefficient == 0:
            raise ValueError(
                "updates.entropy_coefficient: found 0, expected more, as updates.actor is sac"
            )
        return self


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


class Online(_Section):
    """PEARL with true rewards: the source of offline data, and at its end the online oracle.

    Learning rate, discount and target rate are those of ``updates``. "oyster" is
    PEARL's published code, "SMAC" the run that made SMAC's data (authors' code).
    """

    iterations: int = Field(500, gt=0)  # oyster
    initial_transitions: int = Field(2000, gt=0)  # a task, z ~ p(z), before the first; oyster
    tasks_per_iteration: int = Field(5, gt=0)  # oyster
    exploration_transitions: int = Field(400, gt=0)  # a task and iteration, z ~ p(z); oyster
    adapted_transitions: int = Field(600, ge=0)  # likewise, z ~ q(z | h), RL buffer only; oyster
    gradient_steps: int = Field(16000, gt=0)  # an iteration; SMAC (oyster: 2000 or 4000)
    meta_batch: int = Field(16, gt=0)  # tasks; oyster (Walker, Hopper: 10)
    rl_batch: int = Field(256, gt=0)  # transitions a task; oyster
    context_batch: int = Field(100, gt=0)  # transitions of a history; oyster (Humanoid: 256)
    kl_weight: float = Field(0.1, ge=0)  # of the KL summed over tasks; oyster
    reward_scale: float | None = Field(None, gt=0)  # null: updates.reward_scale (oyster)
    entropy_coefficient: float = Field(1.0, gt=0)  # beside scaled rewards; oyster
    regularization: float = Field(1e-3, ge=0)  # of mean^2 and log_std^2 of the policy; oyster
    capacity: int = Field(100_000, gt=0)  # transitions kept a task; ours, never full in 500
    evaluate_every: int = Field(10, gt=0)  # iterations; ours
    checkpoint_every: int = Field(5, gt=0)  # iterations; ours


class Macaw(_Section):
    """MACAW (Mitchell et al. 2021): the authors' code's settings, save for the number of steps.

    Discount: ``updates``'. Rewards are not scaled, returns are standardised. Preset ``matched``
    (smac_core.presets): SMAC's sizes.
    """

    steps: int = Field(50_000, gt=0)  # SMAC's (appendix C.3)
    hidden: list[int] = [100, 100, 100]  # of policy and value function
    layer_latent: int = Field(100, ge=0)  # numbers that make a layer's weights; 0: plain layers
    policy_deviation: float = Field(0.2, gt=0)  # of the normal around tanh mu(s)
    head_hidden: list[int] = [32]  # of the advantage head
    head_coefficient: float = Field(0.01, gt=0)  # c, learned from here
    temperature: float = Field(1.0, gt=0)  # T of the advantage weights
    largest_weight: float = Field(20.0, gt=1)
    inner_steps: int = Field(1, gt=0)  # in training and at meta-test time
    inner_learning_rate: float = Field(1e-3, gt=0)  # where each tensor's own begins
    rate_learning_rate: float = Field(1e-3, gt=0)  # Adam, of these
    policy_learning_rate: float = Field(1e-4, gt=0)  # Adam, outer
    value_learning_rate: float = Field(1e-5, gt=0)  # likewise
    target_rate: float = Field(0.1, gt=0, le=1)  # of the value function's running average
    meta_batch: int = Field(5, gt=0)  # tasks
    inner_batch: int = Field(256, gt=0)  # transitions of a task, in time order
    outer_batch: int = Field(256, gt=0)  # likewise, at random


class Borel(_Section):
    """BOReL (Dorfman et al. 2021): the authors' code's settings, save for the number of steps.

    Preset ``matched``: SMAC's sizes, learning rate and batches. Rewards are scaled by
    ``updates.reward_scale`` in SAC's targets.
    """

    belief_steps: int = Field(10_000, gt=0)  # of the belief VAE, before SAC's
    steps: int = Field(50_000, gt=0)  # of SAC (appendix C.3: SMAC's)
    latent_dim: int = Field(5, gt=0)  # of the belief: mean and log-variance
    hidden_state: int = Field(128, gt=0)  # of the GRU
    observation_embedding: int = Field(32, gt=0)
    action_embedding: int = Field(16, gt=0)
    reward_embedding: int = Field(16, gt=0)
    decoder_hidden: list[int] = Field([32, 32], min_length=1)
    kl_weight: float = Field(0.05, ge=0)  # of KL(q_t || q_{t-1})
    belief_learning_rate: float = Field(3e-4, gt=0)
    belief_tasks: int = Field(4, gt=0)  # of a gradient step
    belief_rollouts: int = Field(8, gt=0)  # of each of them
    rollout_episodes: int = Field(2, gt=0)  # of a rollout: the belief lives as long
    # of a rollout's posteriors, those drawn to reconstruct its rewards; null: all, which for two
    # episodes of 200 steps are 160,000 pairs a rollout. Unbiased; ours, the authors' code takes all
    belief_posteriors: int | None = Field(32, gt=0)
    # random orders in which a task's trajectories become the rollouts that SAC learns from; each
    # shows every trajectory once in each place
    augmented_orders: int = Field(1, gt=0)
    hidden: list[int] = [256, 256]  # actor and critic
    learning_rate: float = Field(3e-4, gt=0)
    entropy_coefficient: float = Field(0.2, ge=0)
    target_rate: float = Field(0.005, gt=0, le=1)
    meta_batch: int = Field(16, gt=0)  # tasks
    rl_batch: int = Field(256, gt=0)  # transitions a task
    # reward relabelling: "module:function" that gives a task's rewards [N] for (observations,
    # actions, next_observations, task); null: off, as in the comparison, which does not know it
    reward_function: str | None = None


class Evaluation(_Section):
    exploration_episodes: int = Field(gt=0)
    repeats: int = Field(gt=0)
    exploration_latent: Literal["step", "trajectory"]
    posterior_latent: Literal["sample", "mean"]
    deterministic_exploration: bool = True  # code
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
    online: Online | None = None  # null: a domain without PEARL
    macaw: Macaw = Macaw()
    borel: Borel = Borel()
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _trajectories_fit(self) -> "Config":
        if self.self_supervised.online_capacity < self.environment.horizon:
            raise ValueError(
                f"self_supervised.online_capacity {self.self_supervised.online_capacity} holds no "
                f"trajectory of environment.horizon {self.environment.horizon} steps"
            )
        if self.online and self.online.capacity < self.environment.horizon:
            raise ValueError(
                f"online.capacity {self.online.capacity} holds no trajectory of "
                f"environment.horizon {self.environment.horizon} steps"
            )
        if self.collection.source == "pearl":
            self._pearl_gives_the_data(self.collection)
        return self

    def _pearl_gives_the_data(self, collection: PearlCollection) -> None:
        online = self.online
        if online is None:
            raise ValueError("online: not there, expected PEARL's schedule, as source is pearl")
        if collection.iterations > online.iterations:
            raise ValueError(
                f"collection.iterations {collection.iterations} is beyond online.iterations "
                f"{online.iterations}, where PEARL ends"
            )
        if collection.rl_transitions < self.environment.horizon:
            raise ValueError(
                f"collection.rl_transitions {collection.rl_transitions} holds no trajectory of "
                f"environment.horizon {self.environment.horizon} steps"
            )
        iterations = collection.iterations
        explored = online.initial_transitions + iterations * online.exploration_transitions
        practised = explored + iterations * online.adapted_transitions
        for name, most in (("rl_transitions", practised), ("context_transitions", explored)):
            if getattr(collection, name) > most:
                raise ValueError(
                    f"collection.{name} {getattr(collection, name)} is more than the {most} that "
                    "PEARL has of a task by then, were it drawn in every iteration"
                )


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


def differing(
    found: dict[str, Any], asked: dict[str, Any], section: str = ""
) -> list[tuple[str, Any, Any]]:
    """Dotted key, found and asked value of all that differs in two trees; None where it is not."""
    pairs = []
    for key in found | asked:
        values = found.get(key), asked.get(key)
        if all(isinstance(value, dict) for value in values):
            pairs += differing(*values, f"{section}{key}.")
        elif values[0] != values[1]:
            pairs.append((section + key, *values))
    return pairs


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
    if problem["type"].startswith("union_tag"):
        found = problem.get("ctx", {}).get("tag", problem["input"])
        return f"{'.'.join(location)}.source: {_unknown('source', found, tuple(COLLECTIONS))}"
    tag = location.pop(1) if location[0] == "collection" and len(location) > 2 else None
    if problem["type"] != "extra_forbidden":
        return f"{'.'.join(location)}: {problem['msg']}, found {problem['input']!r}"
    section: Any = Config
    for part in location[:-1]:
        section = COLLECTIONS[tag] if tag and part == "collection" else _section(section, part)
    return f"{'.'.join(location)}: {_unknown('key', location[-1], list(section.model_fields))}"


def _section(parent: type[BaseModel], name: str) -> type[BaseModel]:
    """The type of a section, which may be one that need not be there."""
    annotation = parent.model_fields[name].annotation
    return next(kind for kind in (*get_args(annotation), annotation) if kind is not type(None))
