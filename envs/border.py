"""The border: what every environment passes through before an algorithm, an evaluation or a video sees it.

Behind the border observations are new float32 vectors or uint8 pictures, actions are in [-1, 1] or 0 ... n - 1, rewards
are numbers, and every episode ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from parsecrl.envs.conversions import Misfit, Pictures, Vectors, action_of, numbers
from parsecrl.envs.simulator_state import restore_state, state_of

LONGEST = 100_000  # simulator steps of an episode without any limit; more is taken for an episode without an end
MOST_REWARD = float(np.finfo(np.float32).max)
FLAGS = (bool, np.bool_)


class EnvironmentFault(RuntimeError):
    """An environment broke its promises: one sentence with the environment, the step, what is wrong and the remedy."""


class Border(gymnasium.Wrapper):
    """Check, copy and convert all that goes in and out of an environment; repeat actions; end episodes.

    `info["env_steps"]` of a step says how many simulator steps the decision took: fewer than `action_repeat` where the
    episode ended. What the environment's own code raises passes through.

    Args:
        env: A task with a bounded Box of actions, or a Discrete space of them.
        name: Of the environment, for messages.
        action_repeat: Simulator steps of a decision, at least 1; rewards are summed.
        max_episode_steps: Simulator steps after which an episode is truncated. None is no limit; an episode of
            `LONGEST` steps is then a fault.
        pictures: Whether observations of uint8 [height, width, channels] stay pictures.
        group: Of the spec's keys that describe the environment, for messages.

    Attributes:
        task_observation_space: The task's own, before the border.
        task_action_space: The task's own.
        max_episode_steps: As given.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        name: str,
        action_repeat: int = 1,
        max_episode_steps: int | None = None,
        pictures: bool = False,
        group: str = "env",
    ):
        super().__init__(env)
        self.name, self.action_repeat, self.max_episode_steps = name, action_repeat, max_episode_steps
        self.task_observation_space, self.task_action_space = seen, action = env.observation_space, env.action_space
        is_picture = isinstance(seen, spaces.Box) and seen.dtype == np.uint8 and len(seen.shape) == 3
        reader: Any = Pictures(seen) if pictures and is_picture else Vectors(seen)  # type: ignore[arg-type]
        self.observation_space, self._reader = reader.space, reader
        if isinstance(action, spaces.Discrete):
            self.action_space: spaces.Space = spaces.Discrete(int(action.n))
        else:
            self.action_space = spaces.Box(-1.0, 1.0, (math.prod(action.shape or ()),), np.float32)
        self._convert = action_of(action)
        self._group, self._limit = group, max_episode_steps or LONGEST
        self._elapsed: int | None = None  # simulator steps of the episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Of the episode.
            options: The task's own.

        Returns:
            The observation, and the task's info in a new dict.

        Raises:
            EnvironmentFault: The task returned something else.
        """
        self._elapsed = None
        try:
            result = self.env.reset(seed=seed, options=options)
        except SystemExit as error:  # which would end the process without a word
            raise self._ended(error) from error
        self._elapsed = 0
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
            raise self._fault(
                f"reset must return a tuple (observation, info), got {_kinds(result)}",
                "return an info, {} if there is nothing to tell: gymnasium.Env.reset has both",
            )
        obs, info = result
        return self.read(obs), {**info}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action `action_repeat` times, or until the episode ends.

        Args:
            action: [A] in [-1, 1], clipped; or a number from 0 to n - 1.

        Returns:
            The last observation, the summed reward, terminated, truncated, and the last info with "env_steps".

        Raises:
            EnvironmentFault: The task returned something else than it promised, or does not end.
            ValueError: The action is none.
            ResetNeeded: No episode has begun.
        """
        elapsed = self._elapsed
        if elapsed is None:
            raise gymnasium.error.ResetNeeded(f"environment {self.name!r} has no episode to step in; call reset")
        total, own, repeats = 0.0, self._convert(action), self.action_repeat > 1
        for taken in range(1, self.action_repeat + 1):
            self._elapsed = elapsed + taken
            try:
                result = self.env.step(own.copy() if repeats else own)  # a task may change its action in place
            except SystemExit as error:
                raise self._ended(error) from error
            if not isinstance(result, tuple) or len(result) != 5:
                raise self._wrong_result(result)
            obs, reward, terminated, truncated, info = result
            value = float(reward) if isinstance(reward, float) else self._number(reward)
            total += value
            if not -MOST_REWARD <= total <= MOST_REWARD:
                raise self._fault(
                    f"the reward must be a finite number in float32, got {total}", "make its step return one"
                )
            if type(terminated) not in FLAGS or type(truncated) not in FLAGS:
                terminated, truncated = self._flag(terminated, "terminated"), self._flag(truncated, "truncated")
            if terminated or truncated:
                break
            if self._elapsed >= self._limit:
                if self.max_episode_steps is None:
                    raise self._fault(
                        f"an episode must end, and this one has not in {LONGEST:,} steps",
                        f"set {self._group}.max_episode_steps to truncate episodes",
                    )
                truncated = True
                break
        if not isinstance(info, Mapping):
            raise self._fault(f"the info must be a dict, got {type(info).__name__}", "make its step return one")
        return self.read(obs), total, bool(terminated), bool(truncated), {**info, "env_steps": taken}

    def simulator_state(self) -> Any:
        """The state of the simulator and of this episode, for `restore_simulator` of the same environment.

        Raises:
            ValueError: The task has no state that can be copied.
        """
        return self._elapsed, state_of(self.env, self.name)

    def restore_simulator(self, state: Any) -> None:
        """Go back to a state of `simulator_state`, of the same episode."""
        self._elapsed, inner = state
        restore_state(self.env, inner)

    def read(self, obs: Any, name: str = "the observation") -> np.ndarray:
        """Turn an observation of the task, or what it tells in the same form, such as a goal, into one of this side.

        Args:
            obs: Of `task_observation_space`.
            name: What it is, for the message.

        Returns:
            A new array of `observation_space`, finite.

        Raises:
            EnvironmentFault: It does not fit the space.
        """
        try:
            return self._reader.read(obs)
        except Misfit as error:
            raise self._fault(f"{name}{error}", "correct the environment, or its observation_space") from error

    def _number(self, reward: Any) -> float:
        try:
            return float(numbers(reward, "", ()).item())
        except Misfit as error:
            raise self._fault(f"the reward{error}", "make its step return a number") from error

    def _flag(self, value: Any, name: str) -> bool:
        if isinstance(value, FLAGS) or (isinstance(value, np.ndarray) and value.dtype == bool and value.size == 1):
            return bool(value)
        raise self._fault(f"{name} must be True or False, got {value!r}", f"make its step return bool({name})")

    def _wrong_result(self, result: Any) -> EnvironmentFault:
        if isinstance(result, tuple) and len(result) == 4:
            return self._fault(
                "step must return five values, got four, which is the older interface",
                "return (observation, reward, terminated, truncated, info), as gymnasium.Env.step has them",
            )
        return self._fault(
            f"step must return a tuple (observation, reward, terminated, truncated, info), got {_kinds(result)}",
            "correct the environment",
        )

    def _ended(self, error: SystemExit) -> EnvironmentFault:
        return self._fault(f"its code ended the process, sys.exit({error.code!r})", "raise an error in its place")

    def _fault(self, what: str, remedy: str) -> EnvironmentFault:
        when = f"at step {self._elapsed} of an episode" if self._elapsed else "at reset"
        return EnvironmentFault(f"environment {self.name!r} {when}: {' '.join(what.split())}; {remedy}")


def _kinds(result: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(result, tuple):
        return f"a tuple of {len(result)} ({', '.join(type(part).__name__ for part in result)})"
    return f"a value of type {type(result).__name__}"
