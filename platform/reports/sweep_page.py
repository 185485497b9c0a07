"""A sweep's part of a page, and its tables as CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.cells import NOTHING, count
from parsecrl.algorithms.reporting.figures import render
from parsecrl.platform.reports import sweep_figures
from parsecrl.platform.reports.loaded_run import Phase
from parsecrl.platform.reports.sweep import SCORE, SEEDS, STEPS, TRIAL, Sweep, frame_of, sweep_of

HEADINGS = ("key", "value", "trials", "mean (95 %)", "difference (95 %)", "verdict")
EXPLANATION = (
    "score: of a trial's last result. mean: over all trials with the value, whatever their other keys, with Student's "
    "interval. difference: from the key's first value; {pairing}. verdict: better or worse where the difference's "
    "interval leaves out 0."
)
PAIRED = "trials pair that differ in this key alone, as the grid is full"
UNPAIRED = "with Welch's interval, as trials differ in other keys too"
NO_IMPORTANCE = (
    "The importance of keys is told of two keys or more and ten trials or more, with pip install 'parsec-rl[optuna]'."
)


def sweep_section(phases: Mapping[int, Phase], name: str, title: str, out: Path) -> Markup | None:
    """What a sweep says, as a section; its tables are written too.

    Args:
        phases: The phase by the seed of its chain.
        name: In the page's links, and in the names of files.
        title: What the page calls it.
        out: The report's folder; figures go to figures/, tables to tables/.

    Returns:
        HTML; None where there is no sweep of two trials or more.
    """
    sweep = sweep_of(phases)
    if sweep is None:
        return None
    write_tables(sweep, out / "tables", name)
    plots = {"effects": sweep_figures.effects(sweep), "parallel": sweep_figures.parallel_coordinates(sweep)}
    if sweep.importance:
        plots["importance"] = sweep_figures.importance(sweep)
    if len(sweep.keys) > 1:
        plots["pairs"] = sweep_figures.heat_maps(sweep)
    changed = sweep_figures.schedules(next(iter(phases.values())), sweep.keys)
    if changed is not None:
        plots["schedules"] = changed
    drawn = {kind: markup.figure(render(plot, out / "figures", f"{name}-{kind}")) for kind, plot in plots.items()}
    explanation = EXPLANATION.format(pairing=PAIRED if sweep.is_full_grid else UNPAIRED)
    parts = [
        markup.paragraph(_budget(sweep)),
        markup.heading("Best settings"),
        markup.table(*_best(sweep)),
        markup.paragraph("Lines for a spec with extends: that trains with the first row's settings alone:", "small"),
        Markup("<pre><code>{}</code></pre>").format(sweep.reproduction.strip()),
        markup.heading("Effect of each key"),
        markup.table(HEADINGS, effect_rows(sweep)),
        markup.paragraph(explanation, "soft small"),
        drawn["effects"],
        markup.heading("Importance"),
        drawn.get("importance", markup.paragraph(NO_IMPORTANCE, "soft small")),
        *([markup.heading("Pairs of keys"), drawn["pairs"]] if "pairs" in drawn else []),
        markup.heading("Trials"),
        drawn["parallel"],
        drawn.get("schedules", Markup("")),
        markup.paragraph(f"Tables: tables/{name}-trials.csv, tables/{name}-effects.csv and .tex.", "soft small"),
    ]
    return markup.section(name, title, *parts)


def effect_rows(sweep: Sweep) -> list[tuple[str, ...]]:
    """The effects as text.

    Args:
        sweep: With its effects.

    Returns:
        Cells in the order of HEADINGS.
    """
    return [
        (
            e.key,
            e.value,
            str(e.trials),
            f"{e.mean:.4g}" + _interval(e.mean_low, e.mean_high, ".4g"),
            NOTHING if math.isnan(e.difference) else f"{e.difference:+.3g}" + _interval(e.low, e.high, "+.3g"),
            e.verdict,
        )
        for e in sweep.effects
    ]


def write_tables(sweep: Sweep, folder: Path, name: str) -> None:
    """Write the trials as CSV, and the effects as CSV and LaTeX.

    Args:
        sweep: What is written.
        folder: Made where it is missing.
        name: What the files' names begin with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep.rows.to_csv(folder / f"{name}-trials.csv", index=False)
    frame_of(sweep.effects).to_csv(folder / f"{name}-effects.csv", index=False)
    write_latex(HEADINGS, effect_rows(sweep), folder / f"{name}-effects.tex")


def write_latex(headings: Sequence[str], rows: Sequence[Sequence[str]], file: Path) -> None:
    """Write a table of text as a LaTeX tabular, for booktabs.

    Args:
        headings: Of the columns.
        rows: A cell for each heading.
        file: Written anew.
    """
    frame = pd.DataFrame(rows, columns=list(headings))
    file.write_text(frame.to_latex(index=False, escape=True), encoding="utf-8")


def _interval(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f" ({low:{form}} to {high:{form}})"


def _best(sweep: Sweep) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    headings = ("trial", *sweep.searched, "score", "env steps")
    rows = []
    for _, row in sweep.best().iterrows():
        values = (f"{row[key]:.4g}" if isinstance(row[key], float) else str(row[key]) for key in sweep.searched)
        steps = None if math.isnan(row[STEPS]) else row[STEPS]
        rows.append((row[TRIAL], *values, f"{row[SCORE]:.4g}", count(steps)))
    return headings, rows


def _budget(sweep: Sweep) -> str:
    spent = sweep.budget
    seeds = sweep.rows[SEEDS].nunique()
    said = [f"{spent['trials']:.0f} trials" + (f" over {seeds} seeds" if seeds > 1 else "")]
    said += [f"{spent['failed']:.0f} of them without a score"] if spent["failed"] else []
    said += [f"{count(spent[STEPS])} environment steps"] if math.isfinite(spent[STEPS]) else []
    said += [f"{spent['hours']:.3g} hours of trials"] if math.isfinite(spent["hours"]) else []
    return "Spent: " + ", ".join(said) + "."
