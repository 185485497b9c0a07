"""Matrix products at the processor's full vector width.

torch takes its float32 products on the CPU from MKL, which leaves half of the vector width of AMD processors unused.
oneDNN, which torch contains as well, uses all of it. On a core of an EPYC, [500, 200] x [200, 600] runs at 110 GFLOP/s
in MKL and at 220 in oneDNN. torch has no public call for that. Its own products are used where its version lacks the
private call, for other devices and types, and under torch.compile.

Within `in_bfloat16`, wide products or those of their gradients alone are rounded to bfloat16: 8 significant bits where
float32 has 24. That is twice as fast where `multiplies_bfloat16`.

Axes: B rows, n inputs, m outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_WIDTH = 8  # a product with fewer columns is quicker in MKL
MIN_VARYING = 64  # fewer inputs or outputs are not worth a program for every number of rows
MIN_ROUNDED = 256  # fewer inputs or outputs are little work, and a network's last layer has what is asked of it

_rounded: ContextVar[Literal["nothing", "gradients", "all"]] = ContextVar("rounded", default="nothing")


@contextmanager
def in_bfloat16(enabled: bool = True, *, gradients_only: bool = False) -> Iterator[None]:
    """Round factors and results of wide products, those with MIN_ROUNDED or more inputs and outputs.

    They are rounded forwards, and backwards wherever backward is called. All tensors stay of type float32. A product
    that is rounded forwards can be differentiated once.

    Args:
        enabled: False turns rounding off inside another `in_bfloat16`.
        gradients_only: Do not round forwards.

    Yields:
        Nothing.
    """
    what: Literal["gradients", "all"] = "gradients" if gradients_only else "all"
    token = _rounded.set(what if enabled else "nothing")
    try:
        yield
    finally:
        _rounded.reset(token)


def rounds() -> bool:
    """Whether this is within `in_bfloat16`, and not for gradients alone."""
    return _rounded.get() == "all"


def rounds_gradients() -> bool:
    """Whether this is within `in_bfloat16`."""
    return _rounded.get() != "nothing"


class Linear(nn.Linear):
    """nn.Linear: its parameters and, up to rounding, its numbers."""

    def forward(self, input: Tensor) -> Tensor:
        """Multiply and add the bias.

        Args:
            input: [..., n].

        Returns:
            [..., m].
        """
        return linear(input, self.weight, self.bias)


class LinearOfVaryingRows(Linear):
    """A `Linear` for batches whose number of rows varies.

    oneDNN compiles a program for each number of rows. MKL takes what has gradients where oneDNN has no wider vectors,
    and for few inputs or outputs, as a network's first and last layer have. The last bits then are not those without
    gradients.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Multiply and add the bias.

        Args:
            input: [..., n].

        Returns:
            [..., m].
        """
        gains = min(self.weight.shape) >= MIN_VARYING and (WIDE or rounds_gradients())
        if torch.is_grad_enabled() and not gains:
            return nn.functional.linear(input, self.weight, self.bias)
        return super().forward(input)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; emulated, it is many times as slow as float32.

    Args:
        device: "cpu" or "cuda"; False for any other.

    Returns:
        Whether it has.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by the transpose of a weight and add a bias.

    A row's result does not depend on the other rows, to the bit (which in bfloat16 was not looked at).

    Args:
        x: [..., n].
        weight: [m, n].
        bias: [m].

    Returns:
        [..., m].
    """
    wide = x.dtype == torch.float32 and min(weight.shape) >= MIN_ROUNDED and not torch.compiler.is_compiling()
    if wide and rounds():
        return _of_rows(_LinearInBfloat16, x, weight, bias)
    fast = has_fast_product(x, weight)
    if torch.is_grad_enabled() and (fast or (wide and rounds_gradients())):
        return _of_rows(_Linear, x, weight, bias)
    return (product if fast else nn.functional.linear)(x, weight, bias)


def _of_rows(function: type[torch.autograd.Function], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A function of rows [B, n] for x [..., n]. Of rows themselves no view is made, which would cost a node each."""
    out: Tensor = function.apply(x if x.dim() == 2 else x.reshape(-1, x.shape[-1]), weight, bias)
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
        fast = has_fast_product(x, weight)
        ctx.fast = fast and x.shape[1] >= MIN_WIDTH and _dense(x)
        ctx.rounds = rounds_gradients() and min(weight.shape) >= MIN_ROUNDED
        return (product if fast else nn.functional.linear)(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        if ctx.rounds:
            return _rounded_gradients(ctx.needs_input_grad, grad, x.bfloat16(), weight.bfloat16())
        # Two steps back need `linear`, which is differentiable again; one need not ask what is known from forwards.
        multiply = product if ctx.fast and not torch.is_grad_enabled() else linear
        with in_bfloat16(False):  # wherever this is called, since the forward pass was not
            return (
                multiply(grad, weight.t()) if needs_x else None,
                multiply(grad.t(), x.t()) if needs_weight else None,
                grad.sum(0) if needs_bias else None,
            )


class _LinearInBfloat16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        out = (x @ weight.t()).float()
        return out if bias is None else out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _rounded_gradients(ctx.needs_input_grad, *grads, *ctx.saved_tensors)


def _rounded_gradients(needs: Sequence[bool], grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor | None, ...]:
    """Of x [B, n], weight [m, n], which are bfloat16, and a bias [m]; grad [B, m] is float32, as these are."""
    needs_x, needs_weight, needs_bias = needs
    rounded = grad.bfloat16()
    return (
        (rounded @ weight).float() if needs_x else None,
        (rounded.t() @ x).float() if needs_weight else None,
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
