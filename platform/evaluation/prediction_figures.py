"""Predicted against real observations and rewards along an episode: a figure, and a film."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parsecrl.algorithms.reporting.figures import PALETTE, RED, THEMES, Plot, Theme, styled
from parsecrl.algorithms.reporting.video import new_video, with_line
from parsecrl.platform.evaluation.predictions import Predictions

ENTRIES = 3  # of observations that are shown
NEAR, FAR = PALETTE[0], PALETTE[1]
FRAME_HEIGHT = 480  # pixels of a film


def prediction_plot(found: Predictions, title: str) -> Plot:
    """Rewards and observations along an episode, as they came and as they were predicted.

    Args:
        found: The episode.
        title: Of what, for those who cannot see the figure.

    Returns:
        The plot.
    """
    entries, H = found.shown_entries(ENTRIES), found.horizon

    def draw(figure: Figure, theme: Theme) -> None:
        panels = figure.subplots(len(entries) + 2, 1)
        real = [found.rewards, *(found.obs[1:, entry] for entry in entries)]
        predicted = [found.predicted_rewards, *(found.predicted_obs[:, :, entry] for entry in entries)]
        names = ["reward", *(f"observation {entry + 1}" for entry in entries)]
        for axes, line, lines, name in zip(panels, real, predicted, names, strict=False):
            _along(axes, line, lines, theme)
            axes.set_ylabel(name, fontsize=9)
            axes.sharex(panels[0])
        panels[len(entries)].set_xlabel("decisions")
        panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
        _explained(panels[-1], found, theme)

    promised, achieved = float(np.nanmean(found.promised)), found.achieved
    said = ""
    if np.isfinite(achieved).any():
        said = (
            f" Over the {H} decisions of their horizon plans promised {promised:.3g} on average; "
            f"{float(np.nanmean(achieved)):.3g} was achieved."
        )
    total = "return" if found.is_whole else "return so far"
    return Plot(
        draw,
        (9.0, 1.35 * (len(entries) + 1) + 2.4),
        f"Predicted and real rewards and observations, {title}",
        f"An episode of seed {found.seed}, {total} {found.rewards.sum():.1f}: what came, and what the world model "
        f"predicted 1 and {H} decisions before, along the actions that were then taken. The entries of observations "
        f"are those that vary most. Below: the share of the variance that is predicted, by decisions ahead; 0 is no "
        f"better than the mean; cut off at -1.{said}",
    )


def _along(axes: Axes, real: np.ndarray, predicted: np.ndarray, theme: Theme) -> None:
    """real [T]; predicted [T, H]."""
    T, H = predicted.shape
    steps = np.arange(1, T + 1)
    axes.plot(steps, real, color=theme.ink, lw=1.6, label="real")
    axes.plot(steps, predicted[:, 0], color=NEAR, lw=1.1, label="predicted 1 decision before")
    if T > H > 1:
        axes.plot(steps[H - 1 :], predicted[: T - H + 1, -1], color=FAR, lw=1.1, label=f"predicted {H} before")
    axes.tick_params(labelsize=8)


def _explained(axes: Axes, found: Predictions, theme: Theme) -> None:
    ahead = np.arange(1, found.horizon + 1)
    for share, color, name in zip(found.explained, (RED, PALETTE[2]), ("rewards", "observations"), strict=True):
        axes.plot(ahead, np.clip(share, -1.0, 1.0), color=color, marker=".", label=name)
    axes.axhline(0.0, color=theme.paper, lw=0.8)
    axes.set_ylim(top=1.05)
    axes.set_xlabel("decisions ahead")
    axes.set_ylabel("share predicted", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.tick_params(labelsize=8)
    axes.legend(loc="lower left")


def write_film(found: Predictions, frames: list[np.ndarray], file: Path, fps: float) -> None:
    """A film of the episode: the task on the left, what is predicted from each decision on, on the right.

    Args:
        found: The episode.
        frames: Pictures of the task [height, width, 3], one before each decision and one at the end; empty where it
            cannot be drawn, and the film has the right side alone.
        file: An .mp4 file.
        fps: Frames a second, > 0.

    Raises:
        DrawingError: No encoder works here.
    """
    with styled(THEMES[1]), new_video(file, fps) as video:
        panels, show = _moving(found, THEMES[1])
        total = np.concatenate([[0.0], np.cumsum(found.rewards)])
        for t in range(len(found.rewards)):
            show(t)
            panels.draw()
            picture = np.asarray(panels.buffer_rgba())[..., :3]
            if frames:
                picture = np.concatenate([_of_height(frames[t], len(picture)), picture], 1)
            video.add(with_line(picture, f"seed {found.seed}, decision {t}, return {total[t]:.1f}"))


def _moving(found: Predictions, theme: Theme) -> tuple[FigureCanvasAgg, Callable[[int], None]]:
    """The panels of a film, and what moves them to a decision."""
    entries, (T, H) = found.shown_entries(ENTRIES), found.predicted_rewards.shape
    figure = Figure(figsize=(FRAME_HEIGHT * 1.25 / 100, FRAME_HEIGHT / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(entries) + 1, 1, sharex=True, squeeze=False)[:, 0]
    real = [found.rewards, *(found.obs[1:, entry] for entry in entries)]
    predicted = [found.predicted_rewards, *(found.predicted_obs[:, :, entry] for entry in entries)]
    steps, moving = np.arange(1, T + 1), list[Any]()
    names = ["reward", *(f"observation {entry + 1}" for entry in entries)]
    for axes, line, lines, name in zip(panels, real, predicted, names, strict=True):
        axes.plot(steps, line, color=theme.paper, alpha=0.6, lw=1.2, label="real, later")
        (past,) = axes.plot([], [], color=theme.ink, lw=1.8, label="real")
        (ahead,) = axes.plot([], [], color=RED, lw=1.8, label="predicted from here")
        both = np.concatenate([line, lines[np.isfinite(lines)]])
        margin = 0.05 * max(float(np.ptp(both)), 1e-6)
        axes.set_ylim(both.min() - margin, both.max() + margin)
        axes.set_ylabel(name, fontsize=8)
        axes.tick_params(labelsize=7)
        moving.append((past, ahead, axes.axvline(0, color=theme.paper, lw=0.8)))
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8, borderaxespad=0.1)
    panels[-1].set_xlabel("decisions", fontsize=8)
    window = 4 * H

    def show(t: int) -> None:
        for (past, ahead, now), line, lines in zip(moving, real, predicted, strict=True):
            past.set_data(steps[:t], line[:t])
            ahead.set_data(steps[t : t + H], lines[t, : len(steps[t : t + H])])
            now.set_xdata([t, t])
        panels[0].set_xlim(max(0, t - window + H), max(window, t + H))

    return canvas, show


def _of_height(frame: np.ndarray, height: int) -> np.ndarray:
    from PIL import Image

    width = round(frame.shape[1] * height / frame.shape[0])
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((width, height)))
