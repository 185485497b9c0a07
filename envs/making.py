"""The one maker of environments, and its two doors: control tasks, and worlds, most with discrete actions.

Observation [O], float32: the leaves of the task's observation space in the order of `gymnasium.spaces.flatten`. A Dict
space, dm_control's among them, comes in the alphabetical order of its keys, each leaf in C order. A scalar takes one
entry; a Discrete leaf is one-hot. walker-walk: height (1), orientations (14), velocity (9). cheetah-run: position (8),
velocity (9).

Action [A], float32 in [-1, 1], affinely mapped to the task's own bounds; what lies outside is clipped. A world's is a
number from 0 to n - 1.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

from parsecrl.envs import suite
from parsecrl.envs.border import Border
from parsecrl.envs.conversions import is_vector

DOORS = ("parsecrl/Control-v0", "parsecrl/World-v0")
RERAISED = " was raised from the environment creator for "  # gymnasium.make, of every TypeError of a constructor
RAISED = (Exception, SystemExit)  # by users' code; a module may parse a command line when it is imported
OURS, STANDARD = str(Path(__file__).parent), sysconfig.get_path("stdlib")

Task = str | Callable[[dict[str, Any]], gymnasium.Env]


def make_env(
    id: Task,
    action_repeat: int = 1,
    render_mode: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
) -> Border:
    """Make a control task with a flat float32 observation, actions in [-1, 1] and summed rewards.

    `reset(seed=n)`, 0 <= n < 2**32, makes the episode reproducible. A time limit ends an episode as truncated, a
    failure or a goal as terminated. A dm_control task whose last step has discount 1 was truncated.

    Args:
        id: `dm_control/<domain>-<task>-v0`, or any Gymnasium id with a bounded Box action space (`HalfCheetah-v5`,
            `module:Name-v0`); or what makes the environment from a dict of its arguments.
        action_repeat: Simulator steps of a decision, at least 1.
        render_mode: None, or "rgb_array" for `env.render()` to return uint8 [height, width, 3].
            `metadata["render_fps"]` is then the number of decisions in a second of simulated time.
        kwargs: The task's own arguments.
        max_episode_steps: Simulator steps after which an episode is truncated, at least 1. None is the limit that the
            task is registered with, if any. A limit that the task has in its own code holds all the same.

    Returns:
        The environment.

    Raises:
        ValueError: The environment cannot be made: one sentence with its id, the reason and the remedy.
    """
    if isinstance(action_repeat, bool) or not isinstance(action_repeat, int) or action_repeat < 1:
        raise ValueError(
            f"action_repeat must be a whole number of at least 1, got {action_repeat!r}; "
            f"set env.action_repeat in the spec"
        )
    return _bordered(id, "env", spaces.Box, render_mode, kwargs, max_episode_steps, action_repeat)


def make_world(
    id: Task,
    render_mode: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    continuous: bool = False,
) -> Border:
    """Make a world with discrete actions, numbered from 0; observations are float32 vectors, or uint8 pictures.

    Args:
        id: Any Gymnasium id with Discrete actions; or what makes the world from a dict of its arguments.
        render_mode: None, or "rgb_array" for `env.render()` to return uint8 [height, width, 3].
        kwargs: The world's own arguments.
        max_episode_steps: As in `make_env`.
        continuous: Whether a bounded Box of actions, as in `make_env`, is taken too.

    Returns:
        The world. Observations stay pictures where they are uint8 [height, width, channels].

    Raises:
        ValueError: As in `make_env`.
    """
    actions = None if continuous else spaces.Discrete
    return _bordered(id, "world", actions, render_mode, kwargs, max_episode_steps)


def control_env(
    env_id: Task,
    action_repeat: int = 1,
    kwargs: Mapping[str, Any] | None = None,
    env_max_episode_steps: int | None = None,
    render_mode: str | None = None,
) -> Border:
    """`make_env` under the keywords of `parsecrl/Control-v0`, where Gymnasium has an `id` and a limit of its own.

    Args:
        env_id: The `id` of `make_env`.
        action_repeat: As in `make_env`.
        kwargs: As in `make_env`.
        env_max_episode_steps: The `max_episode_steps` of `make_env`.
        render_mode: As in `make_env`.

    Returns:
        The environment.
    """
    return make_env(env_id, action_repeat, render_mode, kwargs, env_max_episode_steps)


def world_env(
    env_id: Task,
    kwargs: Mapping[str, Any] | None = None,
    env_max_episode_steps: int | None = None,
    render_mode: str | None = None,
    continuous: bool = False,
) -> Border:
    """`make_world` under the keywords of `parsecrl/World-v0`, as in `control_env`.

    Args:
        env_id: The `id` of `make_world`.
        kwargs: As in `make_world`.
        env_max_episode_steps: The `max_episode_steps` of `make_world`.
        render_mode: As in `make_world`.
        continuous: As in `make_world`.

    Returns:
        The world.
    """
    return make_world(env_id, render_mode, kwargs, env_max_episode_steps, continuous)


def _bordered(
    id: Task,
    group: str,
    actions: type[spaces.Space] | None,
    render_mode: str | None,
    kwargs: Any,
    max_episode_steps: int | None,
    action_repeat: int = 1,
) -> Border:
    if max_episode_steps is not None and (
        isinstance(max_episode_steps, bool) or not isinstance(max_episode_steps, int) or max_episode_steps < 1
    ):
        raise ValueError(
            f"{group}.max_episode_steps must be a whole number of at least 1, or none, got {max_episode_steps!r}; "
            f"change it"
        )
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        raise ValueError(f"{group}.kwargs must be a group of arguments by name, got {kwargs!r}; change it")
    arguments = {**(kwargs or {}), **({} if render_mode is None else {"render_mode": render_mode})}
    name = id if isinstance(id, str) else getattr(id, "__qualname__", repr(id))
    own_limit = None
    if isinstance(id, str):
        spec = _registered(id, group)
        own_limit = spec.max_episode_steps
        env = _make(spec, name, arguments, group)
    else:
        env = _call(id, name, arguments, group)
    try:
        _check(env, name, actions)
    except ValueError:
        env.close()
        raise
    bordered = Border(env, name, action_repeat, max_episode_steps or own_limit, group == "world", group)
    bordered.metadata = {**env.metadata, "render_fps": _steps_per_second(env) / action_repeat}
    return bordered


# Finding.


def _registered(id: str, group: str) -> EnvSpec:
    """What the id is registered as; the module that it names is imported first."""
    module, _, bare = id.rpartition(":")
    if bare in DOORS or not bare:
        example = "dm_control/cheetah-run-v0" if group == "env" else "parsecrl/Gridworld-v0"
        raise ValueError(f"the environment id must name a task, got {id!r}; write for example {example}")
    if module:
        _import(module, id)
    if bare.startswith(suite.PREFIX):
        suite.register()
    try:
        return gymnasium.spec(bare)
    except gymnasium.error.Error as error:
        raise ValueError(_unknown_id(id, bare, module, group)) from error


def _import(module: str, id: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(
                f"the module {module!r} of environment {id!r} cannot be found; put its folder on PYTHONPATH, on every "
                f"node of a cluster (`parsec submit --code FOLDER` ships it)"
            ) from error
        raise ValueError(
            f"the module {module!r} of environment {id!r} cannot be imported: {blame(error)}; install what is "
            f"missing, or put its folder on PYTHONPATH"
        ) from error
    except RAISED as error:  # whatever the user's module does when it is imported
        raise ValueError(
            f"the module {module!r} of environment {id!r} cannot be imported: {blame(error)}; correct it"
        ) from error


def _unknown_id(id: str, bare: str, module: str, group: str) -> str:
    if group == "env" and not id.startswith(suite.PREFIX):
        suite.register()
    known = [name for name in gymnasium.registry if name != bare and name not in DOORS and not name.startswith("GymV2")]
    if group == "env":  # those worlds have discrete actions
        known = [name for name in known if not name.startswith("parsecrl/")]
    near = difflib.get_close_matches(bare, known, n=3, cutoff=0.6)
    if near:
        remedy = f"did you mean {', '.join(near)}?"
    elif module:
        remedy = "register it there with gymnasium.register, or correct the name"
    else:
        example = "a dm_control task such as dm_control/cheetah-run-v0" if group == "env" else "parsecrl/Gridworld-v0"
        remedy = f"use {example}, or name the module that registers yours, as module:Name-v0"
    where = f"that {module} registers" if module else "that Gymnasium or Shimmy knows"
    return f"the environment id must be one {where}, got {id.removeprefix('parsecrl.envs:')!r}; {remedy}"


# Making.


def _make(spec: EnvSpec, name: str, arguments: dict[str, Any], group: str) -> gymnasium.Env:
    is_suite = spec.id.startswith(suite.PREFIX)
    if is_suite:
        arguments = suite.seeded_arguments(spec.id, arguments)
    creator: Any = spec.entry_point
    if isinstance(creator, str):
        _import(creator.partition(":")[0], name)
        try:
            creator = load_env_creator(creator)
        except AttributeError as error:
            raise ValueError(f"environment {name!r} is registered as what is not there: {error}; correct it") from error
    if creator is None:
        raise ValueError(f"environment {name!r} is registered without an entry_point; register it with one")
    _check_arguments(creator, {**spec.kwargs, **arguments}, name, group)
    try:
        # The border has the time limit: Gymnasium's would break on the older interface before the border can name it.
        env = gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True, **arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ValueError(f"environment {name!r} needs a package that is not installed: {error}") from error
    except RAISED as error:
        raise _cannot_be_made(name, error, group) from error
    if is_suite:
        suite.complete(spec.id, env)
    return env


def _call(make: Callable[[dict[str, Any]], Any], name: str, arguments: dict[str, Any], group: str) -> gymnasium.Env:
    try:
        made = make(arguments)
    except RAISED as error:
        raise _cannot_be_made(name, error, group) from error
    if not isinstance(made, gymnasium.Env):
        raise ValueError(f"{make!r} must make a gymnasium.Env, got a {type(made).__name__}; wrap it in one")
    return made


def _check_arguments(creator: Any, arguments: Mapping[str, Any], name: str, group: str) -> None:
    """Say which argument a constructor lacks or does not know, before it is called."""
    try:
        parameters = inspect.signature(creator).parameters.values()
    except (TypeError, ValueError):  # compiled code without a signature says by itself what it lacks
        return
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p.name for p in by_name]
    if missing := [p.name for p in by_name if p.default is p.empty and p.name not in arguments]:
        raise ValueError(f"environment {name!r} needs the argument {missing[0]!r}; set {group}.kwargs.{missing[0]}")
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    if unknown := [argument for argument in arguments if argument not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"change {group}.kwargs"
        raise ValueError(
            f"environment {name!r} takes no argument {unknown[0]!r}, it takes {', '.join(known) or 'none'}; {remedy}"
        )


def _cannot_be_made(name: str, error: BaseException, group: str) -> ValueError:
    if isinstance(error, TypeError) and RERAISED in str(error) and isinstance(error.__context__, TypeError):
        error = error.__context__
    return ValueError(
        f"environment {name!r} cannot be made: {blame(error)}; correct it, or its arguments in {group}.kwargs"
    )


def blame(error: BaseException) -> str:
    """Say what an environment's code raised.

    Args:
        error: With its traceback.

    Returns:
        Type and first line of the error, and where in the user's code it was raised.
    """
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{said.partition(' (')[0]} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    outside = [frame for frame in frames if not frame.filename.startswith(OURS)]
    own = [f for f in outside if not f.filename.startswith(STANDARD) and "-packages" not in f.filename]
    place = (own or outside)[-1:]
    return said + "".join(f" ({frame.filename}:{frame.lineno})" for frame in place)


# Checking.


def _check(env: gymnasium.Env, name: str, actions: type[spaces.Space] | None) -> None:
    """Raise ValueError where the spaces do not suit; actions None: Discrete or a bounded Box."""
    action, seen = (getattr(env, f"{kind}_space", None) for kind in ("action", "observation"))
    if actions is None and not isinstance(action, spaces.Discrete | spaces.Box):
        raise ValueError(
            f"the actions of a world must be Discrete or a bounded Box, got {action} from {name!r}; choose another"
        )
    if actions is spaces.Discrete and not isinstance(action, spaces.Discrete):
        raise ValueError(
            f"the actions of a world must be Discrete, got {action} from {name!r}; choose a world with discrete actions"
        )
    if actions is spaces.Box and not isinstance(action, spaces.Box):
        raise ValueError(
            f"the actions of an environment must be a bounded Box, got {action} from {name!r}; "
            f"choose a task with continuous actions"
        )
    if isinstance(action, spaces.Box) and not action.is_bounded("both"):
        raise ValueError(
            f"the actions of an environment must have finite bounds, got {action} from {name!r}; "
            f"wrap the task so that they do"
        )
    if isinstance(action, spaces.Box) and not math.prod(action.shape):
        raise ValueError(f"the actions of an environment must have an entry, got {action} from {name!r}; give it one")
    if not is_vector(seen):
        raise ValueError(
            f"the observations of an environment must be made of Box, Discrete, MultiDiscrete and MultiBinary, with "
            f"one number at the least, got {seen} from {name!r}; wrap the task so that they are"
        )
    try:
        inspect.signature(env.unwrapped.reset).bind(seed=0, options=None)
    except TypeError as error:
        raise ValueError(
            f"the reset of environment {name!r} must take the keywords seed and options, as gymnasium.Env.reset does "
            f"({error}); add them"
        ) from error


def _steps_per_second(env: gymnasium.Env) -> float:
    """Simulator steps in a second: dm_control's control time step (Shimmy's render_fps is not its inverse)."""
    control_timestep = getattr(env.unwrapped, "control_timestep", None)
    if callable(control_timestep):
        return 1.0 / float(control_timestep())
    return float(env.metadata.get("render_fps") or 30.0)
