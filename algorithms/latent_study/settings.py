"""Groups of settings that studies of latent dynamics share (Saanum and Schulz 2022)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from parsecrl.algorithms.registry.settings import Arguments, Count, Group, Natural, NonNegative, Positive

Place = Annotated[list[int], Field(min_length=2, max_length=2)]  # row and column, from 0
Transformation = Literal["rotation", "translation", "affine"]


class WorldSpec(Group):
    """A grid world, or any environment with vectors for observations and discrete actions.

    For planning its reset has to tell a goal. start and goal that are left out are drawn for every task there, and the
    world's own where a policy is learned, which is for one task.
    """

    id: str = Field("parsecrl/Gridworld-v0", min_length=1, description="Gymnasium's name of the environment")
    start: Place | None = Field(None, description="row and column from 0; none: drawn, or the world's own")
    goal: Place | None = Field(None, description="row and column from 0; none: drawn, or the world's own")
    size: Count | None = Field(None, description="cells along a side of gridworld and torus; none: the paper's 11, 13")
    observation_size: Count | None = Field(None, description="entries of an observation; none: the world's own, 50")
    episode_steps: Count | None = Field(
        None, description="of an episode; none: the world's own, 50 where start or goal is drawn"
    )
    layout_seed: Natural | None = Field(None, description="of the cells' vectors; none: from the trial's seed")
    kwargs: Arguments | None = Field(None, description="arguments of the world's own, by name")
    max_episode_steps: Count | None = Field(
        None, description="steps after which an episode is truncated; none: as the world is registered"
    )


class LatentModelSpec(Group):
    """A model of latent dynamics by its kind; what its kind has no use for is left aside."""

    kind: Literal["parsimonious", "parsimonious_stochastic", "beta_vae", "rnn", "ssm", "true_dynamics"] = Field(
        "parsimonious", description="search it to compare models"
    )
    transformation: Transformation = Field("affine", description="what an action does to a latent")
    baseline_transformation: Transformation | None = Field(
        None, description="of what parsimonious is compared with; none: the same"
    )
    latent_size: Count = Field(15, description="dimensions of a latent")
    code_size: int = Field(15, ge=1, le=48, description="bits that name a transformation")
    hidden_size: Count = Field(1200, description="units of a hidden layer")
    num_layers: Count = Field(2, description="hidden layers")
    stochastic: bool = Field(False, description="latents are drawn")
    period: Positive | None = Field(None, description="of latents on a torus, for translations")
    beta: NonNegative = Field(1.0, description="weight of the parsimony term")
    vae_beta: NonNegative = Field(0.1, description="weight of the divergence in beta_vae and ssm")
    constraint: Literal["kl", "error"] | None = Field(None, description="find beta by it")
    target: NonNegative | None = Field(None, description="of the constraint: nats, or the transition error")
    diversity: Literal["contrastive", "reconstruction"] | None = Field(
        None, description="what keeps latents apart; none: contrastive unless stochastic"
    )
    diversity_weight: NonNegative = Field(1.0, description="weight of that term")
    transition_weight: NonNegative = Field(1.0, description="weight of the transition error")
    movement_weight: NonNegative = Field(
        0.0, description="weight of small movements: squared angles, and squared offsets in units of 1 / tau_z"
    )
    similarity_scale_obs: NonNegative = Field(100.0, description="tau_s of the contrastive term")
    similarity_scale_latent: NonNegative = Field(0.1, description="tau_z of the contrastive term")
    rollout_steps: Count = Field(1, description="of latent rollouts in the loss")

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
