"""Planning over discrete actions in a model of latent dynamics (Saanum and Schulz 2022, algorithms 2 and 3).

Axes: B beliefs, H horizon, A actions, S state, Z latent.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from parsecrl.algorithms.models import DistinctGoalCost, GoalCost, LatentDynamics
from parsecrl.algorithms.solvers import CategoricalIteration, CategoricalNoise, categorical_cem


class CategoricalPlan(NamedTuple):
    """A planned action sequence for each belief, and what finding them took."""

    actions: Tensor  # [B, H] int64
    logits: Tensor  # [B, H, A]
    history: list[CategoricalIteration] | None  # per iteration, if asked for
    num_asked: int  # transitions that the search asked for
    num_evaluated: int  # transitions that the model evaluated
    num_transformations: int  # transformations decoded; 0 for a model without codes


class CategoricalController:
    """CEM over action sequences towards a latent goal; the defaults are those of appendix A.7.

    Args:
        num_actions: A, at least 1.
        horizon: H, at least 1.
        num_samples: Candidates of an iteration, at least 2.
        num_elites: In [1, num_samples).
        num_iterations: At least 1.
        deduplicate: Evaluate equal prefixes and equal transformations once. Costs stay what they are, to the bit or to
            rounding (`DistinctGoalCost`). What is new is counted at every step, for which the host waits on a GPU.
            Without, shapes are fixed, and the search waits once, at its end.
    """

    def __init__(
        self,
        num_actions: int,
        horizon: int = 15,
        num_samples: int = 1000,
        num_elites: int = 200,
        num_iterations: int = 10,
        deduplicate: bool = True,
    ):
        self.num_actions, self.horizon = num_actions, horizon
        self.num_samples, self.num_elites, self.num_iterations = num_samples, num_elites, num_iterations
        self.deduplicate = deduplicate

    def plan(
        self,
        model: LatentDynamics,
        state: Tensor,
        goal: Tensor,
        generator: torch.Generator | None = None,
        noise: CategoricalNoise | None = None,
        keep_history: bool = False,
    ) -> CategoricalPlan:
        """Plan from each state towards its goal.

        Args:
            model: What predicts.
            state: Of the model, [B, S].
            goal: Latents [B or 1, Z].
            generator: Of the candidates' noise.
            noise: Draws in place of the generator's.
            keep_history: Return every iteration as well.

        Returns:
            The most probable action sequences, and what finding them took.

        Raises:
            ValueError: As `categorical_cem` and `GoalCost`.
        """
        cost = (DistinctGoalCost if self.deduplicate else GoalCost)(model, state, goal)
        solution = categorical_cem(
            cost,
            state.new_zeros(len(state), self.horizon, self.num_actions),
            num_samples=self.num_samples,
            num_elites=self.num_elites,
            num_iterations=self.num_iterations,
            generator=generator,
            noise=noise,
            keep_history=keep_history,
        )
        counts = cost.num_asked, cost.num_evaluated, cost.num_transformations
        return CategoricalPlan(solution.actions, solution.logits, solution.history, *counts)
