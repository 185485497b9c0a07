"""Films, written frame by frame."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


STRIP, INK, PAPER = 22, (228, 231, 236), (26, 30, 38)  # pixels; colours of the line below a frame


class DrawingError(Exception):
    """Rendering or encoding failed; the cause is chained."""


@contextmanager
def new_video(file: Path, fps: float) -> Iterator[Video]:
    """A film that is at `file`, whole, when the context has ended without an error, and nowhere otherwise.

    Args:
        file: An .mp4 file; its folder is made where it is missing.
        fps: Frames a second, > 0.

    Yields:
        The film, which takes frames.

    Raises:
        DrawingError: No encoder works here.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.stem}.{os.getpid()}.mp4")
    video = Video(unfinished, fps)
    try:
        yield video
        video.close()
        os.replace(unfinished, file)
    finally:
        video.abandon()
        unfinished.unlink(missing_ok=True)


class Video:
    """An H.264 file that browsers play: yuv420p, even sides, its index in front.

    Args:
        file: An .mp4 file, in an existing folder.
        fps: Frames a second, > 0.

    Raises:
        DrawingError: No encoder works here.
    """

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
        """Append a frame [height, width, 3] of bytes; odd sides lose a row or a column."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        try:
            self.writer.append_data(np.ascontiguousarray(frame[:height, :width]))
        except Exception as error:
            raise DrawingError(f"imageio-ffmpeg cannot encode here ({error})") from error

    def close(self) -> None:
        """Write what is still buffered."""
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


def with_line(frame: np.ndarray, text: str) -> np.ndarray:
    """A frame with a line of text below.

    Args:
        frame: [height, width, 3] of bytes.
        text: As much of it as fits is seen.

    Returns:
        [height + STRIP, width, 3] of bytes.
    """
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (frame.shape[1], STRIP), PAPER)
    ImageDraw.Draw(strip).text((6, STRIP // 2), text, fill=INK, font=ImageFont.load_default(12), anchor="lm")
    return np.concatenate([frame, np.asarray(strip)])
