"""Makes the critic and the actor of an agent, and has its controller count with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from parsecrl.algorithms.controllers.controller import Controller
from parsecrl.algorithms.controllers.own_parts import parts
from parsecrl.algorithms.controllers.planning import SearchController
from parsecrl.algorithms.controllers.score import Score
from parsecrl.algorithms.models import ActorCritic, Belief, ImaginationModel, WorldModel

ACTING = ("hidden_size", "discount", "std", "num_policy_candidates")  # keys of the group that an agent is made of


def make_actor_critic(
    model: WorldModel, controller: Controller, settings: Mapping[str, Any] | str | None
) -> ActorCritic | None:
    """The critic and the actor that a spec's `value` group describes; the controller's score gets the critic.

    Args:
        model: Of the beliefs.
        controller: That plans in it.
        settings: The group; None or "none" for neither critic nor actor.

    Returns:
        New ones, or None.

    Raises:
        ValueError: The model cannot imagine, plans have a cost of their own, or the controller never asks the value.
    """
    if settings is None or isinstance(settings, str):
        return None
    lacking = [part for part in parts(ImaginationModel) if not hasattr(model, part)]
    if lacking:
        raise ValueError(
            f"value needs a world model with {', '.join(parts(ImaginationModel))}, got {type(model).__name__} without "
            f"{', '.join(lacking)}; add them (parsec docs plugins), or set value: none"
        )
    if controller.score.objective is not None:
        raise ValueError(
            "value is of rewards, and controller.objective puts another cost in their place; leave one of them out"
        )
    acting = {name: settings[name] for name in ACTING if name in settings}
    actor_critic = ActorCritic(model.belief_size, model.action_size, **acting)
    if not isinstance(controller, SearchController):
        _check_asked(model, controller)
    controller.score = replace(controller.score, value=actor_critic)
    return actor_critic


class _Counted:
    """A value of 0 that counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def value(self, belief: Belief, reward_scale: Tensor | float) -> Tensor:
        self.times += 1
        return torch.zeros_like(belief.h[..., 0])


def _check_asked(model: WorldModel, controller: Controller) -> None:
    """Raise ValueError where a controller of other code plans without asking the value."""
    counted, before = _Counted(), controller.score
    controller.score = Score(value=counted)
    try:
        with torch.no_grad():
            controller.plan(model, model.initial_belief(2), generator=torch.Generator().manual_seed(0))
    finally:
        controller.score = before
    if not counted.times:
        raise ValueError(
            f"value is never asked by {type(controller).__name__}, whose plan must minimise "
            f"predicted_cost(model, belief, actions, self.score); correct the controller, or set value: none"
        )
