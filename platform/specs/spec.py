"""What a spec file may say, but for its phases, which are made from the algorithms."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny, field_validator, model_validator

from parsecrl.algorithms.registry.searched import values_of
from parsecrl.algorithms.registry.settings import Arguments, Count, Group, Natural, NonNegative, Positive
from parsecrl.platform.shipping.secrets import holds_password, names_secret
from parsecrl.platform.specs.phases import PhaseBase, inherited, parse_phase
from parsecrl.platform.specs.pretrained import is_pretrained, pretrained_keys

Logger = Literal["tensorboard", "wandb", "mlflow"]
REFERENCE = "reference"  # among the variants, the spec as it is
VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")


MAX_SEED = 2**31 - 1

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"  # of a run, as a regular expression


class EnvSpec(Group):
    """The environment that phases act in."""

    id: str = Field(min_length=1, description="Gymnasium's name, such as dm_control/<domain>-<task>-v0")
    action_repeat: Count = Field(1, description="simulator steps per decision")
    kwargs: Arguments | None = Field(None, description="arguments of the environment's own, by name")
    max_episode_steps: Count | None = Field(
        None, description="simulator steps after which an episode is truncated; none: as the environment is registered"
    )


class ResourcesSpec(Group):
    """What each trial takes, and how long the run waits for it."""

    num_env_runners: Natural = Field(2, description="processes that act in environments; 0: the main one")
    num_envs_per_env_runner: Count = Field(8, description="environments of such a process, planned for in one batch")
    num_gpus_per_env_runner: NonNegative = Field(0, description="GPUs of such a process")
    num_learners: Natural = Field(0, description="processes that learn; 0: the main one")
    num_gpus_per_learner: NonNegative = Field(0, description="GPUs of such a process")
    num_cpus_per_env_runner: NonNegative = Field(1, description="processors of a process that acts")
    # With num_learners: 0 the learner is there; RLlib miscounts a 0.
    num_cpus_for_main_process: Positive = Field(1, description="processors of the main process")
    sample_timeout_s: Positive = Field(1800.0, description="longest wait for a piece of a rollout")
    max_failures: Natural = Field(3, description="of a trial in a row; each new checkpoint starts the count again")
    no_progress_timeout_s: Positive = Field(3600.0, description="longest wait for a result of any trial")
    max_checkpoint_age_s: Positive = Field(
        600.0, description="a trial writes one when its last is older, whatever checkpoint_every says"
    )


# A worker starts in bash, which expands and runs some of its variables.
RUNS_CODE = re.compile(
    r"BASH_.*|ENV|SHELLOPTS|BASHOPTS|PS[0-4]|PROMPT_COMMAND|IFS|CDPATH|PATH|(LD|DYLD)_.*|PYTHON.*|GCONV_PATH"
)


class RuntimeSpec(Group):
    """What the run's processes find in their environment, on every node."""

    env_vars: dict[str, str] = Field(default_factory=dict, description="environment variables; no secrets")

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
            if names_secret(name) or holds_password(value):
                raise ValueError(
                    f"runtime.env_vars must hold no secrets, which the run folder and the dashboard would show, "
                    f"got {name}; set it in the environment of the cluster's nodes"
                )
        return variables


class EvaluateSpec(Group):
    """How the agents of a run are evaluated."""

    episodes: Count = Field(100, description="of each phase")
    phases: list[str] | None = Field(None, description="phases that are evaluated; none: all that act")
    random: bool = Field(True, description="the random policy as a first row")
    videos: bool = Field(True, description="record an episode of each phase")


class Spec(Group):
    """One experiment: phases, and the environment that those of them act in which have one."""

    name: str = Field(pattern=f"^{NAME}$", description="of the run's folder")
    env: EnvSpec | None = Field(None, description="needed by phases that act")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="everything random follows from it")
    seeds: int | list[int] | None = Field(
        None, description="a chain of all phases for each: a list, or how many, from `seed` on; none: `seed` alone"
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by name, changes of keys (dotted) that are compared with the spec as it is"
    )
    resources: ResourcesSpec = Field(ResourcesSpec(), description="of each trial")
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec, description="of every process")
    phases: list[Annotated[SerializeAsAny[PhaseBase], BeforeValidator(parse_phase)]] = Field(
        min_length=1, description="in their order"
    )
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec, description="of phases that act")
    loggers: list[Logger] = Field(["tensorboard"], description="that Tune reports results to")

    _stated: dict[str, Any] | None = PrivateAttr(None)

    @property
    def stated(self) -> dict[str, Any]:
        """The keys as they were read, before defaults and inheritance; variants are changes of these."""
        return self._stated if self._stated is not None else self.model_dump(exclude_unset=True)

    @stated.setter
    def stated(self, data: dict[str, Any]) -> None:
        self._stated = data

    def __eq__(self, other: object) -> bool:
        """Whether they say the same, however they were written."""
        return isinstance(other, Spec) and self.model_dump() == other.model_dump()

    def phase(self, name: str) -> PhaseBase:
        """The phase of this name; StopIteration where there is none."""
        return next(phase for phase in self.phases if phase.name == name)

    @property
    def acting_phases(self) -> list[str]:
        """Names of the phases whose agents are evaluated in the environment."""
        return [phase.name for phase in self.phases if phase.acts]

    @field_validator("seeds", mode="before")
    @classmethod
    def _different_seeds(cls, seeds: Any) -> Any:
        listed = seeds if isinstance(seeds, list) else [0 if seeds is None else seeds]
        whole = all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in listed)
        if not (whole and listed and len(set(listed)) == len(listed) and seeds != 0):
            raise ValueError(
                f"seeds must be how many, 1 or more, or a list of different whole numbers of 0 or more, got {seeds}"
            )
        return seeds

    @field_validator("variants")
    @classmethod
    def _named(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in variants:
            if not VARIANT_NAME.fullmatch(name) or name == REFERENCE:
                raise ValueError(
                    f"variants need names of letters, digits and _, and {REFERENCE} is the spec as it is, got {name!r}"
                )
        return variants

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """A phase that keeps another's model has its sizes, unless it states them."""
        if not isinstance(data, dict) or not isinstance(data.get("phases"), list):
            return data
        phases: list[Any] = []
        for phase in data["phases"]:
            phases.append(inherited(phase, phases) if isinstance(phase, dict) else phase)
        return {**data, "phases": phases}

    @model_validator(mode="after")
    def _phases_fit_together(self) -> Spec:
        earlier: dict[str, PhaseBase] = {}
        for phase in self.phases:
            if phase.acts and self.env is None:
                raise ValueError(f"env is missing, in which phases.{phase.name} acts; set env.id")
            if phase.name in earlier:
                raise ValueError(f"phases need different names, got {phase.name!r} twice")
            if is_pretrained(phase.start_from):
                phase.entry.check_start(phase, _pretrained(phase), earlier)
            elif phase.start_from is not None:
                if phase.start_from not in earlier:
                    known = ", ".join(earlier) or "none, it is the first"
                    raise ValueError(
                        f"phases.{phase.name}.start_from must name an earlier phase ({known}), got {phase.start_from!r}"
                    )
                phase.entry.check_start(phase, earlier[phase.start_from], earlier)
            phase.entry.check_resources(phase, self.resources)
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


def _pretrained(phase: PhaseBase) -> PhaseBase:
    """A phase that would have trained the agent that a phase starts from."""
    keys = pretrained_keys(str(phase.start_from))
    if phase.algorithm != keys["algorithm"]:
        raise ValueError(
            f"phases.{phase.name}.start_from: {phase.start_from} starts phases of algorithm {keys['algorithm']}, got "
            f"{phase.algorithm}; put such a phase before it"
        )
    if any(values_of(phase, "keep_replay")):
        raise ValueError(
            f"phases.{phase.name}.keep_replay must be false with start_from: {phase.start_from}, which comes without a "
            f"replay; set it"
        )
    return parse_phase({"name": "pretrained", "stop": {"env_steps": 1}, **keys})
