"""Multilayer perceptrons as one operation: what a gradient step spends its time on.

Compared with a chain of layers under autograd the forward pass fuses bias and ReLU into the matrix
product where the device can, and the backward pass writes in place, computes nothing that is not
asked for, and is one node. Under ``torch.autocast`` the hidden layers run in bfloat16; the output
layer stays in float32, since bfloat16 would round a Q of -30 by an eighth.

A stack of M networks of the same sizes (the two heads of a twin Q, the seeds of ``torch.vmap``) is
one batch of matrix products on a GPU; on a CPU each goes by itself and so stays in the cache.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LARGE = 1e7  # rows times widths of a hidden layer from which on one operation beats a chain, CPU
_FUSED = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> "Perceptron":
    """ReLU network with an identity output (table 1)."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return Perceptron(*layers, nn.Linear(inputs, outputs))


class Perceptron(nn.Sequential):
    """Linear layers with ReLUs between them; see ``mlp``."""

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs [..., outputs] of rows [..., inputs]."""
        low = _low_precision(rows)
        if low is None and _small(rows, self[-1].in_features):
            return super().forward(rows)
        weights, biases = [], []
        for layer in self:
            if isinstance(layer, nn.Linear):
                weights.append(layer.weight.t())
                biases.append(layer.bias)
        output = _one(rows.reshape(-1, rows.shape[-1]), low, weights, biases)
        return output.view(*rows.shape[:-1], output.shape[-1])


def perceptrons(rows: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Outputs [M, N, outputs] of M ReLU networks for the same rows [N, inputs].

    Args:
        rows: [N, inputs].
        weights: of each layer, [M, inputs, outputs].
        biases: of each layer, [M, 1, outputs].
    """
    low = _low_precision(rows)
    if rows.device.type == "cpu" and not _small(rows, weights[-1].shape[1]):
        members = (*(p.unbind() for p in weights), *(p.squeeze(1).unbind() for p in biases))
        each = zip(*members, strict=True)
        depth = len(weights)
        return torch.stack([_one(rows, low, p[:depth], p[depth:]) for p in each])
    rows = rows.expand(len(weights[0]), -1, -1)
    if rows.device.type == "cpu" or torch.compiler.is_compiling():
        return _chain(rows, low, weights, biases)
    return _Perceptrons.apply(rows, low, len(weights), *weights, *biases)[0]


def _one(
    rows: Tensor, low: torch.dtype | None, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Outputs [N, outputs] of one network, its weights [inputs, outputs] and biases [outputs]."""
    if torch.compiler.is_compiling() or _small(rows, weights[-1].shape[0]):
        return _chain(rows, low, weights, biases)
    return _Perceptrons.apply(rows, low, len(weights), *weights, *biases)[0]


def _low_precision(rows: Tensor) -> torch.dtype | None:
    device = rows.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _small(rows: Tensor, width: int) -> bool:
    return rows.device.type == "cpu" and rows.shape[:-1].numel() * width**2 < LARGE


def _chain(
    rows: Tensor, low: torch.dtype | None, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Layer after layer, for autograd to see: a compiler fuses them, and small ones cost less."""
    values = rows
    with torch.autocast(rows.device.type, enabled=False):
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            if low is not None:
                values, weight, bias = values.to(low), weight.to(low), bias.to(low)
            values = _affine(values, weight, bias).relu()
        return _affine(values.to(rows.dtype), weights[-1], biases[-1])


class _Perceptrons(torch.autograd.Function):
    """One network (rows [N, inputs], weights [inputs, outputs], biases [outputs]) or M of them,
    with a dimension M in front of all (biases [M, 1, outputs])."""

    @staticmethod
    def forward(rows: Tensor, low: torch.dtype | None, depth: int, *parameters: Tensor):
        weights, biases = parameters[:depth], parameters[depth:]
        hidden, values = [], rows if low is None else rows.to(low)
        with torch.autocast(rows.device.type, enabled=False):
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                if low is not None:
                    weight, bias = weight.to(low), bias.to(low)
                values = _affine_relu(values, weight, bias)
                hidden.append(values)
            output = _affine(values.to(rows.dtype), weights[-1], biases[-1])
        return output, *hidden

    @staticmethod
    def setup_context(ctx, inputs, output):
        rows, _, depth, *parameters = inputs
        ctx.depth = depth
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # the hidden layers', which are zero, would be filled in
        ctx.save_for_backward(*parameters[:depth], rows, *output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor, *_: None):
        depth, needed = ctx.depth, ctx.needs_input_grad
        weights, inputs = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        by_weights: list[Tensor | None] = [None] * depth
        by_biases: list[Tensor | None] = [None] * depth
        by_rows = None
        for layer in reversed(range(depth)):
            weight, values = weights[layer], inputs[layer]
            if needed[3 + layer]:
                by_weights[layer] = _outer(values.to(gradient.dtype), gradient, weight)
                stacked = gradient.dim() > 2
                by_biases[layer] = gradient.sum(-2, keepdim=stacked).to(weight.dtype)
            if layer > 0:
                gradient = _times_transposed(gradient, weight).to(values.dtype)
                gradient = torch.ops.aten.threshold_backward.grad_input(
                    gradient, values, 0, grad_input=gradient
                )
            elif needed[0]:
                by_rows = _times_transposed(gradient, weight).to(values.dtype)
        return by_rows, None, None, *by_weights, *by_biases

    @staticmethod
    def vmap(info, in_dims, rows, low, depth, *parameters):
        """Fold the mapped dimension into M."""
        seeds, folded = info.batch_size, []
        for value, dim in zip((rows, *parameters), (in_dims[0], *in_dims[3:]), strict=True):
            value = value.expand(seeds, *value.shape) if dim is None else value.movedim(dim, 0)
            folded.append(value)
        alone = folded[0].dim() == 3  # one network a seed
        if alone:
            folded[1 + depth :] = [bias.unsqueeze(1) for bias in folded[1 + depth :]]
        else:
            members = folded[0].shape[1]
            folded = [value.flatten(0, 1) for value in folded]
        outputs = _Perceptrons.apply(folded[0], low, depth, *folded[1:])
        return outputs if alone else tuple(x.unflatten(0, (seeds, members)) for x in outputs), 0


def _affine(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """values [(M,) N, inputs] @ weight [(M,) inputs, outputs] + bias."""
    return (torch.addmm if values.dim() == 2 else torch.baddbmm)(bias, values, weight)


def _affine_relu(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if _FUSED and values.device.type == "cpu" and values.dim() == 2:
        return _onednn(values, weight.t(), bias, "relu")
    return _affine(values, weight, bias).relu_()


def _outer(values: Tensor, gradient: Tensor, like: Tensor) -> Tensor:
    """values^T @ gradient, [(M,) inputs, outputs], in layout and type of the weight ``like``."""
    if like.stride(-1) == 1:
        return torch.matmul(values.mT, gradient).to(like.dtype)
    return torch.matmul(gradient.mT, values).to(like.dtype).mT


def _times_transposed(gradient: Tensor, weight: Tensor) -> Tensor:
    """gradient @ weight^T, [(M,) N, inputs]."""
    weight = weight.to(gradient.dtype)
    if _FUSED and gradient.device.type == "cpu" and gradient.dim() == 2:
        return _onednn(gradient, weight, None, "none")
    return torch.matmul(gradient, weight.mT)


def _onednn(values: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    """values [N, i] @ weight [o, i]^T + bias, and then "relu" or "none", in one pass."""
    return torch.ops.mkldnn._linear_pointwise.default(values, weight, bias, then, [], "")
