"""A block on a rail of 4 m: push the block to the middle, and hold the block there."""

import gymnasium
import numpy as np


class Slider(gymnasium.Env):
    """Observations: position in m, velocity in m/s. Action: a force in N. 50 steps an episode.

    Args:
        mass: In kg.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-3.0, 3.0, (1,), np.float32)

    def __init__(self, mass=1.0):
        self.mass = mass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.velocity = self.np_random.uniform(-1, 1), 0.0
        return self._obs(), {}

    def step(self, action):
        self.velocity += 0.1 * float(action[0]) / self.mass
        self.position += 0.1 * self.velocity
        if abs(self.position) > 2:  # the rail's ends stop the block
            self.position, self.velocity = float(np.sign(self.position)) * 2, 0.0
        reward = 1.0 - abs(self.position) - 0.01 * float(action[0]) ** 2
        return self._obs(), reward, False, False, {}

    def _obs(self):
        return np.array([self.position, self.velocity], np.float32)


gymnasium.register("Slider-v0", entry_point=Slider, max_episode_steps=50)
