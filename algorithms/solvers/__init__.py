"""Solvers: pure torch, no Ray. See cem.py (CEM and DCEM) and lml.py (the differentiable top-k)."""

from parsecrl.algorithms.solvers.cem import Iteration, Solution, cem, dcem
from parsecrl.algorithms.solvers.lml import lml_projection

__all__ = ["Iteration", "Solution", "cem", "dcem", "lml_projection"]
