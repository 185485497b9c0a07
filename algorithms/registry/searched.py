"""What a setting of a phase may be, where it is searched over."""

from __future__ import annotations

from functools import reduce
from typing import Any


def values_of(phase: Any, path: str) -> list[Any]:
    """The values that a setting of a phase may have.

    Args:
        phase: Of a spec.
        path: Dotted key of a setting, such as "controller.horizon".

    Returns:
        The searched values (of a range its ends), and the one that is set where that may be taken.
    """
    domain = phase.search.get(path)
    if domain is not None and domain.when is None:
        return domain.values
    return [*(domain.values if domain else ()), reduce(getattr, path.split("."), phase)]
