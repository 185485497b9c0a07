"""What is asked of losses, gradients and weights before they go on; how learners register their optimisers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def register_optimizers(learner: Any, module_id: str, optimizers: Mapping[str, Optimizer]) -> None:
    """Have an RLlib Learner know the optimisers of a module by name, each with its one group and learning rate."""
    for name, optimizer in optimizers.items():
        (group,) = optimizer.param_groups
        learner.register_optimizer(
            module_id=module_id,
            optimizer_name=name,
            optimizer=optimizer,
            params=group["params"],
            lr_or_lr_schedule=group["lr"],
        )


def check_finite(terms: Mapping[str, Tensor], update: int, remedy: str) -> None:
    """Raises FloatingPointError where a loss term [] is not finite. remedy: what to change, as `lower ...`."""
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"the loss term {name!r} became {value.item()} at update {update}; {remedy} and continue"
            )


def reached(gradients: Mapping[Any, Tensor | None]) -> dict[Any, Tensor]:
    """The gradients of what the loss reached; RLlib's base class cannot step over None."""
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}


def finite_gradients(gradients: Mapping[Any, Tensor | None], remedy: str) -> dict[Any, Tensor]:
    """The gradients of what the loss reached, before a step is made.

    Raises FloatingPointError where their norm is not finite: RLlib would put zeros in the place, and go on.
    """
    found = reached(gradients)
    _check_norm("gradient", found.values(), remedy)
    return found


def check_weights_finite(weights: Iterable[Tensor], remedy: str) -> None:
    """Raises FloatingPointError where their norm is not finite."""
    _check_norm("weights", weights, remedy)


@torch.no_grad()
def _check_norm(what: str, tensors: Iterable[Tensor], remedy: str) -> None:
    norm = torch.nn.utils.get_total_norm(tensors)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"the norm of the {what} became {norm.item()}; {remedy} and continue")
