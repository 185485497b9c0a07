"""Four rooms on 11 x 11 cells, joined by four doors (Saanum and Schulz 2022, section 4.1).

The paper shows its partitions in a picture only; these are those of Sutton, Precup and Singh (1999), 104 free cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parsecrl.envs.grid_world import GridWorld
from parsecrl.envs.topology import Cell, Topology

LAYOUT = """\
.....#.....
.....#.....
...........
.....#.....
.....#.....
#.####.....
.....###.##
.....#.....
.....#.....
...........
.....#....."""


class FourRooms(GridWorld):
    """`GridWorld` in four rooms; start and goal lie in opposite ones, 16 moves apart.

    The paper does not name the two cells.

    Args:
        start: As in `GridWorld`.
        goal: As in `GridWorld`.
        **options: The other arguments of `GridWorld`.
    """

    def __init__(self, start: Cell | None = (1, 1), goal: Cell | None = (9, 9), **options: Any):
        walls = np.array([[sign == "#" for sign in line] for line in LAYOUT.splitlines()])
        super().__init__(Topology(walls), start, goal, **options)
