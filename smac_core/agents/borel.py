"""BOReL's agent (Dorfman et al. 2021): it carries a belief over tasks and acts by (s, belief).

The belief is a normal distribution over z, what a GRU makes of all transitions of the task so far,
over the ends of episodes. Before the first one it is what the head makes of the GRU's initial state
of zeros: learned, and held near N(0, I) by the loss. Training knows beliefs of
``borel.rollout_episodes`` episodes; a meta-episode of more goes on beyond what it has seen.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smac_core.agents.context import Standardizer
from smac_core.agents.interface import Actor, Adaptation, MetaAgent
from smac_core.config import Borel, Evaluation
from smac_core.data.dataset import TaskData
from smac_core.data.trajectories import Trajectories
from smac_core.networks import TanhGaussianPolicy
from smac_core.perceptron import mlp
from smac_core.recurrence import GatedRecurrentUnit


class Belief(NamedTuple):
    """A diagonal normal distribution over z: mean and log-variance, both [..., dz]."""

    mean: Tensor
    log_variance: Tensor

    @property
    def features(self) -> Tensor:
        """What it adds to a state, [..., 2 dz]."""
        return torch.cat(self, -1)

    def at(self, noise: Tensor) -> Tensor:
        """The sample [..., dz] that standard normal ``noise`` [..., dz] stands for."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self, other: "Belief") -> Tensor:
        """D_KL(self || other), summed over z: [...]."""
        ratio = self.log_variance - other.log_variance
        distance = (self.mean - other.mean) ** 2 * (-other.log_variance).exp()
        return 0.5 * (ratio.exp() - 1 - ratio + distance).sum(-1)


class BeliefEncoder(nn.Module):
    """q(z | transitions so far): embeddings of s', a and r -> GRU -> mean and log-variance."""

    def __init__(self, observation_dim: int, action_dim: int, settings: Borel):
        super().__init__()
        widths = (
            settings.observation_embedding,
            settings.action_embedding,
            settings.reward_embedding,
        )
        self.observation = nn.Linear(observation_dim, widths[0])
        self.action = nn.Linear(action_dim, widths[1])
        self.reward = nn.Linear(1, widths[2])
        self.recurrent = GatedRecurrentUnit(sum(widths), settings.hidden_state)
        self.head = nn.Linear(settings.hidden_state, 2 * settings.latent_dim)

    def forward(self, next_observations: Tensor, actions: Tensor, rewards: Tensor) -> Belief:
        """Beliefs [B, N + 1, dz]: before and after each step of [B, N, ds], [B, N, da], [B, N].

        In float32 also under autocast: a state that is rounded at every step drifts.
        """
        with torch.autocast(rewards.device.type, enabled=False):
            states = self.states(next_observations, actions, rewards)
            return self.belief(torch.cat([torch.zeros_like(states[:, :1]), states], 1))

    def states(self, next_observations: Tensor, actions: Tensor, rewards: Tensor) -> Tensor:
        """The GRU's states [B, N, h] after each step, from the initial one; as ``forward``."""
        return self.recurrent(self._embedded(next_observations, actions, rewards))

    def step(
        self, state: Tensor, next_observations: Tensor, actions: Tensor, rewards: Tensor
    ) -> Tensor:
        """The GRU's state [n, h] after a step [n, ds], [n, da], [n] from a state [n, h]."""
        return self.recurrent.step(self._embedded(next_observations, actions, rewards), state)

    def belief(self, state: Tensor) -> Belief:
        """What a state [..., h] of the GRU says of z."""
        return Belief(*self.head(state).chunk(2, -1))

    def start(self, count: int) -> Tensor:
        """The state [n, h] before any transition."""
        return self.head.weight.new_zeros(count, self.recurrent.hidden)

    def _embedded(self, next_observations: Tensor, actions: Tensor, rewards: Tensor) -> Tensor:
        parts = (
            self.observation(next_observations),
            self.action(actions),
            self.reward(rewards.unsqueeze(-1)),
        )
        return torch.cat(parts, -1).relu()


class BeliefDecoder(nn.Module):
    """r(z, s', a, s), for every pair of a z and a transition.

    The first layer is linear in both, so that it is evaluated once for each and added.
    """

    def __init__(
        self, latent_dim: int, observation_dim: int, action_dim: int, hidden: Sequence[int]
    ):
        super().__init__()
        self.latent = nn.Linear(latent_dim, hidden[0], bias=False)
        self.transition = nn.Linear(2 * observation_dim + action_dim, hidden[0])
        self.body = mlp(hidden[0], hidden[1:], 1)

    def forward(
        self, z: Tensor, next_observations: Tensor, actions: Tensor, observations: Tensor
    ) -> Tensor:
        """Rewards [..., K, N] for z [..., K, dz] and transitions [..., N, ds], [..., N, da]."""
        with torch.autocast(z.device.type, enabled=False):
            rows = self.transition(torch.cat([next_observations, actions, observations], -1))
            first = self.latent(z).unsqueeze(-2) + rows.unsqueeze(-3)
        return self.body(first.relu()).squeeze(-1)


class BeliefAgent(MetaAgent):
    """Belief and reward decoder, the policy on s+ = [s, mean, log-variance], the standardiser."""

    adapts_to: ClassVar = {
        "online": "a belief over its own episodes (SMAC's protocol; of one episode: BOReL's own)",
        "offline": "a belief over offline data of the task",
        "none": "the belief before any transition, held",
    }

    def __init__(self, observation_dim: int, action_dim: int, settings: Borel):
        super().__init__()
        self.observation_dim = observation_dim
        self.action_dim = action_dim
        self.state_dim = observation_dim + 2 * settings.latent_dim  # of s+
        self.standardizer = Standardizer(observation_dim)
        self.encoder = BeliefEncoder(observation_dim, action_dim, settings)
        self.decoder = BeliefDecoder(
            settings.latent_dim, observation_dim, action_dim, settings.decoder_hidden
        )
        # the belief is part of the state; there is no z beside it
        self.policy = TanhGaussianPolicy(self.state_dim, action_dim, 0, settings.hidden)

    @torch.no_grad()
    def act(
        self,
        observations: Tensor,
        state: Tensor,
        *,
        deterministic: bool,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Actions [n, da] for raw observations [n, ds] and states [n, h] of the GRU."""
        features = self.encoder.belief(state).features
        augmented = torch.cat([self.standardizer(observations), features], -1)
        distribution = self.policy(augmented, augmented[..., :0])
        return distribution.mode if deterministic else distribution.sample(generator)

    @torch.no_grad()
    def replay(self, history: list[Trajectories]) -> Tensor:
        """The GRU's states [E, h] after all that is present of raw episodes, in their order."""
        whole = Trajectories(*(torch.cat(parts, 1) for parts in zip(*history, strict=True)))
        # what is present comes first: steps missing after an early end must not touch the belief
        order = (~whole.present).long().argsort(dim=1, stable=True)
        seen = (self.standardizer(whole.next_observations), whole.actions, whole.rewards)
        rows = torch.arange(len(order), device=order.device)
        states = self.encoder.states(*(part[rows.unsqueeze(-1), order] for part in seen))
        states = torch.cat([self.encoder.start(len(order)).unsqueeze(1), states], 1)
        return states[rows, whole.present.sum(1)]

    def explorer(
        self, count: int, settings: Evaluation, generator: torch.Generator | None
    ) -> Callable[[], Actor]:
        """One belief a meta-episode, from the prior on: its episodes share it."""
        actor = BeliefActor(
            self,
            self.encoder.start(count),
            deterministic=settings.deterministic_exploration,
            generator=generator,
        )
        return lambda: actor

    def unadapted(
        self, count: int, settings: Evaluation, generator: torch.Generator | None = None
    ) -> Actor:
        """The belief before any transition, whatever comes."""
        return BeliefActor(self, self.encoder.start(count), deterministic=True, observes=False)

    @torch.no_grad()
    def adapt(
        self,
        history: list[Trajectories],
        settings: Evaluation,
        generator: torch.Generator | None,
    ) -> Adaptation:
        """The belief that the history leads to; the actor goes on updating it.

        ``kl`` is that from the belief before any transition; rewards are expected at its mean.
        """
        state = self.replay(history)
        belief = self.encoder.belief(state)
        prior = self.encoder.belief(self.encoder.start(len(state)))

        @torch.no_grad()
        def expected_rewards(found: Trajectories) -> Tensor:
            before, after = self.standardizer(
                torch.stack([found.observations, found.next_observations])
            )
            z = belief.mean.unsqueeze(1)
            return self.decoder(z, after, found.actions, before).squeeze(1)

        actor = BeliefActor(self, state, deterministic=True)
        return Adaptation(actor, belief.divergence(prior), expected_rewards)

    def recall(
        self, data: list[TaskData], settings: Evaluation, horizon: int, generator: torch.Generator
    ) -> list[Trajectories]:
        """Random trajectories of each history, ``exploration_episodes`` of them.

        Whole ones where there are any, different ones where there are enough; of longer ones the
        first ``horizon`` steps.
        """
        count = settings.exploration_episodes
        episodes: list[list[tuple[TaskData, slice]]] = [[] for _ in range(count)]
        for task in (task.history for task in data):
            found = task.whole_trajectories or task.trajectories
            order = torch.rand(len(found), device=self.device, generator=generator).argsort()
            for i, episode in enumerate(episodes):
                rows = found[order[i % len(found)]]
                episode.append((task, slice(rows.start, min(rows.stop, rows.start + horizon))))
        return [Trajectories.side_by_side(episode, horizon, self.device) for episode in episodes]


class BeliefActor(Actor):
    """Acts by a belief in each of E meta-episodes and updates it at every step.

    ``state`` [E, h] is the GRU's; memory does not grow with the episodes. One that does not observe
    keeps it.
    """

    def __init__(
        self,
        agent: BeliefAgent,
        state: Tensor,
        *,
        deterministic: bool,
        generator: torch.Generator | None = None,
        observes: bool = True,
    ):
        self.agent = agent
        self.observes = observes
        self.state = state
        self.deterministic = deterministic
        self.generator = generator
        self.device = agent.device

    def act(self, episodes: np.ndarray, observations: Tensor) -> Tensor:
        return self.agent.act(
            observations,
            self.state[episodes],
            deterministic=self.deterministic,
            generator=self.generator,
        )

    @torch.no_grad()
    def observe(
        self,
        episodes: np.ndarray,
        observations: Tensor,
        actions: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
    ) -> None:
        after = self.agent.standardizer(next_observations)
        state = self.agent.encoder.step(self.state[episodes], after, actions, rewards)
        self.state[episodes] = state
