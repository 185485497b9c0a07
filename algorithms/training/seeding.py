"""Seeds for every role of a run, derived from the spec's one seed.

A generator that is seeded anew for each piece of work (a rollout fragment, an update) from (seed, role, index) has no
state to save: a run that continues from a checkpoint draws what it would have drawn, and never the same twice.
"""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, role: str, *index: int) -> int:
    """Derive a seed; distinct roles and indices are independent.

    Args:
        seed: Of the run, >= 0.
        role: What draws, such as "rollout".
        index: Which piece of the role's work, each >= 0.

    Returns:
        A seed in [0, 2**31), the same for the same arguments on every machine.
    """
    entropy = [seed, zlib.crc32(role.encode()), *index]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
