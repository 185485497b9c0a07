"""What rollouts, learners, evaluation and reports ask of a controller, and the cost that one minimises.

Axes: B beliefs, N candidates, n solver variables, T iterations, H horizon, O observation, A action. Actions lie in
[-1, 1]; observations and rewards are in the environment's units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.solvers import Iteration

# cost(observations [B, N, H, O], rewards [B, N, H], actions [B, N, H, A]) -> [B, N], minimised.
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


class RewardModel(Protocol):
    """What a controller needs of a model; with an objective it needs `WorldModel.predict` as well."""

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor:
        """Rewards [B, N, H] of actions [B, N, H, A] from B beliefs, in environment units."""


class Plan(NamedTuple):
    """A planned action sequence for each belief."""

    actions: Tensor  # [B, H, A]
    mean: Tensor  # [B, n] the solution in the solver's own variables
    history: list[Iteration] | None  # per iteration, if asked for
    entropy: Tensor | None = None  # [B] nats, of the last selection: see Solution.entropy


class Controller(Protocol):
    """A torch module that plans from beliefs; all of a batch at once, each row apart from the others.

    `controller.kind: module:name` names a callable (horizon, action_size, belief_size, **options) that returns one.

    Attributes:
        horizon: H, decisions of a plan.
        action_size: A.
        objective: What `plan` minimises, through `predicted_cost`. Set after construction; None: minus the sum of the
            predicted rewards.
        warm_start: Whether `plan` begins at `shift` of the last plan.
    """

    horizon: int
    action_size: int
    objective: Objective | None
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
            warm_start: [B, n] of `shift`, or None.
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
        """The warm start [B, n] of the next decision; belief [B] is the one that the plan was made for."""
        ...


def predicted_cost(model: Any, belief: Belief, actions: Tensor, objective: Objective | None = None) -> Tensor:
    """The cost of action sequences in a model.

    Args:
        model: A `RewardModel`; with an objective, a `WorldModel`.
        belief: [B].
        actions: [B, N, H, A] in [-1, 1].
        objective: Cost of what the model predicts; None: minus the sum of the predicted rewards (eq. 7). Where
            episodes terminate, the model has weighed the rewards by the probability that they are reached.

    Returns:
        Costs [B, N], environment units.
    """
    if objective is None:
        return -model.predict_rewards(belief, actions).sum(-1)
    observations, rewards = model.predict(belief, actions)
    return objective(observations, rewards, actions)


def cost_scale(model: Any, objective: Objective | None) -> Tensor | float:
    """What the costs of plans are divided by where their size matters, so that the rewards' unit does not.

    Args:
        model: A `RewardModel`.
        objective: As of `predicted_cost`.

    Returns:
        The model's `reward_scale` []; 1 where it has none, and of an objective, whose unit is its author's choice.
    """
    return 1.0 if objective is not None else getattr(model, "reward_scale", 1.0)
