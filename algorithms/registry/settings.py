"""What the settings of every algorithm are made of. Pydantic alone: neither Ray nor torch is imported.

Unknown keys, wrong types and values out of range are errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from parsecrl.algorithms.registry.messages import explain

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Distinct = AfterValidator(lambda names: _none_twice(names))  # of a list
Arguments = Annotated[dict[str, Any], AfterValidator(lambda values: _plain_data(values))]

# Keys of a plain trial's config that the run adds to the algorithm's settings.
RUN_KEYS = frozenset({"run_seed", "env"})

AnyGroup = TypeVar("AnyGroup", bound="Group")
AnySettings = TypeVar("AnySettings", bound="Settings")


def _none_twice(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError(f"names one twice: {', '.join(names)}; name each once")
    return names


def _plain_data(values: dict[str, Any]) -> dict[str, Any]:
    """Arguments of an environment as they are. Raises ValueError on what checkpoints and reports cannot hold."""
    for name, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"kwargs must hold numbers, text, lists and groups alone, got {value!r} for {name!r}; change it"
            ) from None
    return values


class BadSetting(ValueError):
    """A setting whose value names something that cannot be made.

    Args:
        key: Its dotted name.
        reason: Of any type; its text is put on one line.

    Attributes:
        key: As given.
    """

    def __init__(self, key: str, reason: object):
        super().__init__(" ".join(str(reason).split()))
        self.key = key


@contextmanager
def blamed_on(key: str) -> Iterator[None]:
    """Whatever is raised inside, by code of the user's own too, becomes the `BadSetting` of a key.

    Args:
        key: Its dotted name.

    Yields:
        Nothing.

    Raises:
        BadSetting: Something was raised inside; that is the cause.
    """
    try:
        yield
    except Exception as error:
        raise BadSetting(key, error) from error


class Group(BaseModel):
    """A group of keys: strict types, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    def plain(self) -> dict[str, Any]:
        """The keys and values as plain data, without those that are None."""
        return self.model_dump(exclude_none=True)

    @classmethod
    def checked(cls: type[AnyGroup], values: Mapping[str, Any]) -> AnyGroup:
        """The group of these values. Raises ValueError, in one sentence, on what they cannot be."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ValueError(explain(error, dict(values), cls)) from None


class Elites(Group):
    """What groups of a search by elites share; their defaults differ."""

    @model_validator(mode="after")
    def _fewer_elites_than_samples(self) -> Elites:
        num_elites, num_samples = getattr(self, "num_elites", 1), getattr(self, "num_samples", 2)
        if num_elites >= num_samples:
            raise ValueError(
                f"num_elites must lie in [1, num_samples), got {num_elites} with num_samples={num_samples}"
            )
        return self


class Settings(Group):
    """The settings of an algorithm: names, defaults, ranges, meanings."""

    @classmethod
    def from_config(cls: type[AnySettings], config: Mapping[str, Any]) -> AnySettings:
        """The settings in a plain trial's config, checked.

        Args:
            config: What the run adds (`RUN_KEYS`) and Tune's own `__keys__` are left aside.

        Returns:
            The settings, with defaults for what the config lacks.

        Raises:
            ValueError: A key is unknown or missing, a value out of range, or a rule between keys is broken.
        """
        own = {key: value for key, value in config.items() if key not in RUN_KEYS and not key.startswith("__")}
        return cls.checked(own)

    @classmethod
    def each_checked(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Some of the settings, each checked by itself: rules between keys are left for later.

        Args:
            values: By the settings' names.

        Returns:
            The same names with plain data; groups have all their keys, defaults filled in.

        Raises:
            ValueError: A name is unknown or a value out of range.
        """
        model = _without_rules(cls)
        try:
            found = model.model_validate(dict(values))
        except ValidationError as error:
            raise ValueError(explain(error, dict(values), model)) from None
        plain = found.plain()
        return {name: plain.get(name) for name in values}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Name -> default as plain data; None of what has to be given."""
        return {**dict.fromkeys(cls.model_fields), **_without_rules(cls)().plain()}


class EvaluatedSettings(Settings):
    """Settings of an algorithm whose policy can be evaluated while it trains."""

    evaluation_every: Count | None = Field(
        None,
        description="simulator steps between two evaluations without exploration, on seeds of their own; where nothing "
        "is gathered: updates; the best of them chooses the checkpoint; none: the training return does",
    )
    evaluation_episodes: Count = Field(5, description="episodes of such an evaluation, the same ones each time")


class StudySettings(Settings):
    """Settings of an algorithm whose trials are plain: each in one process, and a result of its own."""

    seed: Natural = Field(0, description="of the trial, mixed with the run's; search it for several seeds")
    num_cpus_per_trial: Positive = Field(1, description="processors that a trial takes")
    num_gpus_per_trial: NonNegative = Field(0, description="GPUs that a trial takes; above 0 it trains on one")


@cache
def _without_rules(settings: type[Settings]) -> type[Group]:
    """The same keys without the rules between them; what has to be given may be left out."""
    fields: dict[str, Any] = {
        name: (field.annotation, Field(None, validate_default=False))
        if field.is_required()
        else (field.annotation, field)
        for name, field in settings.model_fields.items()
    }
    return create_model(settings.__name__, __base__=Group, **fields)
