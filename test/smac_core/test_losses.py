"""The paper's equations against numbers worked out by hand."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from smac_core.data.replay import Batch
from smac_core.losses import (
    advantage_weights,
    awac_actor_loss,
    cloning_actor_loss,
    critic_loss,
    pearl_actor_loss,
    reward_loss,
)
from smac_core.networks import Gaussian, PolicyDistribution

STANDARD_NORMAL = -0.5 * math.log(2 * math.pi)  # log-density at the mean


class Critic(nn.Module):
    """Q_1 = bias + a, Q_2 = bias + a + 1 (a: the first action)."""

    def __init__(self, bias: float):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, observations, actions, z):
        first = self.bias + actions[..., 0]
        return torch.stack([first, first + 1])


class Policy(nn.Module):
    """Normal around a parameter with deviation ``std`` (1 for densities, ~0 for known actions)."""

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.mean, self.std = nn.Parameter(torch.tensor(mean)), std

    def forward(self, observations, z):
        mean = self.mean.expand(*observations.shape[:-1], 1)
        return PolicyDistribution(mean, torch.full_like(mean, math.log(self.std)))


def batch(actions, rewards, terminals) -> Batch:
    column = torch.tensor([actions]).unsqueeze(-1)
    zeros = torch.zeros_like(column)
    return Batch(zeros, column, torch.tensor([rewards]), zeros, torch.tensor([terminals]))


Z = torch.zeros(1, 2)


def test_critic_loss_is_equation_1():
    data = batch([0.0, 0.5], [1.0, 2.0], [0.0, 1.0])
    # a' = tanh(0) = 0: min Q' = 10; targets 5 * 1 + 0.9 * 10 = 14 and 5 * 2 = 10 (terminal)
    networks = Critic(3.0), Critic(10.0), Policy(0.0, 1e-8)
    noise = torch.ones(1, 2, 1)
    loss, info, q = critic_loss(*networks, data, Z, noise, discount=0.9, reward_scale=5.0)
    # Q_1 = 3, 3.5 and Q_2 = 4, 4.5
    expected = ((3 - 14) ** 2 + (3.5 - 10) ** 2) / 2 + ((4 - 14) ** 2 + (4.5 - 10) ** 2) / 2
    assert loss.item() == pytest.approx(expected)
    assert q[:, 0].flatten().tolist() == [3.0, 3.5, 4.0, 4.5]
    assert info["q_target"].item() == pytest.approx(12)


def test_advantage_weights():
    advantage = torch.tensor([[0.0, 0.3], [-0.3, 30.0]])
    weights = partial(advantage_weights, temperature=0.3, normalize=False, largest=20.0)
    exponential = weights(advantage, weighting="exponential")
    torch.testing.assert_close(exponential, torch.tensor([[1.0, math.e], [1 / math.e, 20.0]]))
    softmax = weights(advantage / 100, weighting="softmax")
    raw = (advantage / 30).exp()
    torch.testing.assert_close(softmax, raw / raw.mean())
    assert softmax.mean().item() == pytest.approx(1)
    normalized = advantage_weights(
        torch.tensor([1.0, 3.0]),
        temperature=1.0,
        weighting="exponential",
        normalize=True,
        largest=20,
    )
    edge = 1 / math.sqrt(2)  # +-1 in units of the sample deviation sqrt(2)
    torch.testing.assert_close(
        normalized, torch.tensor([math.exp(-edge), math.exp(edge)]), rtol=1e-5, atol=1e-5
    )


def test_the_target_uses_the_action_that_the_noise_draws():
    data = batch([0.0], [1.0], [0.0])
    noise = torch.tensor([[[0.5]]])
    _, info, _ = critic_loss(
        Critic(0.0), Critic(2.0), Policy(0.1, 2.0), data, Z, noise, discount=0.9, reward_scale=1.0
    )
    assert info["q_target"].item() == pytest.approx(1 + 0.9 * (2 + math.tanh(0.1 + 2 * 0.5)))


def test_awac_actor_loss_is_equation_2():
    data, policy = batch([0.0, 0.5], [0.0, 0.0], [0.0, 0.0]), Policy(0.0, 1.0)
    advantage = torch.tensor([[0.1, -0.2]])

    def weights(given):
        assert given is advantage
        return torch.tensor([[2.0, 3.0]])

    distribution = policy(data.observations, Z)
    loss, _ = awac_actor_loss(
        distribution, data.actions, advantage, weights=weights, action_clamp=0.97
    )
    u = math.atanh(0.5)  # log pi(0.5) = log N(u; 0, 1) - log(1 - 0.25)
    log_probs = [STANDARD_NORMAL, STANDARD_NORMAL - u**2 / 2 - math.log(0.75)]
    assert loss.item() == pytest.approx(-(2 * log_probs[0] + 3 * log_probs[1]) / 2, rel=1e-5)
    loss.backward()
    # d/dmean of -w log N(u; mean, 1) is -w u, averaged
    assert policy.mean.grad.item() == pytest.approx(-3 * u / 2, rel=1e-5)


def test_cloning_is_awac_with_weight_one():
    data = batch([0.2, -0.4], [0.0, 0.0], [0.0, 0.0])
    distribution = Policy(0.1, 1.0)(data.observations, Z)
    awac, _ = awac_actor_loss(
        distribution,
        data.actions,
        torch.zeros(1, 2),
        weights=torch.ones_like,
        action_clamp=0.97,
    )
    cloning, _ = cloning_actor_loss(distribution, data.actions, action_clamp=0.97)
    assert awac.item() == pytest.approx(cloning.item())


def test_pearl_actor_loss_climbs_the_smaller_q():
    policy = Policy(0.5, 1e-8)
    actions = policy(torch.zeros(1, 1, 1), Z).unsquashed(torch.zeros(1, 1, 1)).tanh()
    value = Critic(2.0)(None, actions, Z).amin(0)
    loss, _ = pearl_actor_loss(value, torch.tensor([[3.0]]), entropy_coefficient=0.0)
    assert loss.item() == pytest.approx(-(2 + math.tanh(0.5)), rel=1e-5)
    loss.backward()
    # d/dmean of -tanh(mean) = -(1 - tanh^2)
    assert policy.mean.grad.item() == pytest.approx(-(1 - math.tanh(0.5) ** 2), rel=1e-4)
    loss, _ = pearl_actor_loss(value.detach(), torch.tensor([[3.0]]), entropy_coefficient=0.5)
    assert loss.item() == pytest.approx(0.5 * 3 - (2 + math.tanh(0.5)), rel=1e-5)


def test_reward_loss_is_equation_3():
    data = batch([0.0, 1.0], [1.0, 3.0], [0.0, 0.0])

    def decoder(observations, actions, z):
        return actions.squeeze(-1) + z[:, :1]

    posterior = Gaussian(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, math.e]]))
    loss, info = reward_loss(decoder, posterior, data, torch.tensor([[0.5, 0.0]]), kl_weight=0.1)
    error = ((1 - 0.5) ** 2 + (3 - 1.5) ** 2) / 2
    divergence = 0.5 + 0.5 * (math.e - 2)
    assert info["reward_error"].item() == pytest.approx(error)
    assert info["kl"].item() == pytest.approx(divergence, rel=1e-6)
    assert loss.item() == pytest.approx(error + 0.1 * divergence, rel=1e-6)
