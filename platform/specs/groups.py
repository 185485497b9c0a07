"""Groups of keys that every phase has: where searched values come from, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from parsecrl.algorithms.registry.settings import Group

LISTS, RANGES = ("grid", "choice"), ("uniform", "loguniform", "randint", "lograndint")
STEPPED = ("quniform", "qloguniform", "qrandint", "qlograndint")
KINDS = (*LISTS, *RANGES, *STEPPED)  # by their names in Tune

Listed = Annotated[list[Any] | None, Field(min_length=1)]
Range = Annotated[list[float] | None, Field(min_length=2, max_length=2)]
Steps = Annotated[list[float] | None, Field(min_length=3, max_length=3)]
IntRange = Annotated[list[int] | None, Field(min_length=2, max_length=2)]
IntSteps = Annotated[list[int] | None, Field(min_length=3, max_length=3)]


class Domain(Group):
    """Where a searched value comes from: exactly one kind, by the names of Tune's search spaces."""

    grid: Listed = Field(None, description="every value, with each of the others")
    choice: Listed = Field(None, description="one of these is drawn")
    uniform: Range = Field(None, description="[low, high]")
    quniform: Steps = Field(None, description="[low, high, step]; multiples of the step")
    loguniform: Range = Field(None, description="[low, high]")
    qloguniform: Steps = Field(None, description="[low, high, step]; multiples of the step")
    randint: IntRange = Field(None, description="[low, high], without high")
    qrandint: IntSteps = Field(None, description="[low, high, step]; multiples of the step, high too")
    lograndint: IntRange = Field(None, description="[low, high], without high")
    qlograndint: IntSteps = Field(None, description="[low, high, step]; multiples of the step, high too")
    when: dict[str, Any] | None = Field(
        None, description="searched only where other searched keys have this value, or one of a list; else as the spec"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            got = " and ".join(kinds) or "none"
            raise ValueError(f"a searched key needs exactly one of {', '.join(KINDS)}, got {got}")
        if self.kind in LISTS:
            return self
        low, high, *step = self.arguments
        positive = "log" in self.kind
        if low >= high or (positive and low <= 0):
            raise ValueError(
                f"{self.kind} needs [low, high] with {'0 < ' * positive}low < high, got {self.arguments}; correct it"
            )
        if step and (step[0] <= 0 or any(abs(end / step[0] - round(end / step[0])) > 1e-6 for end in (low, high))):
            raise ValueError(
                f"{self.kind} needs [low, high, step] with low and high multiples of a step above 0, "
                f"got {self.arguments}; correct it"
            )
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds is given."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def arguments(self) -> list[Any]:
        """What the spec says of the kind: all values, or low, high and step."""
        return getattr(self, self.kind)

    @property
    def is_list(self) -> bool:
        """Whether the values are listed, rather than a range."""
        return self.kind in LISTS

    @property
    def values(self) -> list[Any]:
        """What is listed; of a range, the least and the greatest value."""
        if self.kind in ("randint", "lograndint"):
            return [self.arguments[0], self.arguments[1] - 1]
        return self.arguments if self.is_list else self.arguments[:2]

    def applies(self, chosen: Mapping[str, Any]) -> bool:
        """Whether the key is searched in a trial.

        Args:
            chosen: The trial's values of the other searched keys, by dotted key.

        Returns:
            True without conditions, or where all of them hold.
        """
        return all(
            chosen.get(key) in (wanted if isinstance(wanted, list) else [wanted])
            for key, wanted in (self.when or {}).items()
        )


def in_order(search: Mapping[str, Domain]) -> list[str]:
    """The searched keys, each after those that its conditions name.

    Args:
        search: Domains by dotted key.

    Returns:
        The keys.

    Raises:
        ValueError: A condition names no other searched key, or conditions go in a circle.
    """
    done: list[str] = []
    left = list(search)
    while left:
        ready = [key for key in left if all(other in done for other in search[key].when or {})]
        if not ready:
            others = {other for key in left for other in search[key].when or {}} - set(search)
            said = f"got {sorted(others)[0]!r}" if others else f"got the circle {', '.join(left)}"
            raise ValueError(f"`when` must name other searched keys, each without a circle, {said}; correct it")
        done += ready
        left = [key for key in left if key not in ready]
    return done


class Stop(Group):
    """A phase ends when the first of its conditions is reached."""

    @model_validator(mode="after")
    def _some_condition(self) -> Stop:
        if not self.conditions:
            raise ValueError(f"stop needs at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def conditions(self) -> dict[str, float]:
        """The conditions that are set: key -> value."""
        return {key: value for key in type(self).model_fields if (value := getattr(self, key)) is not None}
