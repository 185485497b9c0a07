"""What all groups of a spec's keys have in common, and what all phases have.

Unknown keys, wrong types and values out of range are errors.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class Group(BaseModel):
    """A group of keys: strict types, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class Elites(Group):
    """What both controllers share; kind and defaults differ."""

    @model_validator(mode="after")
    def _fewer_elites_than_samples(self) -> Elites:
        num_elites, num_samples = getattr(self, "num_elites", 1), getattr(self, "num_samples", 2)
        if num_elites >= num_samples:
            raise ValueError(
                f"num_elites must lie in [1, num_samples), got {num_elites} with num_samples={num_samples}"
            )
        return self


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
