"""What our learners ask of losses and gradients before a step is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def check_finite(terms: Mapping[str, Tensor], update: int, remedy: str) -> None:
    """Raises FloatingPointError where a loss term [] is not finite. remedy: what to change, as `lower ...`."""
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"the loss term {name!r} became {value.item()} at update {update}; "
                f"the last checkpoint is good: {remedy} and continue from it"
            )


def finite_gradients(gradients: Mapping[Any, Tensor | None], remedy: str) -> dict[Any, Tensor]:
    """The gradients of what the loss reached; RLlib's base class cannot step over None.

    Raises FloatingPointError where their norm is not finite: RLlib would put zeros in the place, and go on.
    """
    reached = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    norm = torch.nn.utils.get_total_norm(reached.values())
    if not torch.isfinite(norm):
        raise FloatingPointError(
            f"the norm of the gradient became {norm.item()}; the last checkpoint is good: {remedy} and continue from it"
        )
    return reached
