"""Solvers: pure torch, no Ray. See cem.py (CEM and DCEM), lml.py (the differentiable top-k) and unrolled_gd.py."""

from parsecrl.algorithms.solvers.cem import Iteration, Solution, cem, dcem
from parsecrl.algorithms.solvers.lml import lml_projection
from parsecrl.algorithms.solvers.unrolled_gd import Descent, unrolled_gd

__all__ = ["Descent", "Iteration", "Solution", "cem", "dcem", "lml_projection", "unrolled_gd"]
