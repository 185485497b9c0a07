"""The settings of planet: phases 1 and 2 of the DCEM paper (algorithm 3, section 5.2.2, appendix D)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from parsecrl.algorithms.registry.messages import OWN
from parsecrl.algorithms.registry.settings import (
    Count,
    Elites,
    EvaluatedSettings,
    Fraction,
    Group,
    Natural,
    NonNegative,
    Positive,
)
from parsecrl.algorithms.registry.user_functions import names_code

OwnFunction = Annotated[str, Field(pattern=r"^[^:\s]+:[^:\s]+$")]
# Keys that several searches have, each with a default of its own.
NumSamples = Annotated[Count, Field(description="candidates of an iteration")]
NumElites = Annotated[Count, Field(description="candidates that the next distribution is fitted to")]
NumIterations = Annotated[Count, Field(description="iterations of a plan")]
InitStd = Annotated[Positive, Field(description="of the first distribution; actions lie in [-1, 1]")]
Decay = Annotated[
    float, Field(ge=1.0, description="each iteration draws so many times fewer candidates, 2 num_elites at least")
]
MinStd = Annotated[NonNegative, Field(description="least standard deviation of all distributions but the first")]
OVER_ACTIONS = ("full", "icem", "mppi")  # kinds without a decoder


def kind(group: Any) -> str | None:
    """Tell which of its models a group with `kind` is.

    Args:
        group: As a spec states it, or validated.

    Returns:
        The project's own kind; `OWN` for all code of others; None where there is no kind.
    """
    value = group.get("kind") if isinstance(group, dict) else getattr(group, "kind", None)
    return OWN if names_code(value) else value


def model_kind(group: Any) -> str | None:
    """As `kind`, of a world model, which is an RSSM where nothing is said.

    Args:
        group: As a spec states it, or validated.

    Returns:
        As `kind` does.
    """
    return kind(group) if not isinstance(group, dict) or "kind" in group else "rssm"


class OwnPart(Group):
    """A controller or a world model of other code."""

    kind: OwnFunction = Field(description="module:name of its class")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of its constructor")


class Planner(Group):
    """What every controller has."""

    kind: str
    horizon: Count = Field(12, description="decisions that a plan looks ahead")
    pessimism: NonNegative = Field(
        0.0,
        description="price of a step on which the model's ensemble disagrees by a standard deviation of the data, in "
        "standard deviations of the rewards; above 0 it needs world_model.ensemble",
    )
    objective: OwnFunction | None = Field(
        None,
        description="module:function of a cost(observations [B, N, H, O], rewards [B, N, H], actions [B, N, H, A]) -> "
        "[B, N], which plans minimise; none: minus the predicted rewards",
    )


class OwnController(OwnPart, Planner):
    """A controller that meets `algorithms.controllers.Controller`."""


class FullController(Elites, Planner):
    """CEM over action sequences [horizon, A] (Hafner et al. 2018, algorithm 2)."""

    kind: Literal["full"] = Field("full", description="CEM over whole action sequences")
    num_samples: NumSamples = 1000
    num_elites: NumElites = 100
    num_iterations: NumIterations = 10
    init_std: InitStd = 1.0
    warm_start: bool = Field(False, description="begin at the last plan, moved on by one decision")


class ICEMController(Elites, Planner):
    """iCEM: CEM over action sequences with coloured noise and a memory (Pinneri et al. 2020)."""

    kind: Literal["icem"] = Field("icem", description="CEM over whole action sequences, as iCEM improves it")
    num_samples: Count = Field(100, description="candidates of the first iteration")
    num_elites: NumElites = 10
    num_iterations: NumIterations = 4
    init_std: InitStd = 0.5
    warm_start: bool = Field(True, description="begin at the last plan and its kept elites, moved on by one decision")
    noise_exponent: NonNegative = Field(
        2.0, description="how fast the power of a candidate's noise falls with frequency; 0: white noise"
    )
    kept_fraction: Fraction = Field(
        0.3, description="share of the elites that the next iteration, and the next plan, try as well"
    )
    decay: Decay = 1.25
    return_best: bool = Field(True, description="answer with the best of all candidates, not with the mean")


class MPPIController(Elites, Planner):
    """MPPI over action sequences, as in TD-MPC (Williams et al. 2017; Hansen et al. 2022)."""

    kind: Literal["mppi"] = Field("mppi", description="weighted means of whole action sequences")
    num_samples: NumSamples = 512
    num_elites: Count = Field(64, description="candidates that have weight")
    num_iterations: NumIterations = 6
    init_std: InitStd = 1.0
    warm_start: bool = Field(True, description="begin at the last plan, moved on by one decision")
    temperature: Positive = Field(
        0.5, description="an elite weighs exp(-cost / temperature), in standard deviations of the candidates' costs"
    )
    min_std: MinStd = 0.05


class EmbeddedController(Elites, Planner):
    """DCEM over the latents of an action decoder (DCEM paper, section 4.2)."""

    kind: Literal["embedded"] = Field("embedded", description="DCEM over the latents of an action decoder")
    latent_size: Count = Field(16, description="dimensions of the latent of an action sequence")
    num_samples: NumSamples = 100
    num_elites: Count = Field(10, description="candidates that the soft selection keeps")
    num_iterations: NumIterations = 10
    temperature: NonNegative = Field(1.0, description="of the soft selection; 0 selects hard, as CEM (eq. 4)")
    normalize: bool = Field(True, description="divide costs by their spread before the selection")
    init_std: Positive = Field(0.5, description="of the first distribution; latents lie in [-1, 1]")
    warm_start: bool = Field(False, description="begin at the last plan's latent")
    selection: Literal["lml", "softmax"] = Field(
        "lml", description="lml: the soft choice of DCEM; softmax: the elites' weights of MPPI"
    )
    kept_fraction: Fraction = Field(0.0, description="share of the elites that the next iteration tries as well (iCEM)")
    decay: Decay = 1.0
    min_std: MinStd = 0.0

    @model_validator(mode="after")
    def _softmax_has_a_temperature(self) -> EmbeddedController:
        if self.selection == "softmax" and self.temperature == 0:
            raise ValueError("temperature must be above 0 with selection: softmax, got 0; take selection: lml for 0")
        return self


Controller = Annotated[
    Annotated[FullController, Tag("full")]
    | Annotated[ICEMController, Tag("icem")]
    | Annotated[MPPIController, Tag("mppi")]
    | Annotated[EmbeddedController, Tag("embedded")]
    | Annotated[OwnController, Tag(OWN)],
    Discriminator(kind),
]


class ProposalsSpec(Elites):
    """CEM over action sequences, of the controller's horizon, whose plans a decoder learns from."""

    num_samples: NumSamples = 200
    num_elites: NumElites = 20
    num_iterations: NumIterations = 4


class DecoderSpec(Group):
    """The network from a latent to an action sequence."""

    hidden_size: Count = Field(200, description="units of a hidden layer")
    num_layers: Count = Field(2, description="hidden layers")
    init_scale: Positive = Field(1.0, description="factor of the initial weights")
    conditioning: Literal["none", "belief"] = Field("none", description="what the decoder sees beside the latent")


class WorldModelSpec(Group):
    """Sizes of the recurrent state-space model (Hafner et al. 2018)."""

    kind: Literal["rssm"] = Field("rssm", description="the recurrent state-space model")
    deterministic_size: Count = Field(200, description="units of the deterministic state")
    stochastic_size: Count = Field(30, description="dimensions of the stochastic state")
    hidden_size: Count = Field(200, description="units of a hidden layer")
    min_std: Positive = Field(0.1, description="least standard deviation of the stochastic state")
    ensemble: Count = Field(1, description="members that tell where the model has seen no data; 1: none, 5 is usual")


WorldModel = Annotated[Annotated[WorldModelSpec, Tag("rssm")] | Annotated[OwnPart, Tag(OWN)], Discriminator(model_kind)]


class LossSpec(Group):
    """Weights of the model's loss."""

    observation_weight: NonNegative = Field(0.5, description="weight of the standardised observations' squared error")
    reward_weight: NonNegative = Field(
        20.0, description="weight of the standardised rewards' error: squared up to 2 deviations, then linear"
    )
    kl_weight: NonNegative = Field(1.0, description="weight of the divergence of posterior from prior")
    free_nats: NonNegative = Field(1.0, description="divergence that costs nothing, in nats")
    overshooting_steps: Count = Field(1, description="longest prediction that the divergence is taken of; 1: the next")
    overshooting_weight: NonNegative = Field(1.0, description="weight of the longer predictions' divergence")
    continuation_weight: NonNegative = Field(
        1.0, description="weight of the cross-entropy of termination, where episodes terminate; 0: none is learned of"
    )


class ValueSpec(Group):
    """A critic and an actor on beliefs, learned in imagination (Hafner et al. 2020, "Dream to Control")."""

    hidden_size: Count = Field(200, description="units of a hidden layer")
    discount: float = Field(0.99, ge=0.0, lt=1.0, description="of rewards beyond a plan's horizon, per decision")
    std: NonNegative = Field(0.2, description="standard deviation of the noise on the actor's imagined actions")
    num_policy_candidates: Natural = Field(
        24,
        description="plans of the actor's among the candidates of a search over actions; of an embedded one, whose "
        "latents cannot hold them, 1 or more lets the actor act where its plan is predicted to cost less",
    )
    learning_rate: Positive = Field(1.0e-3, description="of critic and actor")
    imagined_beliefs: Count = Field(200, description="replayed beliefs of an update that imagination begins at")
    imagined_steps: Count = Field(8, description="decisions that the actor takes from there")
    return_lambda: Fraction = Field(0.95, description="of the returns: 0 trusts the critic, 1 the imagined rewards")
    slow_critic_rate: float = Field(0.02, gt=0.0, le=1.0, description="share of the critic in its slow copy, an update")


NO_VALUE: Literal["none"] = "none"  # a word: a phase that states it does not inherit another's


def _group_or_none(value: Any) -> Any:
    if value is None:
        return NO_VALUE
    if value != NO_VALUE and not isinstance(value, dict | ValueSpec):
        raise ValueError(f"must be a group of keys, {{}} for its defaults, or none, got {value!r}")
    return value


Value = Annotated[
    Annotated[ValueSpec, Tag("group")] | Annotated[Literal["none"], Tag("none")],
    Discriminator(lambda value: "none" if value == NO_VALUE else "group"),
    BeforeValidator(_group_or_none),
]


class PlanetSettings(EvaluatedSettings):
    """Learn a world model online, and a decoder when the controller is embedded (DCEM paper, algorithm 3)."""

    start_from: str | None = Field(
        None, description="earlier phase (in Python: its checkpoint) or pretrained:NAME to start from"
    )
    controller: Controller = Field(default_factory=FullController, description="the planner")
    decoder: DecoderSpec = Field(default_factory=DecoderSpec, description="of an embedded controller")
    world_model: WorldModel = Field(default_factory=WorldModelSpec, description="the model")
    value: Value = Field(NO_VALUE, description="what comes beyond the horizon of plans; none: nothing")
    loss: LossSpec = Field(default_factory=LossSpec, description="of the model")
    train_ratio: Positive = Field(0.1, description="gradient updates per simulator step")
    seed_episodes: Natural = Field(5, description="episodes of random actions before the first update")
    batch_size: Count = Field(50, description="sequences of an update")
    batch_length: int = Field(50, ge=2, description="decisions of a sequence")
    learning_rate: Positive = Field(1.0e-3, description="of the model")
    decoder_learning_rate: Positive = Field(1.0e-3, description="of the decoder")
    decoder_beliefs: Count = Field(50, description="replayed beliefs per decoder update")
    decoder_initial_beliefs: Natural = Field(10, description="beliefs at an episode's start, added to them")
    decoder_training: Literal["online", "offline", "after_planning"] = Field(
        "online",
        description="online: on replayed beliefs; after_planning: on beliefs just planned from; offline: nothing is "
        "gathered, the decoder alone learns on the kept replay (appendix D, the first attempt)",
    )
    exploration_noise: NonNegative = Field(0.3, description="standard deviation added to actions in [-1, 1]")
    replay_capacity: Count = Field(1_000_000, description="decisions that the replay holds")
    keep_replay: bool = Field(True, description="begin with the replay of start_from")
    keep_model: bool = Field(True, description="begin with the model of start_from")
    offline_data: str | None = Field(
        None,
        description="dataset to learn from, in place of rollouts: a Minari folder, or Parquet in RLlib's columns; the "
        "phase gathers nothing and ends by num_updates",
    )
    decoder_anchor: NonNegative = Field(
        0.0, description="weight of a plan's squared distance from replayed actions; not in the paper"
    )
    decoder_proposals: ProposalsSpec | None = Field(
        None, description="hold plans to those of this CEM, not to replayed actions; not in the paper"
    )
    decoder_warmup_updates: Natural = Field(
        0, description="updates of the decoder alone, on the kept replay, before the first rollout"
    )
    decisions_per_iteration: Count = Field(250, description="decisions between two results, at least")
    updates_per_iteration: Count = Field(100, description="updates between two results where nothing is gathered")
    rollout_fragment_length: Count = Field(25, description="decisions of an environment between two rounds of updates")

    def check_holds_plan(self, horizon: int) -> None:
        """Raise ValueError where a replayed sequence is shorter than the plans that a decoder learns from it."""
        if horizon > self.batch_length:
            raise ValueError(
                f"batch_length must be at least controller.horizon, got {self.batch_length} with horizon={horizon}"
            )

    @model_validator(mode="after")
    def _fits_together(self) -> PlanetSettings:
        if self.controller.kind == "embedded":
            self.check_holds_plan(self.controller.horizon)
        if self.value != NO_VALUE and self.controller.objective is not None:
            raise ValueError(
                "value is of rewards, and controller.objective puts another cost in their place; leave one of them out"
            )
        if self.controller.pessimism and self.controller.objective is not None:
            raise ValueError(
                "controller.pessimism is in units of rewards, and controller.objective puts another cost in their "
                "place; leave one of them out"
            )
        if self.controller.pessimism and getattr(self.world_model, "ensemble", 2) == 1:
            raise ValueError(
                f"controller.pessimism needs an ensemble, got {self.controller.pessimism:g} with "
                f"world_model.ensemble=1; set it to 5, in the phase that learns the model"
            )
        if self.decoder_proposals is not None and (self.controller.kind in OVER_ACTIONS or not self.decoder_anchor):
            raise ValueError(
                f"decoder_proposals are what decoder_anchor holds an embedded controller's plans to, got "
                f"decoder_anchor={self.decoder_anchor:g} with controller.kind={self.controller.kind}; set it above 0, "
                f"or remove them"
            )
        if self.offline_data is not None and self.decoder_training != "online":
            raise ValueError(
                f"offline_data gathers no rollouts and trains model and decoder together, got decoder_training: "
                f"{self.decoder_training}; leave decoder_training out, or train the decoder in a later phase"
            )
        offline = self.decoder_training == "offline" or self.decoder_warmup_updates > 0
        if offline and (self.start_from is None or not self.keep_replay):
            raise ValueError(
                "decoder_training: offline and decoder_warmup_updates train on the replay of an earlier phase; "
                "set start_from and keep_replay: true"
            )
        return self
