"""The cross-entropy method over sequences of discrete actions (Saanum and Schulz 2022, algorithm 3).

Axes: B independent problems, N candidates, H horizon, A actions, T iterations. It minimises, as `cem` does.

Every candidate has logits of its own, w ~ N(mu, I), and draws its actions from softmax(w). The next mu is the mean of
the elites' logits. The spread of the logits is never refitted: all iterations explore to the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from parsecrl.algorithms.solvers.argument_checks import check_arguments

CategoricalObjective = Callable[[Tensor], Tensor]


class CategoricalNoise(NamedTuple):
    """Fixed draws in place of a generator's, for common random numbers; both [T, B or 1, N, H, A]."""

    normal: Tensor  # standard normal: the logits'
    gumbel: Tensor  # standard Gumbel, -log(-log u): the actions', argmax(w + gumbel) ~ softmax(w)


class CategoricalIteration(NamedTuple):
    """One iteration: what it drew, and the logits that it left behind."""

    actions: Tensor  # [B, N, H] int64
    costs: Tensor  # [B, N] as the objective gave them
    weights: Tensor  # [B, N] 1 for an elite, else 0
    logits: Tensor  # [B, H, A] after the update


class CategoricalSolution(NamedTuple):
    """The answer is the most probable sequence of the final distribution."""

    actions: Tensor  # [B, H] int64
    logits: Tensor  # [B, H, A]
    best_actions: Tensor  # [B, H] int64, the best candidate of all iterations
    best_costs: Tensor  # [B]
    history: list[CategoricalIteration] | None  # T entries, with keep_history=True


@torch.no_grad()
def categorical_cem(
    objective: CategoricalObjective,
    init_logits: Tensor,
    num_samples: int = 1000,
    num_elites: int = 200,
    num_iterations: int = 10,
    logit_std: float = 1.0,
    generator: torch.Generator | None = None,
    noise: CategoricalNoise | None = None,
    keep_history: bool = False,
) -> CategoricalSolution:
    """Minimise over sequences of discrete actions; the defaults are the paper's (appendix A.7).

    Nothing is differentiable. Of candidates of equal cost the earlier ones are elite, so that equal costs give equal
    plans however they came about. A candidate of NaN or infinite cost is never elite.

    Args:
        objective: Maps action sequences [B, N, H] int64 in [0, A) to costs [B, N].
        init_logits: mu at the start, [B, H, A], float32 or float64; zeros in the paper.
        num_samples: N, at least 2.
        num_elites: Candidates whose logits are averaged, in [1, N).
        num_iterations: T, at least 1.
        logit_std: Standard deviation of the logits around mu, 0 or more; 1 in the paper.
        generator: Of all draws, on the device of init_logits.
        noise: Draws in place of the generator's; `gumbel_noise` makes them.
        keep_history: Return every iteration as well.

    Returns:
        The most probable sequence of the last distribution, its logits, and the best candidate of all iterations.

    Raises:
        ValueError: An argument is out of range, costs have the wrong shape, or an iteration has fewer finite costs
            than elites. The last check is made after the loop, the one synchronisation. Under torch.compile and CUDA
            graph capture it is left out: such a problem's logits are NaN.
    """
    if not isinstance(init_logits, Tensor) or init_logits.dim() != 3 or 0 in init_logits.shape:
        got = f"shape {tuple(init_logits.shape)}" if isinstance(init_logits, Tensor) else type(init_logits).__name__
        raise ValueError(f"init_logits must be a tensor [B, H, A], got {got}; use torch.zeros(B, H, A)")
    flat = init_logits.flatten(1)
    check_arguments(flat, logit_std, num_samples, num_elites, num_iterations, None, generator, None)
    B, H, A = init_logits.shape
    shape = (B, num_samples, H, A)
    if noise is not None:
        _check_noise(noise, init_logits, num_iterations, shape)
    mu = init_logits
    best_costs = mu.new_full((B,), math.inf)
    best_actions = torch.zeros(B, H, dtype=torch.int64, device=mu.device)
    history: list[CategoricalIteration] | None = [] if keep_history else None
    counts = []
    for t in range(num_iterations):
        normal, gumbel = _draw(shape, mu, generator) if noise is None else (noise.normal[t], noise.gumbel[t])
        w = mu.unsqueeze(1) + logit_std * normal  # [B, N, H, A]
        actions = (w + gumbel).argmax(-1)  # [B, N, H]
        costs = _evaluate(objective, actions).to(mu.dtype)
        finite = costs.isfinite()
        ranked = torch.where(finite, costs, math.inf)
        order = ranked.sort(dim=1, stable=True).indices  # [B, N]
        elite = order[:, :num_elites]  # [B, k]
        mu = w.gather(1, elite[..., None, None].expand(-1, -1, H, A)).mean(1)  # [B, H, A]
        counts.append(finite.sum(1).amin())
        mu = torch.where((finite.sum(1) >= num_elites)[:, None, None], mu, math.nan)
        costs_now = ranked.gather(1, elite[:, :1]).squeeze(1)
        actions_now = actions.gather(1, elite[:, :1, None].expand(-1, -1, H)).squeeze(1)
        is_better = costs_now < best_costs
        best_costs = torch.where(is_better, costs_now, best_costs)
        best_actions = torch.where(is_better[:, None], actions_now, best_actions)
        if history is not None:
            weights = torch.zeros_like(costs).scatter_(1, elite, 1.0)
            history.append(CategoricalIteration(actions, costs, weights, mu))
    solution = CategoricalSolution(mu.argmax(-1), mu, best_actions, best_costs, history)
    _check_counts(torch.stack(counts), num_samples, num_elites)
    return solution


def gumbel_noise(
    num_iterations: int, init_logits: Tensor, num_samples: int, generator: torch.Generator | None = None
) -> CategoricalNoise:
    """Draw what `categorical_cem` takes as `noise`.

    Args:
        num_iterations: T.
        init_logits: [B, H, A]; gives shape, type and device.
        num_samples: N.
        generator: Of the draws.

    Returns:
        Normal and Gumbel draws, both [T, B, N, H, A].
    """
    B, H, A = init_logits.shape
    return CategoricalNoise(*_draw((num_iterations, B, num_samples, H, A), init_logits, generator))


def _draw(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Standard normal and standard Gumbel draws."""
    normal = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    u = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    tiny = torch.finfo(like.dtype).tiny  # u = 0 happens, and would be -inf: an action that is never drawn
    return normal, -(-u.clamp_(min=tiny).log()).clamp_(min=tiny).log()


def _evaluate(objective: CategoricalObjective, actions: Tensor) -> Tensor:
    costs = objective(actions)
    if not isinstance(costs, Tensor) or costs.shape != actions.shape[:2]:
        got = f"shape {tuple(costs.shape)}" if isinstance(costs, Tensor) else type(costs).__name__
        raise ValueError(
            f"the objective must map candidates {tuple(actions.shape)} to one cost each, a tensor of shape "
            f"{tuple(actions.shape[:2])}, got {got}; sum the cost over the horizon"
        )
    return costs


def _check_noise(noise: CategoricalNoise, like: Tensor, num_iterations: int, shape: tuple[int, ...]) -> None:
    B, *rest = shape
    for name, draws in zip(noise._fields, noise, strict=True):
        allowed = [(num_iterations, rows, *rest) for rows in (B, 1)]
        if tuple(draws.shape) not in allowed or draws.dtype != like.dtype or draws.device != like.device:
            raise ValueError(
                f"noise.{name} must be {like.dtype} on {like.device} of shape {allowed[0]} or {allowed[1]}, "
                f"got {draws.dtype} on {draws.device} of shape {tuple(draws.shape)}; draw it with gumbel_noise"
            )


def _check_counts(counts: Tensor, num_samples: int, num_elites: int) -> None:
    """Of finite costs, [T], the least over the problems."""
    if torch.compiler.is_compiling() or (counts.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    for t, count in enumerate(counts.tolist()):
        if count < num_elites:
            raise ValueError(
                f"in iteration {t} (of 0 to {len(counts) - 1}) a problem has a finite cost for only {count} of "
                f"{num_samples} candidates, fewer than num_elites={num_elites}; look for NaN or infinity in the "
                f"objective or lower num_elites"
            )
