"""Whether latents are maps, in reports: by episode and seed, and a picture of the best and the worst.

Tables: maps (columns env, model, seed and MAP_COLUMNS), latents and edges, as `report_parts` has them.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parsecrl.algorithms.latent_study.report_parts import (
    draw_map,
    env_title,
    envs,
    legend,
    model_color,
    model_title,
    models,
    of,
)
from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.cells import NOTHING
from parsecrl.algorithms.reporting.figures import Plot, Theme
from parsecrl.algorithms.reporting.study_report import Tables

HEADINGS = ("environment", "model", "seed", "episodes", "neighbour ratio", "correlation", "strongest mode", "its share")
NOTE = (
    "Neighbour ratio: mean latent distance of cells one move apart, over that of all pairs. Correlation: Spearman's, "
    "of latent distance and moves of a shortest path. A map has a small ratio and a correlation near 1, scrambled "
    "cells 1 and 0. Mode: how often the latents' strongest plane wave turns on the way down the rows and along the "
    "columns of a torus, (1, 0) or (0, 1) on a map; its share of the variance."
)
MEASURES = {"correlation": "correlation with moves", "neighbour_ratio": "neighbour ratio"}


def plots(tables: Tables) -> dict[str, Plot]:
    """Make the plots that the tables have data for.

    Args:
        tables: maps, latents and edges are read, where there are any.

    Returns:
        Plots by name: map_measures, maps.
    """
    found = tables.get("maps", pd.DataFrame())
    if not len(found) or not found["correlation"].notna().any():
        return {}
    return {
        "map_measures": Plot(
            partial(draw_measures, found),
            (1.0 + 3.3 * max(len(envs(found)), 1.4), 5.4),
            "How far latents are a map, by episode",
            "Rank correlation of latent distance and moves, and the distance of neighbours over that of all pairs. A "
            "line a seed. A map has a correlation near 1 and a small ratio.",
            wide=True,
        ),
        "maps": Plot(
            partial(draw_best_and_worst, tables),
            (0.5 + 2.4 * 2 * len(models(found)), 0.4 + 2.7 * len(envs(found))),
            "The best and the worst map of each model",
            "Cells in the plane of the first two principal components of their latents, joined as in the world; hue "
            "tells the column, lightness the row. Of each model the seeds of the highest and the lowest correlation.",
            wide=True,
        ),
    }


def table(found: pd.DataFrame) -> list[Markup]:
    """`rows` as HTML, with what the columns mean.

    Args:
        found: The maps table.

    Returns:
        The table and a paragraph.
    """
    return [markup.table(HEADINGS, rows(found)), markup.paragraph(NOTE, "soft small")]


def rows(found: pd.DataFrame) -> list[tuple[str, ...]]:
    """The last measures of each trial.

    Args:
        found: The maps table.

    Returns:
        Rows of text, a cell for each of HEADINGS.
    """
    told = []
    for env in envs(found):
        for model in models(found[found["env"] == env]):
            for seed, last in _last(of(found, env, model)).iterrows():
                has_mode = not np.isnan(last["mode_share"])
                told.append(
                    (
                        env_title(env),
                        model_title(model),
                        f"{seed}",
                        f"{last['episodes']:.0f}",
                        *(NOTHING if np.isnan(last[key]) else f"{last[key]:.2f}" for key in reversed(MEASURES)),
                        f"({last['mode_rows']:.0f}, {last['mode_columns']:.0f})" if has_mode else NOTHING,
                        f"{last['mode_share']:.2f}" if has_mode else NOTHING,
                    )
                )
    return told


def draw_measures(found: pd.DataFrame, figure: Figure, theme: Theme) -> None:
    """Both measures over episodes, a line a seed, a column an environment.

    Args:
        found: The maps table.
        figure: Drawn into.
        theme: Colours of the page.
    """
    shown = envs(found)
    grid = figure.subplots(2, len(shown), squeeze=False, sharex="col", sharey="row")
    for column, env in zip(grid.T, shown, strict=True):
        for axes, key in zip(column, MEASURES, strict=True):
            for model in models(found[found["env"] == env]):
                for _, part in of(found, env, model).groupby("seed"):
                    ordered = part.sort_values("episodes")
                    color = model_color(model, found)
                    axes.plot(
                        ordered["episodes"], ordered[key], ".-", ms=3, lw=1.1, color=color, label=model_title(model)
                    )
        column[0].set_title(env_title(env))
        column[1].set_xlabel("episode")
        column[1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes, label in zip(grid[:, 0], MEASURES.values(), strict=True):
        axes.set_ylabel(label)
    grid[0][0].set_ylim(-0.2, 1.02)
    grid[1][0].set_ylim(bottom=0)
    legend(figure)


def draw_best_and_worst(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Of each model the seeds of the highest and the lowest last correlation, a row an environment.

    Args:
        tables: maps, latents and edges are read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    found, latents, edges = tables["maps"], tables["latents"], tables["edges"]
    rows_, columns = envs(found), models(found)
    grid = figure.subplots(len(rows_), 2 * len(columns), squeeze=False)
    for row, env in zip(grid, rows_, strict=True):
        for i, model in enumerate(columns):
            measured = _last(of(found, env, model))["correlation"].dropna().sort_values(ascending=False)
            for axes, seed in zip(
                row[2 * i : 2 * i + 2], measured.index[[0, -1]] if len(measured) else (), strict=False
            ):
                part, joined = of(latents, env, model), of(edges, env, model)
                draw_map(axes, part[part["seed"] == seed], joined[joined["seed"] == seed], theme)
                axes.set_xlabel(f"correlation {measured[seed]:.2f}, seed {seed}", fontsize=8)
            for axes in row[2 * i : 2 * i + 2]:
                axes.set_xticks([])
                axes.set_yticks([])
                axes.grid(False)
            if env == rows_[0]:
                row[2 * i].set_title(f"{model_title(model)}: best", fontsize=9)
                row[2 * i + 1].set_title("worst", fontsize=9)
        row[0].set_ylabel(env_title(env))


def _last(part: pd.DataFrame) -> pd.DataFrame:
    """The row of each seed that was measured last, by seed."""
    return part.sort_values("episodes").groupby("seed").last()
