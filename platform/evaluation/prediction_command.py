"""`parsec evaluate --predictions FILE`: a figure or a film of one episode beside what its model predicts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parsecrl.algorithms.reporting.figures import render
from parsecrl.algorithms.reporting.video import DrawingError
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.prediction_figures import prediction_plot, write_film
from parsecrl.platform.evaluation.predictions import predict_episode
from parsecrl.platform.evaluation.videos import MAX_FPS, draw_frame, drawable_env
from parsecrl.platform.storage import Location


def show_predictions(
    checkpoint: Location,
    env: Mapping[str, Any],
    seed: int,
    episode: int,
    file: Path,
    trust: bool,
    patience_s: float | None,
) -> str:
    """Play an episode once more, alone, and write its figure or film.

    Args:
        checkpoint: Its folder.
        env: As `evaluate` takes it.
        seed: As `evaluate` takes it.
        episode: Its number.
        file: .png or .mp4.
        trust: As `evaluate` has it.
        patience_s: As `evaluate` has it.

    Returns:
        What was written, in a line.

    Raises:
        UserError: The agent has no world model, or as `evaluate`.
        RunFailed: As `evaluate`.
    """
    frames: list[np.ndarray] = []
    draws = file.suffix == ".mp4" and _can_draw(env)
    found = predict_episode(
        checkpoint,
        env,
        seed,
        episode=episode,
        trust=trust,
        patience_s=patience_s,
        render_mode="rgb_array" if draws else None,
        draw=(lambda task: frames.append(draw_frame(task))) if draws else None,
    )
    if found is None:
        raise UserError(f"--predictions needs an agent that plans in a world model, and {checkpoint} has none")
    if file.suffix == ".png":
        with tempfile.TemporaryDirectory(prefix="parsec-figure-") as scratch:
            made = render(prediction_plot(found, checkpoint.name), Path(scratch), "figure")
            file.write_bytes(made.light.read_bytes())
    else:
        try:
            write_film(found, frames, file, _rate(env))
        except DrawingError as error:
            return f"predictions: none ({error})"
    total = f"return {found.rewards.sum():.1f}, seed {found.seed}"
    return f"predictions: {file} (the episode nearest to the median, played alone: {total})"


def _can_draw(env: Mapping[str, Any]) -> bool:
    """Whether the task renders on this machine; a film without it shows the predictions alone."""
    try:
        task = drawable_env(env)
    except DrawingError:
        return False
    try:
        task.reset(seed=0)
        draw_frame(task)
    except DrawingError:
        return False
    finally:
        task.close()
    return True


def _rate(env: Mapping[str, Any]) -> float:
    from parsecrl.envs import make_env

    task = make_env(**env)
    try:
        return min(MAX_FPS, float(task.metadata["render_fps"]))
    finally:
        task.close()
