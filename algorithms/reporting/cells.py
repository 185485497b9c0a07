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
    """A whole number, with commas."""
    return NOTHING if value is None else f"{round(value):,}"


def milliseconds(value: float | None) -> str:
    """Three digits below 100, none after the point above."""
    return NOTHING if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def score(value: float, sign: str = "") -> str:
    """A return, in whatever unit: none after the point from 10 on, two digits below; sign: as in a format."""
    return f"{value:{sign}.0f}" if abs(value) >= 9.5 or value == 0 else f"{value:{sign}.2g}"


def interval(values: pd.Series | np.ndarray | Sequence[float], form: str, least: float = -math.inf) -> str:
    """The mean of trials' values and its 95 % interval, by Student's t: "mean [low, high]", written in a form as ".3g".

    The mean alone of a single trial, or where the interval is as narrow as the number is told; NOTHING without values,
    as which NaN counts. least: what the values cannot lie below, so that the interval does not either.
    """
    x = np.asarray(values, dtype=float)
    x = x[~np.isnan(x)]
    if not x.size:
        return NOTHING
    mean, low, high = mean_interval(x)
    told = f"{max(low, least):{form}}", f"{high:{form}}"
    return f"{mean:{form}}" if math.isnan(low) or told[0] == told[1] else f"{mean:{form}} [{told[0]}, {told[1]}]"


def title(variant: str, titles: Mapping[str, str]) -> str:
    """A variant's name as it is shown; titles: of the names, as far as they have one."""
    name, *others = variant.split(", ")
    return ", ".join([titles.get(name, name), *others])


def in_order(variants: Iterable[str], known: Iterable[str]) -> list[str]:
    """Each variant once, in the order in which the names are known, others after them."""
    order = list(known)

    def place(variant: str) -> tuple[int, str]:
        name = variant.split(", ")[0]
        return order.index(name) if name in order else len(order), variant

    return sorted(set(variants), key=place)
