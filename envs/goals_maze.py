"""A maze of rooms with green balls to seek and red ones to avoid: dm_control's ManyHeterogeneousGoalsMaze.

The walker is dm_control's rolling ball with a head, whose camera is what one sees. Drawing needs OpenGL without a
screen, EGL or OSMesa (`choose_rendering_backend`).
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np

from parsecrl.envs.first_person import SIZE, FirstPersonWorld

TICKS_PER_SECOND = 40.0  # the task's control time step, 25 ms
PHYSICS_SECONDS = 0.0125  # most of a step's time is dm_control's look at the contacts after each of these
CELLS = 11  # along each side of the maze, walls included
ROOMS = {"max_rooms": 4, "room_min_size": 4, "room_max_size": 5, "spawns_per_room": 1, "objects_per_room": 4}
RENDER_SIZE = (240, 240)
GREEN, RED = ((0.0, 0.4, 0.0), (0.0, 0.7, 0.0)), ((0.5, 0.0, 0.0), (0.8, 0.0, 0.0))
REWARDS = (1.0, -1.0)  # of a green and of a red ball

# (roll, steer) of the walker: it cannot move sideways, so LEFT and RIGHT are curves.
CONTROLS = ((1.0, 0.0), (-1.0, 0.0), (1.0, -0.5), (1.0, 0.5), (0.0, -1.0), (0.0, 1.0))


class GoalsMaze(FirstPersonWorld):
    """Collect the green balls and leave the red ones: as many of each, each there once.

    Reward of a step: +1 for each green and -1 for each red ball touched in it. Every episode has a maze and textures
    of its own. It is truncated after `seconds`, and terminates when all balls are collected.

    Args:
        frame_skip: Of the task's control steps, 40 in a second, at least 1; 4 gives 10 decisions in a second.
        seconds: Of simulated time in an episode, > 0.
        render_mode: None, or "rgb_array".

    Raises:
        ValueError: A number is out of range, or MuJoCo has no rendering back end.
    """

    def __init__(self, frame_skip: int = 4, seconds: float = 30.0, render_mode: str | None = None):
        super().__init__(frame_skip, TICKS_PER_SECOND, render_mode)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0.0 < seconds < float("inf"):
            raise ValueError(f"seconds must be a number above 0, got {seconds!r}; set env.seconds")
        _check_rendering()
        self.seconds = float(seconds)
        self._controls = np.array(CONTROLS)
        self._env: Any = None  # built by the first reset, which takes a second
        self._maze_seeds = np.random.default_rng()
        self._is_over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in a new maze. The first reset builds the world, which takes a second. The info is empty."""
        super().reset(seed=seed)
        if self._env is None:
            with _global_numpy_seed(0):
                self._env = self._build()
        self._maze_seeds = np.random.default_rng(self.np_random.integers(2**63))
        task_seed, global_seed = self.np_random.integers(2**31, size=2)
        with _global_numpy_seed(int(global_seed)):  # dm_control draws textures from it
            self._env.random_state.seed(int(task_seed))
            step = self._env.reset()
        self._is_over = False
        return self._look(step), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take an action, 0 to 5, else ValueError; ResetNeeded after the episode's end. The info is empty."""
        controls = self._controls[self.check_action(action)]
        if self._is_over:
            raise gymnasium.error.ResetNeeded("the episode is over; call reset")
        step = self._env.step(controls)
        self._is_over = bool(step.last())
        is_collected = self._is_over and self._env.task.should_terminate_episode(self._env.physics)
        return self._look(step), float(step.reward), bool(is_collected), self._is_over and not is_collected, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]  # Gymnasium has a type variable there
        """The same view, larger: uint8 [240, 240, 3]; None without a render mode and before a reset."""
        if self.render_mode is None or self._env is None:
            return None
        return self._env.physics.render(
            height=RENDER_SIZE[1], width=RENDER_SIZE[0], camera_id="walker/egocentric"
        ).copy()

    def close(self) -> None:
        """Free the simulator; `reset` builds another one."""
        if self._env is not None:
            self._env.close()
            self._env, self._is_over = None, True

    def _look(self, step: Any) -> np.ndarray:
        return step.observation["walker/egocentric_camera"].copy()

    def _build(self) -> Any:
        from absl import logging as absl_logging
        from dm_control import composer
        from dm_control.locomotion.arenas import labmaze_textures, mazes
        from dm_control.locomotion.props.target_sphere import TargetSphere
        from dm_control.locomotion.tasks.random_goal_maze import ManyHeterogeneousGoalsMaze
        from dm_control.locomotion.walkers.jumping_ball import RollingBallWithHead

        absl_logging.get_absl_logger().addFilter(_is_news)
        arena = mazes.MazeWithTargets(
            maze=_seeded_maze(lambda: int(self._maze_seeds.integers(2**31))),
            skybox_texture=labmaze_textures.SkyBox(style="sky_03"),
            wall_textures=labmaze_textures.WallTextures(style="style_01"),
            floor_textures=labmaze_textures.FloorTextures(style="style_01"),
        )
        visual = arena.mjcf_model.visual
        visual.quality.shadowsize = 0  # shadows would take a fifth of the time
        buffer = getattr(visual, "global")  # what is cleared for every picture
        buffer.offwidth, buffer.offheight = (SIZE, SIZE) if self.render_mode is None else RENDER_SIZE
        walker = RollingBallWithHead()
        task = ManyHeterogeneousGoalsMaze(
            walker=walker,
            maze_arena=arena,
            target_builders=[functools.partial(TargetSphere, rgb1=dark, rgb2=bright) for dark, bright in (GREEN, RED)],
            target_type_rewards=REWARDS,
            target_type_proportions=(1, 1),
            contact_termination=False,
            physics_timestep=PHYSICS_SECONDS,
            control_timestep=self.frame_skip / TICKS_PER_SECOND,
        )
        camera = walker.observables.egocentric_camera
        camera.height, camera.width = SIZE, SIZE  # after the task, which sets 64
        for observable in walker.observables.as_dict().values():
            observable.enabled = observable is camera
        return composer.Environment(
            task=task, time_limit=self.seconds, random_state=0, strip_singleton_obs_buffer_dim=True
        )


def _seeded_maze(draw_seed: Any) -> Any:
    """A labmaze maze that becomes, at `regenerate`, one of a seed that is drawn then.

    labmaze's own takes a seed once; its later mazes would depend on how many there were before.
    """
    import labmaze

    class SeededMaze(labmaze.BaseMaze):
        def __init__(self) -> None:
            self.regenerate()

        def regenerate(self) -> None:
            self._maze = labmaze.RandomMaze(height=CELLS, width=CELLS, random_seed=draw_seed(), **ROOMS)

        entity_layer = property(lambda self: self._maze.entity_layer)
        variations_layer = property(lambda self: self._maze.variations_layer)
        height = property(lambda self: self._maze.height)
        width = property(lambda self: self._maze.width)
        max_variations = property(lambda self: self._maze.max_variations)

    return SeededMaze()


@contextmanager
def _global_numpy_seed(seed: int) -> Iterator[None]:
    before = np.random.get_state()  # noqa: NPY002  dm_control draws from this generator
    np.random.seed(seed)  # noqa: NPY002  the same
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002  and others are not to notice


def _is_news(record: logging.LogRecord) -> bool:
    """False for what dm_control says of its own ball at every reset."""
    return "Cannot set velocity on Entity with no free joint" not in record.getMessage()


def _check_rendering() -> None:
    """Import dm_control's renderer; say what to do where there is none."""
    backend = os.environ.get("MUJOCO_GL")
    try:
        render = importlib.import_module("dm_control._render")
        works = render.BACKEND is not None
        reason = "it draws nothing"
    except Exception as error:  # whatever the OpenGL loader threw
        works, reason = False, str(error)
    if not works:
        raise ValueError(
            f"parsecrl/GoalsMaze-v0 needs OpenGL without a screen, got MUJOCO_GL={backend!r} ({reason}); install EGL "
            f"(Debian: libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0), or choose parsecrl/HealthGathering-v0"
        )
