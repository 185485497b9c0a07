"""Groups of keys that every phase has: where searched values come from, and when to stop."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from parsecrl.algorithms.registry.settings import Group


class Domain(Group):
    """Where a searched value comes from: exactly one of the four."""

    grid: list[Any] | None = Field(None, min_length=1, description="every value, with each of the others")
    choice: list[Any] | None = Field(None, min_length=1, description="one of these is drawn")
    uniform: list[float] | None = Field(None, min_length=2, max_length=2, description="[low, high]")
    loguniform: list[float] | None = Field(None, min_length=2, max_length=2, description="[low, high]")

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
        """Which of the four is given."""
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
        """The conditions that are set: key -> value."""
        return {key: value for key in type(self).model_fields if (value := getattr(self, key)) is not None}
