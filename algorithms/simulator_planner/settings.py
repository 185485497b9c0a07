"""The settings of simulator_planner."""

from __future__ import annotations

from pydantic import Field

from parsecrl.algorithms.registry.settings import Count, Elites, Positive, Settings


class SimulatorController(Elites):
    """CEM over action sequences."""

    horizon: Count = Field(12, description="decisions that a plan looks ahead")
    num_samples: Count = Field(32, description="candidates of an iteration")
    num_elites: Count = Field(4, description="best candidates that the next iteration is drawn around")
    num_iterations: Count = Field(2, description="of CEM for each decision, begun at the last plan")
    init_std: Positive = Field(0.5, description="of each action in the first iteration")


class SimulatorPlannerSettings(Settings):
    """Plans whose candidates are rolled out in the true simulator. Nothing is trained."""

    controller: SimulatorController = Field(default_factory=SimulatorController, description="how plans are searched")
    num_cpus_per_trial: Positive = Field(1, description="processors that a trial takes")
