"""What a spec file may say: one pydantic model for each group of keys.

Unknown keys, wrong types and values out of range are errors. A later algorithm is one more phase model in `Phase`.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Part = Literal["reward", "transition", "decoder"]
Logger = Literal["tensorboard", "wandb", "mlflow"]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class Group(BaseModel):
    """A group of keys: strict types, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class EnvSpec(Group):
    id: str = Field(min_length=1)  # dm_control/<domain>-<task>-v0
    action_repeat: Count = 1  # simulator steps per decision


class ResourcesSpec(Group):
    num_env_runners: Natural = 2
    num_envs_per_env_runner: Count = 8
    num_gpus_per_env_runner: NonNegative = 0
    num_learners: Natural = 0
    num_gpus_per_learner: NonNegative = 0
    num_cpus_per_env_runner: NonNegative = 1
    num_cpus_for_main_process: Positive = 1  # with num_learners: 0 the learner is there; RLlib miscounts a 0
    sample_timeout_s: Positive = 1800.0  # longest wait for a piece of a rollout


class RuntimeSpec(Group):
    """What the run's processes find in their environment, on every node."""

    env_vars: dict[str, str] = Field(default_factory=dict)

    @field_validator("env_vars")
    @classmethod
    def _plain_and_public(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"runtime.env_vars needs names of letters, digits and _, got {name!r}")
            if re.search(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|API_KEY|^RAY_AUTH|^PARSEC_KEY", name.upper()):
                raise ValueError(
                    f"runtime.env_vars must hold no secrets, which the run folder and the dashboard would show, "
                    f"got {name}; set it in the environment of the cluster's nodes"
                )
        return variables


class _Elites(Group):
    """What both controllers share; kind and defaults differ."""

    @model_validator(mode="after")
    def _fewer_elites_than_samples(self) -> _Elites:
        num_elites, num_samples = getattr(self, "num_elites", 1), getattr(self, "num_samples", 2)
        if num_elites >= num_samples:
            raise ValueError(
                f"num_elites must lie in [1, num_samples), got {num_elites} with num_samples={num_samples}"
            )
        return self


class FullController(_Elites):
    """CEM over action sequences [horizon, A]."""

    kind: Literal["full"]
    horizon: Count = 12
    num_samples: Count = 1000
    num_elites: Count = 100
    num_iterations: Count = 10
    init_std: Positive = 1.0  # actions lie in [-1, 1]
    warm_start: bool = False


class EmbeddedController(_Elites):
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


class Domain(Group):
    """Where a searched value comes from: exactly one of the four."""

    grid: list[Any] | None = Field(None, min_length=1)
    choice: list[Any] | None = Field(None, min_length=1)
    uniform: list[float] | None = Field(None, min_length=2, max_length=2)
    loguniform: list[float] | None = Field(None, min_length=2, max_length=2)

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        kinds = [kind for kind in type(self).model_fields if getattr(self, kind) is not None]
        if len(kinds) != 1:
            got = " and ".join(kinds) or "none"
            raise ValueError(f"a searched key needs exactly one of grid, choice, uniform, loguniform, got {got}")
        for low, high in filter(None, (self.uniform, self.loguniform)):
            if low >= high or (self.loguniform and low <= 0):
                raise ValueError(
                    f"{kinds[0]} needs [low, high] with {'0 < ' * bool(self.loguniform)}low < high, got {[low, high]}"
                )
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in type(self).model_fields if getattr(self, kind) is not None)

    @property
    def values(self) -> list[Any]:
        """What is listed; for a range, its two ends."""
        return getattr(self, self.kind)


class Stop(Group):
    """A phase ends when the first of its conditions is reached."""

    @model_validator(mode="after")
    def _some_condition(self) -> Stop:
        if not self.conditions:
            raise ValueError(f"stop needs at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def conditions(self) -> dict[str, float]:
        return {key: value for key in type(self).model_fields if (value := getattr(self, key)) is not None}


class EnvStop(Stop):
    env_steps: Count | None = None  # simulator steps of the phase
    time_s: Positive | None = None  # training time of a trial


class PlanetStop(EnvStop):
    num_updates: Count | None = None  # gradient updates; the one that ends decoder_training: offline


class PPOStop(EnvStop):
    ppo_steps: Count | None = None  # collect-and-update rounds


class UpdatesStop(Stop):
    num_updates: Count | None = None
    time_s: Positive | None = None


class PhaseBase(Group):
    """What every phase has. `acts`: its checkpoints hold an agent, which is evaluated in the spec's environment."""

    acts: ClassVar[bool] = True
    unsearchable: ClassVar[frozenset[str]] = frozenset(
        {"name", "algorithm", "start_from", "search", "scheduler", "num_samples", "stop", "checkpoint_every"}
    )

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    start_from: str | None = None
    search: dict[str, Domain] = Field(default_factory=dict)
    scheduler: Literal["none", "asha"] = "none"
    num_samples: Count = 1  # Tune samples of the search space; a grid is repeated so many times
    checkpoint_every: Count = 10  # training iterations

    @field_validator("name")
    @classmethod
    def _not_taken(cls, name: str) -> str:
        if name in {"random", "report", "videos", "analysis"}:
            raise ValueError(
                f"a phase cannot be called {name!r}, which the run folder uses itself; choose another name"
            )
        return name


class StudyPhase(PhaseBase):
    """A plain Tune trainable: trials that need no runners, and an analysis of all of them in place of an evaluation."""

    acts: ClassVar[bool] = False
    seed: Natural = 0  # search it for several seeds
    num_cpus_per_trial: Positive = 1
    num_gpus_per_trial: NonNegative = 0


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


class InnerSolverSpec(_Elites):
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


class LatentSearch(_Elites):
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


class ExpertSpec(_Elites):
    """CEM over whole action sequences; its initial standard deviation is half of the action's range."""

    num_samples: Annotated[int, Field(ge=2)] = 100
    num_elites: Count = 10
    num_iterations: Count = 30


class CartpoleEmbeddingPhase(StudyPhase):
    """Algorithm 2: a decoder of action sequences, learned on known dynamics."""

    algorithm: Literal["cartpole_embedding"]
    dynamics: Literal["cartpole", "pendulum"] = "cartpole"
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


Phase = Annotated[
    PlanetPhase | DCEMPPOPhase | EnergyRegressionPhase | CartpoleEmbeddingPhase, Field(discriminator="algorithm")
]


class EvaluateSpec(Group):
    episodes: Count = 100
    phases: list[str] | None = None  # None: all of them
    random: bool = True  # the random policy as a first row
    videos: bool = True


class Spec(Group):
    """One experiment: phases, and the environment that those of them act in which have one."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    env: EnvSpec | None = None
    seed: int = Field(0, ge=0, lt=2**31)
    resources: ResourcesSpec = ResourcesSpec()
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)
    phases: list[Phase] = Field(min_length=1)
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec)
    loggers: list[Logger] = ["tensorboard"]  # pydantic copies it

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)

    @property
    def acting_phases(self) -> list[str]:
        """Names of the phases whose agents are evaluated in the environment."""
        return [phase.name for phase in self.phases if phase.acts]

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """A phase that keeps another's model has its sizes, unless it states them."""
        if not isinstance(data, dict) or not isinstance(data.get("phases"), list):
            return data
        phases: list[Any] = []
        for phase in data["phases"]:
            if isinstance(phase, dict) and phase.get("algorithm") == "planet":
                earlier = next(
                    (p for p in phases if isinstance(p, dict) and p.get("name") == phase.get("start_from")), {}
                )
                for key in ("world_model", "decoder"):
                    if isinstance(earlier.get(key), dict) and isinstance(phase.get(key, {}), dict):
                        phase = {**phase, key: {**earlier[key], **phase.get(key, {})}}
            phases.append(phase)
        return {**data, "phases": phases}

    @model_validator(mode="after")
    def _phases_fit_together(self) -> Spec:
        earlier: dict[str, Phase] = {}
        for phase in self.phases:
            if phase.acts and self.env is None:
                raise ValueError(f"env is missing, in which phases.{phase.name} acts; set env.id")
            if phase.name in earlier:
                raise ValueError(f"phases need different names, got {phase.name!r} twice")
            if phase.start_from is not None:
                if phase.start_from not in earlier:
                    known = ", ".join(earlier) or "none, it is the first"
                    raise ValueError(
                        f"phases.{phase.name}.start_from must name an earlier phase ({known}), got {phase.start_from!r}"
                    )
                _check_handover(phase, earlier[phase.start_from], earlier)
            if isinstance(phase, DCEMPPOPhase):
                _check_runners(phase, self.resources)
            earlier[phase.name] = phase
        acting = self.acting_phases
        if self.evaluate.phases is None:
            self.evaluate.phases = acting
        for name in self.evaluate.phases:
            if name not in acting:
                known = ", ".join(acting) or "none"
                raise ValueError(f"evaluate.phases must name phases that act ({known}), got {name!r}")
        if not acting:
            self.evaluate.random = False
        return self


def _check_runners(phase: DCEMPPOPhase, resources: ResourcesSpec) -> None:
    """Raise ValueError now, not after the phases before it, where `phase` could not be run with `resources`."""
    if phase.episodes_per_step % max(1, resources.num_env_runners):
        raise ValueError(
            f"phases.{phase.name}.episodes_per_step must be a multiple of resources.num_env_runners, "
            f"got {phase.episodes_per_step} with {resources.num_env_runners}"
        )
    if resources.num_learners > 1:
        raise ValueError(
            f"resources.num_learners must be 0 or 1 for the algorithm of phases.{phase.name}, dcem_ppo, "
            f"got {resources.num_learners}"
        )


def _check_handover(phase: Any, source: Any, earlier: dict[str, Any]) -> None:
    """Raise ValueError unless `phase` can start from a checkpoint of `source`."""
    if not (phase.acts and source.acts):
        raise ValueError(
            f"phases.{phase.name}.start_from cannot hand an agent from {source.algorithm} to {phase.algorithm}, "
            f"got {phase.start_from!r}; leave it out"
        )
    while isinstance(phase, DCEMPPOPhase) and isinstance(source, DCEMPPOPhase):
        source = earlier[source.start_from]
    if isinstance(phase, DCEMPPOPhase):
        if source.controller.kind != "embedded":
            raise ValueError(
                f"phases.{phase.name}.start_from must name a phase with an embedded controller, "
                f"got {phase.start_from!r} whose controller.kind is {source.controller.kind!r}"
            )
    elif isinstance(source, DCEMPPOPhase):
        raise ValueError(
            f"phases.{phase.name}.start_from must name a planet phase, got {phase.start_from!r} of algorithm dcem_ppo"
        )
    elif (phase.keep_model or "keep_model" in phase.search) and phase.world_model != source.world_model:
        raise ValueError(
            f"phases.{phase.name}.world_model must equal that of {source.name!r}, whose model it keeps; "
            f"leave it out, or set keep_model: false"
        )
