"""Layers that several models share.

Axes: O numbers of a standardised vector, D deterministic state.
"""

from __future__ import annotations

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
    """Standardise the last axis by the running mean and standard deviation of all that `update` has seen.

    The statistics are buffers: they travel with the weights and need no second place to be kept. Before the first
    update the layer is the identity.

    Args:
        size: O.
        min_std: Standard deviations below it are taken for it, > 0, in data units.
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
        """Standardise [..., O] in data units; the result is dimensionless."""
        return (x - self.mean) / self.var.sqrt().clamp(min=self.min_std)

    def inverse(self, x: Tensor) -> Tensor:
        """x [..., O] standardised -> [..., O] in data units."""
        return x * self.var.sqrt().clamp(min=self.min_std) + self.mean

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Merge rows into the statistics (Chan et al. 1979, parallel variance).

        Args:
            x: [..., O] in data units.
        """
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
