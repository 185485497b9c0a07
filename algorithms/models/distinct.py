"""Equal rows of a batch computed once. In a world of cells half of a batch, and later most of it, is repetition."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.products import linear


class Distinct(NamedTuple):
    """rows[inverse] are the rows of the batch, batch[first] are rows."""

    rows: Tensor  # [U, n]
    inverse: Tensor  # [B] int64
    first: Tensor  # [U] int64


@torch.no_grad()
def distinct(batch: Tensor) -> Distinct:
    """The distinct rows of batch [B, n], in no order that means something. Differentiate through `rows[inverse]`."""
    # Sorting one number of each row takes a tenth of the time of sorting rows.
    weights = torch.linspace(1.0, 2.0, batch.shape[-1], dtype=torch.float64, device=batch.device).exp()
    mark = (batch.double() * weights).sum(-1)
    values, inverse = torch.unique(mark, return_inverse=True)
    index = torch.arange(len(batch), device=batch.device)
    first = torch.empty(len(values), dtype=torch.int64, device=batch.device).scatter_(0, inverse, index)
    rows = batch[first]
    if not torch.equal(rows[inverse], batch):  # two rows with the same mark, or NaN
        return Distinct(batch, index, index)
    return Distinct(rows, inverse, first)


class DistinctRows(nn.Sequential):
    """Layers that compute equal rows of their input [..., n] once; gradients of equal rows add up, as they would.

    An input that is differentiated itself is computed as it is: each of its rows has a gradient of its own.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) < 2 or x.requires_grad or torch.compiler.is_compiling():
            return super().forward(x)
        found = distinct(rows)
        return super().forward(found.rows)[found.inverse].reshape(*x.shape[:-1], -1)


def apply_to_repeated(network: nn.Sequential, x: Tensor) -> Tensor:
    """network(x) for x [..., n] with few distinct rows, each computed once, as its part of the weights' gradients is.

    Differentiable in x as well, where each row has a gradient of its own: codes are rounded, and what they are rounded
    from differs (the straight-through gradient). network: linear layers and ReLUs.
    """
    flat = x.reshape(-1, x.shape[-1])
    if torch.compiler.is_compiling() or len(flat) < 2:
        return network(x)
    found = distinct(flat.detach())
    hidden, signs = found.rows, []
    for layer in network:
        hidden = layer(hidden)
        if isinstance(layer, nn.ReLU):
            signs.append(hidden.detach() > 0)
    y = hidden[found.inverse]
    if x.requires_grad:
        y = y + _InputGradient.apply(flat, found.inverse, network, signs, y.shape[-1])
    return y.reshape(*x.shape[:-1], -1)


class _InputGradient(torch.autograd.Function):
    """Zeros, whose gradient in x is that of the network at x: the way back through its layers, weights held fixed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, inverse: Tensor, network: nn.Sequential, signs: list[Tensor], outputs: int
    ) -> Tensor:
        ctx.inverse, ctx.network, ctx.signs = inverse, network, signs
        return x.new_zeros(len(x), outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), signs = grads, list(ctx.signs)
        with torch.no_grad():
            for layer in reversed(ctx.network):
                grad = grad * signs.pop()[ctx.inverse] if isinstance(layer, nn.ReLU) else linear(grad, layer.weight.t())
        return grad, None, None, None, None
