"""A gated recurrent unit over whole sequences as one node of autograd, also for a stack of them.

A rollout has hundreds of steps of a few small operations each, so that what torch.nn.GRU spends on
a CPU is mostly the bookkeeping of autograd. Here the gates' derivatives are computed for all steps
at once, and only what runs from step to step is left in a loop. Unlike torch.nn.GRU it can be
mapped over by ``torch.vmap`` (several seeds at once).
"""

import torch
from torch import Tensor, nn


class GatedRecurrentUnit(nn.Module):
    """torch.nn.GRU's equations and initialisation, one layer, from a state of zeros."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.input = nn.Linear(inputs, 3 * hidden)  # of the reset, update and new gates
        self.recurrent = nn.Linear(hidden, 3 * hidden)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
        # Compiled, hundreds of steps would be unrolled. Here and not where the function is defined:
        # it loads the compiler, a second that every program would wait for.
        self._states = torch.compiler.disable(_recurrence)

    def forward(self, inputs: Tensor) -> Tensor:
        """States [B, N, h] after each step of inputs [B, N, i]; not under autocast."""
        projected = self.input(inputs).transpose(0, 1)
        states = self._states(projected, self.recurrent.weight.t(), self.recurrent.bias)
        return states.transpose(0, 1)

    def step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """The state [n, h] after a step of inputs [n, i] from a state [n, h]."""
        recurrent = self.recurrent(state)
        return _step(self.input(inputs), recurrent, state)[0]


def _step(projected: Tensor, recurrent: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The next state [..., h], the gates r and z [..., 2h] and the new value n [..., h]."""
    hidden = state.shape[-1]
    gates = (projected[..., : 2 * hidden] + recurrent[..., : 2 * hidden]).sigmoid()
    reset, update = gates.split(hidden, -1)
    new = torch.addcmul(projected[..., 2 * hidden :], reset, recurrent[..., 2 * hidden :]).tanh()
    return torch.lerp(new, state, update), gates, new


def _recurrence(projected: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _Recurrence.apply(projected, weight, bias)[0]


class _Recurrence(torch.autograd.Function):
    """States [N, B, h] for projected inputs [N, B, 3h], weight [h, 3h] and bias [3h].

    Or of M units: [N, M, B, 3h], [M, h, 3h] and [M, 1, 3h].
    """

    @staticmethod
    def forward(projected: Tensor, weight: Tensor, bias: Tensor):
        steps, *rows, width = projected.shape
        hidden = width // 3
        affine = torch.addmm if len(rows) == 1 else torch.baddbmm
        # every step's state, with that before the first; and what the backward pass needs of it
        states = projected.new_zeros(steps + 1, *rows, hidden)
        gates = projected.new_empty(steps, *rows, 2 * hidden)
        new, recurrent_new = projected.new_empty(2, steps, *rows, hidden).unbind()
        for t in range(steps):
            recurrent = affine(bias, states[t], weight)
            states[t + 1], gates[t], new[t] = _step(projected[t], recurrent, states[t])
            recurrent_new[t] = recurrent[..., 2 * hidden :]
        return states[1:].clone(), states, gates, new, recurrent_new

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[1], *output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor, *_: None):
        weight, states, gates, new, recurrent_new = ctx.saved_tensors
        steps, *rows, hidden = gradient.shape
        reset, update = gates.split(hidden, -1)
        # derivatives of a state by what its step's gates are computed from, all steps at once
        by_new = (1 - update) * (1 - new**2)
        by_update = (states[:-1] - new) * update * (1 - update)
        by_reset = by_new * recurrent_new * reset * (1 - reset)
        by_recurrent = torch.stack([by_reset, by_update, by_new * reset], -2)  # [N, ..., 3, h]
        back = weight.mT.contiguous()
        of_states = torch.empty_like(gradient)
        of_recurrent = torch.empty_like(by_recurrent)
        carried = torch.zeros_like(gradient[0])
        for t in reversed(range(steps)):
            torch.add(gradient[t], carried, out=of_states[t])
            torch.mul(by_recurrent[t], of_states[t].unsqueeze(-2), out=of_recurrent[t])
            carried = torch.matmul(of_recurrent[t].flatten(-2), back)
            carried.addcmul_(of_states[t], update[t])
        of_projected = torch.stack([*of_recurrent.unbind(-2)[:2], of_states * by_new], -2)
        of_recurrent = of_recurrent.flatten(-2)
        before = states[:-1]
        if len(rows) == 1:
            of_weight = before.flatten(0, 1).t() @ of_recurrent.flatten(0, 1)
            of_bias = of_recurrent.sum((0, 1))
        else:
            before, by_row = (x.transpose(0, 1).flatten(1, 2) for x in (before, of_recurrent))
            of_weight = before.mT @ by_row
            of_bias = by_row.sum(1, keepdim=True)
        return of_projected.flatten(-2), of_weight, of_bias

    @staticmethod
    def vmap(info, in_dims, projected, weight, bias):
        """The mapped dimension becomes M."""
        moved = []
        for value, dim, place in zip((projected, weight, bias), in_dims, (1, 0, 0), strict=True):
            if dim is None:
                value, dim = value.expand(info.batch_size, *value.shape), 0
            moved.append(value.movedim(dim, place))
        outputs = _Recurrence.apply(moved[0], moved[1], moved[2].unsqueeze(1))
        return outputs, (1,) * len(outputs)
