"""Semi-supervised meta actor-critic (section 5, algorithm 1), and its ablations (figure 5).

``updates.actor`` says what trains the policy. ``awac``: equation (2), in the self-supervised phase
with lambda_pearl times PEARL's term. ``pearl`` (actor ablation): PEARL's term alone in both phases.
``sac`` (SAC ablation): likewise, with SAC's entropy in the critic's target too.
"""

from copy import deepcopy

import torch
from torch import Tensor

from smac_core.agents.context import Agent
from smac_core.algorithms.context_learner import ContextLearner, Noise, Sample
from smac_core.algorithms.learner import polyak_update
from smac_core.config import Config
from smac_core.data.replay import Batch, Replay
from smac_core.losses import (
    Info,
    advantage_weights,
    awac_actor_loss,
    critic_loss,
    pearl_actor_loss,
)
from smac_core.networks import TwinQ


class SMAC(ContextLearner):
    """Offline: actor, critic, encoder and decoder. Self-supervised: actor and critic alone."""

    def __init__(self, config: Config, agent: Agent, generator: torch.Generator):
        super().__init__(config, agent, generator)
        dims = (agent.observation_dim, agent.action_dim, agent.latent_dim)
        self.critic = TwinQ(*dims, config.networks.critic_hidden).to(agent.device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.networks |= {"critic": self.critic, "target_critic": self.target_critic}
        self.optimizer("critic", self.critic.parameters())

    def offline_loss(self, sample: Sample) -> tuple[Tensor, Info]:
        """Algorithm 1, lines 3 to 5."""
        z, inference_error, info = self.infer(sample)
        error, more = self._actor_critic_loss(sample.batch, z, sample.noise, lambda_pearl=0.0)
        return inference_error + error, info | more

    def self_supervised_draw(self, replay: Replay, generator: torch.Generator) -> Sample:
        """The meta-batch of a gradient step of the self-supervised phase."""
        phase = self.config.self_supervised
        return self.draw(
            replay,
            generator,
            self._online(phase.online_history_share, generator),
            self._online(phase.online_batch_share, generator),
            phase.online_history_window,
        )

    def self_supervised_loss(self, sample: Sample) -> tuple[Tensor, Info]:
        """Algorithm 1, lines 10 to 12; encoder and decoder stay as they are."""
        with torch.no_grad():
            posterior = self.agent.encoder(sample.context)
            z = posterior.at(sample.noise.latent)
        lambda_pearl = self.config.self_supervised.lambda_pearl
        loss, info = self._actor_critic_loss(sample.batch, z, sample.noise, lambda_pearl)
        return loss, {"kl": posterior.kl_from_standard_normal().mean()} | info

    def _online(self, share: float | None, generator: torch.Generator) -> Tensor | None:
        """Which tasks of a meta-batch draw on online data alone; None: all mix, as in the paper."""
        if share is None:
            return None
        tasks, device = self.settings.meta_batch, self.agent.device
        return torch.rand(tasks, device=device, generator=generator) < share

    def _actor_critic_loss(
        self, batch: Batch, z: Tensor, noise: Noise, lambda_pearl: float
    ) -> tuple[Tensor, Info]:
        settings, policy = self.settings, self.agent.policy
        imitates, alpha = settings.actor == "awac", settings.entropy_coefficient
        if not imitates:
            lambda_pearl = 1.0
        critic_error, info, q = critic_loss(
            self.critic,
            self.target_critic,
            policy,
            batch,
            z,
            noise.next_actions,
            discount=settings.discount,
            reward_scale=settings.reward_scale,
            entropy_coefficient=alpha if settings.actor == "sac" else 0.0,
        )
        distribution = policy(batch.observations, z)
        with torch.set_grad_enabled(lambda_pearl > 0):  # AWAC's baseline needs no gradient
            unsquashed = distribution.unsquashed(noise.actions)
            value = self.critic(batch.observations, unsquashed.tanh(), z, frozen=True).amin(0)
        actor_error = torch.zeros_like(critic_error)
        if imitates:
            actor_error, actor_info = awac_actor_loss(
                distribution,
                batch.actions,
                q.amin(0) - value.detach(),
                weights=self._weights,
                action_clamp=settings.action_clamp,
            )
            info |= actor_info
        if lambda_pearl > 0:
            log_density = distribution.log_density(unsquashed) if alpha > 0 else 0.0
            pearl_error, pearl_info = pearl_actor_loss(
                value, log_density, entropy_coefficient=alpha
            )
            actor_error = actor_error + lambda_pearl * pearl_error
            info |= pearl_info
        return critic_error + actor_error, info

    def follow(self) -> None:
        polyak_update(self.target_critic, self.critic, self.settings.target_rate)

    def _weights(self, advantage: Tensor) -> Tensor:
        settings = self.settings
        return advantage_weights(
            advantage,
            temperature=settings.awac_temperature,
            weighting=settings.awac_weighting,
            normalize=settings.awac_normalize,
            largest=settings.awac_largest_weight,
        )
