"""The agent that adapts by context: it infers z from a history and acts by it, in raw units."""

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from smac_core.agents.interface import Actor, Adaptation, MetaAgent
from smac_core.config import Evaluation, Networks, Standardization
from smac_core.data.dataset import TaskData
from smac_core.data.trajectories import Trajectories
from smac_core.networks import ContextEncoder, Gaussian, RewardDecoder, TanhGaussianPolicy

SMALLEST_DEVIATION = 0.01  # of a dimension that hardly moved in the data: do not magnify its noise
LARGEST_MAGNIFICATION = 5.0
MOVES = 0.01  # share of a dimension's deviation below which it counts as standing still
LARGEST_STANDARDIZED = 10.0  # a reading far outside the data must not throw the policy


class Standardizer(nn.Module):
    """Observations to zero mean and about unit scale per dimension; the identity until fitted."""

    def __init__(self, observation_dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(observation_dim))
        self.register_buffer("deviation", torch.ones(observation_dim))
        self.register_buffer("largest", torch.tensor(float("inf")))

    def fit(self, trajectories: list[np.ndarray], how: Standardization) -> None:
        """Take the scales from trajectories of observations [n_i, ds].

        ``deviation``: of all observations. ``movement``: the geometric mean of that and of the
        deviation within a trajectory, so that what moves a little in scenes that differ a lot (a
        button pressed by a centimetre) is not lost in the differences between scenes; at most
        ``LARGEST_MAGNIFICATION``, and none for what never moves.
        """
        if how == "none":
            return
        counts = [len(t) for t in trajectories]  # no copy of all in float64: it may be large
        mean = sum(t.sum(0, dtype=np.float64) for t in trajectories) / sum(counts)
        squares = sum(((t - mean) ** 2).sum(0) for t in trajectories)
        deviation = np.sqrt(squares / sum(counts))
        if how == "movement":
            within = np.average([t.var(0, dtype=np.float64) for t in trajectories], 0, counts)
            within = np.sqrt(within)
            magnified = np.sqrt(deviation * within).clip(deviation / LARGEST_MAGNIFICATION)
            deviation = np.where(within > MOVES * deviation, magnified, deviation)
        self.mean.copy_(torch.as_tensor(mean))
        self.deviation.copy_(torch.as_tensor(deviation).clamp_min(SMALLEST_DEVIATION))
        self.largest.fill_(LARGEST_STANDARDIZED)

    def forward(self, observations: Tensor) -> Tensor:
        """Standardised observations [..., ds]."""
        scaled = (observations - self.mean) / self.deviation
        return torch.minimum(torch.maximum(scaled, -self.largest), self.largest)


class Agent(MetaAgent):
    """Encoder, decoder, policy and the standardiser in front of them."""

    adapts_to: ClassVar = {
        "online": "SMAC's protocol: z given episodes of its own exploration",
        "offline": "z given offline data of the task (figure 2)",
        "none": "z of the prior",
    }

    def __init__(self, observation_dim: int, action_dim: int, networks: Networks):
        super().__init__()
        self.observation_dim = observation_dim
        self.action_dim = action_dim
        self.latent_dim = networks.latent_dim
        dims = (observation_dim, action_dim, networks.latent_dim)
        self.standardizer = Standardizer(observation_dim)
        self.encoder = ContextEncoder(
            *dims,
            networks.encoder_hidden,
            scale=networks.encoder_scale,
            prior_factor=networks.encoder_prior_factor,
        )
        self.decoder = RewardDecoder(*dims, networks.decoder_hidden)
        self.policy = TanhGaussianPolicy(*dims, networks.policy_hidden)

    def prior(self, *shape: int) -> Gaussian:
        """p(z) = N(0, I), for a leading shape."""
        mean = torch.zeros(*shape, self.latent_dim, device=self.device)
        return Gaussian(mean, torch.ones_like(mean))

    @torch.no_grad()
    def act(
        self,
        observations: Tensor,
        z: Tensor,
        *,
        deterministic: bool,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Actions [n, da] for raw observations [n, ds] and z [n, dz]."""
        distribution = self.policy(self.standardizer(observations), z)
        return distribution.mode if deterministic else distribution.sample(generator)

    @torch.no_grad()
    def infer(
        self, observations: Tensor, actions: Tensor, rewards: Tensor, present: Tensor | None = None
    ) -> Gaussian:
        """q(z | h) [n, dz] of raw histories: [n, N, ds], [n, N, da], [n, N]; see ContextEncoder."""
        context = torch.cat([self.standardizer(observations), actions, rewards.unsqueeze(-1)], -1)
        return self.encoder(context, present)

    @torch.no_grad()
    def label(self, observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
        """Decoded rewards [n, N], equation (4), of raw trajectories and z [n, dz]."""
        return self.decoder(self.standardizer(observations), actions, z)

    def explorer(
        self, count: int, settings: Evaluation, generator: torch.Generator | None = None
    ) -> Callable[[], Actor]:
        """z ~ p(z) at every step, or one an episode (``settings.exploration_latent``)."""

        def explore() -> LatentActor:
            z = None
            if settings.exploration_latent == "trajectory":
                z = self.prior(count).sample(generator)
            return LatentActor(
                self, z, deterministic=settings.deterministic_exploration, generator=generator
            )

        return explore

    def unadapted(
        self, count: int, settings: Evaluation, generator: torch.Generator | None = None
    ) -> Actor:
        """One z of the prior an episode."""
        z = choose(self.prior(count), settings.posterior_latent, generator)
        return LatentActor(self, z, deterministic=True)

    def adapt(
        self,
        history: list[Trajectories],
        settings: Evaluation,
        generator: torch.Generator | None = None,
    ) -> Adaptation:
        """Act by a z of the posterior given all transitions of the history."""
        whole = Trajectories(*(torch.cat(parts, 1) for parts in zip(*history, strict=True)))
        posterior = self.infer(whole.observations, whole.actions, whole.rewards, whole.present)
        z = choose(posterior, settings.posterior_latent, generator)

        def expected_rewards(found: Trajectories) -> Tensor:
            return self.label(found.observations, found.actions, z)

        actor = LatentActor(self, z, deterministic=True)
        return Adaptation(actor, posterior.kl_from_standard_normal(), expected_rewards)

    def recall(
        self,
        data: list[TaskData],
        settings: Evaluation,
        horizon: int,
        generator: torch.Generator | None = None,
    ) -> list[Trajectories]:
        """As many transitions as exploration would give, drawn from each history."""
        count = settings.exploration_episodes * horizon
        rows = []
        for task in (task.history for task in data):
            uniform = torch.rand(count, device=self.device, generator=generator)
            index = (uniform * len(task.rewards)).long().cpu().numpy()
            arrays = (task.observations, task.actions, task.next_observations, task.rewards)
            drawn = (array[index] for array in arrays)
            rows.append(Trajectories.one(*drawn, device=self.device))
        return [Trajectories(*(torch.cat(parts) for parts in zip(*rows, strict=True)))]


class LatentActor(Actor):
    """Acts by one z an episode [E, dz]; None draws z_t ~ p(z) at every step (algorithm 1)."""

    def __init__(
        self,
        agent: Agent,
        z: Tensor | None,
        *,
        deterministic: bool,
        generator: torch.Generator | None = None,
    ):
        self.agent = agent
        self.z = z
        self.deterministic = deterministic
        self.generator = generator
        self.device = agent.device

    def act(self, episodes: np.ndarray, observations: Tensor) -> Tensor:
        if self.z is not None:
            z = self.z[episodes]
        else:
            z = self.agent.prior(len(episodes)).sample(self.generator)
        return self.agent.act(
            observations, z, deterministic=self.deterministic, generator=self.generator
        )


def choose(
    posterior: Gaussian, how: Literal["sample", "mean"], generator: torch.Generator | None = None
) -> Tensor:
    """The z that the policy is given."""
    return posterior.mean if how == "mean" else posterior.sample(generator)
