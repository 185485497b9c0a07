"""A short video of one episode. Where nothing can be drawn, a warning says why and the work goes on without.

A line below each frame says the episode's seed and its return so far.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pandas as pd

from parsecrl.algorithms.reporting.video import DrawingError, Video, new_video, with_line
from parsecrl.envs import choose_rendering_backend, make_env
from parsecrl.platform.evaluation.lockstep import (
    Controller,
    Policy,
    check_sizes,
    episode_seed,
    play,
    resolve,
    torch_threads,
)
from parsecrl.platform.storage import Location, upload

logger = logging.getLogger(__name__)
MAX_FPS = 50


class Film(NamedTuple):
    """A film, of which episode it is, and what that returned as far as the film goes."""

    file: Location
    episode: int
    seed: int
    episode_return: float


def typical_episode(rows: pd.DataFrame) -> int:
    """The episode whose return is nearest to the median.

    Args:
        rows: As of `evaluate`, one or more.

    Returns:
        Its number, the lowest of several.
    """
    ordered = rows.sort_values("episode")
    returns = ordered["episode_return"].to_numpy(float)
    return int(ordered["episode"].to_numpy()[np.abs(returns - np.median(returns)).argmin()])


def record_video(
    controller: Controller,
    env: Mapping[str, Any] | None,
    seed: int,
    file: str | Location,
    *,
    episode: int = 0,
    batch_size: int = 1,
    max_seconds: float | None = None,
    device: str = "cpu",
    num_threads: int = 1,
    trust: bool | Collection[str] = False,
    patience_s: float | None = None,
) -> Film | None:
    """Run one evaluation episode and write it as MP4 (H.264), in simulated time.

    There is a frame a decision, and at most 50 a second.

    Args:
        controller: As `evaluate` takes it.
        env: As `evaluate` takes it; None: that of the checkpoint.
        seed: The spec's, at least 0.
        file: An .mp4 file, on disk or in an object store.
        episode: Its number, from 0.
        batch_size: Episodes that the evaluation planned together; with the same one the episode is exactly that of the
            evaluation, on the same device.
        max_seconds: Cuts the episode short, in simulated seconds; None: to its end.
        device: Of the planning.
        num_threads: Of torch, where it plans on the CPU.
        trust: As `evaluate` has it.
        patience_s: As `evaluate` has it.

    Returns:
        The film; None, after a warning, where no rendering back end or encoder works: `file` is then as it was.

    Raises:
        UserError: As `evaluate` does.
        RunFailed: As `evaluate` does.
    """
    agent, env = resolve(controller, env, trust, seed)
    check_sizes(agent, env, controller)
    file = Path(file) if isinstance(file, str) else file
    try:
        task = drawable_env(env)
    except DrawingError as error:
        logger.warning("no video %s: %s", file, error)
        return None
    try:
        with torch_threads(num_threads, device):
            policy = Policy(agent, int(np.prod(task.action_space.shape or ())), seed, batch_size, device)
            row, own_seed = episode % batch_size, episode_seed(seed, episode)
            policy.start([episode if other == row else 0 for other in range(batch_size)], {row: task})
            played = play(policy.act, {row: task}, {row: own_seed}, batch_size, patience_s)
            next(played)
            total = _write(task, played, file, max_seconds, f"episode {episode}, seed {own_seed}")
            return Film(file, episode, own_seed, total)
    except DrawingError as error:
        logger.warning("no video %s: %s", file, error)
        return None
    finally:
        task.close()


def _write(task: gymnasium.Env, played: Iterator[Any], file: Location, max_seconds: float | None, label: str) -> float:
    """Write the film; the return of what it shows."""
    rate = float(task.metadata["render_fps"])  # decisions in a simulated second
    every = max(1, round(rate / MAX_FPS))
    limit = None if max_seconds is None else max(1, round(max_seconds * rate))
    frame = draw_frame(task)  # before the first plan: a machine that cannot draw shall not plan an episode for nothing
    with _new_video(file, rate / every) as video:
        total = 0.0
        video.add(with_line(frame, f"{label}, return {total:.1f}"))
        for decision, (_, steps) in enumerate(itertools.islice(played, limit), 1):
            total += sum(step.reward for step in steps)
            if decision % every == 0:
                video.add(with_line(draw_frame(task), f"{label}, return {total:.1f}"))
    return total


@contextmanager
def _new_video(file: Location, fps: float) -> Iterator[Video]:
    """`new_video`, which is uploaded when it is whole where `file` lies in an object store."""
    if isinstance(file, Path):
        with new_video(file, fps) as video:
            yield video
        return
    with tempfile.TemporaryDirectory(prefix="parsec-video-") as scratch:
        local = Path(scratch) / file.name
        with new_video(local, fps) as video:
            yield video
        upload(local, file)


def drawable_env(env: Mapping[str, Any]) -> gymnasium.Env:
    """Make a task that renders to arrays.

    Args:
        env: As `make_env` takes it.

    Returns:
        The task.

    Raises:
        DrawingError: It does not.
    """
    try:
        return make_env(**env, render_mode="rgb_array")
    except Exception as error:  # it was made without rendering a moment ago
        raise DrawingError(f"{env['id']} does not render to arrays ({error})") from error


def draw_frame(task: gymnasium.Env) -> np.ndarray:
    """A picture of a task.

    Args:
        task: Of `drawable_env`, after its reset.

    Returns:
        Bytes [height, width, 3].

    Raises:
        DrawingError: This machine cannot draw, or the task gives no array.
    """
    try:
        frame: Any = task.render()
    except Exception as error:
        raise DrawingError(
            f"cannot render with MUJOCO_GL={choose_rendering_backend()} ({error}); on Debian install libegl1 "
            f"libegl-mesa0 libgl1-mesa-dri libopengl0 (egl) or libosmesa6 (osmesa), and unset MUJOCO_GL"
        ) from error
    if not isinstance(frame, np.ndarray):
        raise DrawingError(f"the environment rendered {type(frame).__name__}, not an array")
    return frame
