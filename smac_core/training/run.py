"""A run: one configuration, seed and dataset (PEARL has none), its phases, and its folder.

    RUN/run.json                      what the run is, and how to make it again
    RUN/<phase>/checkpoints/          safetensors + JSON, see smac_core.checkpoint
    RUN/<phase>/metrics.csv           every metric; tensorboard/ beside it
    RUN/evaluations/                  results of ``smac evaluate``

What the phases are: smac_core.phases.
"""

import hashlib
import json
import os
import platform
import random
import secrets
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smac_core import __version__, checkpoint
from smac_core.agents.context import Agent
from smac_core.agents.interface import MetaAgent
from smac_core.algorithms import ALGORITHMS, Learner
from smac_core.checkpoint import CheckpointError, require_match
from smac_core.config import Config, override_config, parse_config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.recording import Recording
from smac_core.data.replay import Layout, Replay
from smac_core.deployment.hub import CONFIG as HUB_CONFIG
from smac_core.deployment.hub import hub_phase, read_hub_folder
from smac_core.errors import InputError
from smac_core.phases import ONLINE, PHASES, trains_on_test_tasks
from smac_core.provenance import command, git_revision
from smac_core.tasks import training_tasks

KEPT_CHECKPOINTS = 3
SHIPPED = ("", "shipped")  # what asks for the run that is shipped


@dataclass
class Run:
    """A phase in progress: everything that a checkpoint keeps."""

    directory: Path
    config: Config
    algorithm: str
    seed: int
    dataset: Dataset | None  # None: it learns from its own practice alone (PEARL)
    learner: Learner
    replay: Replay
    generator: torch.Generator  # on the training device
    choices: np.random.Generator  # on the host: which tasks to practise
    phase: str = "offline"
    step: int = 0  # updates (offline), iterations (other phases)
    iteration_updates: int = 0  # done of the iteration in progress
    practice: dict[str, float] = field(default_factory=dict)  # its scalars, until it is logged
    practising: MetaAgent | None = None  # the policy of practice ahead, while it is under way
    recording: Recording | None = None  # what becomes offline data, of a run that makes some
    counters: dict[str, int] = field(default_factory=lambda: {"updates": 0, "transitions": 0})

    @property
    def agent(self) -> MetaAgent:
        return self.learner.agent

    @property
    def folder(self) -> Path:
        """Where the present phase writes."""
        return self.directory / self.phase

    @classmethod
    def create(
        cls,
        directory: Path,
        config: Config,
        dataset: Dataset | None,
        *,
        algorithm: str,
        seed: int,
        device: str,
    ) -> "Run":
        """Start a run in a new folder; without a dataset in the phase ``online``.

        Raises:
            InputError: the folder already holds a run, or the dataset is of another domain.
        """
        if (directory / "run.json").exists():
            raise InputError(
                directory,
                "run.json",
                "an earlier run",
                "a new folder, or --resume to go on with it",
            )
        run = cls._build(directory, config, dataset, algorithm, seed, device)
        if dataset is not None:
            parts = [part for t in dataset.train for part in (t, t.context) if part is not None]
            paths = [part.observations[rows] for part in parts for rows in part.trajectories]
            run.agent.standardizer.fit(paths, config.networks.standardize)
        run._prepare_replay()
        directory.mkdir(parents=True, exist_ok=True)
        run.save()  # from here on the run can be resumed, however it ends
        write_json(directory / "run.json", run.description() | {"id": secrets.token_hex(8)})
        return run

    @classmethod
    def resume(
        cls,
        directory: Path,
        phase: str,
        *,
        device: str,
        dataset_path: Path | None = None,
        overrides: list[str] = (),
    ) -> "Run":
        """Go on from the last checkpoint of a phase, bit for bit on a CPU.

        ``overrides`` change its configuration ("section.key=value"), not the networks' sizes.

        Raises:
            CheckpointError: there is none, it is damaged, or the dataset is not the one it was
                trained on.
        """
        folder = checkpoint.find(directory / phase / "checkpoints")
        tensors, state = checkpoint.load(folder, device=device)
        before = parse_config(state["config"], str(folder / checkpoint.STATE))
        config = override_config(before, overrides)
        if config.networks != before.networks:
            expected = "none of them: a run keeps its networks; train a new one"
            raise CheckpointError(folder, "networks", "changes with --set", expected)
        dataset = None
        if state["dataset"] is not None:
            dataset = load_dataset(directory, state, dataset_path)
        run = cls._build(directory, config, dataset, state["algorithm"], state["seed"], device)
        run.phase, run.step, run.counters = phase, state["step"], state["counters"]
        run.iteration_updates = state["iteration_updates"]
        run.practice = state.get("practice", {})  # not kept by earlier versions
        load_modules(run.learner.networks, tensors, folder)
        optimizers = checkpoint.unflatten(tensors, state["optimizers"])
        for name, optimizer in run.learner.optimizers.items():
            (mine,) = optimizer.param_groups
            kept = {key: mine[key] for key in ("lr", "fused", "capturable")}
            optimizer.load_state_dict(optimizers[name])
            # as configured and as the device wants it, which both may have changed
            optimizer.param_groups[0].update(kept)
        run._prepare_replay()
        for name in ("rl", "context"):
            buffer = getattr(run.replay, name)
            rows, written = tensors[f"replay.{name}.online"], state["online_written"][name]
            if any(written):
                (key, was), (_, now) = (kept_a_task(c, dataset) for c in (before, config))
                require_match(folder, key, was, now)
            buffer.load_online_state({"online": rows}, written)
        checkpoint.set_rng_state(state["rng"], run.generators)
        if run.recording is not None:
            run.recording.load_state(tensors, state["recorded"])
        if any(name.startswith("practising.") for name in tensors):
            run.practising = deepcopy(run.agent).requires_grad_(False)
            load_modules({"practising": run.practising}, tensors, folder)
        return run

    @classmethod
    def _build(cls, directory, config, dataset, algorithm, seed, device) -> "Run":
        if dataset is not None:
            check_dataset(dataset, config)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        generator = torch.Generator(device).manual_seed(seed)
        ds, da = len(config.environment.observation_names), len(config.environment.action_names)
        agent = ALGORITHMS[algorithm].make_agent(config, ds, da).to(device)
        learner = ALGORITHMS[algorithm](config, agent, generator)
        choices = np.random.default_rng(seed)
        run = cls(directory, config, algorithm, seed, dataset, learner, None, generator, choices)
        run.phase = "offline" if dataset is not None else ONLINE
        return run

    def _prepare_replay(self) -> None:
        """The replay without what the run itself collects."""
        config, device = self.config, str(self.agent.device)
        _, capacity = kept_a_task(config, self.dataset)
        if self.dataset is not None:
            tasks = replayed_tasks(self.dataset, self.phase)
            self.replay = make_replay(self.agent, tasks, capacity, device)
            self.learner.prepare(self.dataset)
            return
        layout = Layout(self.agent.observation_dim, self.agent.action_dim)
        nothing = [torch.empty(0, layout.width) for _ in training_tasks(config)]
        self.replay = Replay(layout, nothing, capacity, device)
        if config.collection.source == "pearl":
            self.recording = Recording(config.collection, layout, self.replay.tasks)

    @property
    def generators(self) -> dict[str, Any]:
        return {"updates": self.generator, "choices": self.choices}

    def save(self) -> Path:
        """Write a checkpoint of the present phase.

        Raises:
            FloatingPointError: a network holds NaN or infinity; the last checkpoint stays.
        """
        modules = self.learner.networks
        if self.practising is not None:
            modules = modules | {"practising": self.practising}
        tensors = {
            f"{name}.{key}": value
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for name, value in tensors.items():
            if not name.endswith("standardizer.largest") and not torch.isfinite(value).all():
                raise FloatingPointError(f"{self.phase}, step {self.step}: {name} is not finite")
        states = {name: o.state_dict() for name, o in self.learner.optimizers.items()}
        more, optimizers = checkpoint.flatten(states, "optimizers")
        tensors |= more
        written = {}
        for name in ("rl", "context"):
            rows, written[name] = getattr(self.replay, name).online_state()
            tensors |= {f"replay.{name}.{key}": value for key, value in rows.items()}
        recorded = None
        if self.recording is not None:
            rows, recorded = self.recording.state()
            tensors |= rows
        state = self.description() | {
            "phase": self.phase,
            "step": self.step,
            "iteration_updates": self.iteration_updates,
            "practice": self.practice,
            "counters": self.counters,
            "optimizers": optimizers,
            "online_written": written,
            "recorded": recorded,
            "rng": checkpoint.rng_state(self.generators),
        }
        place = self.folder / "checkpoints" / f"step_{self.step:08d}"
        return checkpoint.save(place, tensors, state, keep=KEPT_CHECKPOINTS)

    def description(self) -> dict[str, Any]:
        """What the run is and where it came from, JSON-able."""
        data = None
        if self.dataset is not None:
            path = os.path.relpath(self.dataset.path, self.directory)
            data = {"path": path, "fingerprint": self.dataset.fingerprint}
        return {
            "domain": self.config.domain,
            "algorithm": self.algorithm,
            "seed": self.seed,
            "observation_dim": self.agent.observation_dim,
            "action_dim": self.agent.action_dim,
            "dataset": data,
            "contract": None if self.dataset is None else self.dataset.contract,
            "command": command(),
            "commit": git_revision(),
            "versions": {
                "smac_ros": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            "config": self.config.model_dump(mode="json"),
        }


def check_equally_far(runs: tuple[Run, ...]) -> None:
    """Raises InputError unless runs that are to train at once have taken equally many steps."""
    steps = {str(run.directory): (run.step, run.iteration_updates) for run in runs}
    if len(set(steps.values())) > 1:
        found = ", ".join(f"{folder}: {step}" for folder, (step, _) in steps.items())
        expected = "equally many; finish them one at a time"
        raise InputError("runs at once", f"steps of {runs[0].phase}", found, expected)


def check_dataset(dataset: Dataset, config: Config) -> None:
    """Whether a dataset is of the configuration's domain.

    Raises:
        InputError: of another one, of other observations or actions, or with nothing to train on.
    """
    wanted = config.environment.model_dump() | {"domain": config.domain}
    names = ["observation_names", "observation_units", "action_names", "action_units"]
    for name in ["domain", *names]:
        if getattr(dataset, name) != wanted[name]:
            raise InputError(dataset.path, name, getattr(dataset, name), wanted[name])
    if dataset.rate is not None and dataset.rate != config.environment.rate:
        raise InputError(dataset.path, "rate", f"{dataset.rate} Hz", f"{config.environment.rate}")
    if not dataset.train:
        raise InputError(dataset.path, "train", "no tasks", "at least one task to train on")


def replayed_tasks(dataset: Dataset, phase: str) -> list[TaskData]:
    """Whose data a phase learns from: the training tasks', before the held-out ones' if any.

    Raises:
        InputError: the phase trains on held-out tasks, and the dataset has no data of them.
    """
    if not trains_on_test_tasks(phase):
        return dataset.train
    if not dataset.test:
        raise InputError(dataset.path, "test", "no tasks", f"data of held-out ones, for {phase}")
    return [*dataset.train, *dataset.test]


def kept_a_task(config: Config, dataset: Dataset | None) -> tuple[str, int]:
    """How many transitions of a run's own practice a task keeps: the setting and its number."""
    if dataset is None:
        return "online.capacity", config.online.capacity
    return "self_supervised.online_capacity", config.self_supervised.online_capacity


def make_replay(
    agent: MetaAgent, tasks: list[TaskData], online_capacity: int, device: str
) -> Replay:
    """The tasks' transitions in replay buffers on the training device, standardised once."""
    layout = Layout(agent.observation_dim, agent.action_dim)

    def rows(data: TaskData) -> torch.Tensor:
        tensors = [
            torch.from_numpy(getattr(data, name)).to(device)
            for name in ("observations", "actions", "rewards", "next_observations", "terminals")
        ]
        tensors[0], tensors[3] = agent.standardizer(tensors[0]), agent.standardizer(tensors[3])
        return layout.pack(*tensors)

    context = None
    if any(task.context is not None for task in tasks):
        context = [rows(task.history) for task in tasks]
    return Replay(layout, [rows(task) for task in tasks], online_capacity, device, context)


def load_dataset(directory: Path, state: dict[str, Any], moved: Path | None = None) -> Dataset:
    """The dataset that a run was trained on, where it was then or where it has ``moved`` to.

    A part of it (``smac data subset``) will do.

    Raises:
        InputError: it is neither.
        CheckpointError: the file there holds other data.
    """
    if state["dataset"] is None:  # PEARL: any data of its domain may be looked at
        if moved is None:
            raise InputError(directory, "dataset", "none: PEARL has no data", "--dataset FILE")
        return Dataset.load(moved)
    path = moved or directory / state["dataset"]["path"]
    if not path.exists():
        expected = f"the run's dataset {state['dataset']['fingerprint']}; say where with --dataset"
        raise InputError(path, "file", "no such file", expected)
    dataset = Dataset.load(path)
    trained_on = state["dataset"]["fingerprint"]
    if dataset.subset_of != trained_on:
        require_match(path, "fingerprint", dataset.fingerprint, trained_on)
    return dataset


def copy_offline(source: Path, directory: Path, dataset_path: Path | None = None) -> None:
    """Make a run that starts where the offline phase of ``source`` is; ``source`` stays as it is.

    ``dataset_path``: the source's data, or a part of them; the copy will look for them there.

    Raises:
        InputError: ``directory`` holds a run, or there are no such data.
        CheckpointError: the source has no usable offline phase.
    """
    if (directory / "run.json").exists():
        raise InputError(directory, "run.json", "an earlier run", "a new folder")
    folder = checkpoint.find(source / "offline" / "checkpoints")
    tensors, state = checkpoint.load(folder)
    data = load_dataset(source, state, dataset_path)
    state["dataset"]["path"] = os.path.relpath(data.path, directory)
    checkpoint.save(directory / "offline" / "checkpoints" / folder.name, tensors, state)
    description = json.loads((source / "run.json").read_text())
    more = {"dataset": state["dataset"], "id": secrets.token_hex(8), "copy_of": identity(source)}
    write_json(directory / "run.json", description | more)


def identity(directory: Path) -> str:
    """What tells a run from all others, also from its copies and those of the same settings."""
    text = (directory / "run.json").read_text()
    return json.loads(text).get("id") or hashlib.sha256(text.encode()).hexdigest()[:16]


def pretrained_directory() -> Path:
    """The folder ``pretrained`` with runs to start from: of a source tree or an installation.

    Raises:
        InputError: there is none.
    """
    for parent in Path(__file__).resolve().parents:
        for candidate in (parent / "pretrained", parent / "share" / "smac_ros" / "pretrained"):
            if (candidate / "sawyer" / "run.json").is_file():
                return candidate
    raise InputError(
        "pretrained", "folder", f"none above {__file__}", "one: the installation is incomplete"
    )


def run_folder(name: str, domain: str = "sawyer") -> Path:
    """A run's folder; "" and "shipped" stand for the one of the domain that is shipped."""
    return pretrained_directory() / domain if name in SHIPPED else Path(name)


def load_agent(
    directory: Path, phase: str, *, device: str = "cpu"
) -> tuple[MetaAgent, Config, dict[str, Any]]:
    """The agent of a phase's last checkpoint (to act, not to train), its configuration and state.

    Also of a hub folder (``deployment.hub``).

    Raises:
        CheckpointError: no checkpoint, a damaged one, or sizes that do not fit the configuration.
        InputError: a damaged hub folder, or one of another phase.
    """
    place = directory / phase / "checkpoints"
    if not place.exists() and (directory / "run.json").exists():
        done = [p for p in (*PHASES, ONLINE) if (directory / p / "checkpoints").exists()]
        raise CheckpointError(place, "folder", "no such folder", f"a phase of: {', '.join(done)}")
    if hub_phase(directory):
        folder, source = directory, directory / HUB_CONFIG
        tensors, state = read_hub_folder(directory, phase, device)
    else:
        folder = checkpoint.find(place)
        source = folder / checkpoint.STATE
        tensors, state = checkpoint.load(folder, device=device)
    config = parse_config(state["config"], str(source))
    name, sizes = state.get("algorithm"), (state["observation_dim"], state["action_dim"])
    if name not in ALGORITHMS:
        raise CheckpointError(folder, "algorithm", name or "nothing", " or ".join(ALGORITHMS))
    agent = ALGORITHMS[name].make_agent(config, *sizes).to(device)
    load_modules({"agent": agent}, tensors, folder)
    return agent.eval(), config, state


def load_context_agent(
    directory: Path, phase: str, *, device: str = "cpu"
) -> tuple[Agent, Config, dict[str, Any]]:
    """``load_agent`` of a run whose agent infers z from a context.

    Raises:
        InputError: it adapts otherwise; and what ``load_agent`` raises.
    """
    agent, config, state = load_agent(directory, phase, device=device)
    if not isinstance(agent, Agent):
        found, expected = state["algorithm"], "smac, meta_bc or pearl, which infer z from a context"
        raise InputError(directory, "algorithm", found, expected)
    return agent, config, state


def load_modules(
    modules: dict[str, torch.nn.Module], tensors: dict[str, torch.Tensor], folder: Path
) -> None:
    """Fill modules from a checkpoint's tensors, all or nothing.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            found = tensors.get(f"{name}.{key}")
            shape = "missing" if found is None else tuple(found.shape)
            require_match(folder, f"{name}.{key}", shape, tuple(value.shape))
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)
