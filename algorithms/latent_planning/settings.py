"""The numbers of the planning experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# Transitions a slice, where the settings say nothing: models of one-step transitions see more distinct ones in short
# slices; the RNN has no memory, and the SSM half of its divergence elsewhere, at a slice's first step.
SLICE_LENGTHS = {"rnn": 10, "ssm": 10}


@dataclass(frozen=True)
class Budget:
    """What a plan and a refit may cost; the search's numbers are those of appendix A.7.

    gradient_steps: after each task. The paper does not say how many.
    """

    horizon: int = 15
    num_samples: int = 1000
    num_elites: int = 200
    num_iterations: int = 10
    gradient_steps: int = 50

    def __post_init__(self) -> None:
        _check_counts(self)
        if not self.num_elites < self.num_samples:
            raise ValueError(
                f"num_elites must lie in [1, num_samples), got {self.num_elites} with num_samples={self.num_samples}"
            )


@dataclass(frozen=True)
class PlanningSettings:
    """Algorithm 2 (appendices A.2 and A.7). Raises ValueError on numbers out of range.

    num_tasks: T of the exploration's schedule. epsilon_exponent: its V.
    batch_size: transitions of a gradient step. slice_length: of them in a row, None for the model's own.
    """

    num_tasks: int = 30
    epsilon_exponent: float = 2.8
    batch_size: int = 150
    slice_length: int | None = None
    learning_rate: float = 1e-3
    deduplicate: bool = True
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        _check_counts(self)
        for name in ("epsilon_exponent", "learning_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be a positive number, got {value!r}")
        if self.slice_length is not None and not 1 <= self.slice_length <= self.batch_size:
            raise ValueError(
                f"slice_length must lie in [1, batch_size], got {self.slice_length} with batch_size={self.batch_size}"
            )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> PlanningSettings:
        """The settings in a phase's keys; its budget is the one of `budgets` that `budget` names.

        Keys that are no fields are left to whoever knows them.
        """
        own = {each.name: config[each.name] for each in fields(cls) if each.name in config}
        name, budgets = own.pop("budget", None), config.get("budgets", {})
        if name is None:
            return cls(**own)
        if name not in budgets:
            known = ", ".join(budgets) or "none"
            raise ValueError(f"budget must name one of budgets ({known}), got {name!r}")
        return cls(**own, budget=Budget(**budgets[name]))


def slice_length(config: Mapping[str, Any]) -> int:
    """Transitions of a training slice: as set, or the model's own, as many as its loss rolls out.

    Raises ValueError where it is set to fewer.
    """
    kind = config.get("model", {}).get("kind", "parsimonious")
    least = config.get("model", {}).get("rollout_steps", 1)
    stated = config.get("slice_length")
    if stated is None:
        return max(SLICE_LENGTHS.get(kind, 1), least)
    if stated < least:
        raise ValueError(f"slice_length must be model.rollout_steps, {least}, or more, got {stated}; leave it out")
    return int(stated)


def _check_counts(settings: Any) -> None:
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{each.name} must be an integer of 1 or more, got {value!r}")
