"""The settings of energy_regression (DCEM paper, sections 4.1 and 5.1, appendix B)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from parsecrl.algorithms.registry.settings import Count, Elites, Group, Positive, StudySettings


class InnerSolverSpec(Elites):
    """The minimiser that an energy is trained through."""

    kind: Literal["unrolled_gd", "dcem"] = Field("dcem", description="search it for both")
    num_iterations: Count = Field(10, description="steps of the minimiser")
    learning_rate: Positive = Field(0.1, description="of unrolled_gd")
    num_samples: int = Field(100, ge=2, description="of dcem: candidates of an iteration")
    num_elites: Count = Field(10, description="of dcem: candidates that the soft selection keeps")
    temperature: Positive = Field(1.0, description="of dcem; at 0 no gradient would reach the energy")
    init_std: Positive = Field(7.0, description="of dcem's first distribution, in units of y")
    normalize: bool = Field(True, description="of dcem: divide energies by their spread before the selection")


class EnergySpec(Group):
    """The energy that is trained."""

    kind: str = Field("mlp", description="mlp, or module:function of your own, called with what follows")
    hidden_size: Count = Field(128, description="units of a hidden layer")
    num_layers: Count = Field(3, description="hidden layers")


class EnergyRegressionSettings(StudySettings):
    """An energy network trained through its own minimiser, on x sin x."""

    solver: InnerSolverSpec = Field(default_factory=InnerSolverSpec, description="the minimiser")
    energy: EnergySpec = Field(default_factory=EnergySpec, description="the network")
    num_points: int = Field(100, ge=2, description="training points, equally spaced in [0, 2 pi]")
    points_per_update: Count = Field(1, description="training points of an update")
    updates_per_point: Count = Field(3, description="updates before the next points are drawn")
    lr: Positive = Field(1.0e-3, description="learning rate of the energy")
    max_grad_norm: Positive = Field(1.0, description="norm that gradients are clipped to")
    updates_per_step: Count = Field(1000, description="updates between two results")
    compile: bool = Field(False, description="dcem's iteration by torch.compile: pays above some 5,000 updates")
