"""What every algorithm that adapts by context shares: task inference, optimisers, state."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from smac_core.agent import Agent
from smac_core.config import Config
from smac_core.data.replay import Batch, Replay
from smac_core.losses import Info, reward_loss


class Learner(ABC):
    """Trains an agent's networks by gradient steps on a replay.

    ``networks`` and ``optimizers`` name all that an exact resume needs.
    """

    def __init__(self, config: Config, agent: Agent, generator: torch.Generator):
        self.config = config
        self.settings = config.updates
        self.agent = agent
        self.generator = generator
        self.networks: dict[str, nn.Module] = {"agent": agent}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.inference_optimizer = self.optimizer(
            "inference", [*agent.encoder.parameters(), *agent.decoder.parameters()]
        )
        self.policy_optimizer = self.optimizer("policy", agent.policy.parameters())

    @abstractmethod
    def offline_update(self, replay: Replay) -> Info:
        """One gradient step of the offline phase; returns detached scalars."""

    def optimizer(self, name: str, parameters) -> torch.optim.Adam:
        """Adam (table 1), kept under ``name`` for checkpoints."""
        rate = self.settings.learning_rate
        self.optimizers[name] = torch.optim.Adam(list(parameters), lr=rate, fused=True)
        return self.optimizers[name]

    def sample(
        self,
        replay: Replay,
        history_online: Tensor | None = None,
        batch_online: Tensor | None = None,
        online_window: int | None = None,
    ) -> tuple[Tensor, Batch]:
        """A meta-batch: histories h [T, N_context, ds + da + 1] and RL batches h' of T tasks.

        The masks [T] say of which tasks h and h' come from online data alone (TaskBuffer.sample).
        """
        settings, generator = self.settings, self.generator
        tasks = replay.sample_tasks(settings.meta_batch, generator)
        context = replay.context.sample(
            tasks, settings.context_batch, generator, history_online, online_window
        )
        rows = replay.rl.sample(tasks, settings.rl_batch, generator, batch_online)
        return context, replay.layout.unpack(rows)

    def update_inference(self, context: Tensor, batch: Batch) -> tuple[Tensor, Info]:
        """Step encoder and decoder on equation (3); returns z ~ q(z | h) [T, dz], detached."""
        posterior = self.agent.encoder(context)
        z = posterior.sample(self.generator)
        loss, info = reward_loss(
            self.agent.decoder, posterior, batch, z, kl_weight=self.settings.kl_weight
        )
        step(self.inference_optimizer, loss)
        return z.detach(), info


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step on the optimiser's own parameters; others that the loss touches get no gradient."""
    optimizer.zero_grad(set_to_none=True)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    loss.backward(inputs=parameters)
    optimizer.step()
