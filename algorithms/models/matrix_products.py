"""Matrix products at the processor's full vector width.

torch takes its float32 products on the CPU from MKL, which leaves half of the vector width of AMD processors unused;
oneDNN, which torch contains as well, does not: [500, 200] x [200, 600] runs at 110 GFLOP/s in the one and at 220 in the
other on a core of an EPYC. torch has no public call for that. Where its version lacks the private one, and for other
devices and types and under torch.compile, these are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MIN_WIDTH = 8  # a product with fewer columns is quicker in MKL
MIN_VARYING = 64  # fewer inputs or outputs are not worth a program for every number of rows


class Linear(nn.Linear):
    """nn.Linear: its parameters and, up to rounding, its numbers."""

    def forward(self, input: Tensor) -> Tensor:
        """Multiply and add the bias: [..., n] -> [..., m]."""
        return linear(input, self.weight, self.bias)


class LinearOfVaryingRows(Linear):
    """For batches whose numbers of rows differ, for each of which oneDNN compiles a program.

    With a gradient MKL multiplies instead, where it has as wide vectors, and in a network's narrow first and last
    layers; last bits are then not those without. On AVX2 the layers of `parsimony_sac_quick` train 4 times as fast as
    with `Linear`, those of `parsimony_sac` 1.05 to 1.2 times (tests/benchmarks, -k kernels).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Multiply and add the bias: [..., n] -> [..., m]."""
        gains = min(self.weight.shape) >= MIN_VARYING and WIDE
        if torch.is_grad_enabled() and not gains:
            return nn.functional.linear(input, self.weight, self.bias)
        return super().forward(input)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by the transpose of a weight and add a bias.

    A row's result does not depend on the other rows, to the bit.

    Args:
        x: [..., n].
        weight: [m, n].
        bias: [m].

    Returns:
        [..., m].
    """
    fast = has_fast_product(x, weight)
    if not (fast and torch.is_grad_enabled()):
        return (product if fast else nn.functional.linear)(x, weight, bias)
    # Of rows themselves no view is made, which would cost a node each.
    out: Tensor = _Linear.apply(x if x.dim() == 2 else x.reshape(-1, x.shape[-1]), weight, bias)
    return out if x.dim() == 2 else out.view(*x.shape[:-1], len(weight))


def has_fast_product(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is there for a product, and quicker.

    Args:
        x: [..., n].
        weight: [m, n]. Of one with gaps between its rows oneDNN makes a slow copy.

    Returns:
        Whether `product` should be taken.
    """
    known = x.device.type == "cpu" and x.dtype == torch.float32 and len(weight) >= MIN_WIDTH
    return known and _dense(weight) and ONEDNN and not torch.compiler.is_compiling()


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.t().is_contiguous()


def product(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by the transpose of a weight and add a bias, by oneDNN; not differentiable.

    Args:
        x: [..., n] float32 on the CPU.
        w: [m, n].
        bias: [m].

    Returns:
        [..., m].
    """
    return torch.ops.mkldnn._linear_pointwise(x, w, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.fast = x.shape[1] >= MIN_WIDTH and _dense(x)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        # Two steps back need `linear`, which is differentiable again; one need not ask what is known from forwards.
        multiply = product if ctx.fast and not torch.is_grad_enabled() else linear
        return (
            multiply(grad, weight.t()) if needs_x else None,
            multiply(grad.t(), x.t()) if needs_weight else None,
            grad.sum(0) if needs_bias else None,
        )


def _has_onednn() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        x = torch.arange(6.0).view(2, 3)
        return bool(torch.equal(product(x, x), x @ x.t()))
    except (AttributeError, RuntimeError, TypeError):
        return False


ONEDNN = _has_onednn()
WIDE = torch.backends.cpu.get_cpu_capability() == "AVX512"
