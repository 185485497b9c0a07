"""The page of a run with seeds or variants: tables over the seeds, curves, returns and performance profiles."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.figures import Plot, Theme, color_of, render
from parsecrl.platform.evaluation.episodes import RANDOM
from parsecrl.platform.reports import figures
from parsecrl.platform.reports.loaded_run import Phase
from parsecrl.platform.reports.local_copy import LocalCopy
from parsecrl.platform.reports.opening import opening_over_seeds
from parsecrl.platform.reports.over_seeds import (
    EXPLANATION,
    Cell,
    Chains,
    load_chains,
    summary_of,
    tables,
    warnings_over,
)
from parsecrl.platform.reports.pages import write_page
from parsecrl.platform.reports.pooling import studies_of
from parsecrl.platform.reports.results_table import study_sections
from parsecrl.platform.reports.sweep_page import sweep_section, write_latex
from parsecrl.platform.storage import Location, RemotePath, location_of, write_atomically

GRID = 200  # points of a mean curve


def build_chains_report(run_dir: str | Location) -> Location:
    """Write report/index.html and summary.json into the folder of a run with seeds or variants.

    Args:
        run_dir: The run's folder, on disk or in an object store.

    Returns:
        The page, where the run is.
    """
    where = location_of(run_dir)
    found = load_chains(where)
    copy = LocalCopy(where) if isinstance(where, RemotePath) else None
    folder = copy.folder if copy else Path(str(where)).resolve()
    out = folder / "report"
    _write_tables(found, out / "tables")
    spec_text = (folder / "spec.yaml").read_text(encoding="utf-8")
    runs = list(found.runs.items())
    first = next(iter(found.runs.values()), None)
    seeds = sorted({chain.seed for chain in found.chains})
    page = write_page(
        out / "index.html",
        "over_seeds.html",
        title=f"{where.name}: {first.task}" if first else where.name,
        opening=opening_over_seeds(found, summary_of(found)),
        facts=[
            f"{len(found.runs)} of {len(found.chains)} chains begun",
            f"seeds {', '.join(map(str, seeds))}",
            f"report made {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        ],
        tables=tables(found),
        warnings=warnings_over(found),
        explanation=EXPLANATION,
        phases=[(phase, _figures(phase, found, out / "figures")) for phase in _acting(found)],
        studies=[
            *_sweeps(found, out),
            *(
                part
                for number, study in enumerate(studies_of(runs), start=1)
                for part in study_sections(
                    study, f"{number}-{study.phase.name}", study.title, out / "figures", study.note
                )
            ),
        ],
        plan_headings=("chain", "variant", "seed", "shared", "report"),
        plan=[
            (
                chain.name,
                chain.variant,
                str(chain.seed),
                ", ".join(f"{phase} with {owner}" for phase, owner in chain.shared.items()),
                f"chains/{chain.name}/report/index.html" if chain.name in found.runs else "not begun",
            )
            for chain in found.chains
        ],
        spec=Markup("<pre>{}</pre>").format(escape(spec_text)),
    )
    write_atomically(
        where / "summary.json",
        json.dumps({"name": where.name, "phases": summary_of(found), "warnings": warnings_over(found)}, indent=1),
    )
    if copy is None:
        return page
    copy.send_back(out)
    return copy.address_of(page)


def _write_tables(found: Chains, folder: Path) -> None:
    """The tables of the page as CSV and LaTeX."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (headings, listed) in zip(("results", "comparisons"), tables(found), strict=False):
        pd.DataFrame(listed, columns=list(headings)).to_csv(folder / f"{name}.csv", index=False)
        write_latex(headings, listed, folder / f"{name}.tex")


def _sweeps(found: Chains, out: Path) -> list[Markup]:
    """A section for each phase and variant that searches, over its seeds."""
    parts = []
    for variant in found.variants:
        mine: dict[str, dict[int, Phase]] = {}
        for chain in found.chains:
            run = found.runs.get(chain.name)
            for phase in run.phases if run is not None and chain.variant == variant else ():
                if phase.name not in chain.shared and len(phase.trials) > 1:
                    mine.setdefault(phase.name, {})[chain.seed] = phase
        of = f", {variant}" if found.several else ""
        for name, phases in mine.items():
            parts.append(sweep_section(phases, f"sweep-{name}-{variant}", f"Sweep of {name}{of}", out))
    return [part for part in parts if part is not None]


def _acting(found: Chains) -> list[str]:
    return [name for name in dict.fromkeys(cell.phase for cell in found.cells) if name != RANDOM]


def _figures(phase: str, found: Chains, folder: Path) -> list[Markup]:
    cells = [cell for cell in found.cells if cell.phase == phase]
    plots = {}
    if any(figures.has_curve(p.best, figures.curve_axis(p)) for cell in cells for p in cell.phases.values()):
        plots["curves"] = _curves(phase, cells)
    if any(cell.returns for cell in cells):
        plots["profile"] = _profile(phase, cells, found)
    return [markup.figure(render(plot, folder, f"{name}-{phase}")) for name, plot in plots.items()]


def _curves(phase: str, cells: list[Cell]) -> Plot:
    """Every seed's curve thin, their mean thick, a colour a variant."""
    axis = figures.curve_axis(next(iter(cells[0].phases.values())))

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        for i, cell in enumerate(cells):
            _mean_curve(axes, cell, axis, color_of(i, len(cells)))
        if len(cells) > 1:
            figure.legend(loc="outside lower left", ncols=3)
        axes.set_ylabel("training return\n(mean of the last 10 episodes)")
        axes.set_xlabel("PPO steps" if axis == "ppo_steps" else "environment steps")

    return Plot(
        draw,
        (9.4, 3.9),
        f"Learning curves of phase {phase} over seeds",
        "Return of training episodes. Thin: each seed; thick: their mean, as far as all seeds have got.",
    )


def _mean_curve(axes: Axes, cell: Cell, axis: str, color: str) -> None:
    lines = []
    for phase in cell.phases.values():
        if phase.best is not None:
            x, y = figures.finite(phase.best, axis, figures.RETURN)
            if x.size:
                few: dict[str, Any] = {"ls": "", "marker": "o", "ms": 4} if x.size <= figures.FEW else {"lw": 0.8}
                axes.plot(x, y, color=color, alpha=0.45, **few)
                lines.append((x, y))
    if not lines:
        return
    common = np.linspace(max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines), GRID)
    mean = np.mean([np.interp(common, x, y) for x, y in lines], axis=0)
    axes.plot(common, mean, color=color, lw=2.2, label=f"{cell.variant} ({len(lines)} seeds)")


def _profile(phase: str, cells: list[Cell], found: Chains) -> Plot:
    """Share of episodes, over all seeds, that return more than a threshold (Agarwal et al. 2021, section 4.2)."""
    random = [cell for cell in found.cells if cell.phase == RANDOM and cell.returns]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        for cell, color in [
            *((cell, color_of(i, len(cells))) for i, cell in enumerate(cells)),
            *((cell, figures.KIND_COLORS["random policy"]) for cell in random[:1]),
        ]:
            if not cell.returns:
                continue
            for returns in cell.returns.values():
                if len(cell.returns) > 1:
                    axes.plot(*_share_above(returns), color=color, lw=0.7, alpha=0.4, drawstyle="steps-post")
            label = "random policy" if cell.phase == RANDOM else cell.variant
            pooled = np.concatenate(list(cell.returns.values()))
            axes.plot(*_share_above(pooled), color=color, lw=2.0, label=label, drawstyle="steps-post")
        figure.legend(loc="outside lower left", ncols=4)
        axes.set_xlabel("return")
        axes.set_ylabel("share of episodes that return more")
        axes.set_ylim(0, 1.02)

    return Plot(
        draw,
        (9.4, 3.9),
        f"Performance profile of phase {phase}",
        "Performance profile: the share of evaluation episodes above a return. Thick: all seeds; thin: each seed.",
    )


def _share_above(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = np.sort(returns)
    return np.concatenate([x[:1], x]), np.concatenate([[1.0], 1.0 - np.arange(1, len(x) + 1) / len(x)])
