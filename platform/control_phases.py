"""The phases that act in the spec's environment: planet and dcem_ppo."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from parsecrl.platform.spec_groups import (
    Count,
    Elites,
    Fraction,
    Group,
    Natural,
    NonNegative,
    PhaseBase,
    Positive,
    Stop,
)

Part = Literal["reward", "transition", "decoder"]


class FullController(Elites):
    """CEM over action sequences [horizon, A]."""

    kind: Literal["full"]
    horizon: Count = 12
    num_samples: Count = 1000
    num_elites: Count = 100
    num_iterations: Count = 10
    init_std: Positive = 1.0  # actions lie in [-1, 1]
    warm_start: bool = False


class EmbeddedController(Elites):
    """DCEM over the latents of an action decoder."""

    kind: Literal["embedded"]
    latent_size: Count = 16
    horizon: Count = 12
    num_samples: Count = 100
    num_elites: Count = 10
    num_iterations: Count = 10
    temperature: NonNegative = 1.0
    normalize: bool = True
    init_std: Positive = 0.5  # latents lie in [-1, 1]
    warm_start: bool = False


Controller = Annotated[FullController | EmbeddedController, Field(discriminator="kind")]


class ProposalsSpec(Elites):
    """CEM over action sequences, of the controller's horizon, whose plans a decoder learns from."""

    num_samples: Count = 200
    num_elites: Count = 20
    num_iterations: Count = 4


class DecoderSpec(Group):
    hidden_size: Count = 200
    num_layers: Count = 2
    init_scale: Positive = 1.0
    conditioning: Literal["none", "belief"] = "none"


class WorldModelSpec(Group):
    deterministic_size: Count = 200
    stochastic_size: Count = 30
    hidden_size: Count = 200
    min_std: Positive = 0.1


class LossSpec(Group):
    observation_weight: NonNegative = 0.5
    reward_weight: NonNegative = 20.0
    kl_weight: NonNegative = 1.0
    free_nats: NonNegative = 1.0
    overshooting_steps: Count = 1
    overshooting_weight: NonNegative = 1.0


class StdSpec(Group):
    value: Positive = 0.1
    learned: bool = False


class EnvStop(Stop):
    env_steps: Count | None = None  # simulator steps of the phase
    time_s: Positive | None = None  # training time of a trial


class PlanetStop(EnvStop):
    num_updates: Count | None = None  # gradient updates; the one that ends decoder_training: offline


class PPOStop(EnvStop):
    ppo_steps: Count | None = None  # collect-and-update rounds


class PlanetPhase(PhaseBase):
    """Phases 1 and 2: learn a world model online, and a decoder when the controller is embedded."""

    algorithm: Literal["planet"]
    controller: Controller
    decoder: DecoderSpec = Field(default_factory=DecoderSpec)
    world_model: WorldModelSpec = Field(default_factory=WorldModelSpec)
    loss: LossSpec = Field(default_factory=LossSpec)
    train_ratio: Positive = 0.1  # gradient updates per simulator step
    seed_episodes: Natural = 5
    batch_size: Count = 50
    batch_length: int = Field(50, ge=2)
    learning_rate: Positive = 1.0e-3
    decoder_learning_rate: Positive = 1.0e-3
    decoder_beliefs: Count = 50  # replayed beliefs per decoder update
    decoder_initial_beliefs: Natural = 10  # beliefs at an episode's start, added to them
    decoder_training: Literal["online", "offline", "after_planning"] = "online"
    exploration_noise: NonNegative = 0.3
    replay_capacity: Count = 1_000_000  # decisions
    keep_replay: bool = True
    keep_model: bool = True
    decoder_anchor: NonNegative = 0.0  # weight of the squared distance from replayed actions; not in the paper
    decoder_proposals: ProposalsSpec | None = None  # distance from these plans, not from replayed actions
    decoder_warmup_updates: Natural = 0  # of the decoder alone, on the kept replay, before the first rollout
    decisions_per_iteration: Count = 250  # at least so many between two results
    updates_per_iteration: Count = 100  # the same where nothing is gathered
    rollout_fragment_length: Count = 25  # decisions of each environment between two rounds of updates
    stop: PlanetStop

    @model_validator(mode="after")
    def _offline_needs_data(self) -> PlanetPhase:
        if self.controller.kind == "embedded" and self.controller.horizon > self.batch_length:
            raise ValueError(
                f"batch_length must be at least controller.horizon, got {self.batch_length} with "
                f"horizon={self.controller.horizon}"
            )
        if self.decoder_proposals is not None and (self.controller.kind == "full" or not self.decoder_anchor):
            raise ValueError(
                f"decoder_proposals are what decoder_anchor holds an embedded controller's plans to, got "
                f"decoder_anchor={self.decoder_anchor:g} with controller.kind={self.controller.kind}; set it above 0, "
                f"or remove them"
            )
        offline = self.decoder_training == "offline" or self.decoder_warmup_updates > 0
        if offline and (self.start_from is None or not self.keep_replay):
            raise ValueError(
                "decoder_training: offline and decoder_warmup_updates train on the replay of an earlier phase; "
                "set start_from and keep_replay: true"
            )
        return self


class DCEMPPOPhase(PhaseBase):
    """Phase 3: PPO through the embedded controller."""

    algorithm: Literal["dcem_ppo"]
    start_from: str  # type: ignore[assignment]  # a controller to fine-tune is required
    fine_tune: list[Part] = Field(["reward", "decoder"], min_length=1)  # pydantic copies it
    passes: Count = 1
    episodes_per_step: Count = 10
    std: StdSpec = Field(default_factory=StdSpec)
    learning_rate: Positive = 1.0e-4  # of the fine-tuned parts
    value_learning_rate: Positive = 3.0e-4
    value_updates: Count = 10  # gradient steps of the value network per pass
    clip: Positive = 0.2
    gae_lambda: Fraction = 0.95
    discount: Fraction = 0.99
    entropy_weight: NonNegative = 0.0
    noise_bank_size: Count = 16
    micro_batch: Count = 64  # decisions whose plans are differentiated at once
    stop: PPOStop

    @field_validator("fine_tune")
    @classmethod
    def _no_part_twice(cls, parts: list[str]) -> list[str]:
        if len(set(parts)) < len(parts):
            raise ValueError(f"fine_tune names a part twice: {parts}")
        return parts
