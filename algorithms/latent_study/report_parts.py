"""What the reports of experiments on latent dynamics share: learning in policy tasks and in planning tasks.

Tables have the columns env, model and seed, and beside them
    scores: episode (from 1), score
    latents, edges, transformations, predictions: see `parsecrl.algorithms.latent_study.tables.model_tables`
Intervals are over seeds, by Student's t.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parsecrl.algorithms.reporting import markup
from parsecrl.algorithms.reporting.cells import NOTHING, in_order, interval, title
from parsecrl.algorithms.reporting.figures import Theme, color_of, draw_band, mean_intervals
from parsecrl.algorithms.reporting.statistics import probability_of_improvement
from parsecrl.algorithms.reporting.study_report import Tables

TRIAL = ("env", "model", "seed")
FORM = ",.1f"  # of scores and counts

MODEL_TITLES = {
    "parsimonious": "parsimonious",
    "parsimonious_stochastic": "parsimonious, stochastic",
    "beta_vae": "beta-VAE",
    "encoder_only": "no representation objective",
    "rnn": "RNN",
    "ssm": "SSM",
    "true_dynamics": "true dynamics",
    "random": "random actions",
}
ENV_TITLES = {"parsecrl/Gridworld-v0": "gridworld", "parsecrl/FourRooms-v0": "four rooms", "parsecrl/Torus-v0": "torus"}
PARSIMONIOUS = "parsimonious"
BOUNDS = ("true_dynamics", "random")  # what nothing needs to be better than
SMOOTHED = 100  # a curve of more points than this is drawn as the mean of neighbouring ones


def envs(table: pd.DataFrame) -> list[str]:
    """The environments of a table.

    Args:
        table: Has the column env.

    Returns:
        Each once, in the order of ENV_TITLES, others after them.
    """
    return in_order(table["env"], ENV_TITLES)


def models(table: pd.DataFrame) -> list[str]:
    """The models of a table.

    Args:
        table: Has the column model.

    Returns:
        Each once, in the order of MODEL_TITLES, a variant after its model.
    """
    return in_order(table["model"], MODEL_TITLES)


def env_title(env: str) -> str:
    """An environment's name as it is shown.

    Args:
        env: Its id.

    Returns:
        Its title; the id of one that has none.
    """
    return ENV_TITLES.get(env, env)


def model_title(model: str) -> str:
    """A model's name as it is shown.

    Args:
        model: Its name; a variant's is "<model>, key=value, ...".

    Returns:
        Its title, with the variant's keys and values.
    """
    return title(model, MODEL_TITLES)


def model_color(model: str, table: pd.DataFrame) -> str:
    """The colour of a model's lines.

    Args:
        model: One of the table's.
        table: Of all the models that the figure shows.

    Returns:
        A colour as "#rrggbb", the same in every figure of these models.
    """
    shown = models(table)
    return color_of(shown.index(model), len(shown))


def of(table: pd.DataFrame, env: str, model: str) -> pd.DataFrame:
    """The rows of one model in one environment.

    Args:
        table: Has the columns env and model.
        env: Its id.
        model: Its name, a variant's with keys and values.

    Returns:
        These rows.
    """
    return table[(table["env"] == env) & (table["model"] == model)]


# --- scores --------------------------------------------------------------------------------------------------------

SCORE_HEADINGS = ("environment", "model", "seeds", "episodes", "total score", "last tenth", "P(parsimonious is better)")
SCORE_NOTE = (
    "Total score: the sum of all episodes' scores in training; last tenth: the mean score of an episode there. Mean "
    "over seeds [95 % interval, Student's t]. P(parsimonious is better): that a seed of the "
    "parsimonious model has a higher total than a seed of this model, ties counting half [95 % bootstrap interval over "
    "seeds]."
)
VARIATION_NOTE = "Variants are compared with the parsimonious model of the same values, or, without one, as it is."


def score_note(scores: pd.DataFrame) -> str:
    """What the columns of `score_rows` mean.

    Args:
        scores: Columns env, model, seed, episode, score.

    Returns:
        Sentences; one more where there are variants.
    """
    varied = scores["model"].str.contains(",").any()
    return f"{SCORE_NOTE} {VARIATION_NOTE}" if varied else SCORE_NOTE


def totals(scores: pd.DataFrame) -> pd.DataFrame:
    """What each trial scored.

    Args:
        scores: Columns env, model, seed, episode, score.

    Returns:
        Columns env, model, seed, episodes (their number), total (sum over all episodes), last (mean of the last tenth).
    """
    rows = []
    for (env, model, seed), part in scores.groupby(["env", "model", "seed"], sort=False):
        ordered = part.sort_values("episode")["score"]
        tail = ordered.tail(max(1, len(ordered) // 10))
        rows.append((env, model, seed, len(ordered), float(ordered.sum()), float(tail.mean())))
    return pd.DataFrame(rows, columns=["env", "model", "seed", "episodes", "total", "last"])


def score_rows(scores: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each environment and model.

    Args:
        scores: Columns env, model, seed, episode, score.

    Returns:
        Rows of text, a cell for each of SCORE_HEADINGS.
    """
    found = totals(scores)
    rows: list[tuple[str, ...]] = []
    for env in envs(found):
        for model in models(found[found["env"] == env]):
            part = of(found, env, model)
            own = _parsimonious_beside(found, env, model)
            episodes = sorted(set(part["episodes"]))
            rows.append(
                (
                    env_title(env),
                    model_title(model),
                    f"{len(part)}",
                    f"{episodes[0]:,}" if len(episodes) == 1 else f"{episodes[0]:,} to {episodes[-1]:,}",
                    interval(part["total"], FORM),
                    interval(part["last"], FORM),
                    _probability(own, part["total"]) if len(own) else NOTHING,
                )
            )
    return rows


def _parsimonious_beside(found: pd.DataFrame, env: str, model: str) -> pd.Series:
    """The parsimonious totals that a model is compared with: varied alike, or else not varied; none for bounds."""
    kind, comma, variation = model.partition(", ")
    if kind == PARSIMONIOUS or kind in BOUNDS:
        return pd.Series(dtype=float)
    alike = of(found, env, PARSIMONIOUS + comma + variation)["total"]
    return alike if len(alike) else of(found, env, PARSIMONIOUS)["total"]


def _probability(own: pd.Series, theirs: pd.Series) -> str:
    p = probability_of_improvement(own.to_numpy(), theirs.to_numpy())
    return f"{p.probability:.2f}" if math.isnan(p.low) else f"{p.probability:.2f} [{p.low:.2f}, {p.high:.2f}]"


def draw_curves(scores: pd.DataFrame, figure: Figure, theme: Theme) -> None:
    """Score over episodes, a panel an environment (Saanum and Schulz 2022, figures 3 and 4).

    Lines are means over seeds, bands 95 % intervals. The legend is yet to be drawn.

    Args:
        scores: Columns env, model, seed, episode, score.
        figure: Drawn into.
        theme: Colours of the page.
    """
    shown = envs(scores)
    for axes, env in zip(_panels(figure, len(shown)), shown, strict=True):
        here = scores[scores["env"] == env]
        for model in models(here):
            x, found = curve(of(here, env, model))
            draw_band(axes, x, found, model_color(model, scores), model_title(model), lw=1.7)
        least, most = here["score"].min(), here["score"].max()
        margin = 0.04 * (most - least) or 1.0
        axes.set_ylim(least - margin, most + margin)  # the band of two seeds would be many times as wide
        axes.set_title(env_title(env))
        axes.set_xlabel("episode")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.axes[0].set_ylabel("return of an episode")


def curve(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The learning curve of one model in one environment.

    More than SMOOTHED episodes are averaged over groups of neighbouring ones.

    Args:
        part: Columns seed, episode, score.

    Returns:
        Episodes [n], and (mean, low, high) over seeds [n, 3].
    """
    width = math.ceil(int(part["episode"].max()) / SMOOTHED)
    group = (part["episode"] - 1) // width
    of_seeds = part.assign(group=group).groupby(["group", "seed"])["score"].mean().reset_index()
    x, found = mean_intervals(of_seeds["score"], of_seeds["group"])
    return x * width + (width + 1) / 2, found


# --- latents -------------------------------------------------------------------------------------------------------


def draw_latents(tables: Tables, figure: Figure, theme: Theme) -> None:
    """The cells in the plane of their latents' first principal components (Saanum and Schulz 2022, figure 2).

    Cells are joined as in the world. A row an environment, a column a model, the first seed of each; the colour tells a
    cell's place, rows as lightness and columns as hue.

    Args:
        tables: latents and edges are read.
        figure: Drawn into.
        theme: Colours of the page.
    """
    latents, edges = tables["latents"], tables["edges"]
    rows, columns = envs(latents), models(latents)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, env in zip(grid, rows, strict=True):
        for axes, model in zip(row, columns, strict=True):
            part = _first_seed(of(latents, env, model))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            if part.empty:
                axes.set_axis_off()
                continue
            joined = _first_seed(of(edges, env, model))
            draw_map(axes, part, joined, theme)
            share = 100 * float(part["explained_1"].iloc[0] + part["explained_2"].iloc[0])
            axes.set_xlabel(f"{share:.0f} % of the variance", fontsize=8)
            if env == rows[0]:
                axes.set_title(model_title(model), fontsize=9)
        row[0].set_ylabel(env_title(env))


def latents_size(tables: Tables) -> tuple[float, float]:
    """The size of what `draw_latents` draws.

    Args:
        tables: latents is read.

    Returns:
        Width and height in inches.
    """
    latents = tables["latents"]
    return 0.5 + 2.7 * len(models(latents)), 0.4 + 2.7 * len(envs(latents))


def draw_map(axes: Axes, cells: pd.DataFrame, edges: pd.DataFrame, theme: Theme) -> None:
    """Draw one trial's cells in the plane of their first two principal components, joined as in the world.

    Args:
        axes: Drawn into.
        cells: Its rows of latents.
        edges: Its rows of edges.
        theme: Colours of the page.
    """
    at = cells.set_index("state")[["pc_1", "pc_2"]]
    segments = np.stack([at.loc[edges["state"]].to_numpy(), at.loc[edges["neighbour"]].to_numpy()], 1)  # [E, 2, 2]
    axes.add_collection(LineCollection(list(segments), colors=theme.paper, lw=0.6, alpha=0.7))
    place = cells["row"] / max(cells["row"].max(), 1), cells["column"] / max(cells["column"].max(), 1)
    colors = hsv_to_rgb(np.column_stack([0.02 + 0.75 * place[1], np.full(len(cells), 0.75), 0.45 + 0.5 * place[0]]))
    axes.scatter(at["pc_1"], at["pc_2"], s=14, c=colors, zorder=3, linewidths=0)


TRANSFORMATION_HEADINGS = ("environment", "model", "LEFT", "RIGHT", "UP", "DOWN", "STAY", "cells")
TRANSFORMATION_NOTE = (
    "Distinct transformations that an action uses over all cells; mean over seeds [95 % interval]. Of a model that "
    "computes a transformation from the latent there are as many as cells, unless it came to ignore the latent."
)


def transformation_table(table: pd.DataFrame) -> list[Markup]:
    """`transformation_rows` as HTML, with its note.

    Args:
        table: Columns env, model, seed, action, count, cells.

    Returns:
        The table and a paragraph.
    """
    shown = markup.table(TRANSFORMATION_HEADINGS, transformation_rows(table))
    return [shown, markup.paragraph(TRANSFORMATION_NOTE, "soft small")]


def transformation_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """How many distinct transformations each action uses.

    Args:
        table: Columns env, model, seed, action, count, cells.

    Returns:
        Rows of text, a cell for each of TRANSFORMATION_HEADINGS.
    """
    rows = []
    for env in envs(table):
        for model in models(table[table["env"] == env]):
            part = of(table, env, model)
            counts = [part[part["action"] == action]["count"] for action in TRANSFORMATION_HEADINGS[2:7]]
            cells = f"{int(part['cells'].iloc[0])}"
            rows.append((env_title(env), model_title(model), *(interval(c, FORM) for c in counts), cells))
    return rows


# --- predictions ---------------------------------------------------------------------------------------------------

PREDICTION_CAPTION = (
    "Multi-step prediction along walks whose first transition was never visited in training (solid) and was (dashed), "
    "among cells that were seen. Above: distance of the predicted from the encoded latent, over the mean distance "
    "between two cells. Below: share of predictions that no other cell's latent is nearer to than the right one's. "
    "Means over seeds, bands 95 % intervals. A model without a line had no such transition left."
)


def draw_predictions(predictions: pd.DataFrame, figure: Figure, theme: Theme) -> None:
    """Errors of multi-step predictions, a column an environment: relative error above, share of right cells below.

    Args:
        predictions: Columns env, model, seed, first, step, relative, hits.
        figure: Drawn into.
        theme: Colours of the page.
    """
    shown = envs(predictions)
    grid = figure.subplots(2, len(shown), squeeze=False, sharex=True, sharey="row")
    for column, env in zip(grid.T, shown, strict=True):
        for axes, key in zip(column, ("relative", "hits"), strict=True):
            for model in models(predictions):
                for first, style in (("new", "-"), ("visited", "--")):
                    part = of(predictions, env, model)
                    part = part[part["first"] == first]
                    if part.empty:
                        continue
                    x, found = mean_intervals(part[key], part["step"])
                    color = model_color(model, predictions)
                    if first == "new":
                        draw_band(axes, x, found, color, model_title(model), ls=style)
                    else:
                        axes.plot(x, found[:, 0], color=color, ls=style, lw=1.6)
        column[0].set_title(env_title(env))
        column[1].set_xlabel("steps predicted")
        column[1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    grid[0][0].set_ylabel("relative error")
    grid[0][0].set_ylim(bottom=0)
    grid[1][0].set_ylabel("right cell is nearest")
    grid[1][0].set_ylim(0, 1.02)
    legend(figure)


def panels_size(count: int, height: float = 3.6) -> tuple[float, float]:
    """The size of a figure with a panel an environment.

    Args:
        count: Of panels side by side.
        height: In inches.

    Returns:
        Width and height in inches.
    """
    return 1.0 + 3.3 * max(count, 1.4), height


def legend(figure: Figure) -> None:
    """Put a legend below the panels, each name once.

    Args:
        figure: Drawn into.
    """
    found: dict[str, Any] = {}
    for axes in figure.axes:
        found |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=min(4, len(found)))


def _panels(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _first_seed(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["seed"] == table["seed"].min()]
