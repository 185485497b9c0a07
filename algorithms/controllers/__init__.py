"""Torch controllers: a model and a solver make a function from belief to action sequence."""

from parsecrl.algorithms.controllers.agent import PlanningAgent, make_controller
from parsecrl.algorithms.controllers.categorical import CategoricalController, CategoricalPlan
from parsecrl.algorithms.controllers.planning import Controller, EmbeddedController, FullSpaceController, Plan

__all__ = [
    "CategoricalController",
    "CategoricalPlan",
    "Controller",
    "EmbeddedController",
    "FullSpaceController",
    "Plan",
    "PlanningAgent",
    "make_controller",
]
