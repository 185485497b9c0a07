"""What a task is and does, found by playing it at random for a moment, as training gets it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from parsecrl.envs.border import Border, EnvironmentFault
from parsecrl.envs.making import blame

EPISODES = 4  # that are played to their ends, where the time allows
SECONDS = 0.5  # of play
SEARCH_SECONDS = 2.0  # of play in search of an episode's end, where no limit is known
MOST_STEPS = 10_000  # simulator steps of such a search
FEWEST_STEPS = 8  # decisions in each seed's episode, where the time is over
ROUNDING = 1e-5  # of float32, relative to a bound


class BrokenTask(ValueError):
    """A task that breaks what Gymnasium asks of an environment: one sentence with what, where and the remedy."""


@dataclass(frozen=True)
class Inspection:
    """What was found. O entries of an observation; returns are sums of rewards over an episode."""

    observation_space: spaces.Space  # as training gets it
    action_space: spaces.Space
    task_observation_space: spaces.Space  # the task's own
    task_action_space: spaces.Space
    limit: int | None  # simulator steps after which the task itself ends an episode; None: not known
    first_low: np.ndarray  # [O] least and greatest first observation, as a vector
    first_high: np.ndarray
    obs_rms: float  # root mean square of the entries of all observations
    lengths: tuple[int, ...]  # simulator steps of the episodes that came to an end
    returns: tuple[float, ...]  # of the same episodes
    num_terminated: int  # of the same episodes; the others were truncated
    rewards: np.ndarray  # [decisions] all that came
    env_steps: int  # simulator steps in all
    seconds: float  # that these took
    reproducible: bool  # the same seed gave the same first observation twice
    has_goal: bool  # the info of reset tells a goal_observation
    warnings: tuple[str, ...]

    @property
    def ends(self) -> bool:
        """Whether episodes end, by a known limit or as seen."""
        return self.limit is not None or bool(self.lengths)

    @property
    def steps_per_second(self) -> float:
        """Simulator steps in a second of play."""
        return self.env_steps / max(self.seconds, 1e-9)

    @property
    def random_return(self) -> dict[str, float] | None:
        """Mean, standard deviation and number of the random policy's returns; None where no episode ended."""
        if not self.returns:
            return None
        spread = float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else math.nan
        return {"mean": float(np.mean(self.returns)), "std": spread, "episodes": len(self.returns)}


def inspect_task(
    make: Callable[[], Border],
    name: str,
    seeds: Sequence[int],
    *,
    episodes: int = EPISODES,
    seconds: float = SECONDS,
    search_seconds: float = SEARCH_SECONDS,
) -> Inspection:
    """Make a task and play it with uniform actions.

    Each seed has an episode; further ones follow, until `episodes` have ended or the time is over. A slow simulator
    makes `FEWEST_STEPS` decisions for each seed all the same.

    Args:
        make: `make_env` or `make_world` of the task.
        name: Of the task, for messages.
        seeds: Such as training and evaluation give, each in [0, 2**32).
        episodes: Ended episodes that are enough.
        seconds: Of play at most, where an end is known.
        search_seconds: Of play at most before the first end, where no limit is known.

    Returns:
        What was found.

    Raises:
        BrokenTask: The task breaks its own promises, or its code raises.
        ValueError: As `make` raises it.
    """
    env = make()
    try:
        limit, rng = limit_of(env), np.random.default_rng(seeds[0])
        once, info = _reset(env, name, seeds[0])
        has_goal = "goal_observation" in info
        firsts: list[np.ndarray] = []
        rewards: list[float] = []
        ended: list[tuple[int, float, bool]] = []  # simulator steps, return, terminated
        outside: str | None = None
        squares: list[float] = []  # means of an observation
        env_steps, began = 0, time.perf_counter()

        def is_over() -> bool:
            searching = limit is None and not ended
            most = search_seconds if searching else seconds
            return time.perf_counter() - began > most or (searching and env_steps >= MOST_STEPS)

        while len(firsts) < len(seeds) or (len(ended) < episodes and not is_over()):
            number = len(firsts)
            obs, _ = _reset(env, name, seeds[number] if number < len(seeds) else seeds[0] + number)
            firsts.append(obs)
            steps, total, decisions, done, terminated = 0, 0.0, 0, False, False
            while not done and (decisions < FEWEST_STEPS or not is_over()):
                outside = outside or _outside(env.observation_space, obs, name, steps)
                squares.append(float(np.square(obs, dtype=np.float64).mean()))
                obs, reward, terminated, truncated, info = _step(env, name, _random_action(env.action_space, rng))
                taken, decisions = int(info["env_steps"]), decisions + 1
                steps, env_steps = steps + taken, env_steps + taken
                rewards.append(reward)
                total, done = total + reward, terminated or truncated
            if done:
                ended.append((steps, total, terminated))
        lasted = time.perf_counter() - began
    except BaseException:
        with suppress(Exception):  # what went wrong before is told
            env.close()
        raise
    _close(env, name)
    reproducible = bool(np.array_equal(once, firsts[0]))
    warnings = [outside] if outside else []
    if not reproducible:
        warnings.append(
            f"environment {name!r} begins differently when it is reset twice with the same seed, so that no result can "
            f"be repeated; draw from self.np_random after super().reset(seed=seed)"
        )
    return Inspection(
        observation_space=env.observation_space,
        action_space=env.action_space,
        task_observation_space=env.task_observation_space,
        task_action_space=env.task_action_space,
        limit=limit,
        first_low=np.min(firsts, 0),
        first_high=np.max(firsts, 0),
        obs_rms=math.sqrt(np.mean(squares)),
        lengths=tuple(steps for steps, _, _ in ended),
        returns=tuple(total for _, total, _ in ended),
        num_terminated=sum(terminated for *_, terminated in ended),
        rewards=np.array(rewards),
        env_steps=env_steps,
        seconds=lasted,
        reproducible=reproducible,
        has_goal=has_goal,
        warnings=tuple(warnings),
    )


def limit_of(env: gymnasium.Env) -> int | None:
    """Find the limit of an environment's episodes that it tells of itself.

    Args:
        env: With its wrappers.

    Returns:
        Simulator steps, the least of the limits found; None where none is told.
    """
    layer, found = env, []
    while True:
        # The border's and TimeLimit's, and what worlds have of their own.
        found += [vars(layer).get(name) for name in ("max_episode_steps", "_max_episode_steps", "episode_steps")]
        if not isinstance(layer, gymnasium.Wrapper):
            break
        layer = layer.env
    found.append(getattr(getattr(layer, "_env", None), "_step_limit", None))  # of dm_control below Shimmy
    limits = [int(value) for value in found if isinstance(value, int | float) and 0 < value < math.inf]
    return min(limits, default=None)


def _random_action(space: spaces.Space, rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Discrete):
        return int(rng.integers(int(space.n)))
    return rng.uniform(-1.0, 1.0, space.shape or ()).astype(np.float32)


def _reset(env: Border, name: str, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        return env.reset(seed=seed)
    except EnvironmentFault as error:
        raise BrokenTask(str(error)) from error
    except Exception as error:  # of the task's own code
        try:
            env.reset(seed=1)
        except Exception:  # the seed is not what it minds
            raise BrokenTask(
                f"environment {name!r} fails in reset(seed={seed}): {blame(error)}; correct the environment"
            ) from error
        raise BrokenTask(
            f"reset of environment {name!r} must take seeds from 0 to 2**32 - 1, got {blame(error)} from {seed}; "
            f"reduce the seed in its reset, such as seed % 2**31"
        ) from error


def _step(env: Border, name: str, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    try:
        return env.step(action)
    except EnvironmentFault as error:
        raise BrokenTask(str(error)) from error
    except Exception as error:  # of the task's own code
        raise BrokenTask(f"environment {name!r} fails in step: {blame(error)}; correct the environment") from error


def _close(env: Border, name: str) -> None:
    try:
        env.close()
    except Exception as error:  # of the task's own code
        raise BrokenTask(f"environment {name!r} fails in close: {blame(error)}; correct the environment") from error


def _outside(space: spaces.Space, obs: np.ndarray, name: str, steps: int) -> str | None:
    """Say which entry of an observation lies outside its bounds.

    That is no reason to refuse a task: models standardise what they see, and many tasks step over their bounds.
    """
    assert isinstance(space, spaces.Box)
    slack = ROUNDING * np.maximum(1.0, np.abs(obs))
    wrong = np.argwhere((obs < space.low - slack) | (obs > space.high + slack))
    if not len(wrong):
        return None
    at = tuple(wrong[0])
    return (
        f"an observation of environment {name!r} lies outside its space after {steps} steps: entry "
        f"{', '.join(map(str, at))} of the vector is {obs[at]:.6g}, its bounds are {space.low[at]:g} and "
        f"{space.high[at]:g}; training takes it as it is, but correct observation_space"
    )
