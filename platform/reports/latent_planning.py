"""The planning experiment in the report: figures 2 and 4 of Saanum and Schulz (2022), and what plans cost.

Tables: see `parsecrl.algorithms.latent_planning.analysis`. Intervals are over seeds, by Student's t.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parsecrl.platform.reports import figures, markup, parsimony
from parsecrl.platform.reports.data import Phase
from parsecrl.platform.reports.figures import Draw, Image, Theme
from parsecrl.platform.reports.parsimony import Tables, env_title, envs, model_color, model_title, models, of
from parsecrl.platform.reports.studies import ResultTable
from parsecrl.platform.statistics import mean_interval

TRIAL = parsimony.TRIAL
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
    scores, tasks = tables["scores"], tables["tasks"]
    headings = tuple("tasks" if name == "episodes" else name for name in parsimony.SCORE_HEADINGS)
    pairs = [(env, model) for env in envs(scores) for model in models(scores[scores["env"] == env])]
    rows = [
        (*row, *cost(of(tasks, env, model))[3:6:2])  # saved, plan ms
        for row, (env, model) in zip(parsimony.score_rows(scores), pairs, strict=True)
    ]
    note = (
        f"{parsimony.score_note(scores)} Saved: the share of the transitions that plans asked for and that were not "
        f"evaluated again. {_budgets(tables['budgets'])} The paper prints no numbers; its finding: ours has the best "
        "score in all three environments, pooled over tasks and seeds (section 4.4, figure 4)."
    )
    return ResultTable((*headings, "saved", "plan ms"), rows, note)


def sections(phase: Phase, tables: Tables, folder: Path) -> list[str]:
    """Figure 4, what plans cost, and where there are learned models in worlds of cells, what these have learned."""
    drawn = draw_all(tables, folder, phase.name)
    captions = {
        "totals": "Score of a task, mean over all tasks; bars: means over seeds with 95 % intervals, dots: seeds, "
        "dashed: planning in the true dynamics. After the paper's figure 4, top.",
        "tasks": f"Score over tasks: dots are single tasks, lines means over seeds smoothed by a Gaussian of "
        f"{SMOOTHING:g} tasks, bands 95 % intervals. After the paper's figure 4, bottom.",
        "latents": "Latents of all cells in the plane of their first two principal components, cells joined as in the "
        "world; a row an environment, the first seed of each model. After the paper's figure 2.",
        "predictions": parsimony.PREDICTION_CAPTION,
    }
    shown = [markup.figure(image, captions[name], wide=name != "totals") for name, image in drawn.items()]
    parts = [markup.section(f"figures-{phase.name}", f"Figures of {phase.name}", *shown)]
    if "transformations" in tables and len(tables["transformations"]):
        rows = parsimony.transformation_rows(tables["transformations"])
        note = markup.paragraph(parsimony.TRANSFORMATION_NOTE, "soft small")
        table = markup.table(parsimony.TRANSFORMATION_HEADINGS, rows)
        parts.append(markup.section(f"transformations-{phase.name}", "Distinct transformations", table, note))
    costs = markup.table(COST_HEADINGS, cost_rows(tables["tasks"]))
    note = markup.paragraph(f"{COST_NOTE} {_budgets(tables['budgets'])}", "soft small")
    return [*parts, markup.section(f"costs-{phase.name}", "What planning costs", costs, note)]


def draw_all(tables: Tables, folder: Path, prefix: str) -> dict[str, Image]:
    """Every figure by its name, drawn into folder as <prefix>-<name>.png."""
    size = parsimony.panels_size(len(envs(tables["scores"])))
    made: dict[str, tuple[Draw, tuple[float, float], str]] = {
        "totals": (draw_totals(tables["scores"]), size, "Mean score of a task by model and environment"),
        "tasks": (draw_tasks(tables["scores"]), size, "Score over tasks by model and environment"),
    }
    if "latents" in tables and len(tables["latents"]):
        made["latents"] = (parsimony.draw_latents(tables), parsimony.latents_size(tables), "Latents of all cells")
    if "predictions" in tables and len(tables["predictions"]):
        panels = parsimony.panels_size(len(envs(tables["predictions"])), 5.4)
        made["predictions"] = (parsimony.draw_predictions(tables["predictions"]), panels, "Errors of predictions")
    return {
        name: figures.render(draw, folder, f"{prefix}-{name}", inches, alt)
        for name, (draw, inches, alt) in made.items()
    }


def draw_totals(scores: pd.DataFrame) -> Draw:
    """Figure 4, top: a bar a model, a panel an environment."""
    means = scores.groupby(["env", "model", "seed"])["score"].mean().reset_index()

    def draw(figure: Figure, theme: Theme) -> None:
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
                axes.axhline(best, color="#e5383b", lw=1.4, ls="--", label=model_title(BOUND))
            axes.axhline(0.0, color=theme.paper, lw=0.8)
            axes.set_xticks(range(len(bars)), [model_title(model).replace(", ", "\n") for model in bars])
            axes.set_xlim(-0.6, max(len(bars), 1) - 0.4)
            axes.grid(axis="x", visible=False)
            axes.set_title(env_title(env))
        grid[0].set_ylabel("mean score of a task")
        parsimony.legend(figure)

    return draw


def draw_tasks(scores: pd.DataFrame) -> Draw:
    """Figure 4, bottom: the score of each task in the order in which they were played."""

    def draw(figure: Figure, theme: Theme) -> None:
        shown = envs(scores)
        grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
        for axes, env in zip(grid, shown, strict=True):
            here = scores[scores["env"] == env]
            for model in models(here):
                part, color = of(here, env, model), model_color(model, scores)
                axes.plot(part["episode"], part["score"], ".", ms=2.5, color=color, alpha=0.35)
                x, low, mean, high = smoothed(part)
                axes.plot(x, mean, color=color, lw=1.8, label=model_title(model))
                axes.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
            axes.set_title(env_title(env))
            axes.set_xlabel("task")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        grid[0].set_ylabel("score of the task")
        parsimony.legend(figure)

    return draw


def smoothed(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(task, low, mean, high) of one model in one environment: each seed's scores smoothed, then the seeds' interval.

    Tasks that a seed has not played are left out for all.
    """
    from scipy.ndimage import gaussian_filter1d

    table = part.pivot_table(index="episode", columns="seed", values="score").dropna()
    values = gaussian_filter1d(table.to_numpy(dtype=float), SMOOTHING, axis=0, mode="nearest")  # [tasks, seeds]
    found = np.array([mean_interval(row) for row in values])
    return table.index.to_numpy(dtype=float), found[:, 1], found[:, 0], found[:, 2]


def cost_rows(tasks: pd.DataFrame) -> list[tuple[str, ...]]:
    return [
        (env_title(env), model_title(model), *cost(of(tasks, env, model)))
        for env in envs(tasks)
        for model in models(tasks[tasks["env"] == env])
    ]


def cost(part: pd.DataFrame) -> tuple[str, ...]:
    """Of one model in one environment, the cells of COST_HEADINGS after the first two."""
    plans, asked = int(part["num_plans"].sum()), int(part["num_asked"].sum())
    refit = f"{part['refit_seconds'].mean():.3g}"
    if not plans:
        return (f"{part['num_plans'].mean():.1f}", "-", "-", "-", "-", "-", refit)
    evaluated, decoded = int(part["num_evaluated"].sum()), int(part["num_transformations"].sum())
    return (
        f"{part['num_plans'].mean():.1f}",
        f"{asked / plans:,.0f}",
        f"{evaluated / plans:,.0f}",
        f"{1 - evaluated / asked:.0%}",
        f"{decoded / plans:,.0f}" if decoded else "-",
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
