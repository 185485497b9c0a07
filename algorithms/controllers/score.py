"""The score of a plan, put together in one place: rewards, survival, and the value of what comes after.

Axes: B beliefs, N candidates, H horizon, O observation, A action. Actions lie in [-1, 1]; observations and rewards are
in the environment's units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from parsecrl.algorithms.models import Belief

# cost(observations [B, N, H, O], rewards [B, N, H], actions [B, N, H, A]) -> [B, N], minimised.
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


class RewardModel(Protocol):
    """What a controller needs of a model; `predicted_cost` says when it needs more."""

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor:
        """Rewards [B, N, H] of actions [B, N, H, A] from B beliefs, in environment units."""


class TerminalValue(Protocol):
    """What a state is worth whose future no plan reaches."""

    def value(self, belief: Belief, reward_scale: Tensor | float) -> Tensor:
        """The expected rewards [...] from beliefs [...] on, environment units; reward_scale: of the model."""


@dataclass(frozen=True)
class Score:
    """What counts in a plan.

    Args:
        objective: A cost of one's own in place of all else; None: minus the rewards and what follows them.
        value: Of the last state; None: nothing counts beyond the horizon.
        pessimism: Weight of the disagreement of the model's ensemble, 0 or more. A step on which its members differ by
            one standard deviation of the data costs `pessimism` times the model's `reward_scale`.
    """

    objective: Objective | None = None
    value: TerminalValue | None = None
    pessimism: float = 0.0


REWARDS_ALONE = Score()


def predicted_cost(model: Any, belief: Belief, actions: Tensor, score: Score = REWARDS_ALONE) -> Tensor:
    """The cost of action sequences in a model: minus their score.

    The score is the sum of the predicted rewards (eq. 7) and, where there is one, the value of the last state, less the
    disagreement of the model's ensemble, where that counts (as MOPO, Yu et al. 2020, eq. 4). Where episodes terminate,
    the model has weighed each by the probability that it is reached.

    Args:
        model: A `RewardModel`. An objective asks `WorldModel.predict`, a value or pessimism
            `ImaginationModel.predict_outcome`.
        belief: [B].
        actions: [B, N, H, A] in [-1, 1].
        score: What counts.

    Returns:
        Costs [B, N], environment units.
    """
    if score.objective is not None:
        observations, rewards = model.predict(belief, actions)
        return score.objective(observations, rewards, actions)
    if score.value is None and not score.pessimism:
        return -model.predict_rewards(belief, actions).sum(-1)
    outcome = model.predict_outcome(belief, actions, **({"judged": True} if score.pessimism else {}))
    total = outcome.rewards.sum(-1)
    if score.value is not None:
        total = total + outcome.survival * score.value.value(outcome.last, cost_scale(model))
    if score.pessimism:
        total = total - score.pessimism * cost_scale(model) * outcome.disagreement.sum(-1)
    return -total


def cost_scale(model: Any, score: Score = REWARDS_ALONE) -> Tensor | float:
    """What the costs of plans are divided by where their size matters, so that the rewards' unit does not.

    Args:
        model: A `RewardModel`.
        score: As of `predicted_cost`.

    Returns:
        The model's `reward_scale` []; 1 where it has none, and of an objective, whose unit is its author's choice.
    """
    return 1.0 if score.objective is not None else getattr(model, "reward_scale", 1.0)
