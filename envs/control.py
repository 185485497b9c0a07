"""Control tasks as vectors: any dm_control suite task by its Shimmy id, any Gymnasium task with a Box action space.

Observation [O], float32: the leaves of the task's observation space in the order of `gymnasium.spaces.flatten`. A Dict
space, dm_control's among them, comes in the alphabetical order of its keys, each leaf in C order. A scalar takes one
entry; a Discrete leaf is one-hot. walker-walk: height (1), orientations (14), velocity (9). cheetah-run: position (8),
velocity (9).

Action [A], float32 in [-1, 1], affinely mapped to the task's own bounds; what lies outside is clipped.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.wrappers import DtypeObservation, FlattenObservation, TransformAction

CONTROL_NAMES = ("parsecrl/Control-v0", "parsecrl.envs:parsecrl/Control-v0")
RENDER_SIZE = {"width": 320, "height": 240}


class ActionRepeat(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray], RecordConstructorArgs):
    """Apply each action `repeat` times; the reward is the sum over those simulator steps.

    The repetition stops at the episode's end, so that the last decision of an episode may take fewer simulator steps.
    `info["env_steps"]` says how many this decision took. task_observation_space and task_action_space are the task's
    own, before they became vectors.

    Args:
        env: What is wrapped.
        repeat: Simulator steps of a decision, at least 1.
    """

    task_observation_space: spaces.Space
    task_action_space: spaces.Space

    def __init__(self, env: gymnasium.Env, repeat: int):
        RecordConstructorArgs.__init__(self, repeat=repeat)
        super().__init__(env)
        self.repeat = repeat

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:  # type: ignore[override]
        """Apply an action `repeat` times, or until the episode ends.

        Args:
            action: [A].

        Returns:
            The last observation, the summed reward, terminated, truncated, and the last info with "env_steps".
        """
        total = 0.0
        for taken in range(1, self.repeat + 1):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            info["env_steps"] = taken
            if terminated or truncated:
                break
        return obs, total, bool(terminated), bool(truncated), info


Task = str | Callable[[dict[str, Any]], gymnasium.Env]


def make_env(
    id: Task, action_repeat: int = 1, render_mode: str | None = None, kwargs: Mapping[str, Any] | None = None
) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """Make a control task with a flat float32 observation, actions in [-1, 1] and summed rewards.

    `reset(seed=n)`, 0 <= n < 2**32, makes the episode reproducible. A time limit ends an episode as truncated, a
    failure or a goal as terminated. A dm_control task whose last step has discount 1 was truncated.

    Args:
        id: `dm_control/<domain>-<task>-v0`, or any Gymnasium id with a bounded Box action space (`HalfCheetah-v5`); or
            what makes the environment from a dict of its arguments.
        action_repeat: Simulator steps of a decision, at least 1.
        render_mode: None, or "rgb_array" for `env.render()` to return uint8 [height, width, 3].
            `metadata["render_fps"]` is then the number of decisions in a second of simulated time.
        kwargs: The task's own arguments.

    Returns:
        The environment.

    Raises:
        ValueError: The id or an argument is unknown, the actions are no bounded Box, or action_repeat is below 1.
    """
    if isinstance(action_repeat, bool) or not isinstance(action_repeat, int) or action_repeat < 1:
        raise ValueError(
            f"action_repeat must be a whole number of at least 1, got {action_repeat!r}; "
            f"set env.action_repeat in the spec"
        )
    env = _make_raw(id, render_mode, dict(kwargs or {}))
    own_spaces = env.observation_space, env.action_space
    try:
        _check_spaces(id, env)
    except ValueError:
        env.close()
        raise
    render_fps = _steps_per_second(env) / action_repeat
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting to float32")
        env = DtypeObservation(FlattenObservation(env), np.float32)
    env = ActionRepeat(_rescale_actions(env), action_repeat)
    env.task_observation_space, env.task_action_space = own_spaces
    env.metadata = {**env.metadata, "render_fps": render_fps}
    return env


def control_env(env_id: Task, action_repeat: int = 1, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
    """`make_env` under the keywords of `parsecrl/Control-v0`.

    Args:
        env_id: The `id` of `make_env`.
        action_repeat: As in `make_env`.
        render_mode: As in `make_env`.
        **kwargs: The task's own arguments.

    Returns:
        The environment.
    """
    return make_env(env_id, action_repeat, render_mode, kwargs)


def _make_raw(id: Task, render_mode: str | None, arguments: dict[str, Any]) -> gymnasium.Env:
    if render_mode is not None:
        arguments["render_mode"] = render_mode
    if callable(id):
        made = id(arguments)
        if not isinstance(made, gymnasium.Env):
            raise ValueError(f"{id!r} must make a gymnasium.Env, got a {type(made).__name__}; wrap it in one")
        return made
    if not isinstance(id, str) or id in CONTROL_NAMES:
        raise ValueError(
            f"the environment id must name a task, got {id!r}; write for example dm_control/cheetah-run-v0"
        )
    is_dm_control = id.startswith("dm_control/")
    if is_dm_control:
        _register_dm_control()
    is_suite_task = _is_suite_task(id)
    if is_suite_task:
        # Some models (lqr) are drawn when they are built: always draw the same, so that a seed fixes an episode.
        arguments["task_kwargs"] = {"random": 0, **arguments.get("task_kwargs", {})}
    try:
        env = gymnasium.make(id, disable_env_checker=True, **arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"environment {id!r} needs a package that is not installed: {error}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(_unknown_id(id)) from error
    except TypeError as error:
        if not arguments:
            raise
        raise ValueError(f"environment {id!r} cannot be made with {arguments}: {error}; change them") from error
    if is_dm_control:
        if is_suite_task:
            env.unwrapped.np_random = np.random.RandomState()  # type: ignore[assignment]  # Shimmy's type; unseeded until reset(seed=)
        cameras = env.unwrapped.physics.model.ncam  # type: ignore[attr-defined]
        env.unwrapped.render_kwargs = {**RENDER_SIZE, "camera_id": 0 if cameras else -1}  # type: ignore[attr-defined]
    return env


def _register_dm_control() -> None:
    """Import Shimmy, which registers dm_control's tasks; say what to do if MUJOCO_GL cannot be used."""
    from absl import logging as absl_logging

    logger = absl_logging.get_absl_logger()
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)
    try:
        importlib.import_module("dm_control.suite")
    except Exception as error:  # whatever the OpenGL loader threw: AttributeError, ImportError, RuntimeError
        raise ValueError(
            f"MUJOCO_GL must name a rendering back end that works here, got {os.environ.get('MUJOCO_GL')!r} ({error}); "
            f"unset it, or set it to egl, osmesa or off"
        ) from error
    importlib.import_module("shimmy")


def _is_news(record: logging.LogRecord) -> bool:
    """False for MuJoCo's deprecation notes on dm_control's own model files, which no user of them can act on."""
    return "is deprecated and will be removed" not in record.getMessage()


def _is_suite_task(id: str) -> bool:
    if not id.startswith("dm_control/"):
        return False
    from dm_control import suite

    return any(id == f"dm_control/{domain}-{task}-v0" for domain, task in suite.ALL_TASKS)


def _unknown_id(id: str) -> str:
    known = [name for name in gymnasium.registry if name != id and not name.startswith(("parsecrl/", "GymV2"))]
    if not id.startswith("dm_control/"):
        _register_dm_control()
        known = list({*known, *(name for name in gymnasium.registry if name.startswith("dm_control/"))})
    near = difflib.get_close_matches(id, known, n=3, cutoff=0.6)
    remedy = f"did you mean {', '.join(near)}?" if near else "use a dm_control task such as dm_control/cheetah-run-v0"
    return f"the environment id must be one that Gymnasium or Shimmy knows, got {id!r}; {remedy}"


def _check_spaces(id: Task, env: gymnasium.Env) -> None:
    action = env.action_space
    if not isinstance(action, spaces.Box):
        raise ValueError(
            f"the actions of an environment must be a bounded Box, got {action} from {id!r}; "
            f"choose a task with continuous actions"
        )
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        raise ValueError(
            f"the actions of an environment must have finite bounds, got {action} from {id!r}; "
            f"wrap the task so that they do"
        )
    if not env.observation_space.is_np_flattenable:
        raise ValueError(
            f"the observations of an environment must flatten to a vector, got {env.observation_space} from {id!r}; "
            f"choose another task"
        )


def _rescale_actions(env: gymnasium.Env) -> gymnasium.Env:
    """[-1, 1]^A in float32 -> the task's own Box.

    Not gymnasium's RescaleAction: that keeps dm_control's float64 and the shape of the Box, and does not clip.
    """
    box = env.action_space
    assert isinstance(box, spaces.Box)
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)

    def to_task(action: np.ndarray) -> np.ndarray:
        unit = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0).reshape(box.shape)
        return np.clip(low + 0.5 * (unit + 1.0) * (high - low), low, high).astype(box.dtype)

    size = int(np.prod(box.shape))
    return TransformAction(env, to_task, spaces.Box(-1.0, 1.0, (size,), np.float32))


def _steps_per_second(env: gymnasium.Env) -> float:
    """Simulator steps in a second: dm_control's control time step (Shimmy's render_fps is not its inverse)."""
    control_timestep = getattr(env.unwrapped, "control_timestep", None)
    if callable(control_timestep):
        return 1.0 / float(control_timestep())
    return float(env.metadata.get("render_fps") or 30.0)
