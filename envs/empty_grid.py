"""The gridworld of the paper: 11 x 11 cells, walls around (Saanum and Schulz 2022, section 4.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from parsecrl.envs.grid_world import GridWorld
from parsecrl.envs.topology import Cell, Topology

SIZE = 11


class EmptyGrid(GridWorld):
    """`GridWorld` on an empty square; the goal is 16 moves from the start.

    The paper does not name the two cells.

    Args:
        start: As in `GridWorld`.
        goal: As in `GridWorld`.
        size: Cells along each side, at least 2.
        **options: The other arguments of `GridWorld`.

    Raises:
        ValueError: As `GridWorld`, and for a size out of range.
    """

    def __init__(self, start: Cell | None = (1, 1), goal: Cell | None = (9, 9), size: int = SIZE, **options: Any):
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise ValueError(f"size must be a whole number of 2 or more, got {size!r}; the paper has {SIZE}")
        super().__init__(Topology(np.zeros((size, size), bool)), start, goal, **options)
