import math

import pytest
import torch

from smac_core.networks import ContextEncoder, Gaussian, PolicyDistribution, TwinQ
from smac_core.perceptron import mlp


def encoder(**options) -> ContextEncoder:
    """An encoder whose factor is (mean, raw scale) = (sum of the row, first number of the row)."""
    made = ContextEncoder(1, 1, 1, [], **options)
    with torch.no_grad():
        made.body[0].weight.copy_(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
        made.body[0].bias.zero_()
    return made


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_posterior_is_the_product_of_gaussian_factors():
    context = torch.tensor([[[0.0, 1.0, 2.0], [1.0, -1.0, 0.5]]])  # means 3 and 0.5
    precisions = [1 / softplus(0.0), 1 / softplus(1.0)]
    posterior = encoder()(context)
    total = sum(precisions)
    assert posterior.variance.item() == pytest.approx(1 / total)
    assert posterior.mean.item() == pytest.approx((3 * precisions[0] + 0.5 * precisions[1]) / total)


def test_scale_can_be_a_standard_deviation_and_the_prior_a_factor():
    context = torch.tensor([[[0.0, 1.0, 2.0]]])
    assert encoder(scale="standard_deviation")(context).variance.item() == pytest.approx(
        softplus(0.0) ** 2
    )
    precision = 1 / softplus(0.0)
    with_prior = encoder(prior_factor=True)(context)
    assert with_prior.variance.item() == pytest.approx(1 / (precision + 1))
    assert with_prior.mean.item() == pytest.approx(3 * precision / (precision + 1))


def test_posterior_ignores_order_and_absent_rows():
    torch.manual_seed(0)
    made = ContextEncoder(3, 2, 4, [16])
    context = torch.randn(2, 10, 6)
    posterior = made(context)
    shuffled = made(context[:, torch.randperm(10)])
    torch.testing.assert_close(posterior.mean, shuffled.mean)
    present = torch.zeros(2, 10)
    present[:, :4] = 1
    torch.testing.assert_close(made(context, present), made(context[:, :4]))


def test_empty_or_foreign_context_is_refused():
    with pytest.raises(ValueError, match="0 transitions"):
        encoder()(torch.zeros(1, 0, 3))
    with pytest.raises(ValueError, match="4 numbers, expected 3"):
        encoder()(torch.zeros(1, 5, 4))


def test_kl_from_the_prior():
    # 0.5 (v + m^2 - 1 - ln v) summed: m = (1, 0), v = (1, e)
    gaussian = Gaussian(torch.tensor([1.0, 0.0]), torch.tensor([1.0, math.e]))
    expected = 0.5 * (1 + 1 - 1 - 0) + 0.5 * (math.e + 0 - 1 - 1)
    assert gaussian.kl_from_standard_normal().item() == pytest.approx(expected, rel=1e-6)


def test_tanh_normal_density_equals_torch_distributions():
    torch.manual_seed(0)
    mean, log_std = torch.randn(7, 3), 0.5 * torch.randn(7, 3)
    ours = PolicyDistribution(mean, log_std)
    theirs = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()),
        torch.distributions.TanhTransform(),
    )
    unsquashed = ours.unsquashed(torch.randn(7, 3))
    actions, log_prob = unsquashed.tanh(), ours.log_density(unsquashed)
    torch.testing.assert_close(log_prob, theirs.log_prob(actions).sum(-1), rtol=1e-3, atol=1e-3)
    inside = actions.clamp(-0.9, 0.9)
    torch.testing.assert_close(ours.log_prob(inside, 0.97), theirs.log_prob(inside).sum(-1))


def test_saturated_actions_are_clamped():
    distribution = PolicyDistribution(torch.zeros(1, 2), torch.zeros(1, 2))
    saturated, clamped = torch.ones(1, 2), torch.full((1, 2), 0.97)
    torch.testing.assert_close(
        distribution.log_prob(saturated, 0.97), distribution.log_prob(clamped, 0.999)
    )
    assert torch.isfinite(distribution.log_prob(saturated, 0.999999)).all()


def test_twin_q_equals_two_separate_networks():
    torch.manual_seed(0)
    twin = TwinQ(3, 2, 4, [8, 8])
    observations, actions, z = torch.randn(5, 6, 3), torch.randn(5, 6, 2), torch.randn(5, 4)
    values = twin(observations, actions, z)
    assert values.shape == (2, 5, 6)
    inputs = torch.cat([observations, actions, z[:, None].expand(-1, 6, -1)], -1)
    for head in range(2):
        single = mlp(9, [8, 8], 1)
        for layer, weight, bias in zip(single[::2], twin.weights, twin.biases, strict=True):
            layer.weight.data, layer.bias.data = weight[head].T, bias[head, 0]
        torch.testing.assert_close(values[head], single(inputs).squeeze(-1))
    assert not torch.allclose(values[0], values[1])


def test_factors_and_their_product_are_the_encoder():
    made, context = encoder(prior_factor=True), torch.randn(4, 6, 3)
    mean, precision = made.factors(context)
    assert mean.shape == precision.shape == (4, 6, 1)
    for whole, product in zip(made(context), made.product(mean, precision), strict=True):
        torch.testing.assert_close(whole, product)


def test_a_frozen_critic_passes_gradients_to_actions_alone():
    critic = TwinQ(2, 1, 2, [8])
    actions = torch.randn(3, 5, 1, requires_grad=True)
    critic(torch.randn(3, 5, 2), actions, torch.randn(3, 2), frozen=True).sum().backward()
    assert actions.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in critic.parameters())
