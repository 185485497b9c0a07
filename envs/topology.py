"""Cells, walls and neighbours of a grid, as tables: what is true of a world, for those who step in it or analyse it.

Axes: R rows, C columns of the grid; S free cells, numbered row by row; E pairs of neighbours; A = 5 actions LEFT,
RIGHT, UP, DOWN, STAY.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

ACTIONS = ("LEFT", "RIGHT", "UP", "DOWN", "STAY")
STEPS = np.array([(0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)])  # [A, 2] rows down, columns to the right

Cell = tuple[int, int]


class Topology:
    """A grid of cells (row, column), counted from the upper left; a move into a wall leaves one where one is.

    Args:
        walls: [R, C] bool, cells that nothing can be in.
        wraps: Whether leaving at one side is entering at the other; otherwise walls surround the grid.
    """

    def __init__(self, walls: np.ndarray, wraps: bool = False):
        self.walls, self.wraps = np.asarray(walls, dtype=bool), wraps
        self.cells = np.argwhere(~self.walls)  # [S, 2]
        self.number = np.full(self.walls.shape, -1)  # [R, C] number of a cell, -1 for a wall
        self.number[~self.walls] = np.arange(len(self.cells))

    @cached_property
    def transitions(self) -> np.ndarray:
        """The cell that an action leads to, [S, A] int64."""
        to = self.cells[:, None] + STEPS  # [S, A, 2]
        shape = np.array(self.walls.shape)
        inside = ((to >= 0) & (to < shape)).all(-1)
        reached = self.number[tuple(np.moveaxis(to % shape, -1, 0))]  # [S, A]
        stays = (reached < 0) | (~inside if not self.wraps else False)
        return np.where(stays, np.arange(len(self.cells))[:, None], reached)

    @cached_property
    def wall_bits(self) -> np.ndarray:
        """Whether there is a wall to the left, to the right, above, below: [S, 4] bool."""
        return self.transitions[:, :4] == np.arange(len(self.cells))[:, None]

    @cached_property
    def neighbours(self) -> np.ndarray:
        """Pairs of cells one move apart, [E, 2] int64, each once, the smaller number first."""
        here = np.broadcast_to(np.arange(len(self.cells))[:, None], self.transitions.shape)
        pairs = np.stack([here, self.transitions], -1).reshape(-1, 2)
        return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)

    @cached_property
    def distances(self) -> np.ndarray:
        """Moves of a shortest path between cells, [S, S] int64; -1 where there is none."""
        distance = np.where(np.eye(len(self.cells), dtype=bool), 0, -1)
        for moves in range(1, len(self.cells)):  # all pairs at once, a ring of cells in each round
            # every move has a move back, so that a cell is reached as soon as one of its neighbours is
            ring = (distance[:, self.transitions] == moves - 1).any(-1) & (distance < 0)
            if not ring.any():
                break
            distance[ring] = moves
        return distance

    def number_of(self, cell: Cell, role: str) -> int:
        """The number of a free cell.

        Args:
            cell: (row, column), counted from 0.
            role: What the cell is for; names it in the error.

        Returns:
            In [0, S).

        Raises:
            ValueError: cell is no pair of whole numbers, outside the grid or on a wall.
        """
        rows, columns = self.walls.shape
        try:
            row, column = (_whole(x) for x in cell)
        except (TypeError, ValueError):
            raise ValueError(
                f"{role} must be a cell (row, column) of whole numbers, got {cell!r}; None draws one per episode"
            ) from None
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(
                f"{role} must lie in the grid of {rows} x {columns} cells, walls are around it, got {(row, column)}; "
                f"count rows and columns from 0"
            )
        if self.walls[row, column]:
            free = self.cells[np.abs(self.cells - (row, column)).sum(1).argmin()]
            raise ValueError(
                f"{role} must not be on a wall, got {(row, column)}; take a free cell such as {tuple(free.tolist())}"
            )
        return int(self.number[row, column])


def _whole(x: object) -> int:
    if isinstance(x, bool) or not isinstance(x, int | np.integer):
        raise TypeError
    return int(x)
