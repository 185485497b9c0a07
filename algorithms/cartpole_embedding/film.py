"""A film of the controlled cartpole, or of the pendulum: the same initial state under each controller, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from parsecrl.algorithms.reporting.figures import PALETTE, RED
from parsecrl.algorithms.reporting.video import new_video

FPS = 20  # a step is 0.05 s
CONTROLLERS = (
    *(("CEM", PALETTE[0]), ("embedded DCEM", PALETTE[1])),
    *(("embedded DCEM, cold", PALETTE[3]), ("random", "#8b8f98")),
)
HALF_WIDTH, POLE = 3.0, 1.0  # metres


def shown_trial(episodes: pd.DataFrame, controller: str) -> pd.DataFrame:
    """A controller's episodes; of the embedded one's trials, those of one latent size at the highest temperature.

    Args:
        episodes: The table of `analyse_all`.
        controller: As the table names it.

    Returns:
        The rows of the latent size with the lowest cost.
    """
    part = episodes[episodes["controller"] == controller]
    if part["temperature"].notna().any():
        part = part[part["temperature"] == part["temperature"].max()]
        costs = part.groupby("latent_size")["cost"].sum()
        part = part[part["latent_size"] == costs.idxmin()]
    return part


def write_film(episodes: pd.DataFrame, file: Path, episode: int = 0) -> Path | None:
    """Write a film of each controller side by side: H.264, one frame a step, in simulated time.

    Args:
        episodes: The table of `analyse_all`.
        file: An .mp4 file.
        episode: Whose initial state is shown.

    Returns:
        The file; None, with nothing written, for dynamics that cannot be drawn here.

    Raises:
        DrawingError: No encoder works.
    """
    paths = {
        name: shown[shown["episode"] == episode].sort_values("step")
        for name, _ in CONTROLLERS
        if len(shown := shown_trial(episodes, name))
    }
    size = sum(column.startswith("state_") for column in episodes.columns)
    if size not in (3, 5) or not paths:
        return None
    figure = Figure(figsize=(3.2 * len(paths), 2.8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, len(paths), squeeze=False)[0])
    with new_video(file, FPS) as video:
        for step in range(max(map(len, paths.values()))):
            for axes, (name, color) in zip(panels, ((n, c) for n, c in CONTROLLERS if n in paths), strict=True):
                path = paths[name].iloc[: step + 1]
                _draw(axes, name, color, path.iloc[-1], float(path["cost"].sum()), size)
            canvas.draw()
            video.add(np.asarray(canvas.buffer_rgba())[..., :3])
    return file


def _draw(axes: Axes, name: str, color: str, row: pd.Series, cost: float, size: int) -> None:
    """Cartpole: (x, dx, cos, sin, dth); pendulum: (cos, sin, dth)."""
    axes.clear()
    x = float(row["state_0"]) if size == 5 else 0.0
    c, s = (float(row[f"state_{i}"]) for i in ((2, 3) if size == 5 else (0, 1)))
    middle = 2 * HALF_WIDTH * round(x / (2 * HALF_WIDTH))  # the view jumps when the cart leaves it
    axes.axhline(0, color="#a3abb8", lw=1)
    if size == 5:
        axes.add_patch(Rectangle((x - 0.3, -0.15), 0.6, 0.3, color=color))
        axes.plot([x, x + 0.5 * float(row["action_0"])], [-0.45, -0.45], color=RED, lw=3)
    axes.plot([x, x + POLE * s], [0, POLE * c], color="#22262e", lw=4, solid_capstyle="round")
    axes.set_xlim(middle - HALF_WIDTH, middle + HALF_WIDTH)
    axes.set_ylim(-1.5, 1.5)
    axes.set_aspect("equal")
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.set_title(f"{name}\nstep {int(row['step']) + 1}, cost {cost:.1f}", fontsize=9)
