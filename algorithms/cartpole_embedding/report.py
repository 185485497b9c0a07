"""The embedded cartpole in the report: the paper's figures 3, 5, 9 and 10 (and figure 7 of its earlier version).

Tables: see `parsecrl.algorithms.cartpole_embedding.analysis`. Intervals are over trials, by Student's t.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from parsecrl.algorithms.cartpole_embedding import film
from parsecrl.algorithms.reporting import cells, markup
from parsecrl.algorithms.reporting.figures import (
    COSTS,
    PALETTE,
    RED,
    Plot,
    Theme,
    color_bar,
    color_of,
    draw_band,
    mean_intervals,
    render_all,
)
from parsecrl.algorithms.reporting.statistics import mean_interval
from parsecrl.algorithms.reporting.study_report import ResultTable, StudyReport, Tables
from parsecrl.algorithms.reporting.video import DrawingError

logger = logging.getLogger(__name__)

# Read off the paper's figure 5: (latent size, temperature) -> improvement factor.
PAPER_FACTORS = {
    **{(2, 1.0): 1.08, (8, 1.0): 1.18, (16, 1.0): 1.09},
    **{(2, 0.1): 1.05, (8, 0.1): 0.80, (16, 0.1): 0.82},
    **{(2, 0.0): 1.09, (8, 0.0): 0.89, (16, 0.0): 0.65},
}
NOTE = (
    "best at: updates after which each seed's decoder had its lowest validation cost, which is the decoder of all that "
    "follows; cost: mean over the validation states and over searches with fresh draws; last: validation cost of the "
    "decoder after the last update; expert: as cost, of CEM over whole action sequences; improvement: the cost over "
    "the expert's (above 1 is better where costs are negative, as the cartpole's are), mean over seeds [95 % "
    "interval]; control: accumulated cost of receding-horizon control, median over seeds, each search started at the "
    "last plan moved on by a step / where the first search did."
)
PAPER_NOTE = (
    "Paper: Amos and Yarats, ICML 2020, read off figure 5, 100,000 updates; its expert costs about -9.0, and its "
    "validation cost ends at about -9, -10.3 and -9.4 with latent sizes 2, 8 and 16 at temperature 1 (figure 9)."
)


def result_table(tables: Tables) -> ResultTable:
    """Improvement factors and costs of control, beside the paper's (DCEM paper, figure 5).

    Args:
        tables: Of `analyse_all`.

    Returns:
        A row for each latent size and temperature, and one for each controller without an embedding.
    """
    control, known = tables["control"], paper_factors(tables)
    rows: list[tuple[str, ...]] = []
    for size, temperature in pairs(tables):
        part = _select(tables["improvement"], size, temperature)
        paper = known.get((size, temperature))
        rows.append(
            (
                f"embedded DCEM, {size}",
                f"{temperature:g}",
                f"{len(part)}",
                f"{int(part['num_updates'].max()):,}",
                ", ".join(f"{int(number):,}" for number in part["best_at"]),
                f"{part['cost'].mean():.2f}",
                f"{part['last_cost'].mean():.2f}",
                f"{part['expert_cost'].iloc[0]:.2f}",
                cells.interval(part["factor"], ".3f"),
                f"{paper:.2f}" if paper else "-",
                _paid(_select(control, size, temperature), "embedded DCEM"),
            )
        )
    rows += [(name, *"---------", _paid(control, name)) for name in ("CEM", "random")]
    untrained = control[control["controller"] == "untrained, cold"]
    rows += [
        (f"untrained, {size}", *"---------", _paid(untrained[untrained["latent_size"] == size], "untrained"))
        for size in untrained["latent_size"].astype(int)
    ]
    headings = (
        *("controller, latent size", "τ", "seeds", "updates", "best at", "cost", "last", "expert"),
        *("improvement", "paper", "control"),
    )
    return ResultTable(headings, rows, f"{NOTE} {PAPER_NOTE}" if known else NOTE)


def paper_factors(tables: Tables) -> dict[tuple[int, float], float]:
    """The improvement factors that the paper shows, of the cartpole: the paper has no other dynamics.

    Args:
        tables: Of `analyse_all`; improvement is read.

    Returns:
        (latent size, temperature) -> factor; empty of other dynamics.
    """
    return PAPER_FACTORS if set(tables["improvement"]["dynamics"]) == {"cartpole"} else {}


def _paid(control: pd.DataFrame, controller: str) -> str:
    """Median accumulated cost, warm / cold."""
    costs = [control[control["controller"] == name]["cost"].median() for name in (controller, f"{controller}, cold")]
    return " / ".join("-" if np.isnan(cost) else f"{cost:,.1f}" for cost in costs)


def sections(phase: str, tables: Tables, folder: Path) -> list[str]:
    """The figures, and a film of the controlled system where it can be drawn and encoded.

    Args:
        phase: Its name, with which the files' names begin.
        tables: Of `analyse_all`.
        folder: Where figures and film go.

    Returns:
        One section of HTML.
    """
    parts = [markup.figure(image) for image in render_all(plots(tables), folder, phase).values()]
    try:
        file = film.write_film(tables["episodes"], folder / f"{phase}-control.mp4")
        if file is not None:
            parts.append(markup.video(file, "Receding-horizon control from the same initial state"))
    except DrawingError as error:
        logger.warning("no film of the controlled cartpole: %s", error)
    return [markup.section(f"figures-{phase}", f"Figures of {phase}", *parts)]


def plots(tables: Tables) -> dict[str, Plot]:
    """Make the plots that the tables have data for.

    Args:
        tables: Of `analyse_all`.

    Returns:
        Plots by name: convergence, improvement, samples, surfaces, decoders, control.
    """
    made = {
        "convergence": Plot(
            partial(draw_convergence, tables),
            (1.6 + 3.2 * len({size for size, _ in pairs(tables)}), 3.6),
            "Validation cost over updates",
            "Validation cost over the updates; lines are means over seeds, bands 95 % intervals, dotted: the training "
            "loss, dashed: the expert, CEM in the full action space. After the paper's figure 9.",
            wide=True,
        ),
        "improvement": Plot(
            partial(draw_improvement, tables),
            (6.4, 3.8),
            "Improvement factor by latent size and temperature",
            "Improvement factor over the expert, with 95 % intervals; a dot is one seed. After the paper's figure 5.",
        ),
        "samples": Plot(
            partial(draw_samples, tables),
            (10.0, 4.6),
            "Sampled action sequences of CEM and embedded DCEM",
            "What both controllers try for one state: action sequences coloured by cost, red: the mean. After the "
            "paper's figure 3.",
            wide=True,
            automatic=False,
        ),
    }
    if "surfaces" in tables:
        states, temperatures = (tables["surfaces"][key].nunique() for key in ("state", "temperature"))
        made["surfaces"] = Plot(
            partial(draw_surfaces, tables),
            (2.25 + 2.1 * temperatures, 0.6 + 1.9 * states),
            "Cost over the latent plane for several states",
            "Learned costs over the latent plane, a row a state, a column a temperature; bluer is lower, on one "
            "scale a row, the cross is where the search ends. After the paper's figure 10.",
            wide=True,
            automatic=False,
        )
    made["decoders"] = Plot(
        partial(draw_decoders, tables),
        (9.0, 5.4),
        "Outputs of untrained decoders",
        "Outputs of untrained decoders without biases, by activation and scale of the weights. After figure 7 of the "
        "paper's earlier version.",
        wide=True,
        automatic=False,
    )
    made["control"] = Plot(
        partial(draw_control, tables),
        (6.4, 3.8),
        "Accumulated cost of receding-horizon control",
        "Receding-horizon control: accumulated cost, mean over episodes. Each search starts at the last solution; "
        "cold: where the first did. Of the embeddings, for each way, the one of lowest cost among the first seeds at "
        "the highest temperature; so in the film.",
    )
    return made


def draw_convergence(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Validation cost over updates, a panel a latent size, beside the expert's (DCEM paper, figure 9).

    Args:
        tables: Of `analyse_all`; convergence and improvement are read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    expert = float(tables["improvement"]["expert_cost"].iloc[0])
    sizes = sorted({size for size, _ in pairs(tables)})
    shown = [expert]
    for axes, size in zip(_panels(figure, 1, len(sizes)).flat, sizes, strict=True):
        for of_size, temperature in pairs(tables):
            if of_size != size:
                continue
            part = _select(tables["convergence"], size, temperature)
            trained = part[part["num_updates"] > 0]
            x, found = mean_intervals(trained["validation_cost"], trained["num_updates"])
            color = _color(tables, temperature)
            draw_band(axes, x, found, color, f"τ = {temperature:g}")
            shown += [*found[:, 0]]
            losses = part.dropna(subset="loss").groupby("num_updates")["loss"].mean()
            shown += [*losses]
            axes.plot(losses.index.to_numpy(dtype=float), losses, color=color, lw=0.7, ls=":")
        axes.axhline(expert, color=theme.paper, lw=1.3, ls="--", label="expert")
        axes.set_title(f"latent size {size}")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("updates")
    # The means are all within; an interval of three seeds may be far wider, and is cut.
    margin = 0.15 * (max(shown) - min(shown))
    figure.axes[0].set_ylim(min(shown) - margin, max(shown) + margin)
    figure.axes[0].set_ylabel("validation cost")
    figure.axes[0].legend(loc="upper right")


def draw_improvement(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Improvement factors over CEM, a bar for each latent size and temperature (DCEM paper, figure 5).

    Args:
        tables: Of `analyse_all`; improvement is read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    known = paper_factors(tables)
    axes = figure.add_subplot()
    sizes = sorted({size for size, _ in pairs(tables)})
    temperatures = _temperatures(tables)
    for size, temperature in pairs(tables):
        factors = _select(tables["improvement"], size, temperature)["factor"].to_numpy()
        x = sizes.index(size) + 0.24 * (temperatures.index(temperature) - (len(temperatures) - 1) / 2)
        mean, low, high = mean_interval(factors)
        color = _color(tables, temperature)
        label = f"τ = {temperature:g}" if size == sizes[0] else None
        axes.bar(x, mean, width=0.2, color=color + "66", edgecolor=color, label=label)
        if np.isfinite(low):
            axes.errorbar(x, mean, [[mean - low], [high - mean]], color=theme.ink, capsize=3, lw=1.3)
        axes.plot([x] * factors.size, factors, ".", color=color, ms=5)
        if (size, temperature) in known:
            first = (size, temperature) == pairs(tables)[0]
            axes.plot(
                x + 0.07, known[size, temperature], "D", ms=5, mfc="none", mec=theme.paper,
                label="paper, figure 5" if first else None,
            )  # fmt: skip
    axes.axhline(1.0, color=theme.paper, lw=1.2, ls="--")
    axes.set_xticks(range(len(sizes)), [f"latent size {size}" for size in sizes])
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("improvement factor over CEM")
    figure.legend(loc="outside lower center", ncols=4)


def draw_samples(tables: Tables, figure: Figure, theme: Theme) -> None:
    """What both controllers try for one state, coloured by cost; a row a controller (DCEM paper, figure 3).

    Args:
        tables: Of `analyse_all`; samples is read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    table = tables["samples"]
    controllers = list(dict.fromkeys(table["controller"]))
    costs = table[table["sample"] >= 0]["cost"]
    low, high = np.percentile(costs, [1, 90])
    scale, cmap = Normalize(low, max(high, low + 1e-6)), COSTS
    columns = max(part["iteration"].nunique() for _, part in table.groupby("controller"))
    grid = _panels(figure, len(controllers), columns, right=1.05)
    for row, name in zip(grid, controllers, strict=True):
        part = table[table["controller"] == name]
        for axes, (number, tried) in zip(row, part.groupby("iteration"), strict=False):
            samples = tried[tried["sample"] >= 0].pivot_table(index="sample", columns="step", values="action")
            cost = tried[tried["sample"] >= 0].groupby("sample")["cost"].first().to_numpy()
            order = np.argsort(-cost)
            ahead = samples.columns.to_numpy(dtype=float)
            lines = [np.column_stack([ahead, samples.to_numpy()[j]]) for j in order]
            axes.add_collection(LineCollection(lines, array=cost[order], cmap=cmap, norm=scale, lw=0.7, alpha=0.5))
            mean = tried[tried["sample"] == -1]
            axes.plot(mean["step"], mean["action"], color=theme.surface, lw=3.4)
            axes.plot(mean["step"], mean["action"], color=RED, lw=1.7)
            axes.set_title(f"iteration {number}: {mean['cost'].iloc[0]:.2f}", fontsize=9)
            axes.set_xlim(ahead.min(), ahead.max())
            axes.set_ylim(-1.08, 1.08)
            axes.grid(False)
        row[0].set_ylabel(name)
    color_bar(figure, scale, cmap, "cost", right=0.9, bottom=0.6, top=0.35)
    figure.supxlabel("steps ahead", fontsize=9, y=0.02)


def draw_surfaces(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Cost over the latent plane; a row a state, a column a temperature, a cross the solution (DCEM paper, figure 10).

    Args:
        tables: Of `analyse_all`; surfaces and solutions are read.
        figure: Drawn into.
        theme: Colours of the page; the surfaces have their own.
    """
    surfaces, solutions = tables["surfaces"], tables["solutions"]
    temperatures = sorted(set(surfaces["temperature"]), reverse=True)
    states = sorted(set(surfaces["state"]))
    grid = _panels(figure, len(states), len(temperatures), right=1.0)
    shown = pd.concat([_first_seed(part) for _, part in surfaces.groupby("temperature")])
    for j, temperature in enumerate(temperatures):
        of_trial = shown[shown["temperature"] == temperature]
        ends = _first_seed(solutions[solutions["temperature"] == temperature])
        for i, state in enumerate(states):
            of_state = shown[shown["state"] == state]["cost"]
            levels = np.linspace(of_state.min(), of_state.max() + 1e-6, 21)  # one scale a row
            costs = of_trial[of_trial["state"] == state].pivot_table(index="z_2", columns="z_1", values="cost")
            axes = grid[i][j]
            axes.contourf(costs.columns, costs.index, costs.to_numpy(), levels=levels, cmap=COSTS)
            end = ends[ends["state"] == state]
            axes.plot(end["z_1"], end["z_2"], "x", color=RED, ms=7, mew=2)
            box = {"facecolor": "#ffffffaa", "edgecolor": "none", "pad": 1.5}
            lowest = f"{costs.to_numpy().min():.1f}"
            axes.text(0.04, 0.05, lowest, transform=axes.transAxes, fontsize=8, color="#22262e", bbox=box)
            axes.grid(False)
            axes.set_xticks([-1, 0, 1])
            axes.set_yticks([-1, 0, 1])
            if i == 0:
                axes.set_title(f"τ = {temperature:g}", fontsize=9)
            if j == 0:
                axes.set_ylabel(f"state {state + 1}\nlatent 2", fontsize=9)
                height, place = figure.get_size_inches()[1], axes.get_position()
                scale, around = Normalize(levels[0], levels[-1]), (place.y0 * height, (1 - place.y1) * height)
                color_bar(figure, scale, COSTS, "cost", right=0.85, bottom=around[0], top=around[1])
    figure.supxlabel("latent 1", fontsize=9, y=0.01)


def draw_decoders(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Outputs of untrained decoders by activation and scale (figure 7 of the DCEM paper's earlier version).

    Args:
        tables: Of `analyse_all`; decoders is read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    table = tables["decoders"]
    activations, scales = list(dict.fromkeys(table["activation"])), sorted(set(table["scale"]))
    grid = _panels(figure, len(activations), len(scales), right=0.15, between=0.3, sharey=False)
    for axes, scale in zip(grid[0], scales, strict=True):
        axes.set_title(f"scale {scale:g}", fontsize=9)
    for row, activation in zip(grid, activations, strict=True):
        for axes, scale in zip(row, scales, strict=True):
            part = table[(table["activation"] == activation) & (table["scale"] == scale)]
            outputs = part.pivot_table(index="sample", columns="step", values="output")
            axes.plot(outputs.columns, outputs.to_numpy().T, color=PALETTE[0], lw=0.6, alpha=0.5)
            axes.tick_params(labelsize=7)
            axes.grid(False)
        row[0].set_ylabel({"elu": "ELU", "relu": "ReLU"}.get(activation, activation))
    figure.supxlabel("step of the action sequence", fontsize=9, y=0.02)


def draw_control(tables: Tables, figure: Figure, theme: Theme) -> None:
    """Accumulated cost of receding-horizon control over steps, a line a controller.

    Args:
        tables: Of `analyse_all`; episodes is read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    axes = figure.add_subplot()
    for name, color in film.CONTROLLERS:
        part = film.shown_trial(tables["episodes"], name)
        costs = part.pivot_table(index="episode", columns="step", values="cost").cumsum(axis=1)
        axes.plot(costs.columns.to_numpy(dtype=float) + 1, costs.mean(), color=color, lw=1.8, label=name)
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("step")
    axes.set_ylabel("accumulated cost")
    axes.legend()


def pairs(tables: Tables) -> list[tuple[int, float]]:
    """The parameters of the trials.

    Args:
        tables: Of `analyse_all`; improvement is read.

    Returns:
        (latent size, temperature), each pair once: sizes rising, temperatures falling.
    """
    found = {(int(size), float(t)) for size, t in tables["improvement"][["latent_size", "temperature"]].to_numpy()}
    return sorted(found, key=lambda pair: (pair[0], -pair[1]))


def _select(table: pd.DataFrame, size: int, temperature: float) -> pd.DataFrame:
    return table[(table["latent_size"] == size) & (table["temperature"] == temperature)]


def _first_seed(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["seed"] == table["seed"].min()]


def _temperatures(tables: Tables) -> list[float]:
    return sorted({temperature for _, temperature in pairs(tables)}, reverse=True)


def _color(tables: Tables, temperature: float) -> str:
    return color_of(_temperatures(tables).index(temperature), len(_temperatures(tables)))


def _panels(
    figure: Figure, rows: int, columns: int, right: float | None = None, between: float = 0.12, sharey: bool = True
) -> np.ndarray:
    """Axes [rows, columns]. right: the margin there, inches, where the layout is not automatic."""
    margins = None
    if right is not None:
        width, height = figure.get_size_inches()
        margins = {"left": 0.7 / width, "right": 1 - right / width, "top": 1 - 0.35 / height, "bottom": 0.6 / height}
        margins |= {"wspace": between, "hspace": 0.28}
    return figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=sharey, gridspec_kw=margins)


REPORT = StudyReport(result_table, sections)
