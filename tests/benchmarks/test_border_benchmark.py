"""Processor time that the border adds to a step: of a world that does nothing, and of a stock task."""

import time

import gymnasium
import numpy as np
import pytest

from parsecrl.envs import Border, make_env, make_world

STEPS, ROUNDS, LIMIT_US = 5_000, 6, 20.0


class Nothing(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    obs = np.zeros(4, np.float32)

    def reset(self, seed=None, options=None):
        return self.obs, {}

    def step(self, action):
        return self.obs, 0.0, False, False, {}


def step_us(env: gymnasium.Env, action) -> float:
    """Microseconds of this process's time, the least of the rounds."""
    least = float("inf")
    for _ in range(ROUNDS):
        env.reset(seed=0)
        begin = time.process_time()
        for _ in range(STEPS):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        least = min(least, 1e6 * (time.process_time() - begin) / STEPS)
    return least


WORLDS = {
    "nothing": (lambda: make_env(lambda arguments: Nothing(), max_episode_steps=1000), np.zeros(2, np.float32)),
    "Pendulum-v1": (lambda: make_env("Pendulum-v1"), np.zeros(1, np.float32)),
    "parsecrl/Gridworld-v0": (lambda: make_world("parsecrl/Gridworld-v0"), 2),
}


@pytest.mark.parametrize("name", WORLDS)
def test_border(benchmark, name):
    make, action = WORLDS[name]
    env: Border = make()
    found = benchmark.pedantic(lambda: (step_us(env, action), step_us(env.env, action)), rounds=1)
    print(f"\n{name}: {found[0]:.1f} us a step, {found[1]:.1f} without the border, {found[0] - found[1]:.1f} its cost")
    assert found[0] - found[1] < LIMIT_US
