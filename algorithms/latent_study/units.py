"""What is said of observations whose unit models of latent dynamics do not suit."""

from __future__ import annotations

import logging

import numpy as np

logger = logging.getLogger(__name__)

SUITABLE = (1e-2, 1e2)  # root mean squares of observations that networks and losses are made for


def warn_of_units(obs: np.ndarray, world_id: str) -> bool:
    """Warn where observations are so large or small that a model of latent dynamics hardly learns.

    These models take observations as they are: the published sweeps of grid worlds stay what they were. Losses compare
    observations in their own unit.

    Args:
        obs: [M, O] of an episode.
        world_id: The world's, for the message.

    Returns:
        Whether it warned.
    """
    size = float(np.sqrt(np.mean(np.square(obs, dtype=np.float64))))
    suits = SUITABLE[0] <= size <= SUITABLE[1]
    if not suits:
        logger.warning(
            "observations of %s have a root mean square of %.3g, and models of latent dynamics take them as they are, "
            "best between %g and %g; scale them by a wrapper of the environment",
            *(world_id, size, *SUITABLE),
        )
    return not suits
