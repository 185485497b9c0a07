"""Model predictive path integral control as a search (Williams et al. 2017; TD-MPC, Hansen et al. 2022, section 3.2).

Axes: B independent problems, N candidates, n variables of a problem, T iterations. The search minimises.
"""

import math

import torch
from torch import Tensor

from parsecrl.algorithms.solvers.argument_checks import Bounds, check_arguments
from parsecrl.algorithms.solvers.gaussian_search import GaussianSearch, Objective, Solution
from parsecrl.algorithms.solvers.refinements import PLAIN, Refinements
from parsecrl.algorithms.solvers.scores import softmax_of_elites


def mppi(
    objective: Objective,
    init_mean: Tensor,
    init_std: Tensor | float,
    num_samples: int = 512,
    num_elites: int = 64,
    num_iterations: int = 6,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    bounds: Bounds | None = None,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    keep_history: bool = False,
    checkpoint: bool = False,
    refinements: Refinements = PLAIN,
) -> Solution:
    """Minimise by a Gaussian that is refitted to candidates weighted by exp(-cost / temperature).

    The answer is differentiable in init_mean, init_std, a temperature tensor and whatever the objective depends on.
    Which candidates are elite is a hard choice; num_elites = num_samples - 1 is nearly the method without elites of
    Williams et al. The floor of the standard deviation is `Refinements.min_std`; TD-MPC has 0.05.

    Args:
        objective: Maps candidates [B, N, n] to costs [B, N]. A candidate of NaN or infinite cost has weight 0.
        init_mean: Mean of the first candidates, [B, n], float32 or float64.
        init_std: Standard deviation of the first candidates, finite and 0 or more; broadcasts to [B, n].
        num_samples: N, at least 2.
        num_elites: Candidates that have weight, in [1, N).
        num_iterations: T, at least 1.
        temperature: Divides the costs, > 0; a float or a tensor [] or [B, 1].
        normalize: Bring each problem's finite costs to mean 0 and standard deviation 1, every iteration. The
            temperature is then in standard deviations of the costs.
        bounds: As of `cem`.
        generator: As of `cem`.
        noise: As of `cem`.
        keep_history: Return every iteration as well.
        checkpoint: As of `dcem`.
        refinements: What is done beside it, among it the floor of the standard deviation.

    Returns:
        The last sampling distribution. Its mean [B, n] is the answer.

    Raises:
        ValueError: As `cem`, and for a temperature out of range.
    """
    std, bounds = check_arguments(
        init_mean, init_std, num_samples, num_elites, num_iterations, bounds, generator, noise
    )
    if not isinstance(temperature, Tensor) and not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}; cem takes the elites alike")
    sizes = num_samples, num_elites, num_iterations
    search = GaussianSearch(init_mean, std, *sizes, bounds, generator, noise, refinements)
    search.weigh = lambda scores: softmax_of_elites(scores, num_elites, temperature)
    search.normalize, search.checkpoint = normalize, checkpoint
    return search.run(objective, keep_history)
