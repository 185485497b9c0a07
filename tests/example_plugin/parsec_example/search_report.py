"""The search study in a report: a table of what was reached, and how it was reached."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.figures import Plot, Theme, color_of, log_scale, render_all
from parsecrl.algorithms.reporting.study_report import ResultTable, StudyReport, Tables


def result_table(tables: Tables) -> ResultTable:
    table = tables["searches"]
    rows = []
    for method, part in table.groupby("method"):
        last = part[part["evaluations"] == part["evaluations"].max()]
        low, median, high = last["best"].quantile([0.25, 0.5, 0.75])
        evaluations = f"{last['evaluations'].iloc[0]:,}"
        rows.append((str(method), f"{len(last)}", evaluations, f"{median:.3g} [{low:.3g}, {high:.3g}]"))
    headings = ("method", "searches", "evaluations", "lowest cost, median [quartiles]")
    return ResultTable(headings, rows, "The lowest cost that is possible is 0.")


def sections(phase: str, tables: Tables, folder: Path) -> list[str]:
    caption = "The lowest cost until then, median over searches."
    plot = Plot(partial(draw, tables), (6.4, 3.8), "Lowest cost over the evaluations of a search", caption)
    images = render_all({"searches": plot}, folder, phase).values()
    return [markup.section(f"figures-{phase}", f"Figures of {phase}", *map(markup.figure, images))]


def draw(tables: Tables, figure: Figure, theme: Theme) -> None:
    axes = figure.subplots()
    medians = tables["searches"].groupby(["method", "evaluations"])["best"].median().unstack(0)
    for i, method in enumerate(medians):
        axes.plot(medians.index, medians[method], color=color_of(i, len(medians.columns)), label=method)
    log_scale(axes)
    axes.set_xlabel("evaluations")
    axes.set_ylabel("lowest cost")
    axes.legend()


REPORT = StudyReport(result_table, sections, trial_columns=("method", "seed"))
