"""The settings of latent_sac (Saanum and Schulz 2022, section 4.3, appendices A.5 and A.6).

World, model and seed are searched over, and each trial is a result of its own: no agent is handed on.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from parsecrl.algorithms.latent_study.settings import LatentModelSpec, WorldSpec
from parsecrl.algorithms.registry.settings import (
    Count,
    EvaluatedSettings,
    Fraction,
    Group,
    Natural,
    NonNegative,
    Positive,
    StudySettings,
)

PolicyModel = Literal["parsimonious", "parsimonious_stochastic", "beta_vae", "encoder_only"]


class PolicyModelSpec(LatentModelSpec):
    """What actor and critics look through."""

    kind: PolicyModel = Field("parsimonious", description="search it to compare models")  # type: ignore[assignment]


class NetworkSpec(Group):
    """Actor and critics: the paper's "encoder and decoder" of two hidden layers each."""

    hidden_size: Count = Field(800, description="units of a hidden layer")
    num_layers: Count = Field(4, description="hidden layers")


class ExplorationSpec(Group):
    """What is added to rewards in the critics' targets, so that exploring does not live on errors of values.

    count: 1 / sqrt(n), n transitions of this observation and action in the replay (Strehl and Littman 2008).
    error: distance of predicted and encoded next latent, over the mean distance of latents in the batch.
    """

    bonus: Literal["count", "error"] | None = Field(
        None, description="count: 1 / sqrt(visits of observation and action); error: the model's, of one step"
    )
    weight: NonNegative = Field(1.0, description="of the bonus, in units of the reward")


class LatentSACSettings(EvaluatedSettings, StudySettings):  # type: ignore[misc]  # pydantic's plugin names both alike
    """Soft actor-critic over the latents of a dynamics model that is learned beside it (algorithm 1)."""

    world: WorldSpec = Field(default_factory=WorldSpec, description="where the policy acts")
    model: PolicyModelSpec = Field(default_factory=PolicyModelSpec, description="of latent dynamics")
    policy: NetworkSpec = Field(default_factory=NetworkSpec, description="actor and critics")
    encoder_training: Literal["dynamics", "both"] = Field(
        "dynamics",
        description="what trains the encoder; both: actor and critics too, by an optimiser of their own, as always "
        "where the model has no objective",
    )
    encoder_tau: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="step of the encoder that actor and critics look through towards the model's, after an update of "
        "the model; 1: they look through the model's own",
    )
    exploration: ExplorationSpec = Field(default_factory=ExplorationSpec, description="bonus for what is not known")
    alpha: Positive = Field(0.5, description="weight of the entropy; with a target_entropy where it starts from")
    target_entropy: float | None = Field(
        None, description="nats, of a density where actions are vectors; alpha is tuned towards it; none: it is fixed"
    )
    tau: Fraction = Field(0.1, description="step of the target networks towards the critics")
    discount: Fraction = Field(0.99, description="of rewards, per step")
    policy_updates: Natural = Field(15, description="of actor and critics after an episode")
    dynamics_updates: Natural = Field(15, description="of the model after an episode")
    batch_size: Count = Field(150, description="transitions of an update")
    policy_learning_rate: Positive = Field(1.0e-4, description="of actor and critics")
    dynamics_learning_rate: Positive = Field(1.0e-3, description="of the model")
    alpha_learning_rate: Positive = Field(1.0e-3, description="of alpha")
    replay_capacity: Count = Field(1_000_000, description="transitions that the replay holds")
    episodes_per_step: Count = Field(5, description="episodes between two results")
    measure_at: list[Count] = Field(
        [5, 10, 20, 50, 100, 200, 500], description="episodes after which predictions are tested"
    )

    @model_validator(mode="after")
    def _learns(self) -> LatentSACSettings:
        trained = self.dynamics_updates if self.model.kind != "encoder_only" else 0
        if not self.policy_updates + trained:
            raise ValueError(
                f"there must be updates of the policy, or of a model with an objective, got policy_updates=0 and "
                f"dynamics_updates={self.dynamics_updates} with model.kind={self.model.kind}; raise policy_updates"
            )
        return self

    @model_validator(mode="after")
    def _options_fit_together(self) -> LatentSACSettings:
        alone = self.model.kind == "encoder_only"
        if self.encoder_tau < 1 and (alone or self.encoder_training == "both"):
            raise ValueError(
                f"encoder_tau below 1 needs an encoder that the model alone trains, got {self.encoder_tau} with "
                f"encoder_training={self.encoder_training} and model.kind={self.model.kind}; set encoder_tau=1"
            )
        if self.exploration.bonus == "error" and alone:
            raise ValueError(
                "exploration.bonus=error needs a model that predicts, got model.kind=encoder_only; set it to count"
            )
        return self
