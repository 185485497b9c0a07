"""The phase that trains models of image sequences: open_loop, and where its episodes lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from parsecrl.platform.spec_groups import Count, Group, Natural, NonNegative, Positive
from parsecrl.platform.storage import Location
from parsecrl.platform.study_phases import StudyPhase, UpdatesStop
from parsecrl.platform.terminal import StatusLine


class PixelWorldSpec(Group):
    """A world of square pictures and discrete actions; None is the world's own value."""

    id: Annotated[str, Field(min_length=1)] = "parsecrl/HealthGathering-v0"
    frame_skip: Count | None = None
    seconds: Positive | None = None  # of an episode, in worlds that ask


class PixelDataSpec(Group):
    """Episodes of a random policy, collected before the phase's trials begin."""

    folder: str | None = None  # None: <run>/<phase>_data; runs that name the same one share it
    episodes: Count = 250
    max_steps: Count = 500
    held_out: Count = 30
    held_out_steps: Annotated[int, Field(ge=2)] = 149
    num_workers: Count = 2
    seed: Natural = 0


class PixelModelSpec(Group):
    """The paper's sizes; transformation, code_size, initial_logit, printed_divergence and parsimony_weight are of the
    parsimonious model alone."""

    kind: Literal["parsimonious", "rssm"] = "parsimonious"
    transformation: Literal["rotation", "translation", "affine"] = "affine"
    code_size: Count = 30
    initial_logit: Annotated[float, Field(allow_inf_nan=False)] = 0.0  # of every bit; below 0 bits begin off
    printed_divergence: bool = False  # KL(predicted || inferred) is trained, as eq. 10 prints it
    parsimony_weight: NonNegative = 0.5  # beta_2
    transition_weight: NonNegative = 0.1  # beta_1
    latent_size: Count = 30
    readout_size: Count = 30  # of u
    memory_size: Count = 200  # units of the GRU
    hidden_size: Count = 200
    channels: Count = 32  # maps of the first convolution
    min_std: NonNegative = 0.1
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True


class OpenLoopPhase(StudyPhase):
    """Two models of one world's image sequences, compared in open loop."""

    algorithm: Literal["open_loop"]
    world: PixelWorldSpec = Field(default_factory=PixelWorldSpec)
    data: PixelDataSpec = Field(default_factory=PixelDataSpec)
    model: PixelModelSpec = Field(default_factory=PixelModelSpec)
    batch_size: Count = 50
    sequence_length: Annotated[int, Field(ge=2)] = 50  # images
    learning_rate: Positive = 1.0e-3
    adam_epsilon: Positive = 1.0e-4
    max_grad_norm: Positive = 1000.0
    updates_per_result: Count = 25  # gradient steps between two results
    updates_per_episode: Count = 25
    context: Count = 5  # images that are seen before a prediction
    stop: UpdatesStop

    @model_validator(mode="before")
    @classmethod
    def _ends_with_its_updates(cls, data: Any) -> Any:
        """Without a stop condition: updates_per_episode for each episode."""
        if not isinstance(data, dict) or data.get("stop") is not None:
            return data
        stated = data.get("data")
        episodes = stated.get("episodes", 250) if isinstance(stated, dict) else 250
        each = data.get("updates_per_episode", 25)
        known = all(isinstance(n, int) and n > 0 for n in (episodes, each))
        return {**data, "stop": {"num_updates": episodes * each if known else 1}}

    @model_validator(mode="after")
    def _sequences_are_long_enough(self) -> OpenLoopPhase:
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


def data_folder(run: Location, phase: OpenLoopPhase) -> str:
    """Where the phase's episodes lie: absolute, since trials run in folders of their own."""
    if phase.data.folder is None:
        return str(run / f"{phase.name}_data")
    return str(Path(phase.data.folder).expanduser().absolute())


def collect_episodes(run: Location, phase: OpenLoopPhase, line: StatusLine, patience_s: float | None = None) -> None:
    """Collect what is missing of the phase's episodes. Raises UserError and RunFailed as `collect` does."""
    from parsecrl.platform.running.collection import collect

    data = phase.data
    collect(
        data_folder(run, phase),
        phase.world.model_dump(exclude_none=True),
        num_episodes=data.episodes,
        max_steps=data.max_steps,
        num_held_out=data.held_out,
        held_out_steps=data.held_out_steps,
        seed=data.seed,
        num_workers=data.num_workers,
        show=line,
        patience_s=patience_s,
    )
