"""Unrolled gradient descent: a fixed number of steps down an objective, kept differentiable (DCEM paper, section 4.1).

Axes: B independent problems, n variables of a problem, T steps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from parsecrl.algorithms.solvers.gaussian_search import Objective


class Descent(NamedTuple):
    """Where B descents ended.

    The answer has the name of dcem's, so that either solver can take the other's place.
    """

    mean: Tensor  # [B, n]
    history: Tensor | None  # [T + 1, B, n], the start first, with keep_history=True


def unrolled_gd(
    objective: Objective,
    init: Tensor,
    learning_rate: float = 0.1,
    num_iterations: int = 10,
    create_graph: bool | None = None,
    keep_history: bool = False,
) -> Descent:
    """Minimise by y <- y - learning_rate * dE/dy, num_iterations times (DCEM paper, section 4.1).

    The paper prints a plus; a minimum needs the minus. Problems never influence each other, if the objective judges
    each by itself.

    Args:
        objective: Maps points [B, 1, n] to costs [B, 1], differentiable: the form of dcem's, with one candidate.
        init: Where each problem starts, [B, n], float32 or float64.
        learning_rate: > 0, in units of y^2 per unit of cost.
        num_iterations: T, at least 1.
        create_graph: Keep the answer differentiable in init and in what the objective depends on. None: only if
            gradients are enabled.
        keep_history: Return the whole path as well.

    Returns:
        Where the descents ended, [B, n], and their path.

    Raises:
        ValueError: An argument is out of range, costs have the wrong shape or no gradient, or a slope is not finite.
            The last check reads the device once, after the loop. Under torch.compile and CUDA graph capture it is left
            out.
    """
    _check(init, learning_rate, num_iterations)
    keep_graph = torch.is_grad_enabled() if create_graph is None else create_graph
    y, path = init, [init]
    with torch.set_grad_enabled(keep_graph):
        for _ in range(num_iterations):
            y = y - learning_rate * _slope(objective, y, keep_graph)
            if keep_history:
                path.append(y)
    compiling = torch.compiler.is_compiling() or (y.is_cuda and torch.cuda.is_current_stream_capturing())
    if not compiling and not bool(y.isfinite().all()):  # a slope that is not finite stays in y
        bad = int((~y.isfinite()).any(1).sum())
        raise ValueError(
            f"{bad} of {len(y)} descents left the finite numbers; look for NaN or infinity in the objective or its "
            f"slope, or lower learning_rate, which is {learning_rate}"
        )
    return Descent(y, torch.stack(path) if keep_history else None)


def _slope(objective: Objective, y: Tensor, keep_graph: bool) -> Tensor:
    """dE/dy [B, n]; each problem's own, since the sum over problems parts them again."""
    with torch.enable_grad():
        at = y if keep_graph and y.requires_grad else y.detach().requires_grad_()
        points = at.unsqueeze(1)  # [B, 1, n]
        costs = objective(points)
        if not isinstance(costs, Tensor) or costs.shape != points.shape[:2]:
            got = f"shape {tuple(costs.shape)}" if isinstance(costs, Tensor) else type(costs).__name__
            raise ValueError(
                f"the objective must map points {tuple(points.shape)} to one cost each, a tensor of shape "
                f"{tuple(points.shape[:2])}, got {got}; sum the cost over every axis but the first two"
            )
        slope = None
        if costs.requires_grad:
            (slope,) = torch.autograd.grad(costs.sum(), at, create_graph=keep_graph, allow_unused=True)
    if slope is None:
        raise ValueError(
            "gradient descent needs an objective that is differentiable in its points, got costs without a gradient in "
            "them; leave out no_grad and detach, or use dcem, which needs no slope"
        )
    return slope


def _check(init: Tensor, learning_rate: float, num_iterations: int) -> None:
    if not isinstance(init, Tensor) or init.dim() != 2 or 0 in init.shape:
        got = f"shape {tuple(init.shape)}" if isinstance(init, Tensor) else type(init).__name__
        raise ValueError(f"init must be a tensor [B, n], got {got}; add an axis for the batch of problems")
    if init.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"init must be float32 or float64, got {init.dtype}; convert it first")
    if isinstance(num_iterations, bool) or not isinstance(num_iterations, int) or num_iterations < 1:
        raise ValueError(f"num_iterations must be an integer of 1 or more, got {num_iterations!r}; set it")
    if not 0.0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}; the paper's is 0.1")
