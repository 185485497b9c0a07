"""What is asked of losses, gradients and weights before they go on; how learners register their optimisers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def register_optimizers(learner: Any, module_id: str, optimizers: Mapping[str, Optimizer]) -> None:
    """Have an RLlib Learner know the optimisers of a module by name, each with its one group and learning rate.

    Args:
        learner: RLlib's Learner.
        module_id: Of the module whose parameters they step.
        optimizers: By name; each has one parameter group.

    Raises:
        ValueError: An optimiser has several groups.
    """
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
    """Check the terms of a loss before its gradient is used.

    Args:
        terms: Scalars [] by name.
        update: Number of the update, for the message.
        remedy: What to change, as `lower ...`.

    Raises:
        FloatingPointError: A term is NaN or infinite: which one, and at which update.
    """
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"the loss term {name!r} became {value.item()} at update {update}; {remedy} and continue"
            )


def reached(gradients: Mapping[Any, Tensor | None]) -> dict[Any, Tensor]:
    """The gradients of what the loss reached; RLlib's base class cannot step over None.

    Args:
        gradients: By parameter; None where no gradient arrived.

    Returns:
        Those that are not None.
    """
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}


def finite_gradients(gradients: Mapping[Any, Tensor | None], remedy: str) -> dict[Any, Tensor]:
    """The gradients of what the loss reached, checked before a step is made: RLlib would put zeros in place of NaN.

    Args:
        gradients: By parameter; None where no gradient arrived.
        remedy: What to change, as `lower ...`.

    Returns:
        Those that are not None.

    Raises:
        FloatingPointError: The norm of all of them is not finite.
    """
    found = reached(gradients)
    _check_norm("gradient", found.values(), remedy)
    return found


def check_weights_finite(weights: Iterable[Tensor], remedy: str) -> None:
    """Check weights after a step.

    Args:
        weights: Tensors of any shape.
        remedy: What to change, as `lower ...`.

    Raises:
        FloatingPointError: The norm of all of them is not finite.
    """
    _check_norm("weights", weights, remedy)


@torch.no_grad()
def _check_norm(what: str, tensors: Iterable[Tensor], remedy: str) -> None:
    norm = torch.nn.utils.get_total_norm(tensors)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"the norm of the {what} became {norm.item()}; {remedy} and continue")
