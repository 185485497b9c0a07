"""The settings of open_loop (Saanum and Schulz 2022, section 5, appendix A.3)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from parsecrl.algorithms.registry.settings import Arguments, Count, Group, Natural, NonNegative, Positive, StudySettings


class PixelWorldSpec(Group):
    """A world of square pictures and discrete actions."""

    id: str = Field("parsecrl/HealthGathering-v0", min_length=1, description="Gymnasium's name of the environment")
    frame_skip: Count | None = Field(None, description="frames of a step; none: the world's own")
    seconds: Positive | None = Field(None, description="of an episode, in worlds that ask; none: the world's own")
    kwargs: Arguments | None = Field(None, description="arguments of the world's own, by name")


class PixelDataSpec(Group):
    """Episodes of a random policy, collected before the phase's trials begin."""

    folder: str | None = Field(None, description="none: <run>/<phase>_data; runs that name the same one share it")
    episodes: Count = Field(250, description="for training")
    max_steps: Count = Field(500, description="of a training episode, at most")
    held_out: Count = Field(30, description="episodes for tests")
    held_out_steps: int = Field(149, ge=2, description="of an episode for tests")
    num_workers: Count = Field(2, description="processes that collect, at most")
    seed: Natural = Field(0, description="of the episodes")


class PixelModelSpec(Group):
    """The paper's sizes; what is said to be parsimonious is of that model alone."""

    kind: Literal["parsimonious", "rssm"] = Field("parsimonious", description="search it for both")
    transformation: Literal["rotation", "translation", "affine"] = Field(
        "affine", description="parsimonious: what an action does to a latent"
    )
    code_size: Count = Field(30, description="parsimonious: bits that name a transformation")
    initial_logit: float = Field(0.0, description="parsimonious: of every bit; below 0 bits begin off")
    printed_divergence: bool = Field(
        False, description="parsimonious: KL(predicted || inferred) is trained, as eq. 10 prints it"
    )
    parsimony_weight: NonNegative = Field(0.5, description="parsimonious: beta_2")
    transition_weight: NonNegative = Field(0.1, description="beta_1")
    latent_size: Count = Field(30, description="dimensions of a latent")
    readout_size: Count = Field(30, description="entries of u")
    memory_size: Count = Field(200, description="units of the GRU")
    hidden_size: Count = Field(200, description="units of a hidden layer")
    channels: Count = Field(32, description="maps of the first convolution")
    min_std: NonNegative = Field(0.1, description="least standard deviation of a latent")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of convolutions")
    channels_last: bool = Field(True, description="memory layout of pictures")


class OpenLoopSettings(StudySettings):
    """Two models of one world's image sequences, compared in open loop: the paper's batches, PlaNet's optimiser."""

    world: PixelWorldSpec = Field(default_factory=PixelWorldSpec, description="where episodes are collected")
    data: PixelDataSpec = Field(default_factory=PixelDataSpec, description="the episodes")
    model: PixelModelSpec = Field(default_factory=PixelModelSpec, description="of image sequences")
    batch_size: Count = Field(50, description="sequences of an update")
    sequence_length: int = Field(50, ge=2, description="images of a sequence")
    learning_rate: Positive = Field(1.0e-3, description="of the model")
    max_grad_norm: Positive = Field(1000.0, description="norm that gradients are clipped to")
    updates_per_result: Count = Field(25, description="updates between two results")
    updates_per_episode: Count = Field(25, description="updates for each training episode, where stop says nothing")
    context: Count = Field(5, description="images that are seen before a prediction")

    @model_validator(mode="after")
    def _sequences_are_long_enough(self) -> OpenLoopSettings:
        if self.context > self.data.held_out_steps:
            raise ValueError(
                f"context must be at most data.held_out_steps, got {self.context} with {self.data.held_out_steps}"
            )
        if self.sequence_length > self.data.max_steps + 1:
            raise ValueError(
                f"sequence_length must be at most data.max_steps + 1, got {self.sequence_length} with "
                f"{self.data.max_steps}"
            )
        return self
