"""Several runs side by side: one page with a table, box plots and learning curves across them.

Of studies, which have no agent to evaluate, the trials are pooled (`pooling`): parts of one sweep are shown as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.figures import color_of, render
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import RANDOM
from parsecrl.platform.reports import figures
from parsecrl.platform.reports.loaded_run import Phase, Run, load_run
from parsecrl.platform.reports.pages import write_page
from parsecrl.platform.reports.paper_results import note
from parsecrl.platform.reports.pooling import studies_of, write_pools
from parsecrl.platform.reports.results_table import EXPLANATION, HEADINGS, study_sections, study_table, table_rows
from parsecrl.platform.storage import Location


class Comparison(NamedTuple):
    """What `build_comparison` made."""

    page: Path
    table: str  # of the studies, as text; empty where no run has one


def build_comparison(run_dirs: Sequence[str | Location], out: str | Path) -> Comparison:
    """Write a page that compares two or more runs, or shows one with a study, and its figures beside it.

    Args:
        run_dirs: Run folders, on disk or in an object store.
        out: The page, ending in .html (figures in <name>_figures/); or a folder that gets index.html and figures/. A
            folder gets the studies' pooled tables too, and can be reported on, compared and pooled like a run.

    Returns:
        The page, and the tables of the studies as text.

    Raises:
        UserError: There are too few folders, one holds no run, or as `write_pools` does.
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
    compared: dict[str, Any] = {}
    if acting:
        compared = {
            "results": (("run", *HEADINGS), [(label, *row) for label, run in acting for row in table_rows(run)]),
            "explanation": EXPLANATION,
            "notes": [note(task) for task in dict.fromkeys(run.task for _, run in acting)],
            "folders": [(label, str(run.address(run.folder))) for label, run in acting],
            "returns": _boxes(acting, folder),
            "curves": _curves(acting, folder),
        }
    write_page(
        page,
        "comparison.html",
        title=f"Comparison of {len(runs)} runs" if len(runs) > 1 else runs[0][0],
        tasks=tasks,
        acting=acting,
        # Studies of one name have figures of their own.
        studies=[
            part
            for number, study in enumerate(shown, start=1)
            for part in study_sections(study, f"{number}-{study.phase.name}", study.title, folder, study.note)
        ],
        **compared,
    )
    text = "\n".join(part for study in shown for part in (*study_table(study, study.title), study.note) if part)
    return Comparison(page, text)


def _labelled(runs: Sequence[Run]) -> list[tuple[str, Run]]:
    """A name for each run: its folder's, with as many parents as it takes to tell them apart."""
    labels = [run.folder.name for run in runs]
    depth = 1
    while len(set(labels)) < len({run.folder for run in runs}):
        depth += 1
        labels = ["/".join(run.address(run.folder).parts[-depth:]) for run in runs]
    return list(zip(labels, runs, strict=True))


def _boxes(runs: Sequence[tuple[str, Run]], folder: Path) -> Markup | None:
    names = list(dict.fromkeys(p.name for _, run in runs for p in run.rows if p.statistics))
    names.sort(key=lambda name: name != RANDOM)
    return markup.figure(render(figures.comparison_boxes(runs, names), folder, "returns")) if names else None


def _curves(runs: Sequence[tuple[str, Run]], folder: Path) -> list[tuple[str, Markup]]:
    """A phase's name and figure; phases of one name that have other units have one each."""
    groups: dict[tuple[str, str], list[tuple[str, str, Phase]]] = {}
    for i, (label, run) in enumerate(runs):
        for phase in run.phases:
            axis = figures.curve_axis(phase)
            if figures.has_curve(phase.best, axis):
                groups.setdefault((phase.name, axis), []).append((label, color_of(i, len(runs)), phase))
    return [
        (name, markup.figure(render(figures.comparison_curves(series), folder, f"curve-{number}")))
        for number, ((name, _), series) in enumerate(groups.items(), start=1)
    ]
