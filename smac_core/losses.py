"""The paper's losses, one function an equation, each returning (loss, info).

Shapes: a batch has T tasks and N transitions a task; z is [T, dz], one sample a task. ``info``
holds detached scalars on the training device; nothing here copies to the host.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from smac_core.data.replay import Batch
from smac_core.networks import Gaussian, RewardDecoder, TanhGaussianPolicy, TwinQ

Info = dict[str, Tensor]
Weighting = Literal["softmax", "exponential"]


def critic_loss(
    critic: TwinQ,
    target_critic: TwinQ,
    policy: TanhGaussianPolicy,
    batch: Batch,
    z: Tensor,
    *,
    discount: float,
    reward_scale: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Info, Tensor]:
    """Bellman error, equation (1): E (Q(s, a, z) - (r + gamma min Q'(s', a', z)))^2, a' ~ pi.

    Both heads of the twin Q regress on the same target; rewards are scaled here and only here (as
    in the authors' code). Time limits are not terminal. Also returns Q(s, a, z) [2, T, N],
    detached, for the actor, which needs it again.
    """
    with torch.no_grad():
        next_actions, _ = policy(batch.next_observations, z).sample(generator)
        next_value = target_critic(batch.next_observations, next_actions, z).amin(0)
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
    policy: TanhGaussianPolicy,
    critic: TwinQ,
    batch: Batch,
    z: Tensor,
    q: Tensor,
    *,
    weights: Callable[[Tensor], Tensor],
    action_clamp: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Info]:
    """AWAC actor, equation (2): -E log pi(a|s, z) w(A), A = min Q(s, a, z) - min Q(s, a~, z).

    a~ ~ pi(.|s, z) is a single sample (the paper's V(s', z) is a misprint for V(s, z)); ``q``
    [2, T, N] is Q(s, a, z) from the critic's pass; ``weights`` maps advantages to weights.
    """
    distribution = policy(batch.observations, z)
    with torch.no_grad():
        sampled, _ = distribution.sample(generator)
        value = critic(batch.observations, sampled, z).amin(0)
        advantage = q.amin(0) - value
        weight = weights(advantage)
    log_prob = distribution.log_prob(batch.actions, action_clamp)
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
    policy: TanhGaussianPolicy, batch: Batch, z: Tensor, *, action_clamp: float
) -> tuple[Tensor, Info]:
    """Meta behaviour cloning (section 6): equation (2) with weight 1, -E log pi(a|s, z)."""
    distribution = policy(batch.observations, z)
    loss = -distribution.log_prob(batch.actions, action_clamp).mean()
    return loss, {
        "actor_loss": loss.detach(),
        "policy_std": distribution.log_std.detach().exp().mean(),
    }


def pearl_actor_loss(
    policy: TanhGaussianPolicy,
    critic: TwinQ,
    batch: Batch,
    z: Tensor,
    *,
    entropy_coefficient: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Info]:
    """PEARL's actor term (appendix C.3): E[alpha log pi(a~|s, z) - min Q(s, a~, z)], a~ ~ pi.

    alpha = 1 is the paper's KL to exp Q / Z; alpha = 0 is the authors' code.
    """
    actions, log_prob = policy(batch.observations, z).sample(generator)
    value = critic(batch.observations, actions, z).amin(0)
    loss = (entropy_coefficient * log_prob - value).mean()
    return loss, {"pearl_actor_loss": loss.detach()}


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
