"""The recurrent unit of the belief against torch.nn.GRU, values and gradients."""

import torch
from torch import nn
from torch.func import functional_call

from smac_core.recurrence import GatedRecurrentUnit


def test_the_recurrence_is_torchs_gru_also_for_several_at_once():
    torch.manual_seed(0)
    ours, theirs = [GatedRecurrentUnit(5, 7) for _ in range(2)], []
    names = {"input.weight": "weight_ih_l0", "input.bias": "bias_ih_l0"}
    names |= {"recurrent.weight": "weight_hh_l0", "recurrent.bias": "bias_hh_l0"}
    inputs, by = torch.randn(2, 3, 11, 5), torch.randn(2, 3, 11, 7)
    for unit, x, weight in zip(ours, inputs, by, strict=True):
        gru = nn.GRU(5, 7, batch_first=True)
        gru.load_state_dict({names[key]: value for key, value in unit.state_dict().items()})
        mine, its = x.clone().requires_grad_(), x.clone().requires_grad_()
        states, expected = unit(mine), gru(its)[0]
        torch.testing.assert_close(states, expected)
        torch.testing.assert_close(unit.step(x[:, 4], states[:, 3]), states[:, 4])
        (states * weight).sum().backward()
        (expected * weight).sum().backward()
        torch.testing.assert_close(mine.grad, its.grad)
        for key, parameter in unit.named_parameters():
            torch.testing.assert_close(parameter.grad, getattr(gru, names[key]).grad)
        theirs.append(expected)
    stacked = {
        key: torch.stack([dict(unit.named_parameters())[key].detach() for unit in ours])
        for key in names
    }
    for value in stacked.values():
        value.requires_grad_()
    found = torch.vmap(lambda p, x: functional_call(ours[0], p, (x,)))(stacked, inputs)
    torch.testing.assert_close(found, torch.stack(theirs))
    (found * by).sum().backward()
    for key, value in stacked.items():
        expected = torch.stack([dict(unit.named_parameters())[key].grad for unit in ours])
        torch.testing.assert_close(value.grad, expected)
