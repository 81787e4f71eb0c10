"""MACAW's agent: it adapts by gradient steps on a task's transitions (Mitchell et al. 2021).

A value function takes steps on the squared error to Monte-Carlo returns, then a policy takes steps
on advantage-weighted regression, every parameter at a learned rate of its own. What the paper
leaves open follows the authors' code. T tasks at once (E meta-episodes), N transitions of a task.
"""

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from smac_core.agents.context import Standardizer
from smac_core.agents.interface import Actor, Adaptation, MetaAgent
from smac_core.config import Evaluation, Macaw, Updates
from smac_core.data.dataset import TaskData
from smac_core.data.trajectories import Trajectories

SMALLEST_DEVIATION = 1e-6  # of advantages, and of returns: all equal is no reason to divide by 0

Weights = list[Tensor]  # a network's layers', [T, n] each; [1, n]: the same for all tasks


class Transitions(NamedTuple):
    """Those of T tasks, with what followed each of them in its trajectory."""

    observations: Tensor  # [T, N, ds], standardised
    actions: Tensor  # [T, N, da]
    returns: Tensor  # [T, N], Monte-Carlo, standardised
    earned: Tensor  # [T, N], what a bootstrapped return holds of rewards, standardised
    continuation: Tensor  # [T, N], discount^k of the value after the last of k steps; 0: terminal
    last_observations: Tensor  # [T, N, ds], after the trajectory's last step, standardised


class WeightTransform(nn.Module):
    """A layer whose n = (inputs + 1) outputs weights and biases are ``base + transform @ latent``.

    All three take inner steps. A step on all three, at rates of their own, makes of one gradient g
    with respect to the n numbers another change in each: ``base`` moves along g, ``latent`` along
    transform^T g, ``transform`` along g latent^T. ``latent`` 0: plain, ``base`` is all there is.

    Initially base is what torch gives a linear layer's weights, transform what it gives those of a
    layer with ``latent`` inputs, and latent ~ N(0, 1 / outputs^2) (authors' code).
    """

    def __init__(self, inputs: int, outputs: int, latent: int, rate: float):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        count = (inputs + 1) * outputs
        self.base = nn.Parameter(_uniform(inputs**-0.5, count))
        if latent:
            self.latent = nn.Parameter(torch.randn(latent) / outputs)
            self.transform = nn.Parameter(_uniform(latent**-0.5, count, latent))
        # through softplus: of base, latent and transform
        self.raw_rates = nn.Parameter(torch.full((3 if latent else 1,), inverse_softplus(rate)))

    def begin(self) -> "LayerState":
        """The layer before any step."""
        latent = getattr(self, "latent", None)
        return LayerState(self.base.unsqueeze(0), None if latent is None else latent.unsqueeze(0))

    def weights(self, state: "LayerState") -> Tensor:
        """Weights and biases [T, n] after the steps of ``state``."""
        if state.latent is None:
            return state.base
        weights = state.base + state.latent @ self.transform.T
        if state.steps:
            rate = self.rates[2]
            for gradient, latent in state.steps:
                weights = weights - rate * (latent * state.latent).sum(-1, True) * gradient
        return weights

    def step(self, state: "LayerState", gradient: Tensor) -> "LayerState":
        """One gradient step; ``gradient`` [T, n] is with respect to ``weights(state)``.

        The changes of ``transform``, [T, n, dz], are of rank one a step and are kept as such.
        """
        rates = self.rates
        base = state.base - rates[0] * gradient
        if state.latent is None:
            return LayerState(base, None)
        back = gradient @ self.transform
        for before, latent in state.steps:
            back = back - rates[2] * (before * gradient).sum(-1, True) * latent
        steps = (*state.steps, (gradient, state.latent))
        return LayerState(base, state.latent - rates[1] * back, steps)

    @property
    def rates(self) -> Tensor:
        """Inner learning rates [3]: of base, latent, transform; [1] in a plain layer."""
        return functional.softplus(self.raw_rates)

    def forward(self, weights: Tensor, rows: Tensor) -> Tensor:
        """[T, N, outputs] of rows [T, N, inputs]; weights [1, n] serve all tasks."""
        matrix, bias = weights.split([self.inputs * self.outputs, self.outputs], -1)
        matrix = matrix.unflatten(-1, (self.inputs, self.outputs))
        if len(weights) == 1:
            return rows @ matrix[0] + bias
        return torch.baddbmm(bias.unsqueeze(1), rows, matrix)


class LayerState(NamedTuple):
    """A layer of T tasks after some inner steps."""

    base: Tensor  # [T, n]
    latent: Tensor | None  # [T, dz]
    steps: tuple[tuple[Tensor, Tensor], ...] = ()  # gradient [T, n], latent [T, dz] before it


class AdaptiveNetwork(nn.Module):
    """Layers that take inner steps together."""

    layers: nn.ModuleList

    def unadapted(self) -> Weights:
        """The weights [1, n] before any step."""
        return [layer.weights(layer.begin()) for layer in self.layers]

    def adapted(self, loss: Callable[[Weights], Tensor], count: int, steps: int) -> Weights:
        """The weights [T, n] after steps on ``loss`` [T] of ``count`` tasks.

        Differentiable, the gradients in the steps included (MAML's second-order terms).
        """

        def total(weights: Weights) -> Tensor:
            # a task's loss depends on its own weights alone: the sum's gradient is each one's
            return loss(weights).sum()

        states = [layer.begin() for layer in self.layers]
        for _ in range(steps):
            weights = [
                layer.weights(state).expand(count, -1)
                for layer, state in zip(self.layers, states, strict=True)
            ]
            gradients = torch.func.grad(total)(weights)
            states = [
                layer.step(state, gradient)
                for layer, state, gradient in zip(self.layers, states, gradients, strict=True)
            ]
        return [layer.weights(state) for layer, state in zip(self.layers, states, strict=True)]

    def meta_parameters(self) -> list[nn.Parameter]:
        """What inner steps begin from."""
        return [p for name, p in self.named_parameters() if "raw_" not in name]

    def raw_parameters(self) -> list[nn.Parameter]:
        """What says how inner steps are taken, before softplus."""
        return [p for name, p in self.named_parameters() if "raw_" in name]


class AdaptivePolicy(AdaptiveNetwork):
    """The mean tanh mu(s) of a normal policy, with an advantage head for the inner steps.

    The head sees the last hidden layer before its activation, and the action. It makes the policy's
    inner step depend on what the data's rewards are and not only on their weights (section 4).
    """

    def __init__(self, observation_dim: int, action_dim: int, settings: Macaw):
        super().__init__()
        hidden, latent = settings.hidden, settings.layer_latent
        sizes = [
            *_pairs([observation_dim, *hidden, action_dim]),
            *_pairs([hidden[-1] + action_dim, *settings.head_hidden, 1]),
        ]
        self.depth = len(hidden)
        self.layers = nn.ModuleList(
            WeightTransform(*size, latent, settings.inner_learning_rate) for size in sizes
        )
        self.raw_coefficient = nn.Parameter(
            torch.tensor(inverse_softplus(settings.head_coefficient))
        )

    def forward(self, weights: Weights, observations: Tensor) -> Tensor:
        """Means [T, N, da] for observations [T, N, ds]."""
        return self._mean(weights, self._hidden(weights, observations))

    def with_advantages(
        self, weights: Weights, observations: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means [T, N, da], and the head's advantages [T, N] of the actions [T, N, da]."""
        hidden = self._hidden(weights, observations)
        first = self.depth + 1
        rows = torch.cat([hidden, actions], -1)
        advantages = _perceptron(self.layers[first:], weights[first:], rows)
        return self._mean(weights, hidden), advantages.squeeze(-1)

    def _hidden(self, weights: Weights, observations: Tensor) -> Tensor:
        return _perceptron(self.layers[: self.depth], weights[: self.depth], observations)

    def _mean(self, weights: Weights, hidden: Tensor) -> Tensor:
        return self.layers[self.depth](weights[self.depth], hidden.relu()).tanh()


class AdaptiveValue(AdaptiveNetwork):
    """V(s), in standardised returns."""

    def __init__(self, observation_dim: int, settings: Macaw):
        super().__init__()
        self.layers = nn.ModuleList(
            WeightTransform(*size, settings.layer_latent, settings.inner_learning_rate)
            for size in _pairs([observation_dim, *settings.hidden, 1])
        )

    def forward(self, weights: Weights, observations: Tensor) -> Tensor:
        """Values [T, N] of observations [T, N, ds]."""
        return _perceptron(self.layers, weights, observations).squeeze(-1)


class MacawAgent(MetaAgent):
    """Policy and value function, the rates they adapt at, and the standardiser in front of them.

    Returns are Monte-Carlo sums to a trajectory's end with ``discount``, standardised by mean and
    deviation of those in the training data (ours: gradient steps on the squared error diverge on
    returns in the hundreds). A scale of the rewards would cancel and is not applied.
    """

    adapts_to: ClassVar = {
        "online": "SMAC's protocol: gradient steps on episodes of its own unadapted policy",
        "offline": "MACAW's own protocol: gradient steps on offline data of the task",
        "none": "the policy as it was meta-trained",
    }

    def __init__(self, observation_dim: int, action_dim: int, settings: Macaw, updates: Updates):
        super().__init__()
        self.observation_dim = observation_dim
        self.action_dim = action_dim
        self.settings = settings
        self.discount = updates.discount
        self.standardizer = Standardizer(observation_dim)
        self.register_buffer("return_mean", torch.zeros(()))
        self.register_buffer("return_deviation", torch.zeros(()))  # 0: no data were seen yet
        self.policy = AdaptivePolicy(observation_dim, action_dim, settings)
        self.value = AdaptiveValue(observation_dim, settings)

    def standardize_returns(self, returns: Tensor, continuation: Tensor) -> tuple[Tensor, Tensor]:
        """Returns of any shape in V's unit; as such, and as a bootstrapped return holds them.

        The mean that standardising takes off a return is missing in the value after its end too,
        and given back in the second: it and ``continuation`` V(s_T) are the whole.
        """
        deviation = self.return_deviation.clamp_min(SMALLEST_DEVIATION)
        standardized = (returns - self.return_mean) / deviation
        return standardized, standardized + continuation * self.return_mean / deviation

    def adapt_value(
        self, value: AdaptiveValue, support: Transitions, present: Tensor | None = None
    ) -> Weights:
        """Weights of ``value`` after inner steps on the squared error to the Monte-Carlo returns.

        ``present`` [T, N] marks the transitions that count; None: all.
        """

        def loss(weights: Weights) -> Tensor:
            error = (value(weights, support.observations) - support.returns) ** 2
            return _mean(error, present)

        return value.adapted(loss, len(support.returns), self.settings.inner_steps)

    def adapt_policy(
        self, support: Transitions, value: Weights, present: Tensor | None = None
    ) -> Weights:
        """The policy's weights after inner steps, given the adapted weights of V.

        On -w log pi(a|s) + softplus(c) (A_head(s, a) - A)^2, c learned. A is measured against a
        return that goes on after the clock's end, as V has learned to mean it.
        """
        settings, policy = self.settings, self.policy
        with torch.no_grad():
            advantages = bootstrapped(self.value, value, support)
            advantages = advantages - self.value(value, support.observations)
        weighting = advantage_weights(
            advantages, settings.temperature, settings.largest_weight, present
        )

        def loss(weights: Weights) -> Tensor:
            mean, head = policy.with_advantages(weights, support.observations, support.actions)
            likelihood = log_density(mean, support.actions, settings.policy_deviation)
            coefficient = functional.softplus(policy.raw_coefficient)
            error = coefficient * (head - advantages) ** 2 - weighting * likelihood
            return _mean(error, present)

        return policy.adapted(loss, len(advantages), settings.inner_steps)

    def explorer(
        self, count: int, settings: Evaluation, generator: torch.Generator | None = None
    ) -> Callable[[], Actor]:
        """The policy as it was meta-trained, not adapted; sampled where settings say so."""
        deviation = 0.0 if settings.deterministic_exploration else self.settings.policy_deviation
        with torch.no_grad():
            weights = self.policy.unadapted()
        actor = WeightsActor(self, weights, deviation, generator)
        return lambda: actor

    @torch.no_grad()
    def unadapted(
        self, count: int, settings: Evaluation, generator: torch.Generator | None = None
    ) -> Actor:
        """The policy as it was meta-trained."""
        return WeightsActor(self, self.policy.unadapted())

    @torch.no_grad()
    def adapt(
        self,
        history: list[Trajectories],
        settings: Evaluation,
        generator: torch.Generator | None = None,
    ) -> Adaptation:
        """Inner steps on all transitions, each with its return to the end of its episode.

        Where the steps diverge, as they may on data unlike those of training, a meta-episode keeps
        the policy that has not adapted.
        """
        parts = zip(*(self._with_returns(episode) for episode in history), strict=True)
        support = Transitions(*(torch.cat(part, 1) for part in parts))
        present = torch.cat([episode.present for episode in history], 1).float()
        value = self.adapt_value(self.value, support, present)
        policy = self.adapt_policy(support, value, present)
        means = self.policy(policy, support.observations).flatten(1)
        finite = torch.stack([part.isfinite().all(-1) for part in (*policy, means)]).all(0)
        finite = finite.unsqueeze(-1)
        before = self.policy.unadapted()
        pairs = zip(policy, before, strict=True)
        return Adaptation(WeightsActor(self, [torch.where(finite, *pair) for pair in pairs]))

    def _with_returns(self, episode: Trajectories) -> Transitions:
        """An episode of each of E tasks."""
        steps = episode.present.sum(-1, keepdim=True)
        remaining = steps - torch.arange(episode.present.shape[-1], device=self.device)
        returns = discounted_returns(episode.rewards, remaining, self.discount)
        last = (steps - 1).clamp_min(0)
        goes_on = 1 - episode.terminals.gather(-1, last).to(returns.dtype)
        continuation = self.discount ** remaining.clamp_min(0).to(returns.dtype) * goes_on
        after = episode.next_observations.take_along_dim(last.unsqueeze(-1), -2)
        return Transitions(
            self.standardizer(episode.observations),
            episode.actions,
            *self.standardize_returns(returns, continuation),
            continuation,
            self.standardizer(after).expand_as(episode.observations),
        )

    def recall(
        self,
        data: list[TaskData],
        settings: Evaluation,
        horizon: int,
        generator: torch.Generator | None = None,
    ) -> list[Trajectories]:
        """Trajectories that follow one another, of a task's own data and its histories.

        From a random one on, as many as it takes to have the transitions that exploration would
        give; all there are where there are fewer.
        """
        count = settings.exploration_episodes * horizon
        shares = torch.rand(len(data), device=self.device, generator=generator).tolist()
        chosen = [_neighbours(task, count, share) for task, share in zip(data, shares, strict=True)]
        most = max(len(trajectories) for trajectories in chosen)
        history = []
        for i in range(most):
            pieces = [
                found[i] if i < len(found) else (task, slice(0, 0))  # it has no more
                for task, found in zip(data, chosen, strict=True)
            ]
            longest = max(rows.stop - rows.start for _, rows in pieces)
            history.append(Trajectories.side_by_side(pieces, longest, self.device))
        return history


class WeightsActor(Actor):
    """Acts by the policy's weights of each episode, [E, n] a layer; [1, n]: the same in all."""

    def __init__(
        self,
        agent: MacawAgent,
        weights: Weights,
        deviation: float = 0.0,
        generator: torch.Generator | None = None,
    ):
        self.agent = agent
        self.weights = weights
        self.deviation = deviation
        self.generator = generator
        self.device = agent.device
        self._episodes: np.ndarray | None = None  # whose weights are at hand
        self._at_hand: Weights = []

    @torch.no_grad()
    def act(self, episodes: np.ndarray, observations: Tensor) -> Tensor:
        rows = self.agent.standardizer(observations).unsqueeze(1)
        action = self.agent.policy(self._of(episodes), rows).squeeze(1)
        if self.deviation:
            noise = torch.empty_like(action).normal_(generator=self.generator)
            action = (action + self.deviation * noise).clamp(-1, 1)
        return action

    def _of(self, episodes: np.ndarray) -> Weights:
        """The weights of these episodes; copied when others are running than a step before."""
        if len(self.weights[0]) == 1:
            return self.weights
        if self._episodes is None or not np.array_equal(episodes, self._episodes):
            self._at_hand = [layer[episodes] for layer in self.weights]
            self._episodes = episodes.copy()
        return self._at_hand


def bootstrapped(value: AdaptiveValue, weights: Weights, transitions: Transitions) -> Tensor:
    """Returns [T, N] that take in the value of where the data stop, if nothing ended there."""
    after = value(weights, transitions.last_observations)
    return transitions.earned + transitions.continuation * after


def discounted_returns(rewards: Tensor, remaining: Tensor, discount: float) -> Tensor:
    """Sums of discounted rewards to the end of each step's trajectory, [..., H].

    Args:
        rewards: [..., H] in time order, several trajectories one after the other.
        remaining: [..., H], how many steps a trajectory has from here on, this one included.
    """
    returns, reach = rewards, 1  # sums of the next ``reach`` steps; doubled until they are all
    while reach < rewards.shape[-1]:
        ahead = functional.pad(returns[..., reach:], (0, reach))
        returns = returns + discount**reach * torch.where(remaining > reach, ahead, 0.0)
        reach *= 2
    return returns


def advantage_weights(
    advantages: Tensor, temperature: float, largest: float, present: Tensor | None = None
) -> Tensor:
    """exp((A - mean) / std / temperature), at most ``largest``; mean and std of each task's A.

    ``advantages`` [T, N] without a gradient; ``present`` [T, N] marks those that count.
    """
    centred = advantages - _mean(advantages, present).unsqueeze(-1)
    deviation = _mean(centred**2, present).sqrt().clamp_min(SMALLEST_DEVIATION)
    exponent = centred / deviation.unsqueeze(-1) / temperature
    return exponent.clamp_max(math.log(largest)).exp()


def log_density(mean: Tensor, actions: Tensor, deviation: float) -> Tensor:
    """Log-density [...] of actions [..., da] in the normal with the mean [..., da]."""
    constant = math.log(deviation) + 0.5 * math.log(2 * math.pi)
    return (-0.5 * ((actions - mean) / deviation) ** 2 - constant).sum(-1)


def inverse_softplus(value: float) -> float:
    """The number whose softplus is ``value``."""
    return math.log(math.expm1(value))


def _uniform(bound: float, *shape: int) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound)


def _pairs(sizes: list[int]) -> list[tuple[int, int]]:
    return list(zip(sizes[:-1], sizes[1:], strict=True))


def _perceptron(layers: nn.ModuleList, weights: Weights, rows: Tensor) -> Tensor:
    """Layers with ReLU between them, [T, N, outputs]."""
    for layer, own in zip(layers[:-1], weights[:-1], strict=True):
        rows = layer(own, rows).relu()
    return layers[-1](weights[-1], rows)


def _mean(values: Tensor, present: Tensor | None) -> Tensor:
    """The mean [T] of values [T, N], those that are there."""
    if present is None:
        return values.mean(-1)
    return (values * present).sum(-1) / present.sum(-1)


def _neighbours(task: TaskData, count: int, share: float) -> list[tuple[TaskData, slice]]:
    """The fewest trajectories in a row with ``count`` transitions, at ``share`` of the ways."""
    parts = [task] if task.context is None else [task, task.context]
    found = [(part, where) for part in parts for where in part.trajectories]
    ends = np.cumsum([where.stop - where.start for _, where in found])
    starts = ends - np.diff(ends, prepend=0)
    ways = max(int((ends[-1] - starts >= count).sum()), 1)
    first = min(int(share * ways), ways - 1)
    last = int(np.searchsorted(ends, starts[first] + count))
    return found[first : last + 1]
