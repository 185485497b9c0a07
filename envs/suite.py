"""dm_control's tasks through Shimmy: registering them, and what Shimmy leaves open."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

import gymnasium
import numpy as np

PREFIX = "dm_control/"
RENDER_SIZE = {"width": 320, "height": 240}


def register() -> None:
    """Import Shimmy, which registers dm_control's tasks.

    Raises:
        ValueError: MUJOCO_GL names a back end that does not work here.
    """
    from absl import logging as absl_logging

    logger = absl_logging.get_absl_logger()
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)
    try:
        importlib.import_module("dm_control.suite")
    except Exception as error:  # whatever the OpenGL loader threw: AttributeError, ImportError, RuntimeError
        raise ValueError(
            f"MUJOCO_GL must name a rendering back end that works here, got {os.environ.get('MUJOCO_GL')!r} ({error}); "
            f"unset it, or set it to egl, osmesa or off"
        ) from error
    importlib.import_module("shimmy")


def _is_news(record: logging.LogRecord) -> bool:
    """False for MuJoCo's deprecation notes on dm_control's own model files, which no user of them can act on."""
    return "is deprecated and will be removed" not in record.getMessage()


def seeded_arguments(id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Add what fixes a task's model: some (lqr) are drawn when they are built, and a seed shall fix an episode.

    Args:
        id: Of a task of dm_control, registered.
        arguments: The task's own.

    Returns:
        The arguments, those of a suite's task with a seed of the model.
    """
    if not _is_suite_task(id):
        return arguments
    return {**arguments, "task_kwargs": {"random": 0, **(arguments.get("task_kwargs") or {})}}


def complete(id: str, env: gymnasium.Env) -> None:
    """Give a task of dm_control unseeded randomness until `reset(seed=)`, and a size to its pictures.

    Args:
        id: Of the task.
        env: The task, as Shimmy made it.
    """
    task: Any = env.unwrapped
    if _is_suite_task(id):
        task.np_random = np.random.RandomState()  # Shimmy's type
    task.render_kwargs = {**RENDER_SIZE, "camera_id": 0 if task.physics.model.ncam else -1}


def _is_suite_task(id: str) -> bool:
    from dm_control import suite

    return any(id == f"{PREFIX}{domain}-{task}-v0" for domain, task in suite.ALL_TASKS)
