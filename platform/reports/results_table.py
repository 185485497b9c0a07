"""The table that ends a run: what was measured, beside what the paper reports."""

from __future__ import annotations

import textwrap
from pathlib import Path

from markupsafe import Markup

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.cells import NOT_EVALUATED, NOTHING, count, milliseconds, score
from parsecrl.platform.evaluation.episodes import RANDOM
from parsecrl.platform.reports import paper_results
from parsecrl.platform.reports.loaded_run import Phase, Run, load_run
from parsecrl.platform.reports.over_seeds import format_chains, has_chains, load_chains
from parsecrl.platform.reports.pooling import Study, studies_of
from parsecrl.platform.reports.studies import study_report_of
from parsecrl.platform.reports.warnings import warnings_of
from parsecrl.platform.storage import Location, location_of
from parsecrl.platform.terminal import text_table

HEADINGS = (
    "phase",
    "controller",
    "trajectories",
    "env steps",
    "episodes",
    "median [quartiles]",
    "IQM (95 %)",
    "plan ms",
    "paper, fig. 4",
)
EXPLANATION = (
    "trajectories: action sequences scored per decision; env steps: simulator steps of training in that phase; "
    "IQM: interquartile mean with its 95 % bootstrap interval; plan ms: planning milliseconds per decision; "
    "returns are sums of rewards over an episode."
)
NOTE_WIDTH = 120


def format_table(run: str | Location | Run) -> str:
    """The table that ends a run, as text.

    Args:
        run: A run folder, on disk or in an object store, or a run that was loaded.

    Returns:
        Lines: a row a phase that acts, then a table for each study, and last what is wrong with the run.

    Raises:
        UserError: The folder holds no run.
    """
    if not isinstance(run, Run):
        where = location_of(run)
        if has_chains(where):
            return format_chains(where.name, load_chains(where))
        run = load_run(run)
    parts = [f"{run.name}: {run.task}"]
    if run.acting:
        parts += [
            text_table(HEADINGS, table_rows(run), 2, "-"),
            _fill(EXPLANATION),
            _fill(paper_results.note(run.task)),
        ]
    for study in studies_of([(run.name, run)]):
        title = f"{study.names}: {study.phase.algorithm.replace('_', ' ')}" if len(run.phases) > 1 else ""
        parts += study_table(study, title)
    parts += [textwrap.fill(f"warning: {w.text}", NOTE_WIDTH, subsequent_indent="  ") for w in warnings_of(run)]
    return "\n".join(filter(None, parts))


def study_table(study: Study, title: str) -> list[str]:
    """A study's table as text.

    Args:
        study: With its tables, or not analysed yet.
        title: Stands above.

    Returns:
        Title, table and note.
    """
    report = study_report_of(study.phase.entry)
    if report is None or not study.tables:
        return [title, "not analysed"]
    found = report.result_table(study.tables)
    return [title, text_table(found.headings, found.rows, 2, "-"), _fill(found.note)]


def study_sections(study: Study, name: str, title: str, folder: Path, note: str = "") -> list[Markup]:
    """A study's part of a page.

    Args:
        study: With its tables, or not analysed yet.
        name: In the page's links, and in the names of the figures' files.
        title: What the page calls it.
        folder: Figures are drawn into it.
        note: Below the table.

    Returns:
        Sections of HTML.
    """
    report = study_report_of(study.phase.entry)
    if report is None or not study.tables:
        return [markup.section(f"results-{name}", title, markup.paragraph("Nothing was analysed yet."))]
    found = report.result_table(study.tables)
    notes = [markup.paragraph(text, "soft small") for text in (found.note, note) if text]
    table = markup.section(f"results-{name}", f"Results of {title}", markup.table(found.headings, found.rows), *notes)
    return [table, *map(Markup, report.sections(name, study.tables, folder))]


def _fill(note: str) -> str:
    return textwrap.fill(note, NOTE_WIDTH)


def table_rows(run: Run) -> list[tuple[str, ...]]:
    """What the evaluations of a run found, a row a phase; the random policy comes first.

    Args:
        run: That was loaded.

    Returns:
        Cells in the order of HEADINGS; none where no phase acts.
    """
    return [_row(run, phase) for phase in run.rows]


def _row(run: Run, phase: Phase) -> tuple[str, ...]:
    s = phase.statistics
    reference = paper_results.result_for(run.task, phase.kind)
    is_random = phase.name == RANDOM
    return (
        phase.name,
        "random policy" if is_random else phase.title,
        count(phase.trajectories),
        NOTHING if is_random else count(phase.env_steps),
        count(s.episodes) if s else NOTHING,
        f"{score(s.median)} [{score(s.q25)}, {score(s.q75)}]" if s else NOT_EVALUATED,
        f"{score(s.iqm)} ({score(s.iqm_low)} to {score(s.iqm_high)})" if s else NOTHING,
        NOTHING if is_random else milliseconds(phase.planning_ms),
        f"{reference.median:.0f} [{reference.q25:.0f}, {reference.q75:.0f}]" if reference else NOTHING,
    )
