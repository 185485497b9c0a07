"""Phases that study models of latent dynamics in worlds of cells: latent_planning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from parsecrl.platform.spec_groups import Count, Elites, Group, Natural, NonNegative, Positive, Stop
from parsecrl.platform.study_phases import StudyPhase

Place = Annotated[list[int], Field(min_length=2, max_length=2)]  # row and column, from 0


class WorldSpec(Group):
    """A world of cells, or any environment with vectors for observations and discrete actions.

    For planning its reset has to tell a goal. start and goal that are left out are drawn for every task there, and the
    world's own where a policy is learned, which is for one task.
    """

    id: Annotated[str, Field(min_length=1)] = "parsecrl/Gridworld-v0"
    start: Place | None = None
    goal: Place | None = None
    size: Count | None = None  # cells along each side, of the gridworld and the torus; None: the paper's 11 and 13
    observation_size: Count | None = None  # None: the world's own, 50
    episode_steps: Count | None = None  # None: the world's own, 50 where start or goal is drawn
    layout_seed: Natural | None = None  # of the cells' vectors; None: from the trial's seed


class LatentModelSpec(Group):
    """A model of latent dynamics by its kind; what its kind has no use for is left aside."""

    kind: Literal["parsimonious", "parsimonious_stochastic", "beta_vae", "rnn", "ssm", "true_dynamics"] = "parsimonious"
    transformation: Literal["rotation", "translation", "affine"] = "affine"
    baseline_transformation: Literal["rotation", "translation", "affine"] | None = None  # of the others, None: the same
    latent_size: Count = 15
    code_size: Annotated[int, Field(ge=1, le=48)] = 15
    hidden_size: Count = 1200
    num_layers: Count = 2
    stochastic: bool = False
    period: Positive | None = None  # of latents on a torus, for translations
    beta: NonNegative = 1.0  # weight of the parsimony term
    vae_beta: NonNegative = 0.1  # of the divergence in beta_vae and ssm
    constraint: Literal["kl", "error"] | None = None  # find beta by it
    target: NonNegative | None = None  # nats, or the transition error
    diversity: Literal["contrastive", "reconstruction"] | None = None  # None: contrastive unless stochastic
    diversity_weight: NonNegative = 1.0
    transition_weight: NonNegative = 1.0
    similarity_scale_obs: NonNegative = 100.0  # tau_s
    similarity_scale_latent: NonNegative = 0.1  # tau_z
    rollout_steps: Count = 1  # of latent rollouts in the loss

    @model_validator(mode="after")
    def _options_fit_together(self) -> LatentModelSpec:
        if (self.constraint is None) != (self.target is None):
            raise ValueError(
                f"constraint and target come together, got {self.constraint!r} and {self.target!r}; set both or neither"
            )
        if self.period is not None and (self.transformation != "translation" or self.stochastic):
            raise ValueError(
                f"period goes with a deterministic translation, got {self.transformation!r} with "
                f"stochastic={self.stochastic}; leave it out"
            )
        return self


class PlanningBudget(Elites):
    """What a plan and the refit after a task may cost; the paper's plan."""

    horizon: Count = 15
    num_samples: Annotated[int, Field(ge=2)] = 1000
    num_elites: Count = 200
    num_iterations: Count = 10
    gradient_steps: Count = 50  # the paper does not say how many


class TasksStop(Stop):
    tasks: Count | None = None
    time_s: Positive | None = None


class LatentPlanningPhase(StudyPhase):
    """Tasks that are planned for in a model of latent dynamics, which is refitted after each."""

    algorithm: Literal["latent_planning"]
    world: WorldSpec = Field(default_factory=WorldSpec)
    model: LatentModelSpec = Field(default_factory=LatentModelSpec)
    num_tasks: Count = 30  # T of the exploration's schedule, and how many a trial plays
    epsilon_exponent: Positive = 2.8  # V
    budget: str = "paper"  # one of budgets
    budgets: dict[str, PlanningBudget] = Field(default_factory=lambda: {"paper": PlanningBudget()})
    deduplicate: bool = True
    batch_size: Count = 150  # transitions of a gradient step
    slice_length: Count | None = None  # of them in a row; None: 10 for rnn and ssm, else what the loss needs
    learning_rate: Positive = 1.0e-3
    stop: TasksStop

    @model_validator(mode="before")
    @classmethod
    def _ends_with_its_tasks(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("stop") is None:
            tasks = data.get("num_tasks")
            return {**data, "stop": {"tasks": tasks if isinstance(tasks, int) and tasks > 0 else 30}}
        return data

    @model_validator(mode="after")
    def _names_a_budget(self) -> LatentPlanningPhase:
        if self.budget not in self.budgets:
            known = ", ".join(self.budgets) or "none"
            raise ValueError(f"budget must name one of budgets ({known}), got {self.budget!r}")
        if self.slice_length is not None and self.slice_length > self.batch_size:
            raise ValueError(
                f"slice_length must lie in [1, batch_size], got {self.slice_length} with batch_size={self.batch_size}"
            )
        return self
