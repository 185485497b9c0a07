"""The figures of a sweep: effects of keys, pairs of keys, importance, parallel coordinates, schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from parsecrl.algorithms.reporting.figures import COSTS, PALETTE, RED, Plot, Theme
from parsecrl.platform.reports.loaded_run import Phase
from parsecrl.platform.reports.sweep import SCORE, Sweep, numbers_of, schedules_of

COLUMNS = 3  # of panels
MOST_MAPS = 6
WRITTEN_CELLS = 36  # a heat map with more has no numbers


def effects(sweep: Sweep) -> Plot:
    """The mean score at each value of each key, with its interval, over the trials.

    Args:
        sweep: With one key or more.

    Returns:
        The plot.
    """
    rows = math.ceil(len(sweep.keys) / COLUMNS)

    def draw(figure: Figure, theme: Theme) -> None:
        columns = min(COLUMNS, len(sweep.keys))
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, key in zip(grid.flat, sweep.keys, strict=False):
            groups = sweep.groups_of(key)
            found = [effect for effect in sweep.effects if effect.key == key]
            spread = np.random.default_rng(0).uniform(-0.16, 0.16, len(groups))
            axes.plot(groups.cat.codes + spread, sweep.rows[SCORE], ".", ms=3, color=theme.paper, alpha=0.45)
            means, x = [e.mean for e in found], range(len(found))
            low, high = ([e.mean_low for e in found], [e.mean_high for e in found])
            axes.vlines(x, low, high, color=PALETTE[0], lw=2.2)
            axes.plot(x, means, "o-", color=PALETTE[0], lw=1.2, ms=6)
            axes.set_xticks(x, [_short(e.value) for e in found], rotation=30 if len(found) > 3 else 0, fontsize=8)
            axes.set_xlim(-0.5, len(found) - 0.5)
            axes.set_title(key, fontsize=9)
        for axes in list(grid.flat)[len(sweep.keys) :]:
            axes.remove()
        for row in grid:
            row[0].set_ylabel("score")

    return Plot(
        draw,
        (9.4, 0.4 + 2.7 * rows),
        f"Effects of the searched keys of phase {sweep.phase}",
        "Score by value of each key. Large dots: means over the trials, with 95 % intervals. Small dots: trials.",
        wide=True,
    )


def importance(sweep: Sweep) -> Plot:
    """The share of the score's variance that each key accounts for.

    Args:
        sweep: Whose importance is known.

    Returns:
        The plot.
    """
    found = dict(reversed((sweep.importance or {}).items()))

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        axes.barh(list(found), list(found.values()), color=PALETTE[0], height=0.6)
        for y, share in enumerate(found.values()):
            axes.text(share + 0.01, y, f"{share:.2f}", va="center", fontsize=9)
        axes.set_xlim(0, 1.1 * max(found.values()))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of the score's variance")

    return Plot(
        draw,
        (7.4, 1.1 + 0.36 * len(found)),
        f"Importance of the searched keys of phase {sweep.phase}",
        "Importance by fANOVA of a random forest over the trials (Hutter et al. 2014).",
    )


def heat_maps(sweep: Sweep) -> Plot:
    """The mean score by the values of two keys, a panel a pair.

    Args:
        sweep: With two keys or more.

    Returns:
        The plot; of many pairs those of the most important keys.
    """
    pairs = sweep.pairs[:MOST_MAPS]
    columns = min(COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    tables = [_mean_table(sweep, *pair) for pair in pairs]
    values = np.concatenate([table.to_numpy().ravel() for table in tables])

    def draw(figure: Figure, theme: Theme) -> None:
        cmap, scale = COSTS.reversed(), Normalize(np.nanmin(values), np.nanmax(values) + 1e-12)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (down, across), table in zip(grid.flat, pairs, tables, strict=False):
            _heat_map(axes, table, down, across, cmap, scale)
        for axes in list(grid.flat)[len(pairs) :]:
            axes.remove()
        bar = figure.colorbar(ScalarMappable(norm=scale, cmap=cmap), ax=grid, shrink=0.8, aspect=30)
        bar.set_label("mean score")
        bar.outline.set_visible(False)  # type: ignore[operator]

    return Plot(
        draw,
        (max(5.2, 1.2 + 3.1 * columns), 0.5 + 2.8 * rows),
        f"Mean score of phase {sweep.phase} by two keys",
        "Mean score by the values of two keys, over the other keys and seeds. Empty: no trial had both values."
        + (f" The {MOST_MAPS} pairs of the most important keys." if len(sweep.pairs) > MOST_MAPS else ""),
        wide=True,
    )


def _mean_table(sweep: Sweep, down: str, across: str) -> pd.DataFrame:
    frame = pd.DataFrame({"down": sweep.groups_of(down), "across": sweep.groups_of(across), SCORE: sweep.rows[SCORE]})
    return frame.pivot_table(index="down", columns="across", values=SCORE, observed=False, dropna=False)


def _heat_map(axes: Axes, table: pd.DataFrame, down: str, across: str, cmap: Any, scale: Normalize) -> None:
    found = table.to_numpy(dtype=float)
    axes.imshow(found, cmap=cmap, norm=scale, aspect="auto", origin="lower")
    axes.grid(False)
    axes.set_xticks(range(found.shape[1]), [_short(v) for v in table.columns], rotation=30, fontsize=8)
    axes.set_yticks(range(found.shape[0]), [_short(v) for v in table.index], fontsize=8)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(down, fontsize=9)
    if found.size <= WRITTEN_CELLS:
        for (y, x), value in np.ndenumerate(found):
            if np.isfinite(value):
                dark = np.dot(cmap(scale(value))[:3], (0.3, 0.59, 0.11)) < 0.5
                axes.text(
                    x, y, f"{value:.3g}", ha="center", va="center", fontsize=8, color="white" if dark else "black"
                )


def parallel_coordinates(sweep: Sweep) -> Plot:
    """A line a trial through its values and its score.

    Args:
        sweep: With one key or more.

    Returns:
        The plot.
    """
    names = [*sweep.keys, SCORE]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        scores = sweep.rows[SCORE].to_numpy(dtype=float)
        columns, cmap = [_coordinates(sweep.rows[name]) for name in names], COSTS.reversed()
        scale = Normalize(scores.min(), scores.max() + 1e-12)
        height = np.column_stack([heights for heights, _ in columns])
        order = np.argsort(scores, kind="stable")  # the best on top
        lines = [np.column_stack([np.arange(len(names)), height[i]]) for i in order]
        alpha = 0.8 if len(lines) <= 30 else 0.5
        axes.add_collection(LineCollection(lines, array=scores[order], cmap=cmap, norm=scale, lw=1.1, alpha=alpha))
        axes.plot(np.arange(len(names)), height[order[-1]], color=RED, lw=2.4, label="best trial")
        for x, (_, ticks) in enumerate(columns):
            axes.axvline(x, color=theme.paper, lw=1.0)
            for at, text in ticks:
                behind = {"facecolor": theme.surface, "edgecolor": "none", "alpha": 0.75, "pad": 1.0}
                axes.text(x - 0.03, at, text, ha="right", va="center", fontsize=8, bbox=behind)
        axes.set_xlim(-0.6, len(names) - 0.8)
        axes.set_ylim(-0.06, 1.06)
        axes.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names], fontsize=9)
        axes.set_yticks([])
        axes.grid(False)
        axes.spines[["left", "bottom"]].set_visible(False)
        figure.legend(loc="outside lower left")

    return Plot(
        draw,
        (max(6.0, 1.7 * len(names)), 4.4),
        f"Parallel coordinates of the trials of phase {sweep.phase}",
        "Parallel coordinates: a line a trial, coloured by its score; red: the best trial.",
        wide=True,
    )


def _coordinates(values: pd.Series) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Heights in [0, 1] of a column's values, and its ticks."""
    numbers = numbers_of(values)
    if numbers is not None:
        x = numbers.to_numpy(dtype=float)
        is_log = x.min() > 0 and x.max() / x.min() >= 50
        shown = np.log(x) if is_log else x
        span = np.ptp(shown) or 1.0
        few = np.unique(shown)
        at = few if few.size <= 5 else np.linspace(shown.min(), shown.max(), 4)
        ticks = [(float((t - shown.min()) / span), f"{math.exp(t) if is_log else t:.3g}") for t in at]
        return (shown - shown.min()) / span, ticks
    texts = values.map(str)
    order = sorted(texts.unique())
    heights = {text: i / max(len(order) - 1, 1) for i, text in enumerate(order)}
    return texts.map(heights).to_numpy(dtype=float), [(height, _short(text)) for text, height in heights.items()]


def schedules(phase: Phase, keys: Sequence[str]) -> Plot | None:
    """How population based training changed settings, a line a trial.

    Args:
        phase: With its trials.
        keys: Searched.

    Returns:
        The plot; None where no key of numbers changed.
    """
    found = {key: lines for key in keys if (lines := schedules_of(phase, key))}
    if not found:
        return None

    def draw(figure: Figure, theme: Theme) -> None:
        grid = figure.subplots(1, len(found), squeeze=False)
        for axes, (key, lines) in zip(grid.flat, found.items(), strict=True):
            for x, y in lines:
                axes.plot(x, y, lw=1.2, alpha=0.7, color=PALETTE[0], drawstyle="steps-post")
            best = phase.best
            if best is not None:
                x, y = best.column("env_steps"), best.column(f"parameters/{key}")
                axes.plot(x, y, lw=2.4, color=RED, drawstyle="steps-post", label="best trial")
            axes.set_title(key, fontsize=9)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.set_xlabel("environment steps")
        grid[0, 0].legend()

    return Plot(
        draw,
        (max(5.2, 3.2 * len(found)), 3.2),
        f"Settings of the population of phase {phase.name} over training",
        "How population based training changed the settings: a line a trial.",
        wide=True,
    )


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 18 else f"{text[:16]}…"
