"""Open-loop prediction of pixels in the report: figure 5 of Saanum and Schulz (2022), strips and films.

Tables: see `parsecrl.algorithms.open_loop.analysis`. Intervals are over seeds, by Student's t.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from parsecrl.algorithms.open_loop.analysis import decode
from parsecrl.algorithms.reporting import cells, markup
from parsecrl.algorithms.reporting.figures import (
    RED,
    Plot,
    Theme,
    color_of,
    draw_band,
    log_scale,
    mean_intervals,
    render_all,
)
from parsecrl.algorithms.reporting.study_report import ResultTable, StudyReport, Tables
from parsecrl.algorithms.reporting.video import DrawingError, new_video

logger = logging.getLogger(__name__)
interval = partial(cells.interval, form=".4g")
TITLES = {
    "truth": "truth",
    "parsimonious": "parsimonious",
    "rssm": "RSSM",
    "last_frame": "last frame",
    "mean_frame": "mean frame",
}
FLOORS = ("last_frame", "mean_frame")
SHOWN = 12  # images of a strip
ZOOM, FPS = 3, 10
HEADINGS = (
    *("model", "seeds", "KL predicted | inferred", "KL inferred | predicted", "error", "error, images seen"),
    "codes per action",
)
NOTE = (
    "Open loop on the held-out sequences, means over sequences and all predicted steps, and over seeds [95 % interval, "
    "Student's t]. KL in nats; error: mean squared error of a pixel (0 to 1), in thousandths; images seen: of what is "
    "decoded when no image is missing; codes per action: transformations that an action has over all states of the "
    "held-out sequences, the mean of the actions and its range over seeds. Latents of different models have scales of "
    "their own, which a KL depends on. The paper prints no numbers; its finding: the parsimonious model has lower "
    "KL and lower error than the RSSM (section 5, figure 5)."
)


def title(model: str) -> str:
    """A model's name as it is shown.

    Args:
        model: Its name; a variant's is "<model>, key=value, ...".

    Returns:
        Its title, with the variant's keys and values.
    """
    return cells.title(model, TITLES)


def models(table: pd.DataFrame) -> list[str]:
    """The models of a table.

    Args:
        table: Has the column model.

    Returns:
        Each once, in the order of TITLES, a variant after its model.
    """
    return cells.in_order(table["model"], TITLES)


def result_table(tables: Tables) -> ResultTable:
    """KL and error in open loop, beside what the paper finds (Saanum and Schulz 2022, section 5, figure 5).

    Args:
        tables: Of `analyse`; horizon, training and where there is one codes are read.

    Returns:
        A row for each model.
    """
    horizon = tables["horizon"]
    rows = []
    for model in models(horizon):
        part = horizon[horizon["model"] == model].groupby("seed")
        seeds = cells.NOTHING if model in FLOORS else f"{part.ngroups}"
        told = [interval(part[key].mean()) for key in ("kl", "kl_inferred")]
        told += [interval(1e3 * part[key].mean()) for key in ("error", "error_closed")]
        rows.append((title(model), seeds, *told, codes_of(model, tables)))
    return ResultTable(HEADINGS, rows, " ".join([world_of(horizon), NOTE, *differences(horizon), *waiting(tables)]))


def world_of(horizon: pd.DataFrame) -> str:
    """Name the worlds of a table.

    Args:
        horizon: The table of `analyse`.

    Returns:
        A sentence.
    """
    return f"World: {', '.join(sorted(set(horizon['env'])))}."


def codes_of(model: str, tables: Tables) -> str:
    """Codes an action, the mean of its actions.

    Args:
        model: As the tables name it.
        tables: Of `analyse`; codes is read, where there is one.

    Returns:
        From the least to the most over seeds; `NOTHING` for a model without codes.
    """
    table = tables.get("codes")
    own = table[table["model"] == model].groupby("seed")["codes"].mean() if table is not None else pd.Series()
    if own.empty:
        return cells.NOTHING
    low, high = (f"{value:.3g}" for value in (own.min(), own.max()))
    return low if low == high else f"{low} to {high}"


def differences(horizon: pd.DataFrame) -> list[str]:
    """Each parsimonious model less the RSSM of the same seed, in words.

    Args:
        horizon: The table of `analyse`.

    Returns:
        A sentence for each model with two or more such seeds; none unless there is exactly one RSSM.
    """
    kl, error = (horizon.pivot_table(index="seed", columns="model", values=key) for key in ("kl", "error"))
    rssm = [model for model in models(horizon) if model.split(", ")[0] == "rssm"]
    told = []
    for model in models(horizon):
        if model.split(", ")[0] != "parsimonious" or len(rssm) != 1:
            continue
        less_kl, less_error = ((table[model] - table[rssm[0]]).dropna() for table in (kl, error))
        if len(less_kl) > 1:
            name = title(model)
            told.append(
                f"{name[0].upper()}{name[1:]} less the RSSM of the same seed: KL {interval(less_kl)}, "
                f"error {interval(1e3 * less_error)}; lower in {(less_kl < 0).sum()} and "
                f"{(less_error < 0).sum()} of {len(less_kl)}."
            )
    return told


def waiting(tables: Tables) -> list[str]:
    """The share of time for which the learner waited for batches, over all trials and results.

    Args:
        tables: Of `analyse`; training is read.

    Returns:
        One sentence; none where the table does not tell it.
    """
    if "waiting_share" not in tables["training"]:
        return []
    shares = tables["training"]["waiting_share"]
    return [f"Waiting for batches: {shares.mean():.2%} of the time, at most {shares.max():.2%}."]


def sections(phase: str, tables: Tables, folder: Path) -> list[str]:
    """The two curves of figure 5, the training's loss, strips and films (films where they can be encoded).

    Args:
        phase: Its name, with which the files' names begin.
        tables: Of `analyse`.
        folder: Where figures and films go.

    Returns:
        Sections of HTML.
    """
    drawn = {name: markup.figure(image) for name, image in render_all(plots(tables), folder, phase).items()}
    strips = [image for name, image in drawn.items() if name.startswith("strip-")]
    parts: list[str] = [
        markup.section(f"figures-{phase}", f"Figures of {phase}", drawn["horizon"], drawn["training"]),
        markup.section(f"strips-{phase}", "Predicted images", *strips),
    ]
    films = []
    try:
        for sequence in sorted(set(tables["films"]["sequence"])):
            file = write_film(tables["films"], sequence, folder / f"{phase}-sequence-{sequence}.mp4")
            films.append(markup.video(file, f"{', '.join(title(m) for m, _ in panels(tables['films'], sequence))}"))
    except DrawingError as error:
        logger.warning("no film of the predictions: %s", error)
    if films:
        note = markup.paragraph("Side by side; a red line below: predicted, no image is seen any more.", "soft small")
        parts.append(markup.section(f"films-{phase}", "Films", *films, note))
    return parts


def plots(tables: Tables) -> dict[str, Plot]:
    """Make every plot.

    Args:
        tables: Of `analyse`.

    Returns:
        Plots by name: horizon, training, and strip-<sequence> for each filmed one.
    """
    films = tables["films"]
    strips = {
        f"strip-{sequence}": Plot(
            partial(draw_strip, films, sequence),
            (9.4, 0.3 + 0.85 * len(panels(films, sequence))),
            f"Truth and predictions of held-out sequence {sequence}",
            "Images of a held-out sequence, evenly over its steps. Up to the bar the models see them; what follows is "
            "predicted from the actions alone. First seed.",
            wide=True,
        )
        for sequence in sorted(set(films["sequence"]))
    }
    horizon = Plot(
        partial(draw_horizon, tables["horizon"]),
        (9.4, 4.0),
        "KL and error by predicted step",
        "By step after the context: KL of predicted from inferred latents, and squared error of a pixel; lines: means "
        "over seeds, bands: 95 % intervals. After the paper's figure 5.",
        wide=True,
    )
    training = Plot(
        partial(draw_training, tables["training"]),
        (9.4, 3.4),
        "Terms of the objective over gradient steps",
        "Terms of the objective over gradient steps, a line a seed.",
        wide=True,
    )
    return {"horizon": horizon, "training": training, **strips}


def draw_horizon(horizon: pd.DataFrame, figure: Figure, theme: Theme) -> None:
    """KL and squared error by step after the context (Saanum and Schulz 2022, figure 5).

    Args:
        horizon: The table of `analyse`.
        figure: Drawn into.
        theme: Colours of the page.
    """
    shown = models(horizon)
    for axes, key, label in zip(
        figure.subplots(1, 2), ("kl", "error"), ("KL(predicted || inferred), nats", "squared error"), strict=True
    ):
        for i, model in enumerate(shown):
            part = horizon[horizon["model"] == model].dropna(subset=key)
            if part.empty:
                continue
            x, found = mean_intervals(part[key], part["step"])
            if model in FLOORS:
                axes.plot(x, found[:, 0], "--", color=color_of(i, len(shown)), lw=1.6, label=title(model))
            else:
                draw_band(axes, x, found, color_of(i, len(shown)), title(model))
        axes.set_xlabel("step after the context")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=len(shown))


def draw_training(training: pd.DataFrame, figure: Figure, theme: Theme) -> None:
    """Terms of the objective over gradient steps, a line a seed.

    Args:
        training: The table of `analyse`.
        figure: Drawn into.
        theme: Colours of the page.
    """
    shown = models(training)
    keys = [key for key in ("reconstruction", "transition", "parsimony") if key in training]
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        for i, model in enumerate(shown):
            for n, (_, part) in enumerate(training[training["model"] == model].groupby("seed")):
                color = color_of(i, len(shown))
                label = title(model) if n == 0 else "_"
                axes.plot(part["num_updates"], part[key], color=color, lw=1.0, label=label)
        axes.set_title(key)
        if key != "parsimony":  # which may be 0, and has no logarithm then
            log_scale(axes)
        axes.set_xlabel("gradient steps")
        if key == keys[0]:
            axes.set_ylabel("nats")
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=len(shown))


def panels(films: pd.DataFrame, sequence: int) -> list[tuple[str, np.ndarray]]:
    """The images of one sequence, truth and predictions.

    Args:
        films: The table of `analyse`.
        sequence: Its number.

    Returns:
        (model, images uint8 [T, S, S, 3]) of truth and of each model's first seed.
    """
    part = films[films["sequence"] == sequence].sort_values("seed", kind="stable")
    return [(model, decode(part[part["model"] == model]["frames"].iloc[0])) for model in models(part)]


def draw_strip(films: pd.DataFrame, sequence: int, figure: Figure, theme: Theme) -> None:
    """Images of a sequence, a row a model, evenly over its steps; red frames are predictions.

    Args:
        films: The table of `analyse`.
        sequence: Its number.
        figure: Drawn into.
        theme: Colours of the page.
    """
    rows = panels(films, sequence)
    context = int(films["context"].iloc[0])
    T = len(rows[0][1])
    steps = np.unique(np.concatenate([[0, context - 1], np.linspace(context, T - 1, SHOWN - 2)]).round().astype(int))
    grid = figure.subplots(len(rows), len(steps), squeeze=False)
    for line, (model, images) in zip(grid, rows, strict=True):
        for axes, step in zip(line, steps, strict=True):
            axes.imshow(images[step])
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_visible(True)
                side.set_color(RED if step >= context and model != "truth" else theme.faint)
        line[0].set_ylabel(title(model), fontsize=9)
    for axes, step in zip(grid[0], steps, strict=True):
        axes.set_title("seen" if step < context else f"+{step - context + 1}", fontsize=8, fontweight="normal")


def write_film(films: pd.DataFrame, sequence: int, file: Path) -> Path:
    """Write a film of truth and predictions side by side: H.264, one frame a step.

    Args:
        films: The table of `analyse`.
        sequence: Its number.
        file: An .mp4 file.

    Returns:
        The file.

    Raises:
        DrawingError: No encoder works.
    """
    rows = panels(films, sequence)
    context = int(films["context"].iloc[0])
    with new_video(file, FPS) as video:
        for step in range(len(rows[0][1])):
            frame = np.concatenate([images[step] for _, images in rows], 1).repeat(ZOOM, 0).repeat(ZOOM, 1)
            bar = np.full((2 * ZOOM, frame.shape[1], 3), 255, np.uint8)
            if step >= context:
                bar[:, ZOOM * rows[0][1].shape[2] :] = (229, 56, 59)  # not below the truth
            video.add(np.concatenate([frame, bar]))
    return file


REPORT = StudyReport(result_table, sections)
