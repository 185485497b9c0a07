"""The phases of a spec: what all have, and for each algorithm a model of its settings and stop conditions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationError, create_model, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from parsecrl.algorithms.registry.algorithm import (
    TIME_S,
    TRAIN_KEYS,
    Algorithm,
    RegistryError,
    StopCondition,
    algorithm_named,
)
from parsecrl.algorithms.registry.settings import Count, Group, Positive
from parsecrl.platform.specs.groups import Domain, Stop
from parsecrl.platform.specs.pretrained import is_pretrained, pretrained_keys

UNSEARCHABLE = TRAIN_KEYS  # keys of a phase that cannot be searched over, with all in them
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
    scheduler: Literal["none", "asha"] = Field("none", description="asha ends trials early that do badly")
    num_samples: Count = Field(1, description="samples of the search space; a grid is repeated so many times")
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
            self.stop = type(self).stop_model().model_validate(self.entry.default_stop(self))
        return self

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
    return {**entry.stop_conditions, "time_s": TIME_S}


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
    return model.model_validate(data)


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
