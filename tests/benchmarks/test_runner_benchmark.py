"""Processor time of a decision and environment around its plan: of RLlib's own loop and of the batched one.

The agent is untrained, so that no plan is made. Filtering the observation and the border of the environment count.
"""

import time

import gymnasium
import numpy as np
import pytest
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from parsecrl.algorithms.planet.planet import PlanetConfig
from parsecrl.algorithms.planet.runner import BatchedEnvRunner
from parsecrl.algorithms.planet.settings import PlanetSettings

STEPS, ROUNDS = 200, 3


class Nothing(gymnasium.Env):
    """Of cheetah.run's sizes."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (17,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (6,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(17, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(17, np.float32), 1.0, False, self.t >= 250, {}


gymnasium.register("parsecrl-tests/Nothing-v0", entry_point=Nothing)


def decision_ms(kind: type, num_envs: int) -> float:
    """Milliseconds of this process's time, the least of the rounds."""
    resources = {"num_env_runners": 0, "num_envs_per_env_runner": num_envs}
    settings = PlanetSettings.checked({"controller": {"kind": "full"}})
    env = {"id": "parsecrl-tests/Nothing-v0", "action_repeat": 1}
    runner = kind(config=PlanetConfig.from_phase(settings, env, resources, 0, None), worker_index=0)
    runner.sample(num_timesteps=20 * num_envs)
    least = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time()
        runner.sample(num_timesteps=STEPS * num_envs)
        least = min(least, 1e3 * (time.process_time() - begin) / (STEPS * num_envs))
    return least


@pytest.mark.parametrize("num_envs", [1, 4, 32])
def test_runner(benchmark, one_thread, num_envs: int):
    rllib, batched = benchmark.pedantic(
        lambda: [decision_ms(kind, num_envs) for kind in (SingleAgentEnvRunner, BatchedEnvRunner)], rounds=1
    )
    print(f"\n{num_envs} environments: RLlib {rllib:.3f} ms, batched {batched:.3f} ms, {rllib / batched:.1f} times")
