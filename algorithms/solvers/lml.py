"""The limited multi-label (LML) projection: a differentiable top-k (DCEM paper, section 3, eqs. 3 and 4)."""

import math
from typing import Any

import torch
from torch import Tensor

# Two Newton steps more than the worst of many adversarial rows (N from 2 to 20,000) needed before the redistribution
# that ends the search brought its sum to rounding level.
_STEPS = {torch.float32: 8, torch.float64: 10}
# Scores further than this from the threshold, in temperatures, weigh 0 or 1 to the last bit.
_MAX_GAP = 120.0


def lml_projection(x: Tensor, k: int, temperature: float | Tensor = 1.0) -> Tensor:
    """Relax top-k selection to weights in [0, 1] that sum to k (DCEM paper, eq. 4 and Prop. 2).

    The weights are y = sigmoid(x / temperature + nu). Each row has one nu, such that its weights sum to k. Axes: N
    candidates; leading axes are independent problems.

    Args:
        x: Scores [..., N], dimensionless, float32 or float64. The largest get the weight; -inf gets 0 and no gradient.
            A row with fewer than k scores above -inf comes back as NaN.
        k: How many to select, 1 <= k <= N.
        temperature: Divides the scores, > 0; a float or a tensor [] or [..., 1]. Towards 0 the selection becomes hard.

    Returns:
        Weights [..., N], each row summing to k. They are differentiable any number of times in x and in a temperature
        tensor.

    Raises:
        ValueError: An argument is out of range. A tensor's values are checked on the CPU only, where reading them
            needs no synchronisation.
    """
    if not isinstance(x, Tensor) or x.dim() == 0 or x.dtype not in _STEPS:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must be a float32 or float64 tensor of shape [..., N], got {got}; convert the scores first"
        )
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= x.shape[-1]:
        raise ValueError(f"k must be an integer in [1, N], got {k!r} with N={x.shape[-1]}; give more scores or lower k")
    if isinstance(temperature, Tensor):
        _check_temperature(temperature, x)
        temperature = temperature.to(x)
    elif not 0.0 < temperature < math.inf:
        raise ValueError(
            f"temperature must be positive and finite, got {temperature}; take torch.topk for a hard choice"
        )
    return _Projection.apply(x, k, temperature)


def _check_temperature(temperature: Tensor, x: Tensor) -> None:
    rows = (*x.shape[:-1], 1)
    try:
        fits = torch.broadcast_shapes(temperature.shape, rows) == rows
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"a temperature tensor must broadcast to one value per row, shape {rows} for x of shape {tuple(x.shape)}, "
            f"got shape {tuple(temperature.shape)}; add an axis of size 1 at the end"
        )
    readable = temperature.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable and not bool(((temperature > 0) & (temperature < math.inf)).all()):
        raise ValueError(f"temperature must be positive and finite, got {temperature.detach().tolist()}; raise it")


class _Projection(torch.autograd.Function):
    """The root by bracketed Newton steps; the gradient by the implicit function theorem at the root."""

    @staticmethod
    def forward(x: Tensor, k: int, temperature: float | Tensor) -> Tensor:
        if k == x.shape[-1]:
            return x - x + 1.0  # NaN in a row that holds -inf, which has too few scores
        return _project(x, k, temperature)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, float | Tensor], output: Tensor) -> None:
        x, _, temperature = inputs
        if isinstance(temperature, Tensor):
            ctx.save_for_backward(output, x, temperature)
        else:
            ctx.save_for_backward(output)
            ctx.temperature = temperature

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        (h,) = grads
        y, *differentiable = ctx.saved_tensors  # read once: checkpointing unpacks once
        # With s = x / temperature: dy = w (ds + dnu), w = y (1 - y), and dnu keeps the sum: sum(w (ds + dnu)) = 0.
        w = y * (1.0 - y)
        total = w.sum(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)  # a saturated row has gradient 0, not 0/0
        grad_s = w * (h - (w * h).sum(-1, keepdim=True) / total)
        if not differentiable:
            return grad_s / ctx.temperature, None, None
        x, temperature = differentiable
        grad_t = None
        if ctx.needs_input_grad[2]:
            x = torch.where(w > 0, x, 0.0)  # an infinite score moves nothing
            # grad_s sums to 0, so that any shift of x is free: this one keeps the products small.
            centred = x - (w * x).sum(-1, keepdim=True).detach() / total.detach()
            grad_t = (-grad_s * centred).sum(-1, keepdim=True).div(temperature.square()).sum_to_size(temperature.shape)
        return (grad_s / temperature if ctx.needs_input_grad[0] else None), None, grad_t


def _project(x: Tensor, k: int, temperature: float | Tensor) -> Tensor:
    """Project x [..., N] -> y [..., N], for k < N, in a fixed number of steps whatever the values.

    The CPU may leave out steps that would change nothing. Scores enter relative to the middle between the k-th and the
    (k+1)-th largest. There |nu| is at most about log(N), whatever the scale of the scores, so that nu is known to the
    last bits. F = exp(-s) is the only transcendental pass: each step needs y = 1 / (1 + F exp(-nu)) alone.
    """
    rest = x.shape[-1] - k
    top = torch.topk(x, k + 1, dim=-1).values
    kth, gap = top[..., k - 1 : k], (top[..., k - 1 : k] - top[..., k:]) / temperature
    half = gap.clamp(max=_MAX_GAP) / 2
    decay = (kth - x).div_(temperature).sub_(half).exp_()  # F

    # The k-th score stands at +half, the next at -half. At hi the weights sum to k or more, at lo to k or less.
    a, b = math.log(2 * k) / 2, math.log(2 * rest) / 2
    hi = torch.where(half >= a, a, half + math.log(k))
    lo = torch.where(half >= b, -b, -half - math.log(rest))
    nu = (lo + hi) / 2
    target = math.log(k / rest)  # logit(k / N)
    readable = x.device.type == "cpu" and not torch.compiler.is_compiling()
    for _ in range(_STEPS[x.dtype]):
        y = torch.mul(decay, (-nu).exp()).add_(1.0).reciprocal_()
        p = y.mean(-1, keepdim=True)
        slope = (1.0 - y).mul_(y).mean(-1, keepdim=True)  # of p in nu
        # Newton on logit(p): straight where all scores are close, so that ties take one step.
        error = target - p.logit()
        newton = torch.addcdiv(nu, error * (p - p * p), slope)
        # The bracket moves by the sign of the same error, so that rounding can never put a tiny last step outside it.
        short = error > 0
        lo, hi = torch.where(short, nu, lo), torch.where(short, hi, nu)
        # A step out of the bracket, or NaN where a row is saturated, becomes a bisection.
        last, nu = nu, torch.where((newton >= lo) & (newton <= hi), newton, torch.lerp(lo, hi, 0.5))
        # A step that moves no row to the last bit would repeat itself: the number of steps is saved, and no digit.
        if readable and torch.equal(last, nu):
            break

    y = torch.mul(decay, (-nu).exp()).add_(1.0).reciprocal_()
    # One last Newton step taken in the weights: the sum is right also where nu has too few digits for it.
    w = y * (1.0 - y)
    missing = (k - y.sum(-1, keepdim=True, dtype=torch.float64)).to(x.dtype)
    step = missing / w.sum(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return torch.addcmul(y, w, step.clamp(-0.1, 0.1))  # within this step no weight leaves [0, 1]
