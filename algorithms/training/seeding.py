"""Seeds for every role of a run, derived from the spec's one seed.

A generator that is seeded anew for each piece of work (a rollout fragment, an update) from (seed, role, index) has no
state to save: a run that continues from a checkpoint draws what it would have drawn, and never the same twice.
"""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, role: str, *index: int) -> int:
    """A seed in [0, 2**31) for piece `index` of a role's work; distinct roles and indices are independent."""
    entropy = [seed, zlib.crc32(role.encode()), *index]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
