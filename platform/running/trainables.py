"""Algorithms as Tune trains them: what the platform adds to any trainable."""

from __future__ import annotations

from functools import cache
from typing import Any

from parsecrl.algorithms.registry.algorithm import RegistryError, algorithm_named
from parsecrl.platform.metrics.table import CountsNothing, ReportsMetrics
from parsecrl.platform.runs.results import FAILURE


class _StopOnBadLoss:
    """Put before an algorithm: a loss that is not finite ends the trial.

    As an exception it would be tried again from the last checkpoint, like the death of a process, and end the same way.
    """

    latest: dict[str, Any] | None = None

    def step(self) -> dict[str, Any]:
        try:
            result = super().step()  # type: ignore[misc]
        except FloatingPointError as error:
            message = str(error).strip().splitlines()[-1].removeprefix("FloatingPointError: ")
            return {**(self.latest or {}), FAILURE: message, "done": True}
        self.latest = result
        return result


@cache
def trainable_of(algorithm: str) -> Any:
    """The class of a trial, by the algorithm's name or module:NAME, with what the platform adds.

    It has the name of the algorithm's own class, which is written into checkpoints. It is pickled by reference: as an
    attribute of this module, see `__getattr__`.
    """
    own: Any = algorithm_named(algorithm).trainable()
    if "<locals>" in own.__qualname__:  # pickled by value, its methods would lose their super()
        raise RegistryError(
            f"trainable() of {algorithm!r} must return a class of a module's top level, got {own!r}; move it"
        )
    reference = algorithm.replace(".", "/")  # a dot would name an attribute of an attribute
    place = {"__module__": __name__, "__qualname__": reference, "__doc__": own.__doc__}
    return type(own.__name__, (_StopOnBadLoss, ReportsMetrics, own, CountsNothing), place)


def __getattr__(reference: str) -> Any:
    """`trainable_of`, for pickle, which looks a class up by its module and qualified name."""
    try:
        return trainable_of(reference.replace("/", "."))
    except ValueError as error:
        raise AttributeError(f"{__name__} has no attribute {reference!r}: {error}") from None
