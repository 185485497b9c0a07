"""Matrix products: torch's own, or oneDNN's where a probe found them quicker.

torch takes its float32 products on the CPU from MKL. It contains oneDNN as well, of which it has no public call. Which
is quicker depends on the processor and the shape. [500, 200] x [200, 600] runs at 110 GFLOP/s in MKL and at 220 in
oneDNN on a core with AVX-512 of an EPYC; without AVX-512 oneDNN is behind for most shapes (docs/results/avx2.md). So
a process measures once, for four classes of shapes, and takes oneDNN where the probe has it LEAST_GAIN times as quick.

The environment variable PARSEC_PRODUCTS fixes the choice: `torch`, `onednn`, or `measure`, the default. A choice of
others arrives with the weights (`ProductChoice`), so that all processes of a trial multiply alike.

Other devices and types, narrow outputs and torch.compile always have torch's own.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from torch import Tensor, nn

VARIABLE = "PARSEC_PRODUCTS"
LEAST_GAIN = 1.3  # of a private operation
MIN_WIDTH = 8  # a product with fewer columns is quicker in MKL
MANY_ROWS = 128
WIDE = 64  # inputs and outputs
# Rows, inputs and outputs of each class's probe: steps of the recurrence and of a plan.
PROBES = {
    "few rows, narrow": (50, 36, 200),
    "few rows, wide": (50, 200, 200),
    "many rows, narrow": (256, 36, 600),
    "many rows, wide": (256, 200, 600),
}
PROBE_ROUNDS = 5

Choice = tuple[bool, ...]  # by class of PROBES: whether oneDNN multiplies


class Linear(nn.Linear):
    """nn.Linear: its parameters and, up to rounding, its numbers."""

    def forward(self, input: Tensor) -> Tensor:
        """Multiply and add the bias: [..., n] -> [..., m]."""
        return linear(input, self.weight, self.bias)


class LinearOfVaryingRows(Linear):
    """For batches whose numbers of rows differ, for each of which oneDNN compiles a program.

    With a gradient torch multiplies a network's narrow first and last layers; last bits are then not those without.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Multiply and add the bias: [..., n] -> [..., m]."""
        if torch.is_grad_enabled() and min(self.weight.shape) < WIDE:
            return nn.functional.linear(input, self.weight, self.bias)
        return super().forward(input)


class ProductChoice(nn.Module):
    """A part of a module whose state is this process's choice: loading the state makes it this process's."""

    def get_extra_state(self) -> Tensor:
        """The choice, [classes] of 0 and 1."""
        return torch.tensor(choice(), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Have this process multiply as the one that the state came from."""
        use(tuple(bool(x) for x in state.tolist()), "came with the weights")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by the transpose of a weight and add a bias.

    Where oneDNN multiplies, a row's result does not depend on the other rows, to the bit; else to rounding.

    Args:
        x: [..., n].
        weight: [m, n].
        bias: [m].

    Returns:
        [..., m].
    """
    if not takes_onednn(x, weight):
        return nn.functional.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return product(x, weight, bias)
    # Of rows themselves no view is made, which would cost a node each.
    out: Tensor = _Linear.apply(x if x.dim() == 2 else x.reshape(-1, x.shape[-1]), weight, bias)
    return out if x.dim() == 2 else out.view(*x.shape[:-1], len(weight))


def takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies.

    Args:
        x: [..., n].
        weight: [m, n]. Of one with gaps between its rows oneDNN makes a slow copy.

    Returns:
        Whether `product` is taken.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling() or not any(choice()):
        return False
    m, n = weight.shape
    known = m >= MIN_WIDTH and _dense(weight)
    return known and choice()[2 * (x.numel() >= MANY_ROWS * n) + (min(m, n) >= WIDE)]


def torch_multiplies_on_cpu(x: Tensor) -> bool:
    """Whether all products of a kind of tensor are torch's on a CPU, in float32 and outside torch.compile.

    Args:
        x: Of any shape.

    Returns:
        Whether code that calls torch.mm itself multiplies as `linear` does.
    """
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()
    return on_cpu and not any(choice())


def choice() -> Choice:
    """What this process takes; measured or read from the environment by the first call.

    Raises:
        ValueError: The variable has another value, or asks for oneDNN where torch lacks it.
    """
    if _chosen is None:
        wanted = os.environ.get(VARIABLE, "measure")
        if wanted == "measure":
            gains = probe()
            told = ", ".join(f"{gain:.2f} for {name}" for name, gain in zip(PROBES, gains, strict=True))
            use(tuple(gain >= LEAST_GAIN for gain in gains), f"measured: oneDNN's speed over torch's is {told}")
        elif wanted in ("torch", "onednn"):
            use((wanted == "onednn",) * len(PROBES), f"fixed by {VARIABLE}")
        else:
            raise ValueError(f"{VARIABLE} must be torch, onednn or measure, got {wanted!r}; set one of them")
    assert _chosen is not None
    return _chosen


def use(chosen: Choice | None, reason: str = "") -> None:
    """Fix the choice of this process.

    Args:
        chosen: Whether oneDNN multiplies, by class; None: `choice` looks anew.
        reason: For people.

    Raises:
        ValueError: It has oneDNN multiply, and torch lacks the product.
    """
    global _chosen, _reason
    if chosen is not None and any(chosen) and not ONEDNN:
        raise ValueError(
            f"products are to be oneDNN's ({reason}), which torch {torch.__version__} lacks here; "
            f"set {VARIABLE}=torch and begin a new run"
        )
    _chosen, _reason = chosen, reason


def describe() -> str:
    """What this process takes and why, for people."""
    taken = [name for name, onednn in zip(PROBES, choice(), strict=True) if onednn]
    what = "torch" if not taken else "oneDNN" if len(taken) == len(PROBES) else f"oneDNN for {' and '.join(taken)}"
    return f"{what} ({_reason})"


@torch.no_grad()
def probe() -> tuple[float, ...]:
    """torch's time over oneDNN's, by class of PROBES: on one thread, the least of several rounds. Takes some 20 ms."""
    if not ONEDNN:
        return (0.0,) * len(PROBES)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(_gain(*sizes) for sizes in PROBES.values())
    finally:
        torch.set_num_threads(threads)


def _gain(rows: int, n: int, m: int) -> float:
    x, weight, bias = torch.full((rows, n), 0.5), torch.full((m, n), 0.5), torch.zeros(m)
    least = [float("inf")] * 2
    for _ in range(PROBE_ROUNDS):
        for i, multiply in enumerate((nn.functional.linear, product)):
            start = time.thread_time()  # of the processor: other processes' load does not decide
            multiply(x, weight, bias)
            least[i] = min(least[i], time.thread_time() - start)
    return least[0] / least[1]


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
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            linear(grad, weight.t()) if needs_x else None,
            linear(grad.t(), x.t()) if needs_weight else None,
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
_chosen: Choice | None = None
_reason = ""
