"""The cross-entropy method and its differentiable form (DCEM paper, Prop. 1, Prop. 3, algorithm 1).

Axes: B independent problems, N candidates, n variables of a problem, T iterations. Both methods minimise. The paper's
eq. (5) projects the values v, which for a minimum must be -v.
"""

import math

import torch
from torch import Tensor

from parsecrl.algorithms.solvers.argument_checks import Bounds, check_arguments
from parsecrl.algorithms.solvers.gaussian_search import GaussianSearch, Objective, Solution
from parsecrl.algorithms.solvers.lml import lml_projection
from parsecrl.algorithms.solvers.refinements import PLAIN, Refinements


def cem(
    objective: Objective,
    init_mean: Tensor,
    init_std: Tensor | float,
    num_samples: int = 100,
    num_elites: int = 10,
    num_iterations: int = 10,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    keep_history: bool = False,
    refinements: Refinements = PLAIN,
) -> Solution:
    """Minimise by the cross-entropy method: refit a Gaussian to the best candidates (DCEM paper, Prop. 1).

    No gradient passes the hard selection. The answer is differentiable in init_mean and init_std, through the elites'
    own coordinates.

    Args:
        objective: Maps candidates [B, N, n] to costs [B, N]; called without gradient. A candidate of NaN or infinite
            cost is never elite.
        init_mean: Mean of the first candidates, [B, n], float32 or float64.
        init_std: Standard deviation of the first candidates, finite and 0 or more; broadcasts to [B, n].
        num_samples: N, at least 2.
        num_elites: Candidates that the Gaussian is refitted to, in [1, N).
        num_iterations: T, at least 1.
        bounds: (low, high), floats or tensors that broadcast to [n], low < high. Candidates are clamped to them.
        generator: Of the candidates' noise, on the device of init_mean.
        noise: Standard normal draws [T, B or 1, N, n], used in place of the generator's.
        keep_history: Return every iteration as well.
        refinements: What is done beyond plain CEM; with those of Pinneri et al. (2020) the method is iCEM.

    Returns:
        The last sampling distribution. Its mean [B, n] is the answer; with `Refinements.best`, `Solution.best`.

    Raises:
        ValueError: An argument is out of range, costs have the wrong shape, or an iteration has fewer finite costs
            than elites. The last check reads the device once, after the loop. Under torch.compile and CUDA graph
            capture it is left out: such a problem's mean is NaN.
    """
    std, bounds = check_arguments(
        init_mean, init_std, num_samples, num_elites, num_iterations, bounds, generator, noise
    )
    sizes = num_samples, num_elites, num_iterations
    search = GaussianSearch(init_mean, std, *sizes, bounds, generator, noise, refinements)
    return search.run(objective, keep_history)


def dcem(
    objective: Objective,
    init_mean: Tensor,
    init_std: Tensor | float,
    num_samples: int = 100,
    num_elites: int = 10,
    num_iterations: int = 10,
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    keep_history: bool = False,
    checkpoint: bool = False,
    keep_fraction: float = 1.0,
    refinements: Refinements = PLAIN,
) -> Solution:
    """Minimise by the differentiable cross-entropy method (DCEM paper, algorithm 1 and Prop. 3).

    The LML projection weighs the candidates in place of a hard selection. The answer is differentiable in init_mean,
    init_std, a temperature tensor and whatever the objective depends on.

    A candidate of NaN or infinite cost has weight 0 and adds exactly 0 to every gradient. Where such a candidate turns
    up and a gradient is wanted, the search runs again with that candidate replaced before the objective sees it. Else 0
    times an infinite derivative inside the objective would be NaN. Under torch.compile and CUDA graph capture nothing
    can be read, and there is no second run.

    Args:
        objective: Maps candidates [B, N, n] to costs [B, N]. It must be deterministic where a second run or
            keep_fraction evaluates it again, and with keep_fraction take any number of candidates.
        init_mean: Mean of the first candidates, [B, n], float32 or float64.
        init_std: Standard deviation of the first candidates, finite and 0 or more; broadcasts to [B, n].
        num_samples: N, at least 2.
        num_elites: k, the sum of the weights, in [1, N).
        num_iterations: T, at least 1.
        temperature: Divides the scores (eq. 4), 0 or more; a float or a tensor [] or [B, 1]. The float 0 is `cem`,
            number for number.
        normalize: Bring each problem's finite costs to mean 0 and population standard deviation 1, every iteration.
            The temperature then need not know the scale of the costs.
        bounds: (low, high), floats or tensors that broadcast to [n], low < high. Candidates are clamped to them.
        generator: Of the candidates' noise, on the device of init_mean.
        noise: Standard normal draws [T, B or 1, N, n], used in place of the generator's.
        keep_history: Return every iteration as well.
        checkpoint: Keep only each iteration's noise and distribution, and recompute the rest in backward.
        keep_fraction: In (0, 1]. Below 1 the gradient passes through this fraction of each problem's candidates, those
            whose costs move the answer most. The answer is the same. The gradient misses what the other costs depend
            on.
        refinements: What is done beyond plain DCEM. The gradient passes a kept elite's coordinates and cost.

    Returns:
        The last sampling distribution. Its mean [B, n] is the answer.

    Raises:
        ValueError: As `cem`, and for a temperature or keep_fraction out of range.
    """
    std, bounds = check_arguments(
        init_mean, init_std, num_samples, num_elites, num_iterations, bounds, generator, noise
    )
    if isinstance(keep_fraction, bool) or not 0.0 < keep_fraction <= 1.0:
        raise ValueError(f"keep_fraction must lie in (0, 1], got {keep_fraction!r}; 1 keeps every candidate's gradient")
    sizes = num_samples, num_elites, num_iterations
    search = GaussianSearch(init_mean, std, *sizes, bounds, generator, noise, refinements)
    if not isinstance(temperature, Tensor):
        if not 0.0 <= temperature < math.inf:
            raise ValueError(f"temperature must be finite and 0 or more, got {temperature}; 0 is the hard selection")
        if temperature == 0.0:
            return search.run(objective, keep_history)
    search.weigh = lambda scores: lml_projection(scores, num_elites, temperature)
    search.normalize, search.checkpoint = normalize, checkpoint
    prunes = math.ceil(keep_fraction * num_samples) < num_samples
    search.keep_fraction = keep_fraction if prunes else 1.0
    return search.run(objective, keep_history)
