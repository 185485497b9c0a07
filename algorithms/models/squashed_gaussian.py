"""Gaussian policies squashed into [-1, 1] by tanh (Haarnoja et al. 2018, Soft Actor-Critic, appendix C).

Axes: A entries of an action. Leading axes are independent of each other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_STD_RANGE = (-20.0, 2.0)  # of the authors' code


def squashed_sample(raw: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """Draw actions, differentiably in mean and deviation, with their log-probabilities (eq. 21).

    Args:
        raw: [..., 2 A]: means, then logarithms of deviations, which are clamped to LOG_STD_RANGE.
        eps: [..., A] standard normal noise.

    Returns:
        Actions [..., A] in [-1, 1], and the logarithm of their density there, [...] nats.
    """
    mean, log_std = raw.chunk(2, -1)
    log_std = log_std.clamp(*LOG_STD_RANGE)
    u = mean + log_std.exp() * eps
    log_normal = -0.5 * eps.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - u - softplus(-2 * u))  # log(1 - tanh(u)^2), also where tanh(u) rounds to 1
    return u.tanh(), (log_normal - log_slope).sum(-1)


def squashed_mean(raw: Tensor) -> Tensor:
    """The action of the Gaussian's mean.

    Args:
        raw: [..., 2 A], as in `squashed_sample`.

    Returns:
        [..., A] in [-1, 1].
    """
    return torch.tanh(raw.chunk(2, -1)[0])
