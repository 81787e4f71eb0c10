"""The networks of SMAC (appendix C.3, table 1) and PEARL.

Shapes: T tasks, N transitions of a task, ds observation, da action and dz latent dimensions.
Leading dimensions are free wherever ``...`` stands.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from smac_core.perceptron import mlp, perceptrons

SMALLEST_VARIANCE = 1e-7  # as in the authors' encoder; keeps the product of factors finite
LOG_STD_RANGE = (-20.0, 2.0)  # as in SAC


def beside(rows: Tensor, z: Tensor) -> Tensor:
    """Append a task's z [..., dz] to each of its rows [..., N, d]; a z per row is kept."""
    if z.dim() < rows.dim():
        z = z.unsqueeze(-2).expand(*rows.shape[:-1], z.shape[-1])
    return torch.cat([rows, z], dim=-1)


class Gaussian(NamedTuple):
    """A diagonal normal distribution over z: mean and variance, both [..., dz]."""

    mean: Tensor
    variance: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """The sample [..., dz] that standard normal ``noise`` [..., dz] stands for."""
        return self.mean + self.variance.sqrt() * noise

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A reparameterised sample [..., dz]."""
        return self.at(torch.empty_like(self.mean).normal_(generator=generator))

    def kl_from_standard_normal(self) -> Tensor:
        """D_KL(self || N(0, I)), summed over z: [...]."""
        return 0.5 * (self.variance + self.mean**2 - 1 - self.variance.log()).sum(-1)


class ContextEncoder(nn.Module):
    """q(z | h): a product of one Gaussian factor per transition (s, a, r) (appendix C.3).

    Permutation-invariant, for any context length of at least one.

    Args:
        scale: what softplus gives: the factor's ``variance`` (authors' code) or its
            ``standard_deviation`` (paper).
        prior_factor: whether N(0, I) is one of the factors (authors' code and paper: no). With it
            an uninformative context falls back to the prior.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        latent_dim: int,
        hidden: Sequence[int],
        *,
        scale: Literal["variance", "standard_deviation"] = "variance",
        prior_factor: bool = False,
    ):
        super().__init__()
        self.context_dim = observation_dim + action_dim + 1
        self.latent_dim = latent_dim
        self.scale = scale
        self.prior_factor = prior_factor
        self.body = mlp(self.context_dim, hidden, 2 * latent_dim)

    def forward(self, context: Tensor, present: Tensor | None = None) -> Gaussian:
        """Posterior [..., dz] of a context [..., N, ds + da + 1] of (s, a, r) rows.

        ``present`` [..., N] marks the rows that count (trajectories that ended early have fewer).

        Raises:
            ValueError: the context is empty (the prior is what an empty history means; ask for it
                by name) or its rows have another width.
        """
        if context.shape[-1] != self.context_dim:
            raise ValueError(
                f"context rows have {context.shape[-1]} numbers, expected {self.context_dim}: "
                "(s, a, r)"
            )
        if context.shape[-2] == 0:
            raise ValueError(
                "context has 0 transitions, expected at least 1; use the prior instead"
            )
        mean, precision = self.factors(context)
        if present is not None:
            precision = precision * present.unsqueeze(-1)
        return self.product(mean, precision)

    def factors(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and precision, [..., N, dz] each, of every row's factor."""
        mean, raw = self.body(context).chunk(2, dim=-1)
        variance = functional.softplus(raw)
        if self.scale == "standard_deviation":
            variance = variance**2
        return mean, variance.clamp_min(SMALLEST_VARIANCE).reciprocal()

    def product(self, mean: Tensor, precision: Tensor) -> Gaussian:
        """The posterior [..., dz] of factors [..., N, dz]; precision 0 leaves one out."""
        total = precision.sum(-2)
        if self.prior_factor:
            total = total + 1.0
        return Gaussian((precision * mean).sum(-2) / total, total.reciprocal())


class RewardDecoder(nn.Module):
    """r(s, a, z): the reward of the task that z stands for (section 5.1)."""

    def __init__(
        self, observation_dim: int, action_dim: int, latent_dim: int, hidden: Sequence[int]
    ):
        super().__init__()
        self.body = mlp(observation_dim + action_dim + latent_dim, hidden, 1)

    def forward(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        """Unscaled rewards [..., N] of observations [..., N, ds], actions [..., N, da] and z."""
        return self.body(beside(torch.cat([observations, actions], -1), z)).squeeze(-1)


class PolicyDistribution(NamedTuple):
    """A normal squashed by tanh; mean and log_std are those before the squashing, [..., da]."""

    mean: Tensor
    log_std: Tensor

    @property
    def mode(self) -> Tensor:
        """The deterministic action tanh(mean)."""
        return self.mean.tanh()

    def unsquashed(self, noise: Tensor) -> Tensor:
        """The sample before tanh, [..., da], that standard normal ``noise`` stands for."""
        return self.mean + self.log_std.exp() * noise

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A reparameterised action [..., da]."""
        return self.unsquashed(torch.empty_like(self.mean).normal_(generator=generator)).tanh()

    def log_prob(self, actions: Tensor, clamp: float) -> Tensor:
        """Log-density [...] of actions [..., da] in [-1, 1].

        Actions are first clamped to +-``clamp``: the inverse tanh of a saturated action is
        unbounded, and scripted or teleoperated data saturate often.
        """
        return self.log_density(actions.clamp(-clamp, clamp).atanh())

    def log_density(self, unsquashed: Tensor) -> Tensor:
        """Log-density [...] of the actions tanh(``unsquashed``), [..., da]."""
        standardised = (unsquashed - self.mean) * (-self.log_std).exp()
        normal = -0.5 * standardised**2 - self.log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) in a form that does not cancel for large |u|
        log_slope = 2 * (math.log(2) - unsquashed - functional.softplus(-2 * unsquashed))
        return (normal - log_slope).sum(-1)


class TanhGaussianPolicy(nn.Module):
    """pi(a | s, z) with a state-dependent standard deviation."""

    def __init__(
        self, observation_dim: int, action_dim: int, latent_dim: int, hidden: Sequence[int]
    ):
        super().__init__()
        self.body = mlp(observation_dim + latent_dim, hidden, 2 * action_dim)

    def forward(self, observations: Tensor, z: Tensor) -> PolicyDistribution:
        """Distribution over actions [..., N, da] for observations [..., N, ds] and z [..., dz]."""
        mean, log_std = self.body(beside(observations, z)).chunk(2, dim=-1)
        return PolicyDistribution(mean, log_std.clamp(*LOG_STD_RANGE))


class TwinQ(nn.Module):
    """Q_1 and Q_2 (s, a, z), evaluated together as one batch of two matrix products a layer."""

    def __init__(
        self, observation_dim: int, action_dim: int, latent_dim: int, hidden: Sequence[int]
    ):
        super().__init__()
        sizes = [observation_dim + action_dim + latent_dim, *hidden, 1]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
            bound = inputs**-0.5  # nn.Linear's initialisation
            self.weights.append(torch.empty(2, inputs, outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(2, 1, outputs).uniform_(-bound, bound))

    def forward(
        self, observations: Tensor, actions: Tensor, z: Tensor, *, frozen: bool = False
    ) -> Tensor:
        """Both values, [2, ..., N], of observations [..., N, ds], actions [..., N, da] and z.

        ``frozen``: gradients reach the actions but not the weights, as an actor's loss wants it.
        """
        inputs = beside(torch.cat([observations, actions], -1), z)
        weights, biases = list(self.weights), list(self.biases)
        if frozen:
            weights, biases = [w.detach() for w in weights], [b.detach() for b in biases]
        values = perceptrons(inputs.flatten(0, -2), weights, biases)
        return values.view(2, *inputs.shape[:-1])


class ValueFunction(nn.Module):
    """V(s, z), PEARL's: what its Q functions regress on (oyster)."""

    def __init__(self, observation_dim: int, latent_dim: int, hidden: Sequence[int]):
        super().__init__()
        self.body = mlp(observation_dim + latent_dim, hidden, 1)

    def forward(self, observations: Tensor, z: Tensor) -> Tensor:
        """Values [..., N] of observations [..., N, ds] and z [..., dz]."""
        return self.body(beside(observations, z)).squeeze(-1)
