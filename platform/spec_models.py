"""What a spec file may say: one pydantic model for each group of keys.

Phases are in control_phases.py, study_phases.py, latent_phases.py, latent_sac_phase.py and open_loop_phase.py; a later
algorithm is one more model in `Phase`.
"""

from __future__ import annotations

import re
from functools import reduce
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from parsecrl.platform.control_phases import DCEMPPOPhase, PlanetPhase
from parsecrl.platform.latent_phases import LatentPlanningPhase
from parsecrl.platform.latent_sac_phase import LatentSACPhase
from parsecrl.platform.open_loop_phase import OpenLoopPhase
from parsecrl.platform.spec_groups import Count, Group, Natural, NonNegative, PhaseBase, Positive
from parsecrl.platform.study_phases import CartpoleEmbeddingPhase, EnergyRegressionPhase

Logger = Literal["tensorboard", "wandb", "mlflow"]
Phase = Annotated[
    PlanetPhase
    | DCEMPPOPhase
    | EnergyRegressionPhase
    | CartpoleEmbeddingPhase
    | LatentPlanningPhase
    | LatentSACPhase
    | OpenLoopPhase,
    Field(discriminator="algorithm"),
]


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
    max_failures: Natural = 3  # of a trial in a row; each new checkpoint starts the count again
    no_progress_timeout_s: Positive = 3600.0  # longest wait for a result of any trial
    max_checkpoint_age_s: Positive = 600.0  # a trial writes one when its last is older, whatever checkpoint_every says


# A worker starts in bash, which expands and runs some of its variables.
RUNS_CODE = re.compile(
    r"BASH_.*|ENV|SHELLOPTS|BASHOPTS|PS[0-4]|PROMPT_COMMAND|IFS|CDPATH|PATH|(LD|DYLD)_.*|PYTHON.*|GCONV_PATH"
)


class RuntimeSpec(Group):
    """What the run's processes find in their environment, on every node."""

    env_vars: dict[str, str] = Field(default_factory=dict)

    @field_validator("env_vars")
    @classmethod
    def _plain_and_public(cls, variables: dict[str, str]) -> dict[str, str]:
        for name, value in variables.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"runtime.env_vars needs names of letters, digits and _, got {name!r}")
            if RUNS_CODE.fullmatch(name):
                raise ValueError(
                    f"runtime.env_vars must hold nothing that makes a shell, a loader or Python run other code, "
                    f"got {name}; set it in the environment of the cluster's nodes"
                )
            secret = re.search(
                r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|API_?KEY|_KEY$|^RAY_AUTH|^PARSEC_KEY", name.upper()
            )
            if secret or re.search(r"://[^/\s]*@", value):  # an address with a user and a password in it
                raise ValueError(
                    f"runtime.env_vars must hold no secrets, which the run folder and the dashboard would show, "
                    f"got {name}; set it in the environment of the cluster's nodes"
                )
        return variables


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
    loggers: list[Logger] = Field(["tensorboard"])  # pydantic copies it

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
        _check_gradient(phase, source)
    elif isinstance(source, DCEMPPOPhase):
        raise ValueError(
            f"phases.{phase.name}.start_from must name a planet phase, got {phase.start_from!r} of algorithm dcem_ppo"
        )
    elif any(_values(phase, "keep_model")):
        if phase.world_model != source.world_model:
            raise ValueError(
                f"phases.{phase.name}.world_model must equal that of {source.name!r}, whose model it keeps; "
                f"leave it out, or set keep_model: false"
            )
        if phase.controller.kind == source.controller.kind == "embedded":
            _check_kept_decoder(phase, source)


def _check_gradient(phase: DCEMPPOPhase, source: PlanetPhase) -> None:
    """Raise ValueError where no gradient would reach what is fine-tuned: through a hard selection only the decoder's
    does."""
    hard = all(temperature == 0 for temperature in _values(source, "controller.temperature"))
    for parts in _values(phase, "fine_tune") if hard else ():
        if set(parts) != {"decoder"}:
            raise ValueError(
                f"phases.{phase.name}.fine_tune must be [decoder] where the controller of {source.name!r} has "
                f"temperature 0, which lets no gradient through its selection, got {parts}"
            )


def _check_kept_decoder(phase: PlanetPhase, source: PlanetPhase) -> None:
    """Raise ValueError where `phase` keeps a decoder of other sizes than its own."""
    for key in ("controller.latent_size", "controller.horizon", "decoder.hidden_size", "decoder.num_layers"):
        had = _values(source, key)
        for value in _values(phase, key):
            if value not in had:
                raise ValueError(
                    f"phases.{phase.name}.{key} must equal that of {source.name!r}, whose decoder it keeps, "
                    f"got {value} with {' or '.join(map(str, had))}; give the same, or set keep_model: false"
                )


def _values(phase: PhaseBase, path: str) -> list[Any]:
    """What a dotted key of the phase may be: the searched values (of a range its ends), or the one that is set."""
    domain = phase.search.get(path)
    return domain.values if domain else [reduce(getattr, path.split("."), phase)]
