"""From costs to scores and weights. Axes: B independent problems, N candidates."""

import math

import torch
from torch import Tensor


def normalize(costs: Tensor, finite: Tensor) -> Tensor:
    """Bring each row's finite costs to mean 0 and standard deviation 1.

    Args:
        costs: [B, N].
        finite: [B, N] bool.

    Returns:
        [B, N]; costs that are not finite are 0, without gradient.
    """
    count = finite.sum(-1, keepdim=True)
    mean = (torch.where(finite, costs, 0.0) / count).sum(-1, keepdim=True)
    centred = torch.where(finite, costs - mean, 0.0)
    largest = centred.detach().abs().amax(-1, keepdim=True)
    # Differences at the level of rounding are no signal: blown up to 1 they would steer the search, and their gradient.
    flat = largest <= 4 * torch.finfo(costs.dtype).eps * mean.detach().abs()
    scaled = centred / torch.where(flat, 1.0, largest)  # so that no square overflows or vanishes
    spread = (scaled.square().sum(-1, keepdim=True) / count).masked_fill(flat, 1.0).sqrt()
    return scaled / spread


def softmax_of_elites(scores: Tensor, num_elites: int, temperature: float | Tensor) -> Tensor:
    """Weights proportional to exp(score / temperature) for the elites, 0 for others (TD-MPC, eq. 4).

    Differentiable in the scores; which candidates are elite is a hard choice.

    Args:
        scores: [B, N]; -inf gets 0 and no gradient.
        num_elites: k, in [1, N].
        temperature: > 0; towards 0 the best alone counts.

    Returns:
        [B, N], each row summing to k; a row with fewer than k scores above -inf is NaN.
    """
    elite = scores.detach().topk(num_elites, dim=-1, sorted=False).indices
    chosen = scores.gather(-1, elite)
    weights = (chosen / temperature).softmax(-1) * num_elites
    enough = chosen.detach().isfinite().all(-1, keepdim=True)
    return torch.zeros_like(scores).scatter(-1, elite, torch.where(enough, weights, math.nan))
