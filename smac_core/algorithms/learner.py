"""What every algorithm that adapts by context shares: its random draws, optimisers and steps.

A gradient step is cut in two: ``draw`` does all that is random, the loss is a plain function of
what was drawn. So an update can be captured as a CUDA graph, compiled, or taken for several seeds
at once, and compared with itself number for number (see smac_core.training.updates).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from smac_core.agent import Agent
from smac_core.config import Config
from smac_core.data.replay import Batch, Replay
from smac_core.losses import Info, reward_loss


class Noise(NamedTuple):
    """Standard normal draws of an update."""

    latent: Tensor  # [T, dz], for z
    next_actions: Tensor  # [T, N, da], for a' of equation (1)
    actions: Tensor  # [T, N, da], for a~ of equation (2)


class Sample(NamedTuple):
    """A meta-batch: all that is random in an update."""

    context: Tensor  # [T, N_context, ds + da + 1], histories h
    batch: Batch  # [T, N, ...], RL batches h'
    noise: Noise


Loss = Callable[[Sample], tuple[Tensor, Info]]


class Learner:
    """Trains an agent's networks by gradient steps on a replay.

    ``networks`` and ``optimizers`` name all that an exact resume needs. A subclass has, for each
    phase that it knows, a loss ``<phase>_loss(sample)``, which gives the loss of a gradient step
    and detached scalars, and ``<phase>_draw(replay, generator)``, its meta-batch.
    """

    def __init__(self, config: Config, agent: Agent, generator: torch.Generator):
        self.config = config
        self.settings = config.updates
        self.agent = agent
        self.generator = generator
        self.networks: dict[str, nn.Module] = {"agent": agent}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.optimizer("inference", [*agent.encoder.parameters(), *agent.decoder.parameters()])
        self.optimizer("policy", agent.policy.parameters())

    def offline_draw(self, replay: Replay, generator: torch.Generator) -> Sample:
        """The meta-batch of a gradient step of the offline phase."""
        return self.draw(replay, generator)

    def optimizer(self, name: str, parameters) -> torch.optim.Adam:
        """Adam (table 1), kept under ``name`` for checkpoints."""
        rate, graph = self.settings.learning_rate, self.config.execution.graph
        self.optimizers[name] = adam(parameters, rate, graph=graph > 0)
        return self.optimizers[name]

    def draw(
        self,
        replay: Replay,
        generator: torch.Generator,
        history_online: Tensor | None = None,
        batch_online: Tensor | None = None,
        online_window: int | None = None,
    ) -> Sample:
        """A meta-batch of T random tasks.

        The masks [T] say of which tasks h and h' come from online data alone (TaskBuffer.sample).
        """
        settings = self.settings
        tasks = replay.sample_tasks(settings.meta_batch, generator)
        context = replay.context.sample(
            tasks, settings.context_batch, generator, history_online, online_window
        )
        rows = replay.rl.sample(tasks, settings.rl_batch, generator, batch_online)
        shape = (settings.meta_batch, settings.rl_batch, self.agent.action_dim)
        noise = Noise(
            self._normal(generator, settings.meta_batch, self.agent.latent_dim),
            self._normal(generator, *shape),
            self._normal(generator, *shape),
        )
        return Sample(context, replay.layout.unpack(rows), noise)

    def _normal(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.agent.device, generator=generator)

    def infer(self, sample: Sample) -> tuple[Tensor, Tensor, Info]:
        """z ~ q(z | h) [T, dz], detached, and the loss of encoder and decoder, equation (3)."""
        posterior = self.agent.encoder(sample.context)
        z = posterior.at(sample.noise.latent)
        kl_weight = self.settings.kl_weight
        loss, info = reward_loss(
            self.agent.decoder, posterior, sample.batch, z, kl_weight=kl_weight
        )
        return z.detach(), loss, info

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
