"""Energy-based regression in the report: the paper's figures 2, 6 and 7 with the run's own numbers.

Tables: see `parsecrl.algorithms.energy_regression.analysis`. Intervals are over trials, by Student's t.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from parsecrl.algorithms.reporting import cells, markup
from parsecrl.algorithms.reporting.figures import (
    COSTS,
    RED,
    Plot,
    Theme,
    color_of,
    draw_band,
    log_scale,
    mean_intervals,
    render_all,
)
from parsecrl.algorithms.reporting.study_report import ResultTable, StudyReport, Tables

TITLES = {"unrolled_gd": "unrolled gradient descent", "dcem": "DCEM"}
COMPARED_STEPS = (1, 5, 20, 50)
LAST_SHARE = 0.1  # of the results, over which a training loss is averaged: single ones jump with every update
NOTE = (
    "Mean squared errors, mean over seeds [95 % interval]. Training loss: over the training points, mean of the last "
    f"{LAST_SHARE:.0%} of the results. Test loss: between them, by inner steps at test time; *: as in training. The "
    "paper prints curves, not numbers. Its finding: both solvers reach the same training loss; with another number of "
    "inner steps than in training, gradient descent's predictions fall apart and DCEM's do not (section 5.1, figures 6 "
    "and 7)."
)


def result_table(tables: Tables) -> ResultTable:
    """Training and test losses by inner steps, beside what the paper finds (DCEM paper, section 5.1, figures 6 and 7).

    Args:
        tables: Of `analyse`.

    Returns:
        A row for each inner solver.
    """
    steps, convergence = tables["steps"], tables["convergence"]
    trained = int(tables["training"]["num_steps"].iloc[0])
    shown = sorted({*COMPARED_STEPS, trained} & set(steps["num_steps"]))
    rows = []
    for method in methods(tables):
        curve = convergence[convergence["method"] == method]
        errors = steps[steps["method"] == method]
        final = [part.tail(math.ceil(LAST_SHARE * len(part)))["train_loss"].mean() for _, part in curve.groupby("seed")]
        of_steps = [errors[errors["num_steps"] == n]["test_loss"] for n in shown]
        told = [cells.interval(losses, ".3g", least=0.0) for losses in (pd.Series(final), *of_steps)]
        rows.append((title(method), f"{len(final)}", f"{int(curve['num_updates'].max()):,}", *told))
    marks = [f"{n}{'*' * (n == trained)} step{'s' * (n > 1)}" for n in shown]
    headings = ("inner solver", "seeds", "updates", "training loss", f"test loss, {marks[0]}", *marks[1:])
    return ResultTable(headings, rows, NOTE)


def sections(phase: str, tables: Tables, folder: Path) -> list[str]:
    """Figures 6, 7 and 2 of the DCEM paper.

    Args:
        phase: Its name, with which the files' names begin.
        tables: Of `analyse`.
        folder: Where the figures are drawn.

    Returns:
        One section of HTML.
    """
    drawn = render_all(plots(tables), folder, phase).values()
    return [markup.section(f"figures-{phase}", f"Figures of {phase}", *map(markup.figure, drawn))]


def plots(tables: Tables) -> dict[str, Plot]:
    """Make every plot.

    Args:
        tables: Of `analyse`.

    Returns:
        Plots by name: convergence, steps, predictions, surface.
    """
    small, large = (6.4, 3.8), (1.2 + 3.6 * len(methods(tables)), 3.6)
    return {
        "convergence": Plot(
            partial(draw_convergence, tables),
            small,
            "Training loss of both solvers over updates",
            "Training loss over the updates; lines are means over seeds, bands 95 % intervals. After the paper's "
            "figure 6, left.",
        ),
        "steps": Plot(
            partial(draw_steps, tables),
            small,
            "Test loss against the number of inner steps",
            "The same energies, minimised with another number of inner steps than they were trained with (dotted "
            "line). After the paper's figure 6, right.",
        ),
        "predictions": Plot(
            partial(draw_predictions, tables),
            large,
            "Predictions for several numbers of inner steps",
            f"Predictions after several numbers of inner steps, seed {first_seed(tables)}; the target is dashed. After "
            "the paper's figure 7.",
            wide=True,
        ),
        "surface": Plot(
            partial(draw_surfaces, tables),
            large,
            "Energy surfaces over x and y",
            f"The learned energies, seed {first_seed(tables)}; for each x its lowest energy counts 0 and its highest "
            "1, on a logarithmic scale; lighter is lower. After the paper's figure 2.",
            wide=True,
        ),
    }


def draw_convergence(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Training loss over updates, a line a solver (DCEM paper, figure 6, left).

    Args:
        tables: Of `analyse`.
        figure: Drawn into.
        theme: Colours of the page.
    """
    axes = figure.add_subplot()
    _bands(axes, tables["convergence"], "num_updates", "train_loss", tables)
    log_scale(axes)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.set_xlabel("updates")
    axes.set_ylabel("training loss")
    axes.legend()


def draw_steps(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Test loss by inner steps at test time, a line a solver (DCEM paper, figure 6, right).

    Args:
        tables: Of `analyse`.
        figure: Drawn into.
        theme: Colours of the page.
    """
    axes = figure.add_subplot()
    for trained in sorted(set(tables["training"]["num_steps"])):
        axes.axvline(trained, color=theme.paper, lw=1.2, ls=":")
    _bands(axes, tables["steps"], "num_steps", "test_loss", tables)
    log_scale(axes)
    axes.set_xlim(1, tables["steps"]["num_steps"].max())
    axes.set_xlabel("inner steps at test time")
    axes.set_ylabel("test loss")
    axes.legend()


def draw_predictions(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Predictions after several numbers of inner steps, a panel a solver (DCEM paper, figure 7).

    Args:
        tables: Of `analyse`; the first seed of each solver is drawn.
        figure: Drawn into.
        theme: Colours of the page.
    """
    shown = first_trials(tables, "predictions")
    low, high = np.percentile(tables["predictions"]["y"], [0.5, 99.5])
    numbers, trained = sorted(set(tables["predictions"]["num_steps"])), set(tables["training"]["num_steps"])
    for axes, (method, table) in zip(_panels(figure, len(shown)), shown.items(), strict=True):
        for i, steps in enumerate(numbers):
            part = table[table["num_steps"] == steps]
            width, note = (2.6, " (trained)") if steps in trained else (1.3, "")
            color = _shade(i, len(numbers), theme)
            axes.plot(part["x"], part["y"], color=color, lw=width, label=f"{steps}{note}")
        axes.plot(part["x"], part["target"], color=theme.ink, lw=2.2, ls="--", label="target")
        axes.set_title(title(method))
        axes.set_ylim(np.clip(low, -9.0, -5.5), np.clip(high, 2.5, 6.0))  # the target stays readable
        axes.set_xlabel("x")
    figure.axes[0].set_ylabel("y")
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="inner steps")


def draw_surfaces(tables: Tables, figure: Figure, theme: Theme) -> None:
    """The learned energies over x and y, a panel a solver (DCEM paper, figure 2).

    Args:
        tables: Of `analyse`; the first seed of each solver is drawn.
        figure: Drawn into.
        theme: Colours of the page; the surfaces have their own.
    """
    shown = first_trials(tables, "surface")
    predictions = first_trials(tables, "predictions")
    for axes, (method, table) in zip(_panels(figure, len(shown)), shown.items(), strict=True):
        grid = table.pivot_table(index="y", columns="x", values="log")
        drawn = axes.contourf(grid.columns, grid.index, grid.to_numpy(), levels=24, cmap=COSTS)
        line = predictions[method].drop_duplicates("x").sort_values("x")
        axes.plot(line["x"], line["target"], color=RED, lw=2.0)
        axes.set_title(title(method))
        axes.set_xlabel("x")
        axes.grid(False)
    figure.axes[0].set_ylabel("y")
    bar = figure.colorbar(drawn, ax=figure.axes)
    bar.set_label("log10 of the normalised energy", fontsize=9)
    bar.ax.grid(False)
    bar.outline.set_visible(False)


def methods(tables: Tables) -> list[str]:
    """The inner solvers of the trials.

    Args:
        tables: Of `analyse`; steps is read.

    Returns:
        Each once, in the order of TITLES, variants of a solver after it.
    """
    return cells.in_order(tables["steps"]["method"], TITLES)


def title(method: str) -> str:
    """A method's name as it is shown.

    Args:
        method: Its name; a variant's is "<method>, key=value, ...".

    Returns:
        Its title, with the variant's keys and values.
    """
    return cells.title(method, TITLES)


def first_seed(tables: Tables) -> int:
    """The lowest seed of the trials.

    Args:
        tables: Of `analyse`; steps is read.

    Returns:
        The seed.
    """
    return int(tables["steps"]["seed"].min())


def first_trials(tables: Tables, name: str) -> dict[str, pd.DataFrame]:
    """The rows of each method's first seed.

    Args:
        tables: Of `analyse`.
        name: Of the table that is wanted.

    Returns:
        Rows by method.
    """
    table = tables[name]
    parts = {method: table[table["method"] == method] for method in methods(tables)}
    return {method: part[part["seed"] == part["seed"].min()] for method, part in parts.items()}


def _bands(axes: Axes, table: pd.DataFrame, x: str, y: str, tables: Tables) -> None:
    """A line a method, the mean over its seeds, and the interval as a band (cut at a tenth of the mean below)."""
    for i, method in enumerate(methods(tables)):
        part = table[table["method"] == method]
        at, found = mean_intervals(part[y], part[x])
        found[:, 1] = np.maximum(found[:, 1], found[:, 0] / 10)
        draw_band(axes, at, found, color_of(i, len(methods(tables))), title(method), lw=1.8)


def _panels(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0])


def _shade(index: int, total: int, theme: Theme) -> str:
    span = (0.0, 0.85) if theme.name == "light" else (0.2, 1.0)
    return to_hex(matplotlib.colormaps["viridis"](np.linspace(*span, total)[index]))


REPORT = StudyReport(result_table, sections)
