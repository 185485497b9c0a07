"""Several runs side by side: one page with a table, box plots and learning curves across them.

Of studies, which have no agent to evaluate, the trials are pooled (`pooling`): parts of one sweep are shown as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parsecrl.platform.errors import UserError
from parsecrl.platform.reports import figures, markup, paper, studies
from parsecrl.platform.reports.data import RANDOM, Phase, Run, load_run
from parsecrl.platform.reports.pooling import Study, pools, studies_of, write_pools
from parsecrl.platform.reports.table import EXPLANATION, HEADINGS, table_rows, text_table
from parsecrl.platform.storage import Location


def build_comparison(run_dirs: Sequence[str | Location], out: str | Path) -> Path:
    """Write a page that compares runs, and its figures beside it.

    out: the page, ending in .html (figures in <name>_figures/), or a folder that gets index.html and figures/, and of
    studies their pooled tables, so that it can be reported on, compared and pooled like a run.

    Raises UserError for fewer than two folders, or one that holds no run.
    """
    if len(run_dirs) < 2:
        raise UserError(f"a comparison needs at least two run folders, got {len(run_dirs)}; name another one")
    runs = _labelled([load_run(folder) for folder in run_dirs])
    out = Path(out).expanduser().resolve()
    page = out if out.suffix == ".html" else out / "index.html"
    folder = page.parent / ("figures" if page.name == "index.html" else f"{page.stem}_figures")
    shown, acting = studies_of(runs), [(label, run) for label, run in runs if run.acting]
    tasks = list(dict.fromkeys(run.task for _, run in runs))
    title = f"Comparison of {len(runs)} runs"
    body = [
        f"<header><h1>{markup.escape(title)}</h1>{markup.paragraph(', '.join(tasks), 'soft')}</header>",
        *([_table(acting), _boxes(acting, folder), _curves(acting, folder)] if acting else []),
        *(part for number, study in enumerate(shown) for part in _study(study, folder / f"study-{number + 1}")),
    ]
    if shown and page.name == "index.html":
        write_pools(page.parent, page.parent.name, runs[0][1].spec, pools(runs))
    return markup.write_page(page, markup.page(title, body))


def pooled_tables(run_dirs: Sequence[str | Location]) -> str:
    """The tables of what is pooled, as text; empty where no run has a study."""
    parts = []
    for study in studies_of(_labelled([load_run(folder) for folder in run_dirs])):
        found = studies.table_of(study.phase, study.tables) if study.tables else None
        parts += [_title(study), text_table(found.headings, found.rows) if found else "not analysed", _repeated(study)]
    return "\n".join(filter(None, parts))


def _study(study: Study, folder: Path) -> list[str]:
    return studies.sections_of(study.phase, _title(study), study.tables, folder, _repeated(study))


def _title(study: Study) -> str:
    return f"{study.names} of {', '.join(study.pools[0].runs)}"


def _repeated(study: Study) -> str:
    return f"{study.repeated} trials came more than once; the first run's are shown." if study.repeated else ""


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
