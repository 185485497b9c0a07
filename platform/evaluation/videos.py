"""A short video of one episode. Where nothing can be drawn, a warning says why and the work goes on without."""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from parsecrl.algorithms.reporting.video import DrawingError, Video, new_video
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


def record_video(
    controller: Controller,
    env: Mapping[str, Any] | None,
    seed: int,
    file: str | Location,
    *,
    episode: int = 0,
    max_seconds: float | None = None,
    device: str = "cpu",
    num_threads: int = 1,
    trust: bool | Collection[str] = False,
    patience_s: float | None = None,
) -> Location | None:
    """Run one evaluation episode and write it as MP4 (H.264), in simulated time.

    There is a frame a decision, and at most 50 a second.

    Args:
        controller: As `evaluate` takes it.
        env: As `evaluate` takes it; None: that of the checkpoint.
        seed: The spec's, at least 0.
        file: An .mp4 file, on disk or in an object store.
        episode: Its number, from 0.
        max_seconds: Cuts the episode short, in simulated seconds; None: to its end.
        device: Of the planning.
        num_threads: Of torch, where it plans on the CPU.
        trust: As `evaluate` has it.
        patience_s: As `evaluate` has it.

    Returns:
        The path; None, after a warning, where no rendering back end or encoder works: `file` is then as it was.

    Raises:
        UserError: As `evaluate` does.
        RunFailed: As `evaluate` does.
    """
    agent, env = resolve(controller, env, trust, seed)
    check_sizes(agent, env, controller)
    file = Path(file) if isinstance(file, str) else file
    try:
        task = _make_drawable(env)
    except DrawingError as error:
        logger.warning("no video %s: %s", file, error)
        return None
    try:
        with torch_threads(num_threads, device):
            policy = Policy(agent, int(np.prod(task.action_space.shape or ())), seed, 1, device)
            policy.start([episode], {0: task})
            played = play(policy.act, {0: task}, {0: episode_seed(seed, episode)}, 1, patience_s)
            next(played)
            return _write(task, played, file, max_seconds)
    except DrawingError as error:
        logger.warning("no video %s: %s", file, error)
        return None
    finally:
        task.close()


def _write(task: gymnasium.Env, played: Iterator[Any], file: Location, max_seconds: float | None) -> Location:
    rate = float(task.metadata["render_fps"])  # decisions in a simulated second
    every = max(1, round(rate / MAX_FPS))
    limit = None if max_seconds is None else max(1, round(max_seconds * rate))
    frame = _draw(task)  # before the first plan: a machine that cannot draw shall not plan an episode for nothing
    with _new_video(file, rate / every) as video:
        video.add(frame)
        for decision, _ in enumerate(itertools.islice(played, limit), 1):
            if decision % every == 0:
                video.add(_draw(task))
    return file


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


def _make_drawable(env: Mapping[str, Any]) -> gymnasium.Env:
    try:
        return make_env(**env, render_mode="rgb_array")
    except Exception as error:  # it was made without rendering a moment ago
        raise DrawingError(f"{env['id']} does not render to arrays ({error})") from error


def _draw(task: gymnasium.Env) -> np.ndarray:
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
