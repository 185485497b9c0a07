"""What is said of observations whose unit models of latent dynamics do not suit."""

from __future__ import annotations

import logging

import numpy as np

from parsecrl.algorithms.registry.algorithm import PlayedTask
from parsecrl.algorithms.registry.units import units_warnings

logger = logging.getLogger(__name__)

WHO = "models of latent dynamics take them"  # the published sweeps of grid worlds stay what they were


def told_of_units(task: PlayedTask) -> list[str]:
    """Say before a run that observations are so large or small that a model of latent dynamics hardly learns.

    Args:
        task: The world.

    Returns:
        A sentence, or nothing.
    """
    return units_warnings(task.obs_rms, task.name, WHO)


def warn_of_units(obs: np.ndarray, world_id: str) -> bool:
    """Log what `told_of_units` says, for a trial that no run has checked before.

    Args:
        obs: [M, O] of an episode.
        world_id: The world's, for the message.

    Returns:
        Whether it warned.
    """
    told = units_warnings(float(np.sqrt(np.mean(np.square(obs, dtype=np.float64)))), world_id, WHO)
    for sentence in told:
        logger.warning("%s", sentence)
    return bool(told)
