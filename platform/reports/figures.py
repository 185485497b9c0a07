"""The figures of runs: returns, learning curves, losses and what the planner tries."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from parsecrl.algorithms.registry.algorithm import EVALUATION as EVALUATED
from parsecrl.algorithms.reporting.figures import COSTS, PALETTE, RED, Plot, Theme, color_bar, color_of
from parsecrl.platform.reports.iterates import Iterates
from parsecrl.platform.reports.loaded_run import Phase, Run, Trial
from parsecrl.platform.reports.paper_results import CURVE_LABEL, CURVES, LABEL, PaperResult, result_for

KIND_COLORS = {"full": PALETTE[0], "embedded": PALETTE[1], "ppo": PALETTE[2], "random policy": "#8b8f98"}
LEGEND_LIMIT = 8
MANY = 20  # trials, from which on curves are thin and coloured by their last return
SAMPLE_LIMIT = 150
FEW = 2  # results, up to which a curve is drawn as points
RETURN = "episode_return_mean"
EVALUATED_STD = "evaluation_return_std"
ACTION_LIMIT = 8  # dimensions of the action that are shown


def boxes(run: Run) -> Plot:
    """A box a controller, the paper's quartiles beside each of the run's (DCEM paper, figure 4).

    Args:
        run: Its phases that were evaluated are shown.

    Returns:
        The plot.
    """
    shown = [phase for phase in run.rows if phase.statistics]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        ticks, labels = [], []
        for x, phase in enumerate(shown):
            reference = result_for(run.task, phase.kind)
            own = x - 0.2 if reference else x
            _box(axes, own, phase, KIND_COLORS.get(phase.kind, PALETTE[4]), theme)
            if reference:
                _reference_box(axes, x + 0.2, reference, theme)
            ticks.append(x)
            labels.append(f"{phase.name}\n{phase.title}" if phase.name != phase.title else phase.name)
        if any(result_for(run.task, phase.kind) for phase in shown):
            axes.plot([], [], "s", ms=9, mfc="none", mec=theme.paper, label=f"paper, {LABEL} (its own budget)")
            axes.legend(loc="upper left", bbox_to_anchor=(0, 1.12), borderaxespad=0)
        axes.set_xticks(ticks, [_wrap(label) for label in labels])
        axes.set_xlim(-0.6, len(ticks) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("return of one episode")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))

    return Plot(
        draw,
        (max(5.0, 1.4 + 2.0 * len(shown)), 4.2),
        "Box plot of evaluation returns by controller",
        f"Evaluation returns on {run.task}: box, quartiles and median; whiskers, the farthest episode within 1.5 times "
        f"the interquartile range; dots, episodes beyond. After the paper's figure 4; where it has a box for the "
        f"controller, that stands beside the measured box, without whiskers.",
    )


def _box(axes: Axes, x: float, phase: Phase, color: str, theme: Theme, width: float = 0.34) -> None:
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
    axes.boxplot(phase.returns, **style)


def _reference_box(axes: Axes, x: float, reference: PaperResult, theme: Theme) -> None:
    """The paper's quartiles: no whiskers, for they were not read."""
    box = {"med": reference.median, "q1": reference.q25, "q3": reference.q75, "fliers": []}
    box |= {"whislo": reference.q25, "whishi": reference.q75}
    line = {"color": theme.paper, "linewidth": 1.2}
    axes.bxp([box], positions=[x], widths=0.26, showcaps=False, manage_ticks=False, boxprops=line, medianprops=line)


def curve_axis(phase: Phase) -> str:
    """The column that a phase's learning curve runs over.

    Args:
        phase: With its trials.

    Returns:
        ppo_steps of a phase that fine-tunes an agent, where its results count them; otherwise env_steps.
    """
    counted = any(np.isfinite(t.column("ppo_steps")).any() for t in phase.trials)
    return "ppo_steps" if phase.keeps_controller and counted else "env_steps"


def has_curve(trial: Trial | None, axis: str) -> bool:
    """Whether there is a result to draw over the axis.

    Args:
        trial: None has none.
        axis: A column of `curve_axis`.

    Returns:
        True where a result has both the column and a return.
    """
    return trial is not None and bool(np.isfinite(trial.column(axis) * trial.column(RETURN)).any())


def curves(phase: Phase, task: str) -> Plot:
    """The return of every trial over training; the chosen trial is the thick line (DCEM paper, figures 11 to 13).

    Args:
        phase: With its trials.
        task: As `task_of` names it; the paper's curve is drawn where it has one.

    Returns:
        The plot.
    """
    x_key = curve_axis(phase)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        sweep, end = len(phase.trials) > 1, 0.0
        many = len(phase.trials) >= MANY
        if many:
            _thin_lines(figure, axes, phase, x_key, theme)
        for i, trial in enumerate(phase.trials):
            x, y = finite(trial, x_key, RETURN)
            if not x.size:
                continue
            end = max(end, float(x.max()))
            chosen = sweep and trial is phase.best
            label = trial.label + " (chosen)" * chosen if sweep else "this run, training return"
            if not chosen and len(phase.trials) > LEGEND_LIMIT:
                label = "_"  # not in the legend; the page's table has them all
            color = RED if many else color_of(i, len(phase.trials))
            if not many or chosen:
                _line(axes, x, y, color, label, chosen)
            if chosen or not sweep:
                _evaluations(axes, trial, x_key, color if sweep else PALETTE[1])
        at = [float(v) for v in map(phase.reached.get, (x_key, _score_key(phase))) if isinstance(v, int | float)]
        if len(at) == 2:
            axes.plot(*at, "*", ms=13, mfc=theme.ink, mec=theme.surface, mew=0.8, zorder=4)
        points = [p for p in CURVES.get((task, phase.kind), ()) if p[0] <= 1.5 * end] if x_key == "env_steps" else []
        if points:
            axes.plot(*zip(*points, strict=True), "D", ms=5, mfc="none", mec=theme.paper, label=CURVE_LABEL)
        if sweep or points or _is_evaluated(phase):
            figure.legend(loc="outside lower left", ncols=1 if _long(phase.trials) else 2)
        axes.set_ylabel("return" if _is_evaluated(phase) else "training return\n(mean of the last 10 episodes)")
        _steps_axis(axes, x_key)

    legend = min(len(phase.trials), LEGEND_LIMIT) if len(phase.trials) > 1 else 0
    unit = "PPO steps" if x_key == "ppo_steps" else "environment steps (simulator steps)"
    evaluated = (
        " Dots: evaluations without exploration, the same episodes each time, with an episode's standard deviation."
        if _is_evaluated(phase)
        else ""
    )
    star = " Star: the checkpoint that was chosen." if phase.reached else ""
    return Plot(
        draw,
        (9.4, 3.7 + 0.2 * legend),
        f"Learning curve of phase {phase.name}",
        f"Return of training episodes, exploration included, over {unit}.{evaluated}{star}",
    )


def _is_evaluated(phase: Phase) -> bool:
    return any(np.isfinite(trial.column(EVALUATED)).any() for trial in phase.trials)


def _score_key(phase: Phase) -> str:
    return EVALUATED if phase.reached.get(EVALUATED) is not None else RETURN


def _evaluations(axes: Axes, trial: Trial, x_key: str, color: str) -> None:
    x, y = finite(trial, x_key, EVALUATED)
    if x.size:
        spread = np.nan_to_num(finite_at(trial, x_key, EVALUATED, EVALUATED_STD))
        style = {"lw": 1.2, "marker": "o"} if x.size > FEW else {"ls": "", "marker": "o"}
        axes.errorbar(
            x, y, spread, color=color, ms=5, elinewidth=0.9, capsize=2, zorder=4, label="evaluations", **style
        )


def _thin_lines(figure: Figure, axes: Axes, phase: Phase, x_key: str, theme: Theme) -> None:
    """The curves of many trials, the best on top, and a bar that tells their colours."""
    found = [(x, y) for x, y in (finite(trial, x_key, RETURN) for trial in phase.trials) if x.size]
    if not found:
        return
    last = np.array([y[-1] for _, y in found])
    order = np.argsort(last, kind="stable")
    scale = Normalize(*np.percentile(last, [5, 95]))
    lines = [np.column_stack(found[i]) for i in order]
    drawn = LineCollection(lines, array=last[order], cmap=COSTS.reversed(), norm=scale, lw=0.8, alpha=0.6)
    axes.add_collection(drawn)
    bar = figure.colorbar(ScalarMappable(norm=scale, cmap=COSTS.reversed()), ax=axes, aspect=30)
    bar.set_label("last return of a trial", fontsize=9)
    bar.outline.set_visible(False)  # type: ignore[operator]
    axes.autoscale_view()


def comparison_curves(series: Sequence[tuple[str, str, Phase]]) -> Plot:
    """The chosen trial of one phase, a line a run.

    Args:
        series: The label and colour of each run, and its phase; one or more.

    Returns:
        The plot.
    """
    x_key = curve_axis(series[0][2])

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        for label, color, phase in series:
            trial = phase.best
            if trial is not None:
                x, y = finite(trial, x_key, RETURN)
                _line(axes, x, y, color, label, False)
        figure.legend(loc="outside lower left", ncols=1 if len(series) < 3 else 2)
        axes.set_ylabel("training return\n(mean of the last 10 episodes)")
        _steps_axis(axes, x_key)

    return Plot(
        draw,
        (9.4, 3.7 + 0.12 * len(series)),
        f"Learning curves of phase {series[0][2].name}",
        "Return of training episodes; of a sweep, the chosen trial.",
    )


def comparison_boxes(runs: Sequence[tuple[str, Run]], names: Sequence[str]) -> Plot:
    """A group of boxes a phase, a colour a run.

    Args:
        runs: Each with its label.
        names: Phases that are shown, in their order.

    Returns:
        The plot.
    """

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

    return Plot(
        draw,
        (max(5.5, 1.4 + 0.7 * len(names) * len(runs)), 4.0 + 0.1 * len(runs)),
        "Box plot of evaluation returns by phase and run",
        "Evaluation returns by phase; box, quartiles and median; whiskers within 1.5 times the interquartile range.",
    )


def losses(phase: Phase, trial: Trial, keys: Sequence[str]) -> Plot:
    """What the learner reported, a small panel each.

    Args:
        phase: Of the trial.
        trial: Whose results are shown.
        keys: Columns of the results; one or more.

    Returns:
        The plot.
    """
    columns, x_key = min(3, len(keys)), curve_axis(phase)
    rows = math.ceil(len(keys) / columns)

    def draw(figure: Figure, theme: Theme) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, key in zip(grid.flat, keys, strict=False):
            x, y = finite(trial, x_key, key)
            _line(axes, x, y, PALETTE[0], key, False)
            axes.set_title(key.rsplit("/", 1)[-1], fontsize=9)
            _steps_axis(axes, x_key)
            axes.tick_params(labelsize=8)
            axes.set_xlabel(axes.get_xlabel(), fontsize=8)
        for axes in list(grid.flat)[len(keys) :]:
            axes.remove()

    return Plot(
        draw,
        (9.0, 2.1 * rows),
        f"Learner metrics of phase {phase.name}",
        f"What the learner reported, trial {trial.label}.",
        wide=True,
    )


def plan_iterates(phase: Phase, iterates: Iterates) -> Plot:
    """What the planner tries (DCEM paper, figures 14 and 15).

    A row an iteration, a column an action dimension; samples are coloured by cost, the mean is red.

    Args:
        phase: Whose controller planned.
        iterates: What it tried; ACTION_LIMIT dimensions at most are shown.

    Returns:
        The plot.
    """
    shown = min(iterates.action_size, ACTION_LIMIT)

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
        cmap = COSTS
        ahead = np.arange(1, iterates.horizon + 1)
        for row, view in zip(grid, views, strict=True):
            order = _spread(view.costs)
            for d, axes in enumerate(row):
                segments = [np.column_stack([ahead, view.actions[j, :, d]]) for j in order]
                lines = LineCollection(segments, array=view.costs[order], cmap=cmap, norm=scale, lw=0.7, alpha=0.5)
                axes.add_collection(lines)
                axes.plot(ahead, view.mean[:, d], color=theme.surface, lw=3.6)
                axes.plot(ahead, view.mean[:, d], color=RED, lw=1.8)
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
        label = "cost (minus predicted return)"
        color_bar(figure, scale, cmap, label, right=1.0, bottom=0.55, top=0.3)

    numbers = ", ".join(str(view.number) for view in iterates.views)
    return Plot(
        draw,
        (1.9 + 1.4 * shown, 0.85 + 1.2 * len(iterates.views)),
        f"Planning iterates of phase {phase.name}",
        f"Iterations {numbers} of one plan, for the belief after {iterates.decisions} decisions "
        f"({iterates.env_steps} environment steps) from a random initial state. Each thin line is one sample "
        f"({iterates.sampled}), coloured by its cost, which is {iterates.cost}; red: the "
        f"mean after the iteration. At most {SAMPLE_LIMIT} samples a panel, evenly over their ranks. After figures 14 "
        f"and 15 in the appendix of the paper's earlier version.",
        wide=True,
        automatic=False,
    )


def _spread(costs: np.ndarray) -> np.ndarray:
    """Indices to draw: at most SAMPLE_LIMIT, evenly over the ranks, the cheapest last and so on top. costs [N]."""
    worst_first = np.argsort(-costs, kind="stable")
    if costs.size <= SAMPLE_LIMIT:
        return worst_first
    return worst_first[np.linspace(0, costs.size - 1, SAMPLE_LIMIT).round().astype(int)]


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str, thick: bool) -> None:
    style: dict[str, Any] = {"lw": 2.6 if thick else 1.5} if x.size > FEW else {"ls": "", "marker": "o", "ms": 6}
    axes.plot(x, y, color=color, label=label, zorder=3 if thick else 2, **style)


def finite(trial: Trial, x_key: str, y_key: str) -> tuple[np.ndarray, np.ndarray]:
    """The points of a trial's curve.

    Args:
        trial: With n results.
        x_key: Column of x.
        y_key: Column of y.

    Returns:
        x and y of the results that have both, each [m], m <= n.
    """
    x, y = trial.column(x_key), trial.column(y_key)
    keep = np.isfinite(x) & np.isfinite(y)
    return x[keep], y[keep]


def finite_at(trial: Trial, x_key: str, y_key: str, other: str) -> np.ndarray:
    """A third column at the points of a trial's curve.

    Args:
        trial: With n results.
        x_key: Column of x.
        y_key: Column of y.
        other: The third column.

    Returns:
        [m], as `finite` has points.
    """
    keep = np.isfinite(trial.column(x_key)) & np.isfinite(trial.column(y_key))
    return trial.column(other)[keep]


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


def _wrap(text: str) -> str:
    """Lines that do not run into the next label's, three of each of the text's at most."""
    return "\n".join(
        textwrap.fill(line, 22, max_lines=3, placeholder="…", break_on_hyphens=False) for line in text.split("\n")
    )
