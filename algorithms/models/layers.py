"""Layers that several models share.

Axes: O numbers of a standardised vector, D deterministic state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.matrix_products import Linear


def mlp(
    sizes: list[int], activation: Callable[[], nn.Module] = nn.ReLU, linear: type[nn.Linear] = Linear
) -> nn.Sequential:
    """Stack fully connected layers, with an activation after all but the last.

    Args:
        sizes: Units from the input to the output, at least two numbers.
        activation: Makes an activation.
        linear: Class of the layers.

    Returns:
        Layers from [..., sizes[0]] to [..., sizes[-1]].
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


class RunningNorm(nn.Module):
    """Standardise the last axis by the running mean and standard deviation of what `update` has seen.

    The statistics are buffers: they travel with the weights and need no second place to be kept. They are float64, in
    which an offset of a million leaves a variance of 1 its digits. Before the first update the layer is the identity.

    No number depends on the data's unit. What varies by less than float32 can tell is a constant, and stays one.

    Args:
        size: O.
        limit: Standardised values are cut to [-limit, limit], > 0: what was constant until now has no scale yet.
        outlier: Standard deviations from the mean, > 0. What lies further off counts as that far, so that values rarer
            than 1 in outlier^2 do not decide the scale.
        memory: Rows, > 0. What is older than so many rows fades, so that the scale follows what comes.
    """

    mean: Tensor  # [O] float64
    var: Tensor  # [O] float64
    count: Tensor  # []

    def __init__(self, size: int, limit: float = math.inf, outlier: float = math.inf, memory: float = math.inf):
        super().__init__()
        self.limit, self.outlier, self.memory = limit, outlier, memory
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("var", torch.ones(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        """What values are divided by, [O] float64, > 0; 1 where all that was seen is 0."""
        resolution = torch.finfo(torch.float32)
        std = torch.maximum(self.var.sqrt(), 2 * resolution.eps * self.mean.abs())
        return torch.where(std > resolution.tiny, std, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Standardise [..., O] in data units; the result is dimensionless."""
        z = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        return z if self.limit == math.inf else z.clamp(-self.limit, self.limit)

    def inverse(self, x: Tensor) -> Tensor:
        """x [..., O] standardised -> [..., O] in data units."""
        return x * self.std.to(x.dtype) + self.mean.to(x.dtype)

    @torch.no_grad()
    def update(self, x: Tensor, counted: Tensor | None = None) -> None:
        """Merge rows into the statistics (Chan et al. 1979, parallel variance). A GPU is not waited for.

        Args:
            x: [..., O] in data units.
            counted: bool [...], whether a row counts; None: all do.
        """
        rows = x.reshape(-1, x.shape[-1]).double()
        weights = rows.new_ones(len(rows), 1) if counted is None else counted.reshape(-1, 1).double()
        n = weights.sum()
        if counted is not None:
            rows = torch.where(weights > 0, rows, 0.0)
        if self.outlier < math.inf:
            # What has not varied yet has no outliers.
            reach = torch.where((self.count > 0) & (self.var > 0), self.outlier * self.std, math.inf)
            rows = rows.clamp(self.mean - reach, self.mean + reach)
        total = self.count + n
        share = n / total.clamp(min=1)  # weight of the new rows
        mean = (weights * rows).sum(0) / n.clamp(min=1)
        spread = (weights * (rows - mean) ** 2).sum(0) / n.clamp(min=1)
        delta = mean - self.mean
        var = (1 - share) * self.var * ((self.count > 0) | (total == 0)) + share * spread
        var = var + share * (1 - share) * delta**2
        finite = var.isfinite()  # rows of NaN are for the loss to report, and leave no trace here
        self.var.copy_(torch.where(finite, var, self.var))
        self.mean.copy_(torch.where(finite, self.mean + share * delta, self.mean))
        self.count.copy_(total.clamp(max=self.memory))


def gru_step(from_input: Tensor, from_h: Tensor, h: Tensor) -> Tensor:
    """Step a GRUCell whose two products are computed already.

    The tanh is 2 sigmoid(2x) - 1, equal to 1e-7: on a CPU torch's tanh takes nine times as long as its sigmoid. With
    100 candidates that is a twentieth of a plan.

    Args:
        from_input: The input's product [..., 3D], reset, update and new gate, bias included.
        from_h: The state's product [..., 3D], likewise.
        h: State [..., D].

    Returns:
        The next state [..., D], in [-1, 1] where h is.
    """
    D = h.shape[-1]
    r, z, _ = (from_input + from_h).chunk(3, -1)
    r, z = torch.sigmoid(r), torch.sigmoid(z)
    n = torch.sigmoid((from_input[..., 2 * D :] + r * from_h[..., 2 * D :]) * 2) * 2 - 1
    return (h - n) * z + n
