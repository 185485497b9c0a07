"""The table that ends a run: what was measured, beside what the paper reports."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from parsecrl.platform.reports import paper
from parsecrl.platform.reports.data import RANDOM, Phase, Run, from_summary, load_run
from parsecrl.platform.storage import Location
from parsecrl.platform.terminal import text_table

if TYPE_CHECKING:
    from parsecrl.platform.reports.pooling import Study

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
NOTHING, NOT_EVALUATED = "-", "not evaluated"
NOTE_WIDTH = 120


def format_table(run: str | Location | dict[str, Any] | Run) -> str:
    """The table as text, for a run folder, a summary (as in summary.json) or a run already loaded."""
    if isinstance(run, dict):
        run = from_summary(run)
    elif not isinstance(run, Run):
        run = load_run(run)
    parts = [f"{run.name}: {run.task}"]
    if run.acting:
        parts += [text_table(HEADINGS, table_rows(run), 2, "-"), _fill(EXPLANATION), _fill(paper.note(run.task))]
    if run.studies:
        parts += _study_tables(run)
    return "\n".join(filter(None, parts))


def _study_tables(run: Run) -> list[str]:
    from parsecrl.platform.reports import pooling  # which imports this module, by way of markup

    parts = []
    for study in pooling.studies_of([(run.name, run)]):
        title = f"{study.names}: {study.phase.algorithm.replace('_', ' ')}" if len(run.phases) > 1 else ""
        parts += study_table(study, title)
    return parts


def study_table(study: Study, title: str) -> list[str]:
    """Lines of text."""
    from parsecrl.platform.reports import studies

    found = studies.table_of(study.phase, study.tables) if study.tables else None
    if found is None:
        return [title, "not analysed"]
    return [title, text_table(found.headings, found.rows, 2, "-"), _fill(found.note)]


def _fill(note: str) -> str:
    return textwrap.fill(note, NOTE_WIDTH)


def table_rows(run: Run) -> list[tuple[str, ...]]:
    """One tuple of cells a phase, in the order of HEADINGS; the random policy comes first."""
    return [_row(run, phase) for phase in run.rows]


def _row(run: Run, phase: Phase) -> tuple[str, ...]:
    s = phase.statistics
    reference = paper.result_for(run.task, phase.kind)
    is_random = phase.name == RANDOM
    return (
        phase.name,
        "random policy" if is_random else phase.title,
        count(phase.trajectories),
        NOTHING if is_random else count(phase.env_steps),
        count(s.episodes) if s else NOTHING,
        f"{s.median:.0f} [{s.q25:.0f}, {s.q75:.0f}]" if s else NOT_EVALUATED,
        f"{s.iqm:.0f} ({s.iqm_low:.0f} to {s.iqm_high:.0f})" if s else NOTHING,
        NOTHING if is_random else milliseconds(phase.planning_ms),
        f"{reference.median:.0f} [{reference.q25:.0f}, {reference.q75:.0f}]" if reference else NOTHING,
    )


def count(value: float | None) -> str:
    return NOTHING if value is None else f"{round(value):,}"


def milliseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
