"""The weights of a node that acts or labels; newer ones are read beside its work, not within it.

torch is loaded where it is needed: a node that runs an export does without.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from smac_core.config import Networks
from smac_core.deployment.exported import ExportedAgent
from smac_core.deployment.hub import hub_phase
from smac_core.deployment.interface import RobotController
from smac_core.deployment.onnx_controller import OnnxController
from smac_core.errors import InputError
from smac_core.installation import require
from smac_ros.contract import Contract
from smac_ros.messages import unpack_weights

if TYPE_CHECKING:
    from smac_core.agents.context import Agent

PHASES = ("self_supervised", "offline")  # of a run; the first that exists is used
CAN_BE_INFINITE = "standardizer.largest"


@dataclass(frozen=True)
class Weights:
    """An agent, ready to run, and where it comes from."""

    agent: "Agent | ExportedAgent"
    version: int  # grows within a run; 0: of a checkpoint
    run: str

    @property
    def fixed(self) -> bool:
        """Whether none can follow: an export's."""
        return isinstance(self.agent, ExportedAgent)

    def controller(self, *, exact: bool) -> RobotController:
        """A new one that runs them; ``exact``: see ``Controller``, no matter for an export."""
        if isinstance(self.agent, ExportedAgent):
            return OnnxController(self.agent)
        from smac_core.controller import Controller

        return Controller(self.agent, exact=exact)


def load_run(name: str, phase: str, contract: Contract) -> Weights:
    """The weights of a run's folder, or "shipped", that fit the contract.

    ``phase`` "": the first of PHASES that the run has.

    Raises:
        InputError: no such run or phase, a damaged one, another robot's; no torch.
    """
    if name != "shipped" and not Path(name).is_dir():
        raise InputError(name, "folder", "no such folder", "that of a run, or of an export")
    require("torch", "a run's folder; an export (smac export RUN --onnx) does without")
    from smac_core.training.run import load_context_agent, run_folder

    folder = run_folder(name, contract.domain)
    there = [phase for phase in PHASES if (folder / phase / "checkpoints").exists()]
    phase = phase or hub_phase(folder) or (there or PHASES)[0]
    agent, config, state = load_context_agent(folder, phase)
    contract.check_run(config.environment, state["contract"], folder)
    return Weights(agent.requires_grad_(False), 0, "")


def load_export(name: str, phase: str, contract: Contract) -> Weights:
    """The weights of an export's folder that fit the contract. Loads no torch.

    Raises:
        InputError: a damaged export, of another phase than ``phase`` (if not ""), another robot's.
    """
    agent = ExportedAgent(Path(name))
    told = agent.description
    if phase not in ("", told.run.phase):
        raise InputError(name, "phase", told.run.phase, f"{phase}, as the parameter phase says")
    contract.check_run(told.environment, told.contract, name)
    return Weights(agent, 0, "")


def read_weights(message: Any, contract: Contract, topic: str = "weights") -> Weights:
    """The agent in a weights message; its tensors have the names of ``Agent.state_dict``.

    Raises:
        InputError: a damaged message, an incomplete description, another domain, numbers that
            are not finite, tensors that do not fit the description.
    """
    import torch

    from smac_core.agents.context import Agent

    tensors, description = unpack_weights(message, topic)
    if not isinstance(description, dict):
        raise InputError(topic, "description", description, "a mapping")
    for key, kind in (("version", int), ("run", str), ("networks", dict)):
        if type(description.get(key)) is not kind:
            raise InputError(topic, key, repr(description.get(key)), kind.__name__)
    sizes = {"observation_dim": contract.observation_dim, "action_dim": contract.action_dim}
    for key, expected in {"domain": contract.domain, **sizes}.items():
        if (found := description.get(key, "nothing")) != expected:
            raise InputError(topic, key, found, f"{expected}, as in contract {contract.name}")
    if description.get("contract") is not None:
        contract.require_match(description["contract"], topic)
    try:
        networks = Networks.model_validate(description["networks"])
    except ValidationError as error:
        raise InputError(topic, "networks", error, "those of a configuration") from None
    with torch.device("meta"):  # no memory, no random numbers
        agent = Agent(*sizes.values(), networks)
    for name, wanted in agent.state_dict().items():
        tensor = tensors.get(name)
        found = "nothing" if tensor is None else (tuple(tensor.shape), tensor.dtype)
        if found != (expected := (tuple(wanted.shape), wanted.dtype)):
            raise InputError(topic, name, found, expected)
        fine = ~tensor.isnan() if name == CAN_BE_INFINITE else tensor.isfinite()
        if not fine.all():
            raise InputError(topic, name, "NaN or infinity", "finite numbers")
    for name in tensors.keys() - agent.state_dict().keys():
        raise InputError(topic, name, "an unknown tensor", "those of an agent")
    # Copies are aligned as PyTorch's own memory is: sums come out the same as at the sender's.
    agent.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    agent.requires_grad_(False)
    return Weights(agent.eval(), description["version"], description["run"])


class WeightsReceiver:
    """Decides which weights a node runs: ``receive`` messages, ``take`` what is ready.

    A version must be newer than the present one of the same run. Another run's versions say
    nothing about ours: its weights are taken when the node is idle, with a warning. Whatever is
    refused leaves the present weights in place.

    Args:
        contract: whose vectors the networks must fit.
        warn: told, from within ``take``, what was refused or is unusual: (what, why).
        wake: called from another thread when ``take`` has something to do.
        present: what the node runs; None before any. ``run`` "": unknown, any may follow.
    """

    def __init__(
        self,
        contract: Contract,
        warn: Callable[[str, str], None],
        wake: Callable[[], None],
        present: Weights | None = None,
    ):
        self.present = present
        self._contract, self._warn, self._wake = contract, warn, wake
        self._thread = ThreadPoolExecutor(1, "weights")
        self._ready: deque[Weights | InputError] = deque()
        self._other: Weights | None = None  # of another run, until the node is idle
        if not self._fixed:
            require("torch", "weights of a learner; an export as the checkpoint does without")

    @property
    def _fixed(self) -> bool:
        return self.present is not None and self.present.fixed

    @property
    def waiting(self) -> bool:
        """Whether ``take`` may have something to do; costs nothing."""
        return bool(self._ready) or self._other is not None

    def receive(self, message: Any) -> None:
        """Begin to read a weights message."""
        with suppress(RuntimeError):  # closed: it came too late
            self._thread.submit(self._read, message)

    def _read(self, message: Any) -> None:
        try:
            if self._fixed:
                folder = self.present.agent.folder
                expected = f"none: the export {folder} runs here, which is fixed"
                raise InputError("weights", "message", "weights of a learner", expected)
            self._ready.append(read_weights(message, self._contract))
        except InputError as error:
            self._ready.append(error)
        except Exception as error:  # bytes from outside may break a library in ways of its own
            self._ready.append(InputError("weights", "data", repr(error), "readable weights"))
        self._wake()

    def take(self, idle: bool) -> Weights | None:
        """Weights to go on with, from now on ``present``; None: those that there are.

        Args:
            idle: nothing is under way that began with the present weights.
        """
        taken = None
        while self._ready:
            weights = self._ready.popleft()
            try:
                if isinstance(weights, InputError):
                    raise weights
                present = self.present
                if present and (weights.run, weights.version) == (present.run, present.version):
                    continue  # the learner was started again
                self._check(weights)
            except InputError as error:
                self._warn("refused weights", str(error))
                continue
            if self.present and self.present.run not in ("", weights.run):
                self._other = weights
            else:
                taken = self.present = weights
        if idle and self._other is not None:
            self._warn(
                "weights of another run",
                f"weights: run {self._other.run} follows run {self.present.run}",
            )
            taken, self._other = self._other, None
            self.present = taken
        return taken

    def _check(self, weights: Weights) -> None:
        present = self.present
        if present is None:
            return
        if weights.run == present.run and weights.version <= present.version:
            expected = f"above {present.version}, the present one of run {present.run}"
            raise InputError("weights", "version", weights.version, expected)
        from smac_core.controller import check_sizes

        try:
            check_sizes(weights.agent, present.agent)
        except ValueError as error:
            raise InputError("weights", "networks", error, "the present sizes") from None

    def close(self) -> None:
        """Stop reading; what is being read is lost."""
        self._thread.shutdown(wait=True, cancel_futures=True)
