"""Figures, each drawn for a light and for a dark page.

No pyplot: nothing global changes, and no display is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from parsecrl.algorithms.reporting.statistics import mean_interval

PALETTE = ("#3b82c4", "#e0812b", "#3a9d6c", "#c2528b", "#8a6fd1", "#a08a1f", "#2ba3a8", "#d05252")
RED = "#e5383b"  # what stands out on both pages
# From low costs to high ones, in every figure and on both pages; reversed, from low scores to high ones.
COSTS = LinearSegmentedColormap.from_list("costs", ("#2e5fd0", "#2f9c95", "#d3b93c"))


@dataclass(frozen=True)
class Theme:
    """Colours of a page. ink: text and lines; faint: grids; paper: axes, and what the paper reports."""

    name: str
    ink: str
    faint: str
    paper: str
    surface: str


THEMES = (
    Theme("light", "#22262e", "#dfe3e9", "#6b7280", "#ffffff"),
    Theme("dark", "#e4e7ec", "#343a45", "#a3abb8", "#1a1e26"),
)
Draw = Callable[[Figure, Theme], None]


@dataclass(frozen=True)
class Plot:
    """A figure that is yet to be drawn.

    Attributes:
        draw: Draws into an empty figure, in the colours of a theme.
        size: Width and height in inches, at 140 dots an inch.
        alt: What it shows, for those who cannot see it.
        caption: The text below.
        wide: Many small panels, which scroll sideways on a narrow screen rather than shrink.
        automatic: Whether the panels are laid out automatically. If not, `draw` sets the margins: many panels take
            seconds.
    """

    draw: Draw
    size: tuple[float, float]
    alt: str
    caption: str
    wide: bool = False
    automatic: bool = True


@dataclass(frozen=True)
class Image:
    """A plot on disk, drawn twice."""

    light: Path
    dark: Path
    plot: Plot


def render(plot: Plot, folder: Path, name: str) -> Image:
    """Draw a plot for both pages.

    Args:
        plot: What is drawn.
        folder: Where the files go; made where it is missing.
        name: The files are `name`.png, for the light page, and `name`-dark.png.

    Returns:
        Both files, with the plot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for theme in THEMES:
        with styled(theme):
            figure = Figure(figsize=plot.size, dpi=140, layout="constrained" if plot.automatic else None)
            canvas = FigureCanvasAgg(figure)
            plot.draw(figure, theme)
            files[theme.name] = folder / (f"{name}.png" if theme.name == "light" else f"{name}-{theme.name}.png")
            canvas.print_png(files[theme.name])  # savefig would draw once more, to lay the panels out
    return Image(files["light"], files["dark"], plot)


def render_all(plots: Mapping[str, Plot], folder: Path, prefix: str) -> dict[str, Image]:
    """Draw several plots as `render` does.

    Args:
        plots: By name.
        folder: Where the files go; made where it is missing.
        prefix: The files are `prefix`-<name>.png and `prefix`-<name>-dark.png.

    Returns:
        The images by the plots' names.
    """
    return {name: render(plot, folder, f"{prefix}-{name}") for name, plot in plots.items()}


def styled(theme: Theme) -> Any:
    """What is drawn within it has the colours of a page.

    Args:
        theme: Of the page.

    Returns:
        A context.
    """
    return matplotlib.rc_context(_style(theme))


def _style(theme: Theme) -> Any:
    return {
        "text.parse_math": False,  # names come from specs: a dollar sign is a dollar sign
        "font.size": 10,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.faint,
        "grid.linewidth": 0.8,
        "axes.edgecolor": theme.paper,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.paper,
        "ytick.color": theme.paper,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "figure.facecolor": theme.surface,
        "axes.facecolor": theme.surface,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "path.simplify": True,
    }


def log_scale(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with ticks in plain numbers: the style has mathematical text switched off.

    Args:
        axes: Changed in place.
    """
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def color_of(index: int, total: int) -> str:
    """A line's colour: from a palette while it lasts, then a colour map's even steps.

    Args:
        index: Of the line, from 0.
        total: Lines in all.

    Returns:
        A colour as "#rrggbb".
    """
    if total <= len(PALETTE):
        return PALETTE[index % len(PALETTE)]
    return to_hex(matplotlib.colormaps["turbo"](0.08 + 0.84 * index / max(total - 1, 1)))


def color_bar(
    figure: Figure, scale: Normalize, cmap: Colormap, label: str, right: float, bottom: float, top: float
) -> None:
    """Add a bar that tells costs' colours, in the right margin of a figure whose margins are set.

    Args:
        figure: Drawn into.
        scale: From costs to [0, 1].
        cmap: From [0, 1] to colours.
        label: Beside the bar.
        right: From the figure's right edge to the bar's left one, inches.
        bottom: Margin below the bar, inches.
        top: Margin above the bar, inches.
    """
    width, height = figure.get_size_inches()
    place = figure.add_axes((1 - right / width, bottom / height, 0.12 / width, 1 - (bottom + top) / height))
    bar = figure.colorbar(ScalarMappable(norm=scale, cmap=cmap), cax=place)
    bar.set_label(label, fontsize=9)
    bar.ax.grid(False)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)  # type: ignore[operator]


def mean_intervals(values: pd.Series, by: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Means and 95 % intervals of values, for each value of another column.

    Args:
        values: A value a row.
        by: Of each row, what it is grouped by: numbers.

    Returns:
        The n distinct numbers [n], rising, and (mean, low, high) of each group [n, 3]. A single value has no interval.
    """
    groups = values.groupby(by)
    found = [mean_interval(part.to_numpy()) for _, part in groups]
    return groups.size().index.to_numpy(dtype=float), np.array(found).reshape(-1, 3)


def draw_band(axes: Axes, x: np.ndarray, found: np.ndarray, color: str, label: str | None = None, **line: Any) -> None:
    """A line through means, and their intervals as a band.

    Args:
        axes: Drawn into.
        x: Where [n].
        found: Mean, low, high [n, 3].
        color: Of both.
        label: In the legend; none for none.
        line: As matplotlib's `plot` takes them.
    """
    axes.plot(x, found[:, 0], color=color, label=label, **{"lw": 1.6, **line})
    axes.fill_between(x, found[:, 1], found[:, 2], color=color, alpha=0.2, lw=0)
