"""Solvers: pure torch, no Ray.

`cem.py` has CEM and DCEM, `mppi.py` path integrals and `refinements.py` what makes of them iCEM; all run the loop of
`gaussian_search.py`. `categorical_cem.py` is CEM over discrete actions, `lml.py` the differentiable top-k, and
`unrolled_gd.py` gradient descent.
"""

from parsecrl.algorithms.solvers.categorical_cem import (
    CategoricalIteration,
    CategoricalNoise,
    CategoricalSolution,
    categorical_cem,
    gumbel_noise,
)
from parsecrl.algorithms.solvers.cem import cem, dcem
from parsecrl.algorithms.solvers.gaussian_search import Iteration, Solution
from parsecrl.algorithms.solvers.lml import lml_projection
from parsecrl.algorithms.solvers.mppi import mppi
from parsecrl.algorithms.solvers.refinements import Refinements, colored_noise
from parsecrl.algorithms.solvers.unrolled_gd import Descent, unrolled_gd

__all__ = [
    "CategoricalIteration",
    "CategoricalNoise",
    "CategoricalSolution",
    "Descent",
    "Iteration",
    "Refinements",
    "Solution",
    "categorical_cem",
    "cem",
    "colored_noise",
    "dcem",
    "gumbel_noise",
    "lml_projection",
    "mppi",
    "unrolled_gd",
]
