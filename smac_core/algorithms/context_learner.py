"""What the algorithms share that infer the task from a context: SMAC, meta-BC, PEARL."""

from typing import NamedTuple

import torch
from torch import Tensor

from smac_core.agents.context import Agent
from smac_core.algorithms.learner import Learner
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


class ContextLearner(Learner):
    """Optimisers of encoder, decoder and policy; meta-batches; equation (3)."""

    agent: Agent

    def __init__(self, config: Config, agent: Agent, generator: torch.Generator):
        super().__init__(config, agent, generator)
        self.optimizer("inference", [*agent.encoder.parameters(), *agent.decoder.parameters()])
        self.optimizer("policy", agent.policy.parameters())

    @staticmethod
    def make_agent(config: Config, observation_dim: int, action_dim: int) -> Agent:
        return Agent(observation_dim, action_dim, config.networks)

    def offline_draw(self, replay: Replay, generator: torch.Generator) -> Sample:
        """The meta-batch of a gradient step of the offline phase."""
        return self.draw(replay, generator)

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
