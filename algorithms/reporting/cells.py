"""Numbers and names as the cells of tables.

A variant of a model or a method is called "<name>, key=value, ...".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from parsecrl.algorithms.reporting.statistics import mean_interval

NOTHING, NOT_EVALUATED = "-", "not evaluated"


def count(value: float | None) -> str:
    """Write a whole number, with commas.

    Args:
        value: Rounded to a whole number; None where there is none.

    Returns:
        Text such as "1,234"; `NOTHING` for None.
    """
    return NOTHING if value is None else f"{round(value):,}"


def milliseconds(value: float | None) -> str:
    """Write a time: three digits below 100, none after the point above.

    Args:
        value: Milliseconds, or None.

    Returns:
        Text without a unit; `NOTHING` for None.
    """
    return NOTHING if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def score(value: float, sign: str = "") -> str:
    """Write a return: none after the point from 10 on, two digits below.

    Args:
        value: In whatever unit.
        sign: As in a format: "+" writes it before positive numbers too.

    Returns:
        Text such as "123" or "0.45".
    """
    return f"{value:{sign}.0f}" if abs(value) >= 9.5 or value == 0 else f"{value:{sign}.2g}"


def interval(values: pd.Series | np.ndarray | Sequence[float], form: str, least: float = -math.inf) -> str:
    """Write the mean of trials' values and its 95 % interval, by Student's t, as "mean [low, high]".

    Args:
        values: A value a trial, in any unit; NaN counts as none.
        form: Of each number, such as ".3g".
        least: What the values cannot lie below, so that the interval does not either.

    Returns:
        The mean alone of a single trial, or where the interval is as narrow as the number is told; `NOTHING` without
        values.
    """
    x = np.asarray(values, dtype=float)
    x = x[~np.isnan(x)]
    if not x.size:
        return NOTHING
    mean, low, high = mean_interval(x)
    told = f"{max(low, least):{form}}", f"{high:{form}}"
    return f"{mean:{form}}" if math.isnan(low) or told[0] == told[1] else f"{mean:{form}} [{told[0]}, {told[1]}]"


def title(variant: str, titles: Mapping[str, str]) -> str:
    """Say a variant's name as it is shown.

    Args:
        variant: "<name>, key=value, ...".
        titles: Of the names, as far as they have one.

    Returns:
        The variant with its name's title in the name's place.
    """
    name, *others = variant.split(", ")
    return ", ".join([titles.get(name, name), *others])


def in_order(variants: Iterable[str], known: Iterable[str]) -> list[str]:
    """Sort variants by their names.

    Args:
        variants: With repetitions.
        known: Names, in the order that is wanted.

    Returns:
        Each variant once, in the order in which the names are known, others after them.
    """
    order = list(known)

    def place(variant: str) -> tuple[int, str]:
        name = variant.split(", ")[0]
        return order.index(name) if name in order else len(order), variant

    return sorted(set(variants), key=place)
