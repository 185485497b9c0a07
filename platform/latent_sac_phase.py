"""The phase that learns policies over latents: latent_sac.

It is a study, not a phase that acts: world, model and seed are swept over, each trial is a result of its own, and no
agent is handed on or evaluated in the spec's environment.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from parsecrl.platform.latent_phases import LatentModelSpec, WorldSpec
from parsecrl.platform.spec_groups import Count, Fraction, Group, Natural, NonNegative, Positive, Stop
from parsecrl.platform.study_phases import StudyPhase

PolicyModel = Literal["parsimonious", "parsimonious_stochastic", "beta_vae", "encoder_only"]


class EpisodesStop(Stop):
    episodes: Count | None = None
    time_s: Positive | None = None


class PolicyModelSpec(LatentModelSpec):
    """What actor and critics look through."""

    kind: PolicyModel = "parsimonious"  # type: ignore[assignment]  # others than for planning


class NetworkSpec(Group):
    """Actor and critics: the paper's "encoder and decoder" of two hidden layers each."""

    hidden_size: Count = 800
    num_layers: Count = 4


class LatentSACPhase(StudyPhase):
    """Discrete soft actor-critic over the latents of a dynamics model that is learned beside it."""

    algorithm: Literal["latent_sac"]
    world: WorldSpec = Field(default_factory=WorldSpec)
    model: PolicyModelSpec = Field(default_factory=PolicyModelSpec)
    policy: NetworkSpec = Field(default_factory=NetworkSpec)
    encoder_training: Literal["dynamics", "both"] = "dynamics"  # both: by actor and critics too
    alpha: Positive = 0.5  # weight of the entropy
    target_entropy: NonNegative | None = None  # nats; alpha then begins at its value and is tuned
    tau: Fraction = 0.1  # of the target networks
    discount: Fraction = 0.99
    policy_updates: Natural = 15  # after each episode
    dynamics_updates: Natural = 15
    batch_size: Count = 150
    policy_learning_rate: Positive = 1.0e-4
    dynamics_learning_rate: Positive = 1.0e-3
    alpha_learning_rate: Positive = 1.0e-3
    replay_capacity: Count = 1_000_000  # transitions
    episodes_per_step: Count = 5  # between two results
    measure_at: list[Count] = Field(
        default=[5, 10, 20, 50, 100, 200, 500]
    )  # episodes after which predictions are tested
    stop: EpisodesStop
