"""Semi-supervised meta actor-critic (section 5, algorithm 1)."""

from copy import deepcopy

import torch
from torch import Tensor

from smac_core.agent import Agent
from smac_core.algorithms.learner import Learner, step
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


class SMAC(Learner):
    """Offline: actor, critic, encoder and decoder. Self-supervised: actor and critic alone."""

    def __init__(self, config: Config, agent: Agent, generator: torch.Generator):
        super().__init__(config, agent, generator)
        dims = (agent.observation_dim, agent.action_dim, agent.latent_dim)
        self.critic = TwinQ(*dims, config.networks.critic_hidden).to(agent.device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.networks |= {"critic": self.critic, "target_critic": self.target_critic}
        self.critic_optimizer = self.optimizer("critic", self.critic.parameters())

    def offline_update(self, replay: Replay) -> Info:
        """Algorithm 1, lines 3 to 5."""
        context, batch = self.sample(replay)
        z, info = self.update_inference(context, batch)
        return info | self._update_actor_critic(batch, z, lambda_pearl=0.0)

    def self_supervised_update(self, replay: Replay) -> Info:
        """Algorithm 1, lines 10 to 12; encoder and decoder stay as they are."""
        phase = self.config.self_supervised
        context, batch = self.sample(
            replay,
            self._online(phase.online_history_share),
            self._online(phase.online_batch_share),
            phase.online_history_window,
        )
        with torch.no_grad():
            posterior = self.agent.encoder(context)
            z = posterior.sample(self.generator)
        info = {"kl": posterior.kl_from_standard_normal().mean()}
        return info | self._update_actor_critic(batch, z, lambda_pearl=phase.lambda_pearl)

    def _online(self, share: float | None) -> Tensor | None:
        """Which tasks of a meta-batch draw on online data alone; None: all mix, as in the paper."""
        if share is None:
            return None
        device = self.agent.device
        return torch.rand(self.settings.meta_batch, device=device, generator=self.generator) < share

    def _update_actor_critic(self, batch: Batch, z: Tensor, lambda_pearl: float) -> Info:
        settings, policy = self.settings, self.agent.policy
        critic_error, info, q = critic_loss(
            self.critic,
            self.target_critic,
            policy,
            batch,
            z,
            discount=settings.discount,
            reward_scale=settings.reward_scale,
            generator=self.generator,
        )
        actor_error, actor_info = awac_actor_loss(
            policy,
            self.critic,
            batch,
            z,
            q,
            weights=self._weights,
            action_clamp=settings.action_clamp,
            generator=self.generator,
        )
        info |= actor_info
        if lambda_pearl > 0:
            pearl_error, pearl_info = pearl_actor_loss(
                policy,
                self.critic,
                batch,
                z,
                entropy_coefficient=settings.entropy_coefficient,
                generator=self.generator,
            )
            actor_error = actor_error + lambda_pearl * pearl_error
            info |= pearl_info
        step(self.policy_optimizer, actor_error)  # first: its graph runs through the critic
        step(self.critic_optimizer, critic_error)

        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.target_critic.parameters()),
                list(self.critic.parameters()),
                settings.target_rate,
            )
        return info

    def _weights(self, advantage: Tensor) -> Tensor:
        settings = self.settings
        return advantage_weights(
            advantage,
            temperature=settings.awac_temperature,
            weighting=settings.awac_weighting,
            normalize=settings.awac_normalize,
            largest=settings.awac_largest_weight,
        )
