"""What is recorded of a model while something learns in a grid world: visits, and measures by episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from parsecrl.algorithms.latent_study.map_measures import map_measures
from parsecrl.algorithms.latent_study.measures import transformations_used
from parsecrl.algorithms.latent_study.tables import map_row, prediction_table
from parsecrl.algorithms.latent_study.worlds import World
from parsecrl.algorithms.models import LatentDynamics


class GridRecord:
    """Visits to the transitions of a grid world, and rows of two tables; S cells, A actions.

    Args:
        world: Whose cells are seen.
    """

    def __init__(self, world: World):
        self.world = world
        self.visited = np.zeros(world.transitions.shape, np.int64)  # [S, A] how often each action was taken in a cell
        self.predictions: list[dict[Any, Any]] = []  # rows of the predictions table, with the number of episodes
        self.maps: list[dict[str, Any]] = []  # rows of the maps table
        self._cell = {row.tobytes(): s for s, row in enumerate(world.observations)}

    def add(self, obs: np.ndarray, action: np.ndarray) -> None:
        """Count the transitions of an episode.

        Args:
            obs: [T + 1, O] float32.
            action: [T] int64.
        """
        np.add.at(self.visited, (np.array([self._cell[row.tobytes()] for row in obs[:-1]]), action), 1)

    def measure(self, model: LatentDynamics, episodes: int, seed: int) -> None:
        """Append what a model has made of the world so far.

        Args:
            model: On the CPU.
            episodes: After which it is measured.
            seed: Of the walks that are predicted.
        """
        table = prediction_table(model, self.world, self.visited, seed)
        unvisited = float((self.visited == 0).mean())
        used = float(transformations_used(model, self.world).mean())
        before: dict[Any, Any] = {"episodes": episodes, "unvisited": unvisited, "transformations": used}
        self.predictions += [before | row for row in table.to_dict("records")]
        self.maps.append({"episodes": episodes, **map_row(map_measures(model, self.world))})

    def state(self) -> dict[str, Any]:
        """What `set_state` takes, a copy."""
        return {"visited": self.visited.copy(), "predictions": list(self.predictions), "maps": list(self.maps)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was asked for.

        Args:
            state: What it returned.
        """
        self.visited = state["visited"].copy()
        self.predictions, self.maps = list(state["predictions"]), list(state["maps"])
