"""Small tasks with a known answer, learned whole: the units of a task do not matter, and an episode's end does."""

import gymnasium
import numpy as np
import pytest
import torch

from parsecrl.algorithms.planet.planet import PlanetConfig
from parsecrl.algorithms.planet.settings import PlanetSettings
from parsecrl.envs import make_env
from tests.envs.case_worlds import Point

pytestmark = [pytest.mark.ray, pytest.mark.learn, pytest.mark.usefixtures("ray_runtime")]

SETTINGS = {
    "controller": {"kind": "full", "horizon": 8, "num_samples": 100, "num_elites": 10, "num_iterations": 4},
    "world_model": {"deterministic_size": 64, "stochastic_size": 8, "hidden_size": 64},
    "train_ratio": 0.25,
    "seed_episodes": 4,
    "batch_size": 16,
    "batch_length": 16,
    "decisions_per_iteration": 400,
}
CASES = "tests.envs.case_worlds:{}-v0"


class Moved(gymnasium.ObservationWrapper):
    def observation(self, observation):
        return observation + np.float32(1e6)


gymnasium.register("PointFarAway-v0", entry_point=lambda: Moved(Point()))


def learned_return(env_id: str, steps: int = 1200, episodes: int = 8) -> float:
    """Of an agent without exploration, after so many steps."""
    settings, resources = PlanetSettings.checked(SETTINGS), {"num_envs_per_env_runner": 4}
    config = PlanetConfig.from_phase(settings, {"id": env_id, "action_repeat": 1}, resources, 0, None)
    algorithm = config.build_algo()
    while algorithm.train()["env_steps"] < steps:
        pass
    agent = algorithm.current_agent().eval()
    algorithm.stop()
    generator, total = torch.Generator().manual_seed(0), 0.0
    for episode in range(episodes):
        env, state, done = make_env(env_id), agent.initial_state(1), False
        obs, _ = env.reset(seed=1000 + episode)
        while not done:
            action, state = agent.act(state, torch.from_numpy(obs)[None], generator)
            obs, reward, terminated, truncated, _ = env.step(action[0].numpy())
            total += float(reward)
            done = terminated or truncated
        env.close()
    return total / episodes


@pytest.mark.parametrize(
    ("env_id", "unit"),
    [
        (CASES.format("Point"), 1.0),
        (CASES.format("PointSmallObservations"), 1.0),
        ("PointFarAway-v0", 1.0),
        (CASES.format("PointSmallRewards"), 1e-3),
        (CASES.format("PointLargeRewards"), 1e4),
    ],
)
def test_a_task_is_learned_in_any_unit(env_id, unit):
    """The random policy has 10."""
    assert learned_return(env_id) / unit > 23


def test_an_episode_that_can_end_is_kept_from_ending():
    """30 for 30 steps without a reward for the action; a model that knows no end falls at once, at 1.4."""
    assert learned_return(CASES.format("Cliff")) > 30
