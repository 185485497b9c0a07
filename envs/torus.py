"""The torus: 13 x 13 cells without borders (Saanum and Schulz 2022, section 4.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from parsecrl.envs.grid_world import GridWorld
from parsecrl.envs.topology import Cell, Topology

SIZE = 13


class Torus(GridWorld):
    """`GridWorld` where leaving at one side is entering at the other; its observations have no wall bits.

    The paper does not name start and goal: these are 12 moves apart, as far as cells can be.

    Args:
        start: As in `GridWorld`.
        goal: As in `GridWorld`.
        size: Cells along each side, at least 3.
        **options: The other arguments of `GridWorld`.

    Raises:
        ValueError: As `GridWorld`, and for a size out of range.
    """

    def __init__(self, start: Cell | None = (3, 3), goal: Cell | None = (9, 9), size: int = SIZE, **options: Any):
        if isinstance(size, bool) or not isinstance(size, int) or size < 3:
            raise ValueError(f"size must be a whole number of 3 or more, got {size!r}; the paper has {SIZE}")
        super().__init__(Topology(np.zeros((size, size), bool), wraps=True), start, goal, **options)
