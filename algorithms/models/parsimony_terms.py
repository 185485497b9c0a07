"""Terms of the parsimonious model's loss (Saanum and Schulz 2022, sections 2.2 to 2.4, appendix A.1).

Axes: B states, O observation, Z latent, n bits of a code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class _RoundStraightThrough(torch.autograd.Function):
    """Rounding whose gradient is the identity's."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        return (p >= 0.5).to(p.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_straight_through(p: Tensor) -> Tensor:
    """Round probabilities (eq. 3); the gradient passes as if nothing had been rounded.

    Args:
        p: [...] in [0, 1].

    Returns:
        Exactly 1 where p >= 0.5, else 0.
    """
    return _RoundStraightThrough.apply(p)


def bernoulli_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(q || p) of independent Bernoulli variables (eq. 4).

    Args:
        q: Logits [..., n].
        p: Logits [..., n].

    Returns:
        [...] nats.
    """
    on = q.sigmoid() * (logsigmoid(q) - logsigmoid(p))
    off = (-q).sigmoid() * (logsigmoid(-q) - logsigmoid(-p))
    return (on + off).sum(-1)


def transition_error(difference: Tensor) -> Tensor:
    """||e||^2 + 1 - exp(-||e||), eq. (8) with its sign mended: 0 where e is 0.

    The paper prints + exp(-||e||), whose minimum is at ||e|| = 0.35 rather than at 0; exp(-||e||) is the likelihood.

    Args:
        difference: e, predicted minus encoded latents [..., Z].

    Returns:
        [...], 0 or more.
    """
    return difference.square().sum(-1) - torch.expm1(-torch.linalg.vector_norm(difference, dim=-1))


def contrastive_targets(s: Tensor, scale: float) -> Tensor:
    """How alike states are: l(s, s') = exp(-scale ||s - s'||) of eq. (5).

    Args:
        s: States [B, O].
        scale: tau_s, 0 or more.

    Returns:
        [B, B] in [0, 1], 1 for equal states; without gradient.
    """
    return torch.exp(-scale * pairwise_distance(s.detach()))


def contrastive_loss(target: Tensor, apart: Tensor, scale: float, counts: Tensor | None = None) -> Tensor:
    """The cross-entropy between targets l and ratings k = exp(-scale apart), summed over pairs, over B (eq. 6).

    The paper prints k log l + (1 - k) log(1 - l): the logarithm of a constant, 0 for equal states, which underflows
    for others. Labels weigh the logarithm of ratings, as in any cross-entropy.

    Args:
        target: l [B, B] in [0, 1].
        apart: Distances of latents [B, B].
        scale: tau_z, 0 or more.
        counts: How often each state is there, [B]; once by default.

    Returns:
        [].
    """
    x = scale * apart  # -log k
    log_rest = torch.log(-torch.expm1(-x.clamp(min=1e-6)))  # log(1 - k); equal latents have no direction to part in
    pairs = target * x - (1 - target) * log_rest
    return pairs.sum() / len(target) if counts is None else counts @ pairs @ counts / counts.sum()


def pairwise_distance(x: Tensor) -> Tensor:
    """Euclidean distances between all rows.

    They are computed by differences: the quicker form by products errs by more than tau_s forgives.

    Args:
        x: [B, n].

    Returns:
        [B, B].
    """
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
