"""Policies over latents in the report: figures 2 and 3 of Saanum and Schulz (2022), and what the paper did not measure.

Tables: see `parsecrl.algorithms.latent_sac.analysis` and `parsecrl.algorithms.latent_study.report_parts`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parsecrl.algorithms.latent_study import map_report
from parsecrl.algorithms.latent_study import report_parts as shared
from parsecrl.algorithms.latent_study.report_parts import envs, models, of
from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.figures import Plot, Theme, mean_intervals, render_all
from parsecrl.algorithms.reporting.study_report import ResultTable, StudyReport, Tables

FINDING = (
    "The paper prints curves, not numbers. Its finding: the parsimonious model has the best total "
    "score in all three environments (section 4.3, figure 3)."
)
EVALUATIONS_CAPTION = (
    " Dots: evaluations without exploration, the same episodes each time; means over seeds, bars: 95 % intervals."
)


def result_table(tables: Tables) -> ResultTable:
    """Total scores with their intervals, beside what the paper says (Saanum and Schulz 2022, section 4.3, figure 3).

    Args:
        tables: Of `analyse`; scores is read.

    Returns:
        A row for each environment and model.
    """
    scores = tables["scores"]
    note = f"{shared.score_note(scores)} {FINDING}"
    return ResultTable(shared.SCORE_HEADINGS, shared.score_rows(scores), note)


def sections(phase: str, tables: Tables, folder: Path) -> list[str]:
    """Figures 3 and 2, whether latents are maps, the transformations, and predictions of what was never visited.

    Args:
        phase: Its name, with which the files' names begin.
        tables: Of `analyse`.
        folder: Where the figures are drawn.

    Returns:
        One section of HTML.
    """
    drawn = {name: markup.figure(image) for name, image in render_all(plots(tables), folder, phase).items()}
    parts = [drawn[name] for name in ("curves", "latents") if name in drawn]
    if "maps" in tables:
        shown = (drawn[name] for name in ("map_measures", "maps") if name in drawn)
        parts += [markup.heading("Whether latents are maps"), *shown, *map_report.table(tables["maps"])]
    used = tables.get("transformations", pd.DataFrame())
    if len(used):
        parts += [markup.heading("Distinct transformations"), *shared.transformation_table(used)]
    if "predictions" in drawn:
        parts += [markup.heading("Predictions of transitions that were never visited"), drawn["predictions"]]
    return [markup.section(f"figures-{phase}", f"Figures of {phase}", *parts)]


def plots(tables: Tables) -> dict[str, Plot]:
    """Make the plots that the tables have data for.

    Args:
        tables: Of `analyse`.

    Returns:
        Plots by name: curves, latents, predictions, and those of `map_report`.
    """
    made = {
        "curves": Plot(
            partial(draw_curves, tables),
            shared.panels_size(len(envs(tables["scores"]))),
            "Learning curves by environment and model",
            "Return of training episodes; lines: means over seeds, bands: 95 % intervals. After the paper's figure 3."
            + EVALUATIONS_CAPTION * ("evaluations" in tables),
            wide=True,
        )
    }
    if "latents" in tables:
        made["latents"] = Plot(
            partial(shared.draw_latents, tables),
            shared.latents_size(tables),
            "Principal components of the latents of all cells",
            "The cells in the plane of the first two principal components of their latents, joined as they are in the "
            "world; hue tells the column, lightness the row. The first seed of each. After the paper's figure 2.",
            wide=True,
        )
    made |= map_report.plots(tables)
    moments = measured_moments(tables)
    if moments:
        predictions = tables["predictions"]
        at = predictions["env"].map({env: n for env, (n, _) in moments.items()})
        when = ", ".join(
            f"{shared.env_title(env)} after {n} episodes, when {share:.0%} of the transitions were unvisited"
            for env, (n, share) in moments.items()
        )
        made["predictions"] = Plot(
            partial(shared.draw_predictions, predictions[predictions["episodes"] == at]),
            shared.panels_size(len(moments), 5.6),
            "Errors of multi-step predictions",
            f"{shared.PREDICTION_CAPTION} Measured in the {when}.",
            wide=True,
        )
    return made


def draw_curves(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Training scores over episodes, and the evaluations while training where there are any.

    Args:
        tables: Of `analyse`; scores and evaluations are read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    scores = tables["scores"]
    shared.draw_curves(scores, figure, theme)
    if len(evaluations := tables.get("evaluations", pd.DataFrame())):
        for axes, env in zip(figure.axes, envs(scores), strict=True):
            here = evaluations[evaluations["env"] == env]
            for model in models(here):
                _draw_evaluations(axes, of(here, env, model), shared.model_color(model, scores))
        figure.axes[0].plot([], [], "o:", color=theme.ink, ms=5, lw=0.9, label="evaluations")
    shared.legend(figure)


def _draw_evaluations(axes: Axes, part: pd.DataFrame, color: str) -> None:
    """Those of one model in one environment: the first of each seed, the second, and so on."""
    _, found = mean_intervals(part["score"], part["number"])
    x, mean = part.groupby("number")["episode"].mean().to_numpy(), found[:, 0]
    least, most = axes.get_ylim()
    axes.errorbar(x, mean, np.nan_to_num(mean - found[:, 1]), color=color, fmt="o:", ms=5, lw=0.9, capsize=2, zorder=4)
    margin = 0.04 * (most - least)
    axes.set_ylim(min(least, mean.min() - margin), max(most, mean.max() + margin))


def measured_moments(tables: Tables) -> dict[str, tuple[int, float]]:
    """Choose the measurement of predictions that is shown.

    It is the last one at which most trials have unvisited transitions to be tested on: later ones would compare what is
    left.

    Args:
        tables: Of `analyse`; predictions is read, where there is one.

    Returns:
        Environment -> the number of episodes, and the mean share of unvisited transitions then, in [0, 1].
    """
    predictions = tables.get("predictions", pd.DataFrame())
    found: dict[str, tuple[int, float]] = {}
    for env in envs(predictions) if len(predictions) else ():
        here = predictions[(predictions["env"] == env) & (predictions["step"] == 1)]
        new = here[here["first"] == "new"].groupby("episodes").size()
        if len(new):
            moment = int(new[new == new.max()].index.max())
            found[env] = (moment, float(here[here["episodes"] == moment]["unvisited"].mean()))
    return found


REPORT = StudyReport(result_table, sections, shared.TRIAL)
