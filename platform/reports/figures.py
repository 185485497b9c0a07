"""The report's figures, each drawn for a light and for a dark page.

No pyplot: nothing global changes, and no display is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from parsecrl.platform.reports import paper
from parsecrl.platform.reports.data import Phase, Run, Trial
from parsecrl.platform.reports.iterates import Iterates

PALETTE = ("#3b82c4", "#e0812b", "#3a9d6c", "#c2528b", "#8a6fd1", "#a08a1f", "#2ba3a8", "#d05252")
KIND_COLORS = {"full": PALETTE[0], "embedded": PALETTE[1], "ppo": PALETTE[2], "random policy": "#8b8f98"}
LEGEND_LIMIT = 8
SAMPLE_LIMIT = 150


@dataclass(frozen=True)
class Theme:
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
class Image:
    """One figure on disk, drawn twice; alt says in words what it shows."""

    light: Path
    dark: Path
    alt: str
    width: float


def render(
    draw: Draw,
    folder: Path,
    name: str,
    size: tuple[float, float],
    alt: str,
    layout: Literal["constrained"] | None = "constrained",
) -> Image:
    """Draw `name`.png and `name`-dark.png into folder; size in inches; without a layout, draw sets the margins."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for theme in THEMES:
        with matplotlib.rc_context(_style(theme)):
            figure = Figure(figsize=size, dpi=140, layout=layout)
            FigureCanvasAgg(figure)
            draw(figure, theme)
            files[theme.name] = folder / (f"{name}.png" if theme.name == "light" else f"{name}-{theme.name}.png")
            figure.savefig(files[theme.name])
    return Image(files["light"], files["dark"], alt, size[0])


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
        "savefig.facecolor": theme.surface,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "path.simplify": True,
    }


def log_scale(axes: Axes) -> None:
    """Ticks in plain numbers: the style has mathematical text switched off."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def color_of(index: int, total: int) -> str:
    """The index-th of total line colours; a palette while it lasts, then a colour map's even steps."""
    if total <= len(PALETTE):
        return PALETTE[index % len(PALETTE)]
    return to_hex(matplotlib.colormaps["turbo"](0.08 + 0.84 * index / max(total - 1, 1)))


def draw_boxes(run: Run) -> Draw:
    """Figure 4: a box a controller, the paper's quartiles beside each of ours."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        ticks, labels = [], []
        for x, phase in enumerate(p for p in run.rows if p.statistics):
            reference = paper.result_for(run.task, phase.kind)
            ours = x - 0.2 if reference else x
            _box(axes, ours, phase, KIND_COLORS.get(phase.kind, PALETTE[4]), theme)
            if reference:
                _reference_box(axes, x + 0.2, reference, theme)
            ticks.append(x)
            labels.append(f"{phase.name}\n{phase.title}" if phase.name != phase.title else phase.name)
        if any(paper.result_for(run.task, p.kind) for p in run.rows if p.statistics):
            axes.plot([], [], "s", ms=9, mfc="none", mec=theme.paper, label=f"paper, {paper.LABEL} (its own budget)")
            axes.legend(loc="upper left", bbox_to_anchor=(0, 1.12), borderaxespad=0)
        axes.set_xticks(ticks, [_wrap(label) for label in labels])
        axes.set_xlim(-0.6, len(ticks) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("return of one episode")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))

    return draw


def _box(axes: Axes, x: float, phase: Phase, color: str, theme: Theme, width: float = 0.34) -> None:
    s = phase.statistics
    assert s is not None
    style: dict[str, Any] = {
        "positions": [x],
        "widths": width,
        "patch_artist": True,
        "boxprops": {"facecolor": color + "55", "edgecolor": color, "linewidth": 1.4},
        "medianprops": {"color": theme.ink, "linewidth": 1.8},
        "whiskerprops": {"color": color, "linewidth": 1.2},
        "capprops": {"color": color, "linewidth": 1.2},
        "flierprops": {"marker": ".", "markersize": 4, "markerfacecolor": color, "markeredgecolor": color},
        "manage_ticks": False,
    }
    if phase.returns.size:
        axes.boxplot(phase.returns, **style)
    else:
        box = {"med": s.median, "q1": s.q25, "q3": s.q75, "whislo": s.q25, "whishi": s.q75, "fliers": []}
        axes.bxp([box], showcaps=False, **style)


def _reference_box(axes: Axes, x: float, reference: paper.PaperResult, theme: Theme) -> None:
    """The paper's quartiles: no whiskers, for they were not read."""
    box = {"med": reference.median, "q1": reference.q25, "q3": reference.q75, "fliers": []}
    box |= {"whislo": reference.q25, "whishi": reference.q75}
    line = {"color": theme.paper, "linewidth": 1.2}
    axes.bxp([box], positions=[x], widths=0.26, showcaps=False, manage_ticks=False, boxprops=line, medianprops=line)


def curve_axis(phase: Phase) -> str:
    """The column that a phase's learning curve runs over."""
    counted = any(np.isfinite(t.column("ppo_steps")).any() for t in phase.trials)
    return "ppo_steps" if phase.algorithm == "dcem_ppo" and counted else "env_steps"


def draw_curves(phase: Phase, task: str, key: str = "episode_return_mean") -> Draw:
    """Figures 11 to 13: the return of every trial over training; the chosen trial is the thick line."""
    x_key = curve_axis(phase)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        sweep, end = len(phase.trials) > 1, 0.0
        for i, trial in enumerate(phase.trials):
            x, y = _finite(trial, x_key, key)
            if not x.size:
                continue
            end = max(end, float(x.max()))
            chosen = sweep and trial is phase.best
            label = trial.label + " (chosen)" * chosen if sweep else "this run, training return"
            if not chosen and len(phase.trials) > LEGEND_LIMIT:
                label = "_"  # not in the legend; the page's table has them all
            _line(axes, x, y, color_of(i, len(phase.trials)), label, chosen)
        at = [float(v) for v in map(phase.reached.get, (x_key, key)) if isinstance(v, int | float)]
        if len(at) == 2:
            axes.plot(*at, "*", ms=13, mfc=theme.ink, mec=theme.surface, mew=0.8, zorder=4)
        points = (
            [p for p in paper.CURVES.get((task, phase.kind), ()) if p[0] <= 1.5 * end] if x_key == "env_steps" else []
        )
        if points:
            axes.plot(*zip(*points, strict=True), "D", ms=5, mfc="none", mec=theme.paper, label=paper.CURVE_LABEL)
        if sweep or points:
            figure.legend(loc="outside lower left", ncols=1 if _long(phase.trials) else 2)
        axes.set_ylabel("training return\n(mean of the last 10 episodes)")
        _steps_axis(axes, x_key)

    return draw


def draw_comparison_curves(series: Sequence[tuple[str, str, Phase]]) -> Draw:
    """The chosen trial of one phase, a line a run; series: the run's label and colour, and its phase."""
    x_key = curve_axis(series[0][2])

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        for label, color, phase in series:
            trial = phase.best
            if trial is not None:
                x, y = _finite(trial, x_key, "episode_return_mean")
                _line(axes, x, y, color, label, False)
        figure.legend(loc="outside lower left", ncols=1 if len(series) < 3 else 2)
        axes.set_ylabel("training return\n(mean of the last 10 episodes)")
        _steps_axis(axes, x_key)

    return draw


def draw_comparison_boxes(runs: Sequence[tuple[str, Run]], names: Sequence[str]) -> Draw:
    """A group of boxes a phase, a colour a run."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        step = 0.8 / len(runs)
        for i, (label, run) in enumerate(runs):
            color = color_of(i, len(runs))
            axes.plot([], [], "s", ms=9, mfc=color + "55", mec=color, label=label)
            for phase in run.rows:
                if phase.statistics and phase.name in names:
                    x = names.index(phase.name) + (i - (len(runs) - 1) / 2) * step
                    _box(axes, x, phase, color, theme, width=0.8 * step)
        axes.set_xticks(range(len(names)), [_wrap(n) for n in names])
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("return of one episode")
        figure.legend(loc="outside lower left", ncols=1 if len(runs) < 3 else 2)

    return draw


def draw_losses(trial: Trial, x_key: str, keys: Sequence[str]) -> Draw:
    """Every loss of the chosen trial, a small panel each."""
    columns = min(3, len(keys))

    def draw(figure: Figure, theme: Theme) -> None:
        grid = figure.subplots(math.ceil(len(keys) / columns), columns, squeeze=False)
        for axes, key in zip(grid.flat, keys, strict=False):
            x, y = _finite(trial, x_key, key)
            _line(axes, x, y, PALETTE[0], key, False)
            axes.set_title(key.rsplit("/", 1)[-1], fontsize=9)
            _steps_axis(axes, x_key)
            axes.tick_params(labelsize=8)
            axes.set_xlabel(axes.get_xlabel(), fontsize=8)
        for axes in list(grid.flat)[len(keys) :]:
            axes.remove()

    return draw


def loss_size(keys: Sequence[str]) -> tuple[float, float]:
    return 9.0, 2.1 * math.ceil(len(keys) / min(3, len(keys)))


def draw_iterates(iterates: Iterates, max_dimensions: int = 8) -> Draw:
    """Figures 14 and 15: a row an iteration, a column an action dimension; samples coloured by cost, the mean."""
    shown = min(iterates.action_size, max_dimensions)

    def draw(figure: Figure, theme: Theme) -> None:
        views = iterates.views
        width, height = figure.get_size_inches()
        left, right, top, bottom = 0.7 / width, 1 - 1.15 / width, 1 - 0.3 / height, 0.55 / height
        margins = {"left": left, "right": right, "top": top, "bottom": bottom, "wspace": 0.12, "hspace": 0.16}
        # Fixed margins: laying out four rows of panels automatically takes seconds.
        grid = figure.subplots(len(views), shown, squeeze=False, sharex=True, sharey=True, gridspec_kw=margins)
        costs = np.concatenate([v.costs for v in views])
        low, high = np.percentile(costs, [1, 95])
        scale = Normalize(low, high if high > low else low + 1.0)
        shades = np.linspace(0, 0.93, 200) if theme.name == "light" else np.linspace(1, 0.2, 200)
        cmap = ListedColormap(matplotlib.colormaps["viridis"](shades))  # the cheapest stand out from the page
        ahead = np.arange(1, iterates.horizon + 1)
        for row, view in zip(grid, views, strict=True):
            order = _spread(view.costs)
            for d, axes in enumerate(row):
                segments = [np.column_stack([ahead, view.actions[j, :, d]]) for j in order]
                lines = LineCollection(segments, array=view.costs[order], cmap=cmap, norm=scale, lw=0.7, alpha=0.5)
                axes.add_collection(lines)
                axes.plot(ahead, view.mean[:, d], color=theme.surface, lw=3.6)
                axes.plot(ahead, view.mean[:, d], color="#e5383b", lw=1.8)
                axes.set_xlim(1, max(iterates.horizon, 1.5))
                axes.set_ylim(-1.08, 1.08)
                axes.set_yticks([-1, 0, 1])
                axes.grid(False)
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                axes.tick_params(labelsize=8)
            row[0].set_ylabel(f"iteration {view.number}", fontsize=9)
        for d, axes in enumerate(grid[0]):
            axes.set_title(f"action {d + 1}", fontsize=9)
        figure.supxlabel("decisions ahead", fontsize=9, y=0.02)
        scalar = matplotlib.cm.ScalarMappable(norm=scale, cmap=cmap)
        bar = figure.colorbar(scalar, cax=figure.add_axes((1 - 1.0 / width, bottom, 0.12 / width, top - bottom)))
        bar.set_label("cost (minus predicted return)", fontsize=9)
        bar.ax.grid(False)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)

    return draw


def iterates_size(iterates: Iterates, max_dimensions: int = 8) -> tuple[float, float]:
    return 1.9 + 1.4 * min(iterates.action_size, max_dimensions), 0.85 + 1.2 * len(iterates.views)


def _spread(costs: np.ndarray) -> np.ndarray:
    """Indices to draw: at most SAMPLE_LIMIT, evenly over the ranks, the cheapest last and so on top. costs [N]."""
    worst_first = np.argsort(-costs, kind="stable")
    if costs.size <= SAMPLE_LIMIT:
        return worst_first
    return worst_first[np.linspace(0, costs.size - 1, SAMPLE_LIMIT).round().astype(int)]


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str, thick: bool) -> None:
    marker = "." if x.size < 3 else None
    axes.plot(x, y, color=color, lw=2.6 if thick else 1.5, label=label, marker=marker, zorder=3 if thick else 2)


def _finite(trial: Trial, x_key: str, y_key: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = trial.column(x_key), trial.column(y_key)
    keep = np.isfinite(x) & np.isfinite(y)
    return x[keep], y[keep]


def _steps_axis(axes: Axes, x_key: str) -> None:
    if x_key == "env_steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("environment steps")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("PPO steps")
    axes.set_xlim(left=0)


def _long(trials: Sequence[Trial]) -> bool:
    return max((len(t.label) for t in trials), default=0) > 36 or len(trials) == 1


def _wrap(text: str, width: int = 22) -> str:
    """Break long names at spaces (and cut endless ones), so that tick labels do not run into each other."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            word = word if len(word) <= width else word[: width - 1] + "…"
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return "\n".join(lines)
