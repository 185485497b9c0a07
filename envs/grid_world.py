"""What the grid worlds share (Saanum and Schulz 2022, section 4).

One sees a random vector that belongs to the cell one is in: nothing in it tells where that cell lies. The latent
structure has to come from the transitions.

Axes: O observation, S free cells, R rows and C columns of the grid.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from parsecrl.envs.topology import ACTIONS, Cell, Topology

POLICY_STEPS, PLANNING_STEPS = 250, 50  # steps of an episode with fixed start and goal, and with drawn ones
LARGEST = 10.0  # bound of an observation's entries, standard normal draws; none comes near it
PIXELS = 24  # a cell's side in a picture

FREE, WALL, START, GOAL, AGENT = (245, 245, 242), (60, 60, 66), (246, 211, 74), (212, 62, 54), (42, 94, 168)


class GridWorld(gymnasium.Env[np.ndarray, np.int64]):
    """Walk to the goal and stay there.

    Actions: 0 LEFT, 1 RIGHT, 2 UP, 3 DOWN, 4 STAY. Observation [O], float32: the cell's vector of `observation_size`
    standard normal numbers. Unless the world wraps, 4 bits follow: 1 where a wall is to the left, to the right, above,
    below. Reward of a step: +1 if taken from the goal, -1 from anywhere else. Episodes end by truncation alone.

    info: "state" and "goal_state", numbers of cells, and from `reset` also "goal_observation" [O].

    Args:
        topology: The cells, and where moves lead.
        start: A free cell (row, column), fixed; or None, then drawn uniformly for every episode, another cell than the
            goal.
        goal: A free cell (row, column), fixed and not the start; or None, then drawn likewise.
        observation_size: Numbers of a cell's vector, at least 1.
        episode_steps: At least 1. None is 250 with a fixed start and goal (the policy task), 50 where either is drawn
            (the planning task).
        layout_seed: Of the cells' vectors, 0 or more. The seed of `reset` does not touch them: all copies see the same
            world.
        render_mode: None, or "rgb_array".

    Raises:
        ValueError: Start or goal is on a wall, outside or the same cell as the other, or a number is out of range.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(
        self,
        topology: Topology,
        start: Cell | None,
        goal: Cell | None,
        observation_size: int = 50,
        episode_steps: int | None = None,
        layout_seed: int = 0,
        render_mode: str | None = None,
    ):
        for name, value, least in (
            ("observation_size", observation_size, 1),
            ("episode_steps", POLICY_STEPS if episode_steps is None else episode_steps, 1),
            ("layout_seed", layout_seed, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number of {least} or more, got {value!r}; set env.{name}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}; leave it out")
        self.topology, self.render_mode = topology, render_mode
        self.start = None if start is None else topology.number_of(start, "start")
        self.goal = None if goal is None else topology.number_of(goal, "goal")
        self._check_apart(self.start, self.goal)
        is_drawn = start is None or goal is None
        self.episode_steps = episode_steps or (PLANNING_STEPS if is_drawn else POLICY_STEPS)
        self.observations = self._draw_observations(int(layout_seed), int(observation_size))  # [S, O]
        high = np.full(self.observations.shape[1], LARGEST, np.float32)
        low = -high
        low[observation_size:], high[observation_size:] = 0.0, 1.0
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Discrete(len(ACTIONS))
        self._transitions = topology.transitions.tolist()  # of lists, not arrays: a step reads one number
        self._state = self._start = self._goal = -1
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Of the drawn cells.
            options: "start" and "goal", free cells (row, column), set either for this episode.

        Returns:
            Observation [O] and info.

        Raises:
            ValueError: An option has another name, or a cell cannot be entered.
        """
        super().reset(seed=seed)
        start, goal = self.start, self.goal
        for name, cell in (options or {}).items():
            if name == "start":
                start = self.topology.number_of(cell, name)
            elif name == "goal":
                goal = self.topology.number_of(cell, name)
            else:
                raise ValueError(f"options of reset must be start or goal, got {name!r}; leave it out")
        self._check_apart(start, goal)
        S = len(self.observations)
        if start is None and goal is None:
            start, goal = self.np_random.choice(S, 2, replace=False).tolist()
        elif goal is None:
            goal = (int(start) + int(self.np_random.integers(1, S))) % S  # type: ignore[arg-type]
        elif start is None:
            start = (goal + int(self.np_random.integers(1, S))) % S
        self._start = self._state = int(start)  # type: ignore[arg-type]
        self._goal, self._steps = int(goal), 0
        return self.observations[self._state].copy(), self._info(goal_observation=self.observations[self._goal].copy())

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take an action, 0 to 4, else ValueError. Nothing terminates; truncated when the steps are over."""
        if not self.action_space.contains(action):
            raise ValueError(f"the action must be a whole number from 0 to 4 ({', '.join(ACTIONS)}), got {action!r}")
        reward = 1.0 if self._state == self._goal else -1.0
        self._state = self._transitions[self._state][int(action)]
        self._steps += 1
        is_over = self._steps >= self.episode_steps
        return self.observations[self._state].copy(), reward, False, is_over, self._info()

    def render(self) -> np.ndarray | None:  # type: ignore[override]  # Gymnasium has a type variable there
        """Draw the world: walls dark, start yellow, goal red, oneself a blue square.

        A frame of walls is drawn around a world that does not wrap.

        Returns:
            uint8 [height, width, 3], or None without a render mode.
        """
        if self.render_mode is None:
            return None
        grid = np.where(self.topology.walls[..., None], WALL, FREE).astype(np.uint8)  # [R, C, 3]
        cells = self.topology.cells
        for number, colour in ((self._start, START), (self._goal, GOAL)):
            if number >= 0:
                grid[tuple(cells[number])] = colour
        picture = grid.repeat(PIXELS, 0).repeat(PIXELS, 1)
        lines = np.arange(len(picture)) % PIXELS == 0, np.arange(picture.shape[1]) % PIXELS == 0
        picture[lines[0]], picture[:, lines[1]] = 200, 200
        if self._state >= 0:
            inset = PIXELS // 4
            top, left = cells[self._state] * PIXELS + inset
            picture[top : top + PIXELS - 2 * inset, left : left + PIXELS - 2 * inset] = AGENT
        if self.topology.wraps:
            return picture
        rows, columns, _ = picture.shape
        framed = np.full((rows + PIXELS, columns + PIXELS, 3), WALL, np.uint8)
        framed[PIXELS // 2 : -PIXELS // 2, PIXELS // 2 : -PIXELS // 2] = picture
        return framed

    def _draw_observations(self, layout_seed: int, observation_size: int) -> np.ndarray:
        """[S, O] float32: what is seen in each cell."""
        rng = np.random.default_rng(layout_seed)
        vectors = rng.standard_normal((len(self.topology.cells), observation_size), dtype=np.float32)
        vectors = vectors.clip(-LARGEST, LARGEST)
        return vectors if self.topology.wraps else np.hstack([vectors, self.topology.wall_bits.astype(np.float32)])

    def _check_apart(self, start: int | None, goal: int | None) -> None:
        if start is not None and start == goal:
            cell = tuple(self.topology.cells[start].tolist())
            raise ValueError(f"start and goal must be two cells, got {cell} for both; move one of them")

    def _info(self, **more: np.ndarray) -> dict[str, Any]:
        return {"state": self._state, "goal_state": self._goal, **more}
