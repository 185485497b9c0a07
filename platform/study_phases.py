"""The phases that are studies without an agent: energy_regression and cartpole_embedding."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from parsecrl.platform.spec_groups import Count, Elites, Group, Natural, NonNegative, PhaseBase, Positive, Stop


class UpdatesStop(Stop):
    num_updates: Count | None = None
    time_s: Positive | None = None


class StudyPhase(PhaseBase):
    """A plain Tune trainable: trials that need no runners, and an analysis of all of them in place of an evaluation."""

    acts: ClassVar[bool] = False
    seed: Natural = 0  # search it for several seeds
    num_cpus_per_trial: Positive = 1
    num_gpus_per_trial: NonNegative = 0


class InnerSolverSpec(Elites):
    """The minimiser that an energy is trained through; learning_rate for unrolled_gd, what follows for dcem."""

    kind: Literal["unrolled_gd", "dcem"] = "dcem"  # search it for both
    num_iterations: Count = 10
    learning_rate: Positive = 0.1
    num_samples: Annotated[int, Field(ge=2)] = 100
    num_elites: Count = 10
    temperature: Positive = 1.0  # at 0 no gradient would reach the energy
    init_std: Positive = 7.0  # units of y
    normalize: bool = True


class EnergySpec(Group):
    kind: str = "mlp"  # or module:function of your own, which is called with what follows
    hidden_size: Count = 128
    num_layers: Count = 3


class EnergyRegressionPhase(StudyPhase):
    """An energy network trained through its own minimiser, on x sin x."""

    algorithm: Literal["energy_regression"]
    solver: InnerSolverSpec = Field(default_factory=InnerSolverSpec)
    energy: EnergySpec = Field(default_factory=EnergySpec)
    num_points: int = Field(100, ge=2)  # equally spaced in [0, 2 pi]
    points_per_update: Count = 1
    updates_per_point: Count = 3  # before the next are drawn
    lr: Positive = 1.0e-3
    max_grad_norm: Positive = 1.0
    updates_per_step: Count = 1000  # between two results
    compile: bool = False  # dcem's iteration by torch.compile: pays above some 5,000 updates
    stop: UpdatesStop


class LatentSearch(Elites):
    """DCEM over the latent points of an embedding, in the box [-1, 1]."""

    latent_size: Count = 2
    horizon: Count = 20
    num_samples: Annotated[int, Field(ge=2)] = 100
    num_elites: Count = 10
    num_iterations: Count = 10
    temperature: NonNegative = 1.0  # 0: differentiate at the minimum only
    init_std: Positive = 0.5


class CartpoleDecoder(Group):
    hidden_size: Count = 256
    num_layers: Count = 3
    init_scale: Positive = math.sqrt(2)  # times Xavier's: the paper's 2 / sqrt(fan_in + fan_out)


class ExpertSpec(Elites):
    """CEM over whole action sequences; its initial standard deviation is half of the action's range."""

    num_samples: Annotated[int, Field(ge=2)] = 100
    num_elites: Count = 10
    num_iterations: Count = 30


class CartpoleEmbeddingPhase(StudyPhase):
    """Algorithm 2: a decoder of action sequences, learned on known dynamics."""

    algorithm: Literal["cartpole_embedding"]
    dynamics: str = "cartpole"  # or pendulum, or module:function of your own, which returns KnownDynamics
    controller: LatentSearch = Field(default_factory=LatentSearch)
    decoder: CartpoleDecoder = Field(default_factory=CartpoleDecoder)
    expert: ExpertSpec = Field(default_factory=ExpertSpec)
    learning_rate: Positive = 5.0e-4
    max_grad_norm: Positive = 1.0
    states_per_update: Count = 1
    validate_every: Count = 100  # updates
    validation_states: Count = 100
    patience: Count = 20  # validations without a new best before the learning rate is halved
    control_states: Count = 10  # episodes of receding-horizon control in the analysis
    control_steps: Count = 100
    updates_per_step: Count = 250  # between two results
    stop: UpdatesStop
