"""The settings of latent_planning (Saanum and Schulz 2022, section 4.4, appendices A.2 and A.7)."""

from __future__ import annotations

from pydantic import Field, model_validator

from parsecrl.algorithms.latent_study.settings import LatentModelSpec, WorldSpec
from parsecrl.algorithms.registry.settings import Count, Elites, Positive, StudySettings

# Transitions a slice, where the settings say nothing: models of one-step transitions see more distinct ones in short
# slices; the RNN has no memory, and the SSM half of its divergence elsewhere, at a slice's first step.
SLICE_LENGTHS = {"rnn": 10, "ssm": 10}


class PlanningBudget(Elites):
    """What a plan and the refit after a task may cost; the paper's plan (appendix A.7)."""

    horizon: Count = Field(15, description="actions that a plan looks ahead")
    num_samples: int = Field(1000, ge=2, description="candidates of an iteration")
    num_elites: Count = Field(200, description="candidates that the next distribution is fitted to")
    num_iterations: Count = Field(10, description="iterations of a plan")
    gradient_steps: Count = Field(50, description="of the refit after a task; the paper does not say how many")


class LatentPlanningSettings(StudySettings):
    """Tasks that are planned for in a model of latent dynamics, which is refitted after each (algorithm 2)."""

    world: WorldSpec = Field(default_factory=WorldSpec, description="where the tasks are")
    model: LatentModelSpec = Field(default_factory=LatentModelSpec, description="of latent dynamics")
    num_tasks: Count = Field(30, description="T of the exploration's schedule, and how many tasks a trial plays")
    epsilon_exponent: Positive = Field(2.8, description="V of the exploration's schedule")
    budget: str = Field("paper", description="one of budgets, by its name")
    budgets: dict[str, PlanningBudget] = Field(
        default_factory=lambda: {"paper": PlanningBudget()}, description="plans and refits by name"
    )
    offline_data: str | None = Field(
        None,
        description="dataset to learn from, of Minari or Parquet in RLlib's columns: a task begins with a refit, is "
        "planned without random actions, and adds nothing",
    )
    deduplicate: bool = Field(True, description="evaluate equal prefixes of candidates once")
    batch_size: Count = Field(150, description="transitions of a gradient step")
    slice_length: Count | None = Field(
        None, description="transitions in a row; none: 10 for rnn and ssm, else what the loss needs"
    )
    learning_rate: Positive = Field(1.0e-3, description="of the model")

    @model_validator(mode="after")
    def _names_a_budget(self) -> LatentPlanningSettings:
        if self.budget not in self.budgets:
            known = ", ".join(self.budgets) or "none"
            raise ValueError(f"budget must name one of budgets ({known}), got {self.budget!r}")
        if self.slice_length is not None and self.slice_length > self.batch_size:
            raise ValueError(
                f"slice_length must lie in [1, batch_size], got {self.slice_length} with batch_size={self.batch_size}"
            )
        return self

    @property
    def chosen_budget(self) -> PlanningBudget:
        """The one of `budgets` that `budget` names."""
        return self.budgets[self.budget]

    @property
    def slices(self) -> int:
        """Transitions of a training slice: as set, or the model's own, as many as its loss rolls out.

        Raises:
            ValueError: It is set to fewer.
        """
        least = self.model.rollout_steps
        if self.slice_length is None:
            return max(SLICE_LENGTHS.get(self.model.kind, 1), least)
        if self.slice_length < least:
            raise ValueError(
                f"slice_length must be model.rollout_steps, {least}, or more, got {self.slice_length}; leave it out"
            )
        return self.slice_length
