"""Solvers: pure torch, no Ray.

`cem.py` has CEM and DCEM, `categorical_cem.py` CEM over discrete actions, `lml.py` the differentiable top-k, and
`unrolled_gd.py` gradient descent.
"""

from parsecrl.algorithms.solvers.categorical_cem import (
    CategoricalIteration,
    CategoricalNoise,
    CategoricalSolution,
    categorical_cem,
    gumbel_noise,
)
from parsecrl.algorithms.solvers.cem import Iteration, Solution, cem, dcem
from parsecrl.algorithms.solvers.lml import lml_projection
from parsecrl.algorithms.solvers.unrolled_gd import Descent, unrolled_gd

__all__ = [
    "CategoricalIteration",
    "CategoricalNoise",
    "CategoricalSolution",
    "Descent",
    "Iteration",
    "Solution",
    "categorical_cem",
    "cem",
    "dcem",
    "gumbel_noise",
    "lml_projection",
    "unrolled_gd",
]
