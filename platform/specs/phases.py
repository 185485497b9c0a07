"""The phases of a spec: what all have, and for each algorithm a model of its settings and stop conditions."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationError, create_model, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from parsecrl.algorithms.registry.algorithm import TIME_KEY, TIME_S, TRAIN_KEYS, Algorithm, StopCondition
from parsecrl.algorithms.registry.lookup import RegistryError, algorithm_named
from parsecrl.algorithms.registry.settings import Count, Group, Positive
from parsecrl.algorithms.registry.user_functions import is_own, one_line
from parsecrl.platform.specs.groups import Domain, Stop, in_order
from parsecrl.platform.specs.pretrained import is_pretrained, pretrained_keys

UNSEARCHABLE = TRAIN_KEYS  # keys of a phase that cannot be searched over, with all in them
FIXED = ("controller.kind", "world_model.kind")  # what else of acting phases cannot: checkpoints are of one kind
TAKEN_NAMES = ("random", "report", "videos", "analysis")


class PhaseBase(Group):
    """What every phase has, whatever its algorithm."""

    entry: ClassVar[Algorithm]

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", description="of the phase: its folder, and how others name it"
    )
    start_from: str | None = Field(None, description="earlier phase to start from")
    search: dict[str, Domain] = Field(
        default_factory=dict, description="where the values of keys come from, by dotted key"
    )
    search_alg: Literal["grid", "random", "optuna", "pbt"] = Field(
        "grid",
        description="grid: every combination of grids, other keys drawn; random: all keys drawn; optuna: drawn by TPE "
        "from the trials that ended; pbt: a population that takes over its best and changes the keys",
    )
    scheduler: Literal["none", "asha", "hyperband", "median"] = Field(
        "none",
        description="ends trials early that do badly; hyperband: ASHA in three brackets; median: below the median",
    )
    grace_period: Count | None = Field(
        None, description="least of the first stop condition before a trial is ended early; none: a tenth of it"
    )
    perturbation_interval: Count | None = Field(
        None, description="of the first stop condition, between two changes by pbt; none: a tenth of it"
    )
    num_samples: Count = Field(1, description="trials; of grid: how often the grid is repeated; of pbt: the population")
    checkpoint_every: Count = Field(10, description="results between two checkpoints")

    if TYPE_CHECKING:  # declared by each algorithm's own model
        algorithm: str
        stop: Stop

    @field_validator("name")
    @classmethod
    def _not_taken(cls, name: str) -> str:
        if name in TAKEN_NAMES:
            raise ValueError(
                f"a phase cannot be called {name!r}, which the run folder uses itself; choose another name"
            )
        return name

    @model_validator(mode="after")
    def _ends(self) -> PhaseBase:
        if self.stop is None:
            default = self.entry.default_stop(self)
            if default is None:
                raise ValueError("stop is missing; set it")
            try:
                self.stop = type(self).stop_model().checked(default)
            except ValueError as error:
                raise ValueError(f"default_stop() of {self.entry.name}: {error}") from None
        return self

    @model_validator(mode="after")
    def _search_fits(self) -> PhaseBase:
        in_order(self.search)
        alg, least = self.search_alg, 2 if self.search_alg == "pbt" else 1
        if alg != "grid" and not self.search:
            raise ValueError(f"search_alg {alg} needs keys under search, got none; name some, or take it out")
        if self.num_samples < least:
            raise ValueError(
                f"num_samples must be {least} or more with search_alg pbt, got {self.num_samples}; raise it"
            )
        if alg == "pbt" and self.scheduler != "none":
            raise ValueError(
                f"scheduler must be none with search_alg pbt, got {self.scheduler!r}; take one of them out"
            )
        for key, domain in self.search.items():
            if domain.when is not None and (alg == "pbt" or (alg == "grid" and domain.kind == "grid")):
                raise ValueError(
                    f"search.{key}.when needs a key that is drawn for each trial, got {domain.kind} with "
                    f"search_alg {alg}; take `when` out, or set search_alg to random or optuna"
                )
            if alg == "optuna" and domain.kind in ("qloguniform", "qlograndint"):
                raise ValueError(
                    f"search.{key} cannot be {domain.kind} with search_alg optuna; leave the q and the step out"
                )
        for key, used, by in (
            ("grace_period", self.scheduler != "none", "a scheduler"),
            ("perturbation_interval", alg == "pbt", "search_alg pbt"),
        ):
            value, (condition, goal) = getattr(self, key), self.goal
            if value is not None and not used:
                raise ValueError(f"{key} needs {by}, got {value} without; take {key} out")
            if value is not None and value > goal:
                raise ValueError(f"{key} must not exceed stop.{condition}={goal:g}, got {value}; lower it")
        return self

    @model_validator(mode="after")
    def _evaluates_in_time(self) -> PhaseBase:
        every, limit = getattr(self, "evaluation_every", None), self.stop.conditions.get("env_steps")
        if every is not None and limit is not None and every > limit:
            raise ValueError(
                f"evaluation_every must not exceed stop.env_steps={limit}, got {every}, with which nothing would be "
                f"evaluated; lower it"
            )
        return self

    @property
    def goal(self) -> tuple[str, float]:
        """The first stop condition, by which schedulers measure how far a trial is: its key and its value."""
        return next(iter(self.stop.conditions.items()))

    @property
    def num_trials(self) -> int:
        """How many trials it has."""
        if self.search_alg != "grid":
            return self.num_samples
        return self.num_samples * math.prod(len(d.values) for d in self.search.values() if d.kind == "grid")

    @classmethod
    def stop_model(cls) -> type[Stop]:
        """The group `stop` of the algorithm's phases."""
        return stop_model(cls.entry)

    @classmethod
    def chosen_by(cls, data: Any) -> type[PhaseBase]:
        """The model of the phase that `data` describes."""
        try:
            return phase_model(data["algorithm"])
        except (RegistryError, KeyError, TypeError):
            return cls

    @property
    def acts(self) -> bool:
        """Whether its checkpoints hold an agent, which is evaluated in the spec's environment."""
        return self.entry.acts

    @property
    def stop_conditions(self) -> dict[str, StopCondition]:
        """What it may end at, by the key of `stop`."""
        return stop_conditions(self.entry)

    def __reduce__(self) -> tuple[Any, ...]:
        """As plain data: the model is made where it is read."""
        return parse_phase, (self.model_dump(),)


def stop_conditions(entry: Algorithm) -> dict[str, StopCondition]:
    """What a phase of an algorithm may end at.

    Args:
        entry: The algorithm.

    Returns:
        Conditions by the key of `stop`; `time_s` is always there.
    """
    return {**entry.stop_conditions, TIME_KEY: TIME_S}


@cache
def stop_model(entry: Algorithm) -> type[Stop]:
    """The group `stop` of an algorithm's phases.

    Args:
        entry: The algorithm.

    Returns:
        A model with a key for each stop condition.
    """
    fields: dict[str, Any] = {
        key: ((Positive if condition is TIME_S else Count) | None, Field(None, description=condition.meaning or None))
        for key, condition in stop_conditions(entry).items()
    }
    return create_model("Stop", __base__=Stop, __doc__=Stop.__doc__, **fields)


@cache
def phase_model(algorithm: str) -> type[PhaseBase]:
    """The model of an algorithm's phases.

    Args:
        algorithm: Its name, or module:NAME.

    Returns:
        A model with the algorithm's settings and the keys of every phase.

    Raises:
        RegistryError: As `algorithm_named` does.
    """
    entry = algorithm_named(algorithm)
    stop, bases = stop_model(entry), (entry.settings, PhaseBase)
    ends_itself = type(entry).default_stop is not Algorithm.default_stop
    described = Field(None if ends_itself else ..., description="ends the phase at the first that is reached")
    fields: dict[str, Any] = {
        "algorithm": (Literal[algorithm], Field(description="the algorithm's name, or module:NAME")),
        "stop": (stop | None if ends_itself else stop, described),
    }
    create: Any = create_model  # mypy's plugin would take the model for one without attributes
    model: type[PhaseBase] = create(f"{entry.settings.__name__}Phase", __base__=bases, **fields)
    model.entry = entry
    return model


def parse_phase(data: Any) -> Any:
    """The phase that a group of keys describes.

    Args:
        data: The group as a spec has it; a phase is returned as it is.

    Returns:
        The phase.

    Raises:
        PydanticCustomError: It is no group.
        ValidationError: There is no such algorithm, or a key is wrong.
    """
    if isinstance(data, PhaseBase):
        return data
    if not isinstance(data, dict):
        raise PydanticCustomError("model_type", "must be a group of keys")
    if not isinstance(name := data.get("algorithm"), str):
        name = "nothing" if name is None else str(name)
    try:
        model = phase_model(name)
    except RegistryError as error:
        raise _at("algorithm", str(error), name) from None
    try:
        return model.model_validate(data)
    except Exception as error:
        if isinstance(error, ValidationError) or is_own(type(model.entry).__module__):
            raise
        raise _at("algorithm", f"the settings of {name} raised {one_line(error)}; correct them", name) from error


def inherited(phase: dict[str, Any], earlier: list[Any]) -> dict[str, Any]:
    """What a phase takes over from the one that it starts from is filled in.

    Args:
        phase: The group of keys as the spec states it.
        earlier: The groups of the phases before it.

    Returns:
        The group; as it is where it starts from none of them.
    """
    source = next((p for p in earlier if isinstance(p, dict) and p.get("name") == phase.get("start_from")), None)
    if is_pretrained(phase.get("start_from")):
        try:
            source = pretrained_keys(phase["start_from"])
        except ValueError:  # said by the spec
            return phase
    try:
        entry = algorithm_named(phase["algorithm"]) if source is not None else None
    except (RegistryError, KeyError, TypeError):  # said where the phase is parsed
        return phase
    return entry.inherit(phase, source) if entry is not None and source is not None else phase


def _at(key: str, reason: str, value: Any) -> ValidationError:
    problem = PydanticCustomError("registry", "{reason}", {"reason": reason})
    return ValidationError.from_exception_data("Phase", [InitErrorDetails(type=problem, loc=(key,), input=value)])
