"""The paper's losses and PEARL's, one function an equation, each returning (loss, info).

Shapes: a batch has T tasks and N transitions a task; z is [T, dz], one sample a task. Randomness
comes in as standard normal noise, so a loss is a plain function of its arguments. ``info`` holds
detached scalars on the training device; nothing here copies to the host.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from smac_core.data.replay import Batch
from smac_core.networks import (
    Gaussian,
    PolicyDistribution,
    RewardDecoder,
    TanhGaussianPolicy,
    TwinQ,
    ValueFunction,
)

Info = dict[str, Tensor]
Weighting = Literal["softmax", "exponential"]


def critic_loss(
    critic: TwinQ,
    target_critic: TwinQ,
    policy: TanhGaussianPolicy,
    batch: Batch,
    z: Tensor,
    noise: Tensor,
    *,
    discount: float,
    reward_scale: float,
    entropy_coefficient: float = 0.0,
) -> tuple[Tensor, Info, Tensor]:
    """Bellman error, equation (1): E (Q(s, a, z) - (r + gamma min Q'(s', a', z)))^2, a' ~ pi.

    Both heads of the twin Q regress on the same target; rewards are scaled here and only here (as
    in the authors' code). Time limits are not terminal. ``entropy_coefficient`` alpha: with SAC's
    min Q'(s', a', z) - alpha log pi(a'|s', z). Also returns Q(s, a, z) [2, T, N], detached, for the
    actor, which needs it again.
    """
    with torch.no_grad():
        following = policy(batch.next_observations, z)
        unsquashed = following.unsquashed(noise)
        next_value = target_critic(batch.next_observations, unsquashed.tanh(), z).amin(0)
        if entropy_coefficient > 0:
            next_value = next_value - entropy_coefficient * following.log_density(unsquashed)
        target = reward_scale * batch.rewards + discount * (1 - batch.terminals) * next_value
    q = critic(batch.observations, batch.actions, z)
    loss = ((q - target) ** 2).mean((1, 2)).sum()
    q_detached = q.detach()
    info = {"critic_loss": loss.detach(), "q": q_detached.mean(), "q_target": target.mean()}
    return loss, info, q_detached


def advantage_weights(
    advantage: Tensor,
    *,
    temperature: float,
    weighting: Weighting,
    normalize: bool,
    largest: float,
) -> Tensor:
    """The weights of equation (2) for advantages of any shape.

    ``exponential``: exp(A / temperature), at most ``largest`` (paper, clipped as implementations of
    AWAC do). ``softmax``: softmax(A / temperature) over the whole batch times its size (authors'
    code: the same shape with mean 1). ``normalize`` first standardises A over the batch.
    """
    if normalize:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    scaled = advantage / temperature
    if weighting == "softmax":
        return scaled.flatten().softmax(0).view_as(scaled) * scaled.numel()
    return scaled.exp().clamp_max(largest)


def awac_actor_loss(
    distribution: PolicyDistribution,
    actions: Tensor,
    advantage: Tensor,
    *,
    weights: Callable[[Tensor], Tensor],
    action_clamp: float,
) -> tuple[Tensor, Info]:
    """AWAC actor, equation (2): -E log pi(a|s, z) w(A), A = min Q(s, a, z) - min Q(s, a~, z).

    ``distribution`` is pi(.|s, z), ``actions`` [T, N, da] are the data's, ``advantage`` [T, N] has
    no gradient; ``weights`` maps advantages to weights. (The paper's V(s', z) is a misprint for
    V(s, z), which a single a~ ~ pi(.|s, z) estimates.)
    """
    weight = weights(advantage)
    log_prob = distribution.log_prob(actions, action_clamp)
    loss = -(log_prob * weight).mean()
    info = {
        "actor_loss": loss.detach(),
        "log_prob": log_prob.detach().mean(),
        "advantage": advantage.mean(),
        "advantage_std": advantage.std(),
        "awac_weight": weight.mean(),
        # the share of the batch that the actor effectively learns from (Kish)
        "awac_effective_share": weight.sum() ** 2 / (weight**2).sum() / weight.numel(),
        "policy_std": distribution.log_std.detach().exp().mean(),
    }
    return loss, info


def cloning_actor_loss(
    distribution: PolicyDistribution, actions: Tensor, *, action_clamp: float
) -> tuple[Tensor, Info]:
    """Meta behaviour cloning (section 6): equation (2) with weight 1, -E log pi(a|s, z)."""
    loss = -distribution.log_prob(actions, action_clamp).mean()
    return loss, {
        "actor_loss": loss.detach(),
        "policy_std": distribution.log_std.detach().exp().mean(),
    }


def pearl_actor_loss(
    value: Tensor, log_density: Tensor | float, *, entropy_coefficient: float
) -> tuple[Tensor, Info]:
    """PEARL's actor term (appendix C.3): E[alpha log pi(a~|s, z) - min Q(s, a~, z)], a~ ~ pi.

    ``value`` [T, N] is min Q(s, a~, z) and ``log_density`` [T, N] that of a~, both with
    gradients to the policy. alpha = 1 is the paper's KL to exp Q / Z; 0 is the authors' code.
    """
    loss = (entropy_coefficient * log_density - value).mean()
    return loss, {"pearl_actor_loss": loss.detach()}


def soft_critic_loss(
    critic: TwinQ,
    target_value: ValueFunction,
    batch: Batch,
    z: Tensor,
    *,
    discount: float,
    reward_scale: float,
) -> tuple[Tensor, Info]:
    """PEARL's critic (oyster, `_take_step`): E (Q(s, a, z) - (r + gamma V'(s', z)))^2, both heads.

    z keeps its gradient in Q, through which the critic trains the encoder; the target has none.
    """
    with torch.no_grad():
        next_value = target_value(batch.next_observations, z)
        target = reward_scale * batch.rewards + discount * (1 - batch.terminals) * next_value
    q = critic(batch.observations, batch.actions, z)
    loss = ((q - target) ** 2).mean((1, 2)).sum()
    return loss, {
        "critic_loss": loss.detach(),
        "q": q.detach().mean(),
        "q_target": target.mean(),
    }


def soft_value_loss(
    value: Tensor, q: Tensor, log_density: Tensor, *, entropy_coefficient: float
) -> tuple[Tensor, Info]:
    """SAC's value, PEARL's too (oyster): E (V(s, z) - (min Q(s, a~, z) - alpha log pi(a~|s, z)))^2.

    All [T, N]; of a~ ~ pi. Only ``value`` has a gradient.
    """
    loss = ((value - (q - entropy_coefficient * log_density).detach()) ** 2).mean()
    return loss, {"value_loss": loss.detach(), "value": value.detach().mean()}


def policy_regularization(
    distribution: PolicyDistribution, *, weight: float
) -> tuple[Tensor, Info]:
    """Keeps PEARL's policy from saturating (oyster): weight (E mean^2 + E log_std^2)."""
    loss = weight * ((distribution.mean**2).mean() + (distribution.log_std**2).mean())
    return loss, {
        "policy_regularization": loss.detach(),
        "policy_std": distribution.log_std.detach().exp().mean(),
    }


def posterior_divergence(posterior: Gaussian, *, kl_weight: float) -> tuple[Tensor, Info]:
    """PEARL's information bottleneck (oyster): kl_weight D_KL(q(z|h) || N(0, I)), summed over T."""
    divergence = posterior.kl_from_standard_normal()
    return kl_weight * divergence.sum(), {"kl": divergence.detach().mean()}


def reward_loss(
    decoder: RewardDecoder, posterior: Gaussian, batch: Batch, z: Tensor, *, kl_weight: float
) -> tuple[Tensor, Info]:
    """Equation (3): E (r - r_decoder(s, a, z))^2 + kl_weight D_KL(q(z|h) || N(0, I)).

    The mean squared error runs over unscaled rewards of the RL batch h', the divergence is summed
    over z and averaged over tasks (authors' code; the paper sums the error over h).
    """
    error = ((batch.rewards - decoder(batch.observations, batch.actions, z)) ** 2).mean()
    divergence = posterior.kl_from_standard_normal().mean()
    loss = error + kl_weight * divergence
    return loss, {"reward_error": error.detach(), "kl": divergence.detach()}
