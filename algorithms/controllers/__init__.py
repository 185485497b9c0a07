"""Torch controllers: a model and a solver make a function from belief to action sequence."""

from parsecrl.algorithms.controllers.agent import PlanningAgent
from parsecrl.algorithms.controllers.categorical import CategoricalController, CategoricalPlan
from parsecrl.algorithms.controllers.controller import Controller, Plan
from parsecrl.algorithms.controllers.own_parts import make_controller, make_world_model
from parsecrl.algorithms.controllers.planning import EmbeddedController, FullSpaceController, SearchController
from parsecrl.algorithms.controllers.score import Objective, Score, cost_scale, predicted_cost
from parsecrl.algorithms.controllers.trajectory_searches import ICEMController, MPPIController

__all__ = [
    "CategoricalController",
    "CategoricalPlan",
    "Controller",
    "EmbeddedController",
    "FullSpaceController",
    "ICEMController",
    "MPPIController",
    "Objective",
    "Plan",
    "PlanningAgent",
    "Score",
    "SearchController",
    "cost_scale",
    "make_controller",
    "make_world_model",
    "predicted_cost",
]
