"""The table of units.md: one task in six units, learned by `planet`; and a task that punishes ending an episode.

PYTHONPATH=. python docs/results/units.py [--steps 1200] [--seeds 3] [--tasks plain ...]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch

from parsecrl.algorithms.planet.planet import PlanetConfig
from parsecrl.algorithms.planet.settings import PlanetSettings
from parsecrl.envs import make_env
from tests.envs.case_worlds import Cliff, Point

SETTINGS: dict[str, Any] = {
    "controller": {"kind": "full", "horizon": 8, "num_samples": 100, "num_elites": 10, "num_iterations": 4},
    "world_model": {"deterministic_size": 64, "stochastic_size": 8, "hidden_size": 64},
    "train_ratio": 0.25,
    "seed_episodes": 4,
    "batch_size": 16,
    "batch_length": 16,
    "decisions_per_iteration": 400,
}
TASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "observations x 1e-4": {"obs_unit": 1e-4},
    "observations x 1e4": {"obs_unit": 1e4},
    "observations + 1e6": {"obs_offset": 1e6},
    "rewards x 1e-3": {"reward_unit": 1e-3},
    "rewards x 1e4": {"reward_unit": 1e4},
    "cliff": {},
}


def make_task(cliff: bool = False, obs_offset: float = 0.0, **units: float) -> gym.Env:
    """Point in other units, or Cliff."""
    if cliff:
        return Cliff()
    env = Point(**units)
    return gym.wrappers.TransformObservation(env, lambda obs: obs + np.float32(obs_offset), env.observation_space)


def id_of(task: str) -> str:
    """The Gymnasium id of a task."""
    return "Units" + "".join(filter(str.isalnum, task.replace("-", "Minus"))) + "-v0"


for task, arguments in TASKS.items():
    gym.register(id_of(task), entry_point=make_task, kwargs={**arguments, "cliff": task == "cliff"})


def train_and_play(env_id: str, seed: int, steps: int, episodes: int = 16) -> float:
    """The mean return of episodes without exploration, after training for a number of environment steps."""
    resources = {"num_env_runners": 0, "num_envs_per_env_runner": 4}
    env: dict[str, Any] = {"id": env_id, "action_repeat": 1}
    algorithm = PlanetConfig.from_phase(PlanetSettings.checked(SETTINGS), env, resources, seed, None).build_algo()
    while algorithm.train()["env_steps"] < steps:
        pass
    agent = algorithm.current_agent().eval()
    algorithm.stop()
    generator, returns = torch.Generator().manual_seed(seed), []
    for episode in range(episodes):
        world, state, done = make_env(**env), agent.initial_state(1), False
        obs, _ = world.reset(seed=1000 + episode)
        returns.append(0.0)
        while not done:
            action, state = agent.act(state, torch.from_numpy(obs)[None], generator)
            obs, reward, terminated, truncated, _ = world.step(action[0].numpy())
            returns[-1] += float(reward)
            done = terminated or truncated
        world.close()
    return float(np.mean(returns))


def main() -> None:
    """Print a row for each task, in the plain task's units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    options = parser.parse_args()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    torch.set_num_threads(1)
    for task in options.tasks:
        unit = TASKS[task].get("reward_unit", 1.0)
        scores = [train_and_play(id_of(task), seed, options.steps) / unit for seed in range(options.seeds)]
        print(f"| {task} | {' | '.join(f'{score:.1f}' for score in scores)} | {np.mean(scores):.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
