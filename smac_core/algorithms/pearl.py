"""PEARL (Rakelly et al. 2019, after the authors' code, oyster): online meta-RL with true rewards.

Soft actor-critic with a value network, on z ~ q(z | h). Unlike SMAC's, its encoder learns from the
critic, and there is no decoder to learn.
"""

from copy import deepcopy

import torch
from torch import Tensor

from smac_core.agents.context import Agent
from smac_core.algorithms.context_learner import ContextLearner, Sample
from smac_core.algorithms.learner import polyak_update
from smac_core.config import Config, Online, config_directory, domains
from smac_core.data.replay import Replay
from smac_core.errors import InputError
from smac_core.losses import (
    Info,
    pearl_actor_loss,
    policy_regularization,
    posterior_divergence,
    soft_critic_loss,
    soft_value_loss,
)
from smac_core.networks import TwinQ, ValueFunction


def schedule(config: Config) -> Online:
    """The section ``online``.

    Raises:
        InputError: there is none; with the domain's file, where it is one of ours.
    """
    if config.online is None:
        where = config.domain
        if where in domains():
            where = config_directory() / "domains" / f"{where}.yaml"
        raise InputError(where, "online", "no such section", "PEARL's schedule")
    return config.online


class PEARL(ContextLearner):
    """Actor, critic, value and encoder, from the run's own practice.

    Batch sizes, KL weight and, where it is set, the reward scale are ``config.online``'s, the rest
    is ``config.updates``'.

    Raises:
        InputError: the configuration has no section ``online``.
    """

    def __init__(self, config: Config, agent: Agent, generator: torch.Generator):
        super().__init__(config, agent, generator)
        self.online = schedule(config)
        names = ("meta_batch", "rl_batch", "context_batch", "kl_weight")
        own = {name: getattr(self.online, name) for name in names}
        if self.online.reward_scale is not None:
            own["reward_scale"] = self.online.reward_scale
        self.settings = self.settings.model_copy(update=own)
        ds, da, dz = agent.observation_dim, agent.action_dim, agent.latent_dim
        hidden = config.networks.critic_hidden
        self.critic = TwinQ(ds, da, dz, hidden).to(agent.device)
        self.value = ValueFunction(ds, dz, hidden).to(agent.device)
        self.target_value = deepcopy(self.value).requires_grad_(False)
        self.networks |= {
            "critic": self.critic,
            "value": self.value,
            "target_value": self.target_value,
        }
        self.optimizer("inference", agent.encoder.parameters())  # without the decoder
        self.optimizer("critic", [*self.critic.parameters(), *self.value.parameters()])

    def online_draw(self, replay: Replay, generator: torch.Generator) -> Sample:
        """The meta-batch of a gradient step."""
        return self.draw(replay, generator)

    def online_loss(self, sample: Sample) -> tuple[Tensor, Info]:
        """Every network's; z has a gradient in Q(s, a, z) alone."""
        settings, batch = self.settings, sample.batch
        posterior = self.agent.encoder(sample.context)
        z = posterior.at(sample.noise.latent)
        divergence, info = posterior_divergence(posterior, kl_weight=settings.kl_weight)
        critic_error, more = soft_critic_loss(
            self.critic,
            self.target_value,
            batch,
            z,
            discount=settings.discount,
            reward_scale=settings.reward_scale,
        )
        info |= more
        z = z.detach()
        distribution = self.agent.policy(batch.observations, z)
        unsquashed = distribution.unsquashed(sample.noise.actions)
        log_density = distribution.log_density(unsquashed)
        q = self.critic(batch.observations, unsquashed.tanh(), z, frozen=True).amin(0)
        alpha, value = self.online.entropy_coefficient, self.value(batch.observations, z)
        value_error, more = soft_value_loss(value, q, log_density, entropy_coefficient=alpha)
        info |= more
        actor_error, more = pearl_actor_loss(q, log_density, entropy_coefficient=alpha)
        info |= more | {"entropy": -log_density.detach().mean()}
        regularization, more = policy_regularization(
            distribution, weight=self.online.regularization
        )
        info |= more
        return divergence + critic_error + value_error + actor_error + regularization, info

    def follow(self) -> None:
        polyak_update(self.target_value, self.value, self.settings.target_rate)
