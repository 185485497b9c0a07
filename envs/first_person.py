"""What the first-person worlds of pixels share: small pictures, six discrete actions, things to seek and to avoid.

They stand in for DeepMind Lab's `seekavoid_arena_01` (Saanum and Schulz 2022, section 5), which no package index has.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ACTIONS = ("FORWARD", "BACK", "LEFT", "RIGHT", "TURN_LEFT", "TURN_RIGHT")
SIZE = 80  # of a picture, the paper's


class FirstPersonWorld(gymnasium.Env[np.ndarray, np.int64]):
    """A 3D world seen from inside.

    Actions: 0 FORWARD, 1 BACK, 2 LEFT, 3 RIGHT (these four keep the view's direction where the body can), 4 TURN_LEFT,
    5 TURN_RIGHT. Observation: uint8 [80, 80, 3], what is seen, in RGB; no position, velocity or score is in it.

    Args:
        frame_skip: Ticks of the world that an action lasts, at least 1; one picture is drawn at their end.
        ticks_per_second: Of the world's own time, > 0, for videos.
        render_mode: None, or "rgb_array".

    Raises:
        ValueError: frame_skip is below 1, or the render mode is unknown.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]  # Gymnasium declares a plain dict

    def __init__(self, frame_skip: int, ticks_per_second: float, render_mode: str | None):
        if isinstance(frame_skip, bool) or not isinstance(frame_skip, int | np.integer) or frame_skip < 1:
            raise ValueError(
                f"frame_skip must be a whole number of 1 or more, got {frame_skip!r}; set world.frame_skip"
            )
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}; leave it out")
        self.frame_skip, self.render_mode = int(frame_skip), render_mode
        self.metadata = {**self.metadata, "render_fps": ticks_per_second / frame_skip}  # type: ignore[misc]  # as Gymnasium does it
        self.observation_space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = spaces.Discrete(len(ACTIONS))

    def check_action(self, action: np.int64) -> int:
        """Check an action.

        Args:
            action: 0 to 5.

        Returns:
            The action as a plain number.

        Raises:
            ValueError: action is another number.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"the action must be a whole number from 0 to 5 ({', '.join(ACTIONS)}), got {action!r}")
        return int(action)
