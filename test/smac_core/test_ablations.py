"""updates.actor: SMAC's losses and its ablations' (figure 5) against numbers worked out by hand."""

import json
import math

import pytest
import torch
from torch import nn

from smac_core.agents.context import Agent
from smac_core.algorithms.context_learner import Noise, Sample
from smac_core.algorithms.smac import SMAC
from smac_core.commands.experiments import METHODS
from smac_core.config import ConfigError, load_config, override_config, parse_config
from smac_core.data.replay import Batch
from smac_core.networks import PolicyDistribution
from smac_core.training.run import pretrained_directory

MEAN, STD, NOISE = 0.1, 2.0, 0.5
U = MEAN + STD * NOISE  # of a~ and a' = tanh(U)
LOG_DENSITY = (
    -0.5 * NOISE**2 - math.log(STD) - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(U) ** 2)
)
VALUE, NEXT = 3 + math.tanh(U), 10 + math.tanh(U)  # min Q(s, a~, z), min Q'(s', a', z)
DISCOUNT = 0.9  # the point mass's; its reward scale is 1


class Critic(nn.Module):
    """Q_1 = bias + a, Q_2 = Q_1 + 1."""

    def __init__(self, bias: float):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, observations, actions, z, *, frozen=False):
        first = (self.bias.detach() if frozen else self.bias) + actions[..., 0]
        return torch.stack([first, first + 1])


class Policy(nn.Module):
    """Normal before the squashing, around a parameter."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(MEAN))

    def forward(self, observations, z):
        mean = self.mean.expand(*observations.shape[:-1], 1)
        return PolicyDistribution(mean, torch.full_like(mean, math.log(STD)))


@pytest.fixture
def losses(config):
    """A phase's scalars and d loss / d mean, of two equal transitions: a = .5, r = 1."""

    def make(*changes: str, phase: str = "offline"):
        settings = override_config(config, list(changes))
        learner = SMAC(settings, Agent(1, 1, settings.networks), torch.Generator())
        learner.critic, learner.target_critic = Critic(3.0), Critic(10.0)
        learner.agent.policy = Policy()
        one = torch.ones(1, 2)
        batch = Batch(one[..., None], 0.5 * one[..., None], one, one[..., None], 0 * one)
        noise = torch.full((1, 2, 1), NOISE)
        z = torch.zeros(1, settings.networks.latent_dim)
        sample = Sample(torch.zeros(1, 4, 3), batch, Noise(z, noise, noise))
        loss, info = getattr(learner, f"{phase}_loss")(sample)
        loss.backward()
        return info, learner.agent.policy.mean.grad.item()

    return make


def critic_loss(target: float) -> float:
    return (3.5 - target) ** 2 + (4.5 - target) ** 2


@pytest.mark.parametrize("phase", ["offline", "self_supervised"])
def test_the_actor_ablation_has_pearls_term_alone(losses, phase):
    info, gradient = losses("updates.actor=pearl", phase=phase)
    assert info["pearl_actor_loss"].item() == pytest.approx(-VALUE, rel=1e-5)
    assert "awac_weight" not in info
    assert gradient == pytest.approx(-(1 - math.tanh(U) ** 2), rel=1e-4)
    # without entropy in the target, also where PEARL's term has some
    info, _ = losses("updates.actor=pearl", "updates.entropy_coefficient=0.5", phase=phase)
    assert info["pearl_actor_loss"].item() == pytest.approx(0.5 * LOG_DENSITY - VALUE, rel=1e-5)
    assert info["critic_loss"].item() == pytest.approx(critic_loss(1 + DISCOUNT * NEXT), rel=1e-5)


@pytest.mark.parametrize("phase", ["offline", "self_supervised"])
def test_the_sac_ablation_has_entropy_in_both_losses(losses, phase):
    info, gradient = losses("updates.actor=sac", "updates.entropy_coefficient=0.5", phase=phase)
    target = 1 + DISCOUNT * (NEXT - 0.5 * LOG_DENSITY)
    assert info["q_target"].item() == pytest.approx(target, rel=1e-5)
    assert info["critic_loss"].item() == pytest.approx(critic_loss(target), rel=1e-5)
    assert info["pearl_actor_loss"].item() == pytest.approx(0.5 * LOG_DENSITY - VALUE, rel=1e-5)
    # d log pi(tanh u) / d mean with u = mean + std * noise: 2 tanh u
    expected = 0.5 * 2 * math.tanh(U) - (1 - math.tanh(U) ** 2)
    assert gradient == pytest.approx(expected, rel=1e-4)


def test_smac_has_equation_2_and_lambda_times_pearls_term(losses):
    u = math.atanh(0.5)
    weight = math.exp((3.5 - VALUE) / 0.3)
    log_prob = -0.5 * ((u - MEAN) / STD) ** 2 - math.log(STD) - 0.5 * math.log(2 * math.pi)
    awac = -weight * (log_prob - math.log(0.75))
    changes = ("updates.entropy_coefficient=0.5", "self_supervised.lambda_pearl=2")
    info, gradient = losses(*changes)
    assert info["actor_loss"].item() == pytest.approx(awac, rel=1e-4)
    imitation = -weight * (u - MEAN) / STD**2
    assert gradient == pytest.approx(imitation, rel=1e-4)
    info, gradient = losses(*changes, phase="self_supervised")
    assert info["critic_loss"].item() == pytest.approx(critic_loss(1 + DISCOUNT * NEXT), rel=1e-5)
    pearl = 0.5 * 2 * math.tanh(U) - (1 - math.tanh(U) ** 2)
    assert gradient == pytest.approx(imitation + 2 * pearl, rel=1e-4)


def test_what_a_configuration_may_say(config):
    with pytest.raises(ConfigError, match="entropy_coefficient: found 0"):
        override_config(config, ["updates.actor=sac"])
    with pytest.raises(ConfigError, match="updates.actor"):
        override_config(config, ["updates.actor=sack"])
    ablation = METHODS["sac_ablation"].config(config)
    assert (ablation.updates.actor, ablation.updates.entropy_coefficient) == ("sac", 1.0)
    ant = load_config("ant_direction", "cpu", ["online.reward_scale=2", "updates.reward_scale=4"])
    assert METHODS["sac_ablation"].config(ant).updates.entropy_coefficient == 0.05  # 0.025 of 2
    own = override_config(config, ["updates.entropy_coefficient=0.2"])
    assert METHODS["sac_ablation"].config(own).updates.entropy_coefficient == 0.2
    assert METHODS["smac"].config(own) == own
    shipped = json.loads((pretrained_directory() / "sawyer" / "run.json").read_text())["config"]
    assert "actor" not in shipped["updates"]
    assert parse_config(shipped, "run.json").updates.actor == "awac"
