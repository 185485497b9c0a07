"""Small worlds such as people really have: other units, reused arrays, faults. `tests.envs.case_worlds:Point-v0`.

Importing registers them. A process that does not start at the repository's root needs it on PYTHONPATH, or this folder,
and then they are `case_worlds:Point-v0`.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Point(gym.Env):
    """A point on a line, 30 steps. Observation: place and time. Reward: 1 less its distance from 0.5, each step."""

    def __init__(self, render_mode=None, obs_unit=1.0, reward_unit=1.0, steps=30, fault=None):
        self.render_mode, self.steps, self.fault = render_mode, steps, fault
        self.obs_unit, self.reward_unit = obs_unit, reward_unit
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.episodes = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = float(self.np_random.uniform(-1, 1)), 0
        self.episodes += 1
        return self._obs(), {}

    def step(self, action):
        self.place = float(np.clip(self.place + 0.2 * float(action[0]), -2, 2))
        self.time += 1
        reward = (1 - abs(self.place - 0.5)) * self.reward_unit
        if self._fault_now("nan reward"):
            reward = float("nan")
        if self._fault_now("raises"):
            raise RuntimeError("simulator lost its licence")
        return self._obs(), reward, False, self.steps is not None and self.time >= self.steps, {}

    def _obs(self):
        place = np.nan if self._fault_now("nan observation") else self.place
        return np.array([place, self.time / 30], np.float32) * np.float32(self.obs_unit)

    def _fault_now(self, kind):
        return self.fault == kind and self.episodes == 3 and self.time == 7


class OldInterface(Point):
    """step returns four values."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class NeedsArgument(Point):
    def __init__(self, path):
        super().__init__()


class FileMissing(Point):
    def __init__(self, render_mode=None):
        raise FileNotFoundError(2, "No such file or directory", "robot.urdf")


class Cliff(gym.Env):
    """Each step gives 1 and half of a positive action; an action above 0.5 ends the episode. 30 steps at most: 37.5."""

    def __init__(self, render_mode=None):
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        a = float(action[0])
        self.time += 1
        return np.array([a, self.time / 30], np.float32), 1.0 + 0.5 * max(a, 0.0), a > 0.5, self.time >= 30, {}


class TwoLengths(gym.Env):
    """Half of the episodes last 2 steps, half 40, whatever is done; the first observation says which."""

    def __init__(self, render_mode=None):
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.kind, self.time = (1.0 if self.np_random.random() < 0.5 else -1.0), 0
        return np.array([self.kind, 0], np.float32), {}

    def step(self, action):
        self.time += 1
        is_over = self.time >= (40 if self.kind > 0 else 2)
        return np.array([self.kind, self.time / 40], np.float32), 1.0, is_over, False, {}


class Chain(gym.Env):
    """Five cells in a row: left, stay, right; the last one gives 1 and ends the episode. 20 steps at most.

    reuse: the same array is filled and returned each time, as Gymnasium allows. start: the number of the first action.
    """

    def __init__(self, reuse=False, start=0):
        self.reuse, self.start = reuse, start
        self.action_space = spaces.Discrete(3, start=start)
        self.observation_space = spaces.Box(0, 1, (5,), np.float32)
        self.array = np.zeros(5, np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.cell, self.time = 0, 0
        return self._obs(), {"goal_observation": np.eye(5, dtype=np.float32)[-1]}

    def step(self, action):
        self.cell = int(np.clip(self.cell + int(action) - self.start - 1, 0, 4))
        self.time += 1
        done = self.cell == 4
        return self._obs(), float(done), done, self.time >= 20, {}

    def _obs(self):
        array = self.array if self.reuse else np.zeros(5, np.float32)
        array[:] = 0
        array[self.cell] = 1
        return array


for name, entry, arguments in (
    ("Point", Point, {}),
    ("PointSmallObservations", Point, {"obs_unit": 1e-4}),
    ("PointSmallRewards", Point, {"reward_unit": 1e-3}),
    ("PointLargeRewards", Point, {"reward_unit": 1e4}),
    ("PointWithoutEnd", Point, {"steps": None}),
    ("PointNaNObservation", Point, {"fault": "nan observation"}),
    ("PointNaNReward", Point, {"fault": "nan reward"}),
    ("PointRaises", Point, {"fault": "raises"}),
    ("OldInterface", OldInterface, {}),
    ("NeedsArgument", NeedsArgument, {}),
    ("FileMissing", FileMissing, {}),
    ("Cliff", Cliff, {}),
    ("TwoLengths", TwoLengths, {}),
    ("Chain", Chain, {}),
    ("ChainReused", Chain, {"reuse": True}),
    ("ChainFromOne", Chain, {"start": 1}),
):
    gym.register(f"{name}-v0", entry_point=f"{__name__}:{entry.__name__}", kwargs=arguments)
