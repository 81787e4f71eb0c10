"""What every algorithm is: an agent, optimisers, and gradient steps on what was drawn.

A gradient step is cut in two: ``draw`` does all that is random, the loss is a plain function of
what was drawn. So an update can be captured as a CUDA graph, compiled, or taken for several seeds
at once, and compared with itself number for number (see smac_core.training.updates).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from smac_core.agents.interface import MetaAgent
from smac_core.config import Config
from smac_core.data.dataset import Dataset
from smac_core.losses import Info

Sample = Any  # all that is random in an update: tensors in (named) tuples
Loss = Callable[[Sample], tuple[Tensor, Info]]


class Learner(ABC):
    """Trains an agent's networks by gradient steps on a replay.

    ``networks`` and ``optimizers`` name all that an exact resume needs. A subclass has, for each
    stage that it knows, a loss ``<stage>_loss(sample)``, which gives the loss of a gradient step
    and detached scalars, and ``<stage>_draw(replay, generator)``, its meta-batch.
    """

    def __init__(self, config: Config, agent: MetaAgent, generator: torch.Generator):
        self.config = config
        self.settings = config.updates
        self.agent = agent
        self.generator = generator
        self.networks: dict[str, nn.Module] = {"agent": agent}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    @staticmethod
    @abstractmethod
    def make_agent(config: Config, observation_dim: int, action_dim: int) -> MetaAgent:
        """The agent that it trains, untrained."""

    def prepare(self, dataset: Dataset) -> None:  # noqa: B027 - most need the replay alone
        """Take what it needs of the data beside the replay; after the standardiser is fitted.

        Raises:
            InputError: the data lack what the algorithm needs.
        """

    @property
    def offline_stages(self) -> dict[str, int]:
        """The stages of the offline phase, one after the other, and how many steps each takes."""
        return {"offline": self.config.offline.steps}

    def begin_stage(self, stage: str) -> None:  # noqa: B027 - most have but one
        """Called before a stage's first step, and before its next one where a run is resumed."""

    def optimizer(
        self, name: str, parameters, learning_rate: float | None = None
    ) -> torch.optim.Adam:
        """Adam (table 1), kept under ``name`` for checkpoints; its rate: ``updates``' or given."""
        rate = self.settings.learning_rate if learning_rate is None else learning_rate
        self.optimizers[name] = adam(parameters, rate, graph=self.config.execution.graph > 0)
        return self.optimizers[name]

    def update(self, loss_of: Loss, sample: Sample) -> Info:
        """One gradient step of every network that the loss reaches."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        with self.precision():
            loss, info = loss_of(sample)
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.follow()
        return info

    def follow(self) -> None:  # noqa: B027 - most have none
        """Move the target networks, where there are any."""

    def precision(self) -> AbstractContextManager:
        """The forward pass's arithmetic, as configured."""
        if self.config.execution.precision != "bfloat16":
            return nullcontext()
        device = self.agent.device.type
        # a capture must not keep weights that were cast in it
        return torch.autocast(device, torch.bfloat16, cache_enabled=False)


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate source, all parameters in one operation."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


def adam(parameters, learning_rate: float, *, graph: bool) -> torch.optim.Adam:
    """Adam (table 1) in one operation for all parameters; ``graph``: CUDA graphs may capture it."""
    parameters = list(parameters)
    capturable = graph and parameters[0].device.type == "cuda"
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True, capturable=capturable)
