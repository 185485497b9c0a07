"""The planning experiment in the report: figures 2 and 4 of Saanum and Schulz (2022), and what plans cost.

Tables: see `parsecrl.algorithms.latent_planning.analysis`. Intervals are over seeds, by Student's t.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter1d

from parsecrl.algorithms.latent_study import map_report
from parsecrl.algorithms.latent_study import report_parts as shared
from parsecrl.algorithms.latent_study.report_parts import env_title, envs, model_color, model_title, models, of
from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.cells import NOTHING
from parsecrl.algorithms.reporting.figures import RED, Plot, Theme, draw_band, render_all
from parsecrl.algorithms.reporting.statistics import mean_interval
from parsecrl.algorithms.reporting.study_report import ResultTable, StudyReport, Tables

BOUND = "true_dynamics"  # the model that is the world itself
SMOOTHING = 2.0  # tasks: the standard deviation of the paper's filter
COST_HEADINGS = (
    "environment",
    "model",
    "plans",
    "asked",
    "evaluated",
    "saved",
    "transformations",
    "plan ms",
    "refit s",
)
COST_NOTE = (
    "Of a plan, means over all trials: transitions that its search asked for; those that were evaluated, equal "
    "prefixes of actions once; the share that this saved; transformations decoded, equal codes once (models with "
    "codes); milliseconds. Of a task: plans, and seconds of the refit after it."
)


def result_table(tables: Tables) -> ResultTable:
    """Scores with their intervals, and what plans cost (Saanum and Schulz 2022, section 4.4, figure 4).

    Args:
        tables: Of `analyse`; scores, tasks and budgets are read.

    Returns:
        A row for each environment and model.
    """
    scores, tasks = tables["scores"], tables["tasks"]
    headings = tuple("tasks" if name == "episodes" else name for name in shared.SCORE_HEADINGS)
    pairs = [(env, model) for env in envs(scores) for model in models(scores[scores["env"] == env])]
    rows = [
        (*row, *cost(of(tasks, env, model))[3:6:2])  # saved, plan ms
        for row, (env, model) in zip(shared.score_rows(scores), pairs, strict=True)
    ]
    note = (
        f"{shared.score_note(scores)} Saved: the share of the transitions that plans asked for and that were not "
        f"evaluated again. {_budgets(tables['budgets'])} The paper prints no numbers; its finding: the "
        "parsimonious model has the best score in all three environments, pooled over tasks and "
        "seeds (section 4.4, figure 4)."
    )
    return ResultTable((*headings, "saved", "plan ms"), rows, note)


def sections(phase: str, tables: Tables, folder: Path) -> list[str]:
    """Figure 4, what plans cost, and where there are learned models in grid worlds, what these have learned.

    Args:
        phase: Its name, with which the files' names begin.
        tables: Of `analyse`.
        folder: Where the figures are drawn.

    Returns:
        Sections of HTML.
    """
    drawn = render_all(plots(tables), folder, phase).values()
    parts = [markup.section(f"figures-{phase}", f"Figures of {phase}", *map(markup.figure, drawn))]
    if "maps" in tables:
        parts.append(markup.section(f"maps-{phase}", "Whether latents are maps", *map_report.table(tables["maps"])))
    if "transformations" in tables and len(tables["transformations"]):
        used = shared.transformation_table(tables["transformations"])
        parts.append(markup.section(f"transformations-{phase}", "Distinct transformations", *used))
    costs = markup.table(COST_HEADINGS, cost_rows(tables["tasks"]))
    note = markup.paragraph(f"{COST_NOTE} {_budgets(tables['budgets'])}", "soft small")
    return [*parts, markup.section(f"costs-{phase}", "What planning costs", costs, note)]


def plots(tables: Tables) -> dict[str, Plot]:
    """Make the plots that the tables have data for.

    Args:
        tables: Of `analyse`.

    Returns:
        Plots by name: totals, tasks, latents, predictions, and those of `map_report`.
    """
    size = shared.panels_size(len(envs(tables["scores"])))
    made = {
        "totals": Plot(
            partial(draw_totals, tables["scores"]),
            size,
            "Mean score of a task by model and environment",
            "Score of a task, mean over all tasks; bars: means over seeds with 95 % intervals, dots: seeds, dashed: "
            "planning in the true dynamics. After the paper's figure 4, top.",
        ),
        "tasks": Plot(
            partial(draw_tasks, tables["scores"]),
            size,
            "Score over tasks by model and environment",
            f"Score over tasks: dots are single tasks, lines means over seeds smoothed by a Gaussian of {SMOOTHING:g} "
            "tasks, bands 95 % intervals. After the paper's figure 4, bottom.",
            wide=True,
        ),
    }
    if "latents" in tables and len(tables["latents"]):
        made["latents"] = Plot(
            partial(shared.draw_latents, tables),
            shared.latents_size(tables),
            "Latents of all cells",
            "Latents of all cells in the plane of their first two principal components, cells joined as in the world; "
            "a row an environment, the first seed of each model. After the paper's figure 2.",
            wide=True,
        )
    made |= map_report.plots(tables)
    if "predictions" in tables and len(tables["predictions"]):
        made["predictions"] = Plot(
            partial(shared.draw_predictions, tables["predictions"]),
            shared.panels_size(len(envs(tables["predictions"])), 5.4),
            "Errors of predictions",
            shared.PREDICTION_CAPTION,
            wide=True,
        )
    return made


def draw_totals(scores: pd.DataFrame, figure: Figure, theme: Theme) -> None:
    """Mean score of a task, a bar a model, a panel an environment (Saanum and Schulz 2022, figure 4, top).

    Args:
        scores: Columns env, model, seed, episode, score.
        figure: Drawn into.
        theme: Colours of the page.
    """
    means = scores.groupby(["env", "model", "seed"])["score"].mean().reset_index()
    shown = envs(scores)
    grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, env in zip(grid, shown, strict=True):
        present = models(scores[scores["env"] == env])
        bars = [model for model in present if model != BOUND]
        for x, model in enumerate(bars):
            values = of(means, env, model)["score"].to_numpy()
            mean, low, high = mean_interval(values)
            color = model_color(model, scores)
            axes.bar(x, mean, width=0.7, color=color + "88", edgecolor=color)
            axes.plot(np.full(len(values), x), values, ".", ms=4, color=color)
            if np.isfinite(low):
                axes.plot([x, x], [low, high], color=theme.ink, lw=1.6)
        if BOUND in present:
            best = float(of(means, env, BOUND)["score"].mean())
            axes.axhline(best, color=RED, lw=1.4, ls="--", label=model_title(BOUND))
        axes.axhline(0.0, color=theme.paper, lw=0.8)
        axes.set_xticks(range(len(bars)), [model_title(model).replace(", ", "\n") for model in bars])
        axes.set_xlim(-0.6, max(len(bars), 1) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_title(env_title(env))
    grid[0].set_ylabel("mean score of a task")
    shared.legend(figure)


def draw_tasks(scores: pd.DataFrame, figure: Figure, theme: Theme) -> None:
    """The score of each task in the order in which they were played (Saanum and Schulz 2022, figure 4, bottom).

    Args:
        scores: Columns env, model, seed, episode, score.
        figure: Drawn into.
        theme: Colours of the page.
    """
    shown = envs(scores)
    grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, env in zip(grid, shown, strict=True):
        here = scores[scores["env"] == env]
        for model in models(here):
            part, color = of(here, env, model), model_color(model, scores)
            axes.plot(part["episode"], part["score"], ".", ms=2.5, color=color, alpha=0.35)
            draw_band(axes, *smoothed(part), color, model_title(model), lw=1.8)
        axes.set_title(env_title(env))
        axes.set_xlabel("task")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    grid[0].set_ylabel("score of the task")
    shared.legend(figure)


def smoothed(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Scores of one model in one environment: each seed's smoothed over tasks, then the interval over seeds.

    Args:
        part: Columns seed, episode, score.

    Returns:
        Tasks [n], and (mean, low, high) over seeds [n, 3]. Tasks that a seed has not played are left out for all.
    """
    table = part.pivot_table(index="episode", columns="seed", values="score").dropna()
    values = gaussian_filter1d(table.to_numpy(dtype=float), SMOOTHING, axis=0, mode="nearest")  # [tasks, seeds]
    return table.index.to_numpy(dtype=float), np.array([mean_interval(row) for row in values])


def cost_rows(tasks: pd.DataFrame) -> list[tuple[str, ...]]:
    """What plans cost, a row for each environment and model.

    Args:
        tasks: The table of `analyse`.

    Returns:
        Rows of text, a cell for each of COST_HEADINGS.
    """
    return [
        (env_title(env), model_title(model), *cost(of(tasks, env, model)))
        for env in envs(tasks)
        for model in models(tasks[tasks["env"] == env])
    ]


def cost(part: pd.DataFrame) -> tuple[str, ...]:
    """What plans of one model in one environment cost.

    Args:
        part: The rows of `tasks` that are theirs.

    Returns:
        The cells of COST_HEADINGS after the first two.
    """
    plans, asked = int(part["num_plans"].sum()), int(part["num_asked"].sum())
    refit = f"{part['refit_seconds'].mean():.3g}"
    if not plans:
        return (f"{part['num_plans'].mean():.1f}", *[NOTHING] * 5, refit)
    evaluated, decoded = int(part["num_evaluated"].sum()), int(part["num_transformations"].sum())
    return (
        f"{part['num_plans'].mean():.1f}",
        f"{asked / plans:,.0f}",
        f"{evaluated / plans:,.0f}",
        f"{1 - evaluated / asked:.0%}",
        f"{decoded / plans:,.0f}" if decoded else NOTHING,
        f"{1e3 * part['planning_seconds'].sum() / plans:,.3g}",
        refit,
    )


def _budgets(budgets: pd.DataFrame) -> str:
    """Every budget that trials had, in words."""
    columns = ["budget", "horizon", "num_samples", "num_elites", "num_iterations", "gradient_steps"]
    told = [
        f"Budget {b.budget}: horizon {b.horizon}, {b.num_samples} samples, {b.num_elites} elites, {b.num_iterations} "
        f"iterations, {b.gradient_steps} gradient steps a task."
        for b in budgets[columns].drop_duplicates().itertuples()
    ]
    return " ".join(told)


REPORT = StudyReport(result_table, sections, shared.TRIAL)
