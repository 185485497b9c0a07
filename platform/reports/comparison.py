"""Several runs side by side: one page with a table, box plots and learning curves across them.

Of studies, which have no agent to evaluate, the trials are pooled (`pooling`): parts of one sweep are shown as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parsecrl.platform.errors import UserError
from parsecrl.platform.reports import figures, markup, paper, studies
from parsecrl.platform.reports.data import RANDOM, Phase, Run, load_run
from parsecrl.platform.reports.pooling import Study, studies_of, write_pools
from parsecrl.platform.reports.table import EXPLANATION, HEADINGS, study_table, table_rows
from parsecrl.platform.storage import Location


class Comparison(NamedTuple):
    page: Path
    table: str  # of the studies, as text; empty where no run has one


def build_comparison(run_dirs: Sequence[str | Location], out: str | Path) -> Comparison:
    """Write a page that compares runs, and its figures beside it.

    out: the page, ending in .html (figures in <name>_figures/), or a folder that gets index.html and figures/, and of
    studies their pooled tables, so that it can be reported on, compared and pooled like a run.

    run_dirs: two or more, or one with a study, of which a folder keeps what is light.
    Raises UserError for too few folders, one that holds no run, and as `write_pools` does.
    """
    if "://" in str(out):
        raise UserError(f"--out must be a file or folder on this machine, got {out}; copy it from there")
    runs = _labelled([load_run(folder) for folder in run_dirs])
    if len(runs) < 2 and not any(run.studies for _, run in runs):
        raise UserError(f"a comparison needs at least two run folders, got {len(runs)}; name another one")
    out = Path(out).expanduser().resolve()
    page = out if out.suffix == ".html" else out / "index.html"
    folder = page.parent / f"{page.stem}_figures" if page == out else out / "figures"
    shown, acting = studies_of(runs), [(label, run) for label, run in runs if run.acting]
    if shown and page != out:
        write_pools(out, shown, [str(folder) for folder in run_dirs])
    tasks = list(dict.fromkeys(run.task for _, run in runs))
    title = f"Comparison of {len(runs)} runs" if len(runs) > 1 else runs[0][0]
    body = [
        f"<header><h1>{markup.escape(title)}</h1>{markup.paragraph(', '.join(tasks), 'soft')}</header>",
        *([_table(acting), _boxes(acting, folder), _curves(acting, folder)] if acting else []),
        *(part for number, study in enumerate(shown) for part in _study(study, number, folder)),
    ]
    text = "\n".join(part for study in shown for part in (*study_table(study, study.title), study.note) if part)
    return Comparison(markup.write_page(page, markup.page(title, body)), text)


def _study(study: Study, number: int, folder: Path) -> list[str]:
    # Studies of one name have figures of their own.
    phase = replace(study.phase, name=f"{number + 1}-{study.phase.name}")
    return studies.sections_of(phase, study.title, study.tables, folder, study.note)


def _labelled(runs: Sequence[Run]) -> list[tuple[str, Run]]:
    """A name for each run: its folder's, with as many parents as it takes to tell them apart."""
    labels = [run.folder.name for run in runs]
    depth = 1
    while len(set(labels)) < len({run.folder for run in runs}):
        depth += 1
        labels = ["/".join(run.address(run.folder).parts[-depth:]) for run in runs]
    return list(zip(labels, runs, strict=True))


def _table(runs: Sequence[tuple[str, Run]]) -> str:
    rows = [(label, *row) for label, run in runs for row in table_rows(run)]
    folders = [(label, str(run.address(run.folder))) for label, run in runs]
    notes = [paper.note(task) for task in dict.fromkeys(run.task for _, run in runs)]
    return markup.section(
        "results",
        "Results",
        markup.table(("run", *HEADINGS), rows),
        markup.paragraph(EXPLANATION, "soft small"),
        *(markup.paragraph(note, "soft small") for note in notes),
        markup.details("Run folders", markup.table(("run", "folder"), folders)),
    )


def _boxes(runs: Sequence[tuple[str, Run]], folder: Path) -> str:
    names = list(dict.fromkeys(p.name for _, run in runs for p in run.rows if p.statistics))
    if not names:
        return markup.section("returns", "Returns", markup.paragraph("None of these runs was evaluated yet."))
    names.sort(key=lambda name: name != RANDOM)
    size = (max(5.5, 1.4 + 0.7 * len(names) * len(runs)), 4.0 + 0.1 * len(runs))
    draw = figures.draw_comparison_boxes(runs, names)
    image = figures.render(draw, folder, "returns", size, "Box plot of evaluation returns by phase and run")
    caption = (
        "Evaluation returns by phase; box, quartiles and median; whiskers within 1.5 times the interquartile range."
    )
    return markup.section("returns", "Returns", markup.figure(image, caption))


def _curves(runs: Sequence[tuple[str, Run]], folder: Path) -> str:
    groups: dict[tuple[str, str], list[tuple[str, str, Phase]]] = {}
    for i, (label, run) in enumerate(runs):
        for phase in run.phases:
            trial, axis = phase.best, figures.curve_axis(phase)
            if trial is not None and np.isfinite(trial.column(axis) * trial.column("episode_return_mean")).any():
                groups.setdefault((phase.name, axis), []).append((label, figures.color_of(i, len(runs)), phase))
    parts = []
    for number, ((name, _), series) in enumerate(groups.items(), start=1):
        size = (9.4, 3.7 + 0.12 * len(series))
        draw = figures.draw_comparison_curves(series)
        image = figures.render(draw, folder, f"curve-{number}", size, f"Learning curves of phase {name}")
        caption = "Return of training episodes; of a sweep, the chosen trial."
        parts += [markup.heading(name), markup.figure(image, caption)]
    return markup.section(
        "curves", "Learning curves", *(parts or [markup.paragraph("No training result was found.", "soft")])
    )
