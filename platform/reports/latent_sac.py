"""Policies over latents in the report: figures 2 and 3 of Saanum and Schulz (2022), and what the paper did not measure.

Tables: see `parsecrl.algorithms.latent_sac.analysis` and `parsecrl.platform.reports.parsimony`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from parsecrl.platform.reports import figures, markup, parsimony
from parsecrl.platform.reports.data import Phase
from parsecrl.platform.reports.figures import Draw, Image
from parsecrl.platform.reports.parsimony import Tables, envs
from parsecrl.platform.reports.studies import ResultTable

TRIAL = parsimony.TRIAL
FINDING = (
    "The paper prints curves, not numbers. Its finding: ours has the best total score in all three environments "
    "(section 4.3, figure 3)."
)


def result_table(tables: Tables) -> ResultTable:
    scores = tables["scores"]
    note = f"{parsimony.score_note(scores)} {FINDING}"
    return ResultTable(parsimony.SCORE_HEADINGS, parsimony.score_rows(scores), note)


def sections(phase: Phase, tables: Tables, folder: Path) -> list[str]:
    """Figures 3 and 2, the transformations, and predictions of what was never visited."""
    drawn, moments = draw_all(tables, folder, phase.name), measured_moments(tables)
    parts = [
        markup.figure(
            drawn["curves"],
            "Return of training episodes; lines: means over seeds, bands: 95 % intervals. After the paper's figure 3.",
            wide=True,
        )
    ]
    if "latents" in drawn:
        caption = (
            "The cells in the plane of the first two principal components of their latents, joined as they are in the "
            "world; hue tells the column, lightness the row. The first seed of each. After the paper's figure 2."
        )
        parts.append(markup.figure(drawn["latents"], caption, wide=True))
    used = tables.get("transformations", pd.DataFrame())
    if len(used):
        rows = parsimony.transformation_rows(used)
        parts += [
            markup.heading("Distinct transformations"),
            markup.table(parsimony.TRANSFORMATION_HEADINGS, rows),
            markup.paragraph(parsimony.TRANSFORMATION_NOTE, "soft small"),
        ]
    if "predictions" in drawn:
        when = ", ".join(
            f"{parsimony.env_title(env)} after {n} episodes, when {share:.0%} of the transitions were unvisited"
            for env, (n, share) in moments.items()
        )
        parts += [
            markup.heading("Predictions of transitions that were never visited"),
            markup.figure(drawn["predictions"], f"{parsimony.PREDICTION_CAPTION} Measured in the {when}.", wide=True),
        ]
    return [markup.section(f"figures-{phase.name}", f"Figures of {phase.name}", *parts)]


def draw_all(tables: Tables, folder: Path, prefix: str) -> dict[str, Image]:
    """Every figure by its name, drawn into folder as <prefix>-<name>.png."""
    made: dict[str, tuple[Draw, tuple[float, float], str]] = {
        "curves": (
            parsimony.draw_curves(tables["scores"], ylabel="return of an episode"),
            parsimony.panels_size(len(envs(tables["scores"]))),
            "Learning curves by environment and model",
        )
    }
    if "latents" in tables:
        size = parsimony.latents_size(tables)
        made["latents"] = (parsimony.draw_latents(tables), size, "Principal components of the latents of all cells")
    moments = measured_moments(tables)
    if moments:
        predictions = tables["predictions"]
        at = predictions["env"].map({env: n for env, (n, _) in moments.items()})
        shown = predictions[predictions["episodes"] == at]
        size = parsimony.panels_size(len(moments), 5.6)
        made["predictions"] = (parsimony.draw_predictions(shown), size, "Errors of multi-step predictions")
    return {
        name: figures.render(draw, folder, f"{prefix}-{name}", size, alt) for name, (draw, size, alt) in made.items()
    }


def measured_moments(tables: Tables) -> dict[str, tuple[int, float]]:
    """Environment -> the number of episodes whose measurement is shown, and the mean share of unvisited transitions.

    The last one at which most trials have unvisited transitions to be tested on: later ones would compare what is left.
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
