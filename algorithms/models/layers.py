"""Layers that several models share."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def mlp(
    sizes: list[int], activation: type[nn.Module] = nn.ReLU, linear: type[nn.Linear] = nn.Linear
) -> nn.Sequential:
    """Fully connected layers sizes[0] -> ... -> sizes[-1], with the activation after all but the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


class OneDNNLinear(nn.Linear):
    """nn.Linear whose products on the CPU in float32 are oneDNN's, once differentiable; elsewhere nn.Linear itself.

    torch takes its products from MKL, which leaves half of the vector width of AMD processors unused: measured on one
    core, [100, 256] x [256, 256] runs at 100 GFLOP/s there and at 190 in oneDNN. torch has no public call for it, so
    that where this version of torch lacks the private one, the plain product is taken.
    """

    def forward(self, input: Tensor) -> Tensor:
        plain = input.device.type != "cpu" or input.dtype != torch.float32 or torch.compiler.is_compiling()
        if plain or not _ONEDNN:
            return super().forward(input)
        return _Linear.apply(input, self.weight, self.bias)


def _has_onednn() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        x = torch.arange(6.0).view(2, 3)
        return bool(torch.equal(_product(x, x.t()), x @ x.t()))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _product(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., n] times w [n, m], plus bias [m]."""
    return torch.ops.mkldnn._linear_pointwise(x, w.t(), bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight.t(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grads[0].reshape(-1, grads[0].shape[-1])
        grad_x = _product(rows, weight).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_w = _product(rows.t(), x.reshape(-1, x.shape[-1])) if ctx.needs_input_grad[1] else None
        return grad_x, grad_w, rows.sum(0) if ctx.has_bias else None


_ONEDNN = _has_onednn()


class RunningNorm(nn.Module):
    """Standardises the last axis by the running mean and standard deviation of everything that `update` has seen.

    The statistics are buffers: they travel with the weights and need no second place to be kept.
    Before the first update it is the identity.
    """

    mean: Tensor  # [O]
    var: Tensor  # [O]
    count: Tensor  # []

    def __init__(self, size: int, min_std: float = 1e-2):
        super().__init__()
        self.min_std = min_std
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., O] in data units -> [..., O] standardised."""
        return (x - self.mean) / self.var.sqrt().clamp(min=self.min_std)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Merge the rows of x [..., O] into the statistics (Chan et al. 1979, parallel variance)."""
        rows = x.reshape(-1, x.shape[-1])
        n = rows.shape[0]
        if n == 0:
            return
        total = self.count + n
        share = (n / total).to(rows.dtype)  # weight of the new rows
        delta = rows.mean(0) - self.mean
        self.var.copy_(
            (1 - share) * self.var * (self.count > 0)
            + share * rows.var(0, unbiased=False)
            + share * (1 - share) * delta**2
        )
        self.mean.add_(share * delta)
        self.count.copy_(total)
