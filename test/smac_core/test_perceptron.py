"""The perceptron's ways of being computed against a chain of layers under autograd."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from smac_core import perceptron
from smac_core.networks import TwinQ
from smac_core.perceptron import mlp, perceptrons

ROWS = 37


@pytest.fixture(autouse=True, params=["one operation", "without oneDNN", "chain"])
def way(request, monkeypatch):
    """All networks large, so that they are one operation, or all small."""
    monkeypatch.setattr(perceptron, "LARGE", math.inf if request.param == "chain" else 0)
    if request.param == "without oneDNN":
        monkeypatch.setattr(perceptron, "_FUSED", False)


def gradients(output, inputs):
    return torch.autograd.grad((output**2).sum(), inputs)


def test_values_and_gradients_are_those_of_the_layers():
    torch.manual_seed(0)
    network = mlp(5, [33, 20], 3)
    layers = nn.Sequential(*network)
    rows = torch.randn(ROWS, 5, requires_grad=True)
    found, expected = network(rows), layers(rows)
    torch.testing.assert_close(found, expected)
    inputs = [rows, *network.parameters()]
    for mine, plain in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def test_a_layer_of_stacked_networks_by_hand():
    rows = torch.tensor([[1.0, -2.0]])
    first = torch.tensor([[[1.0], [1.0]], [[-1.0], [-1.0]]])  # hidden -1 and 1, so 0 and 1
    second = torch.tensor([[[5.0]], [[5.0]]])
    zero, one = torch.zeros(2, 1, 1), torch.ones(2, 1, 1)
    assert perceptrons(rows, [first, second], [zero, one]).flatten().tolist() == [1.0, 6.0]


def test_any_number_of_rows():
    network, rows = mlp(4, [16], 2), torch.randn(3, ROWS, 4)
    torch.testing.assert_close(network(rows)[2, 1], network(rows[2, 1]))
    assert network(rows[:, :0]).shape == (3, 0, 2)


def test_bfloat16_keeps_the_output_layer_exact():
    torch.manual_seed(0)
    network, rows = mlp(6, [64, 64], 1), torch.randn(ROWS, 6)
    network[-1].bias.data.fill_(-30.0)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(rows)
    assert low.dtype == torch.float32
    error = (low - network(rows)).abs().max().item()
    assert 0 < error < 0.02  # bfloat16's own step at -30 is 0.125
    for gradient in gradients(low, list(network.parameters())):
        assert gradient.dtype == torch.float32


@pytest.mark.parametrize("make", [lambda: TwinQ(3, 2, 4, [24, 24]), lambda: mlp(9, [24], 2)])
def test_vmap_is_one_network_after_the_other(make):
    torch.manual_seed(0)
    networks = [make() for _ in range(3)]
    twin = isinstance(networks[0], TwinQ)
    parts = [(torch.randn(3, 2, ROWS, n)) for n in ((3, 2) if twin else (9,))]
    parts += [torch.randn(3, 2, 4)] if twin else []
    stacked, _ = stack_module_state(networks)
    mapped = torch.vmap(lambda p, *x: functional_call(networks[0], p, x))(stacked, *parts)
    found = gradients(mapped, list(stacked.values()))
    for seed, network in enumerate(networks):
        alone = network(*(part[seed] for part in parts))
        torch.testing.assert_close(mapped[seed], alone)
        expected = gradients(alone, list(network.parameters()))
        for mine, plain in zip(found, expected, strict=True):
            torch.testing.assert_close(mine[seed], plain, rtol=1e-4, atol=1e-4)
