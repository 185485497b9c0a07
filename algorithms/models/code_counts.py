"""How many transformations a parsimonious model uses."""

from __future__ import annotations

import torch
from torch import Tensor

from parsecrl.algorithms.models.parsimonious import ParsimoniousDynamics


@torch.no_grad()
def distinct_transformations(model: ParsimoniousDynamics, obs: Tensor) -> Tensor:
    """Count the codes, and so the transformations, that each action uses.

    Args:
        model: The model.
        obs: Observations [M, O].

    Returns:
        [A] int64, each in [1, M].
    """
    z = model.encode(obs)
    counts = []
    for action in range(model.num_actions):
        code = model.codes(z, torch.full(z.shape[:-1], action, device=z.device))
        counts.append(len(torch.unique(code.flatten(0, -2), dim=0)))
    return torch.tensor(counts)
