# %% [markdown]
# # Train an agent, load the agent, act
#
# An agent learns a model of `Pendulum-v1` and plans in the model. You save the agent, load the
# agent without RLlib, and play an episode. The script takes two minutes on a busy core.
#
# ## Train
#
# `PlanetConfig` is an RLlib config. `.training` takes the settings of [planet](../specs.md) by
# their names. The model and the plans here are small.

# %%
from pathlib import Path

import gymnasium
import numpy as np

import parsecrl

config = parsecrl.PlanetConfig().environment("Pendulum-v1", env_config={"action_repeat": 2})
config.training(
    world_model={"deterministic_size": 64, "stochastic_size": 8, "hidden_size": 64},
    controller={"kind": "full", "horizon": 15, "num_samples": 100, "num_elites": 10, "num_iterations": 4},
    seed_episodes=5,
    train_ratio=0.15,
    batch_size=16,
    batch_length=20,
    decisions_per_iteration=200,
)
config.env_runners(num_env_runners=0)
config.debugging(seed=0)
algorithm = config.build_algo()
for _ in range(12):
    result = algorithm.train()
    print(f"{result['env_steps']:6} steps, return {result['episode_return_mean']:8.1f}")

# %% [markdown]
# A return of `Pendulum-v1` is at most 0. Episodes of random actions have about -1200.
#
# ## Save and load
#
# A checkpoint holds `agent.json` and `agent.safetensors`, which `load_agent` reads. Neither Ray
# nor the task is needed for acting.

# %%
path = algorithm.save_to_path(Path("pendulum").resolve())
algorithm.stop()
agent = parsecrl.load_agent(path)

# %% [markdown]
# ## Act
#
# The agent takes the task's own observations and gives the task's own actions, as numpy arrays.
# `state` is what the agent remembers: the belief and the last plan. `action_repeat` was 2, so
# that each action is taken twice.

# %%
task = gymnasium.make("Pendulum-v1")


def episode(act, seed):
    obs, _ = task.reset(seed=seed)
    state, total, over = agent.initial_state(), 0.0, False
    while not over:
        action, state = act(obs, state)
        for _ in range(2):
            obs, reward, terminated, truncated, _ = task.step(action)
            total, over = total + reward, terminated or truncated
    return total


task.action_space.seed(0)
planned = [episode(agent.act, seed) for seed in range(5)]
random = [episode(lambda obs, state: (task.action_space.sample(), state), seed) for seed in range(5)]
print(f"planned {np.mean(planned):.0f}, random {np.mean(random):.0f}")

# %%
assert np.mean(planned) > np.mean(random)

# %% [markdown]
# [From Python](../python.md) has the other doors. Next: [a task of your own](own_task.md).
