"""A short video of one episode. Where nothing can be drawn, a warning says why and the work goes on without."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from parsecrl.envs import choose_rendering_backend, make_env
from parsecrl.platform.evaluation.lockstep import Controller, Policy, check_sizes, episode_seed, resolve, torch_threads
from parsecrl.platform.storage import Location, RemotePath, upload

logger = logging.getLogger(__name__)
MAX_FPS = 50


class DrawingError(Exception):
    """Rendering or encoding failed; the cause is chained."""


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
) -> Location | None:
    """Run evaluation episode `episode` of the spec's `seed` and write it as MP4 (H.264), in simulated time.

    A frame a decision, at most 50 frames a second. max_seconds cuts the episode short.
    Returns the path, or None, after a warning, where no rendering back end or encoder works; `file` is then as it was.
    Raises UserError as `evaluate` does.
    """
    agent, env = resolve(controller, env)
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
            policy.start([episode])
            obs, _ = task.reset(seed=episode_seed(seed, episode))
            return _write(task, policy, obs, file, max_seconds)
    except DrawingError as error:
        logger.warning("no video %s: %s", file, error)
        return None
    finally:
        task.close()


def _write(task: gymnasium.Env, policy: Policy, obs: np.ndarray, file: Location, max_seconds: float | None) -> Location:
    rate = float(task.metadata["render_fps"])  # decisions in a simulated second
    every = max(1, round(rate / MAX_FPS))
    limit = None if max_seconds is None else max(1, round(max_seconds * rate))
    frame = _draw(task)  # before the first plan: a machine that cannot draw shall not plan an episode for nothing
    with new_video(file, rate / every) as video:
        video.add(frame)
        decision, over = 0, False
        while not over and (limit is None or decision < limit):
            obs, _, terminated, truncated, _ = task.step(policy.act(obs[None])[0])
            decision, over = decision + 1, terminated or truncated
            if decision % every == 0:
                video.add(_draw(task))
    return file


@contextmanager
def new_video(file: Location, fps: float) -> Iterator[Video]:
    """A video that is at `file`, whole, when the context has ended without an error, and nowhere otherwise."""
    unfinished = _beside(file)
    video = Video(unfinished, fps)
    try:
        yield video
        video.close()
        upload(unfinished, file)
    finally:
        video.abandon()
        unfinished.unlink(missing_ok=True)


def _beside(file: Location) -> Path:
    """Where the film is written until it is whole: beside `file`, or for an object store among temporary files."""
    name = f".{file.stem}.{os.getpid()}.mp4"
    if isinstance(file, RemotePath):
        return Path(tempfile.gettempdir()) / f"parsec{name}"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.with_name(name)


class Video:
    """An H.264 file that browsers play: yuv420p, even sides, its index in front."""

    def __init__(self, file: Path, fps: float):
        try:
            import imageio.v2 as imageio

            self.writer: Any = imageio.get_writer(
                file,
                format="FFMPEG",  # type: ignore[arg-type]  # imageio's stub wants a Format object
                mode="I",
                fps=fps,
                codec="libx264",
                quality=None,
                macro_block_size=2,
                ffmpeg_log_level="error",
                output_params=["-crf", "26", "-movflags", "+faststart"],
            )
        except Exception as error:
            raise DrawingError(f"imageio-ffmpeg cannot encode here ({error}); pip install imageio-ffmpeg") from error

    def add(self, frame: np.ndarray) -> None:
        height, width = (side - side % 2 for side in frame.shape[:2])
        try:
            self.writer.append_data(np.ascontiguousarray(frame[:height, :width]))
        except Exception as error:
            raise DrawingError(f"imageio-ffmpeg cannot encode here ({error})") from error

    def close(self) -> None:
        try:
            self.writer.close()
        except Exception as error:
            raise DrawingError(f"imageio-ffmpeg cannot encode here ({error})") from error

    def abandon(self) -> None:
        """Close without complaint: the file is unfinished, or closed already."""
        try:
            self.writer.close()
        except Exception as error:
            logger.debug("closing an unfinished video: %s", error)


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
