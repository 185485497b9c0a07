"""What rollouts, learners, evaluation and reports ask of a controller.

Axes: B beliefs, N candidates, n solver variables, T iterations, H horizon, A action. Actions lie in [-1, 1].
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from parsecrl.algorithms.controllers.score import RewardModel, Score
from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.solvers import Iteration


class Plan(NamedTuple):
    """A planned action sequence for each belief."""

    actions: Tensor  # [B, H, A]
    mean: Tensor  # [B, n] the solution in the solver's own variables
    history: list[Iteration] | None  # per iteration, if asked for
    entropy: Tensor | None = None  # [B] nats, of the last selection: see Solution.entropy
    is_actors: Tensor | None = None  # [B] bool, where an actor's plan cost less than what the search found
    carried: Tensor | None = None  # [B, K, n] what `shift` moves on, where that is not `mean` alone


class Controller(Protocol):
    """A torch module that plans from beliefs; all of a batch at once, each row apart from the others.

    `controller.kind: module:name` names a callable (horizon, action_size, belief_size, **options) that returns one.

    Attributes:
        horizon: H, decisions of a plan.
        action_size: A.
        score: What counts in a plan: `plan` minimises `predicted_cost(model, belief, actions, self.score)`. Set after
            construction, where it is `Score()`.
        warm_start: Whether `plan` begins at `shift` of the last plan.
        takes_candidates: Optional, False where there is none: whether the solver's variables are the actions, and
            `plan` has an argument `candidates` [B, P, H, A] of action sequences that are tried beside its own.
        warm_start_size: Optional: the size of `shift`'s result, where a controller remembers more than its mean; n
            where a controller has none.
    """

    horizon: int
    action_size: int
    score: Score
    warm_start: bool

    @property
    def decoder(self) -> nn.Module | None:
        """What the loss of algorithm 3 trains, with a gradient through `plan`; None where nothing is trained."""
        ...

    @property
    def plan_size(self) -> int:
        """n, the size of `Plan.mean` and of a warm start."""
        ...

    @property
    def trajectories(self) -> int:
        """Candidates that the model rolls out for one decision; for the measurements."""
        ...

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(T, N, n) of the standard normal draws that make a plan of one belief a function of the belief."""
        ...

    @property
    def differentiable_in(self) -> tuple[str, ...]:
        """Which of reward, transition and decoder a gradient reaches through `plan`: what PPO can fine-tune."""
        ...

    def plan(
        self,
        model: RewardModel,
        belief: Belief,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        keep_history: bool = False,
        checkpoint: bool = False,
    ) -> Plan:
        """Search for the actions of least cost.

        Args:
            model: What predicts.
            belief: [B].
            warm_start: [B, warm_start_size] of `shift`, or None.
            generator: Of the belief's device, for the draws.
            noise: [T, B or 1, N, n] standard normal, in place of the generator's.
            keep_history: Fill `Plan.history`, an entry for each iteration.
            checkpoint: Recompute each iteration in the backward pass, to save memory; no result depends on it.

        Returns:
            The plans of all beliefs.
        """
        ...

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        """Solver variables [B, n] or [B, N, n] -> actions [B, H, A] or [B, N, H, A]."""
        ...

    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        """The warm start [B, warm_start_size] of the next decision; belief [B]: the one that the plan was made for."""
        ...
