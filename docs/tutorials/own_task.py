# %% [markdown]
# # A task of your own
#
# You write a Gymnasium environment, let `parsec doctor` look at the environment, and train an
# agent in the environment. The script takes one to two minutes.
#
# ## The task
#
# A module of its own holds the class and registers the class. The file is `lab/slider.py`.

# %% [file] lab/slider.py

# %% [markdown]
# ## What is made of the task
#
# `parsec doctor` plays the task at random. The command says what breaks a promise of
# Gymnasium's, which algorithms can run the task, and gives the lines for a spec. `--code` tells
# Python where the module is.

# %%
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np

import parsecrl

LAB = Path(__file__).with_name("lab")


def parsec(*words):
    done = subprocess.run([sys.executable, "-m", "parsecrl", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


print(parsec("doctor", "--code", LAB, "--env", "slider:Slider-v0", "--kwargs", '{"mass": 0.5}'))

# %% [markdown]
# ## A spec
#
# `lab/slider.yaml` names the task as `module:Id`.

# %% [file] lab/slider.yaml

# %% [markdown]
# `parsec specs` checks all that a run would refuse, and plays the task for a moment. Nothing is
# written.

# %%
assert "slider:Slider-v0" in parsec("specs", LAB / "slider.yaml", "--code", LAB)

# %% [markdown]
# The whole run, with evaluation and report, is then
#
# ```sh
# parsec run docs/tutorials/lab/slider.yaml --code docs/tutorials/lab
# ```
#
# ## The same from Python
#
# An RLlib config takes the id. Arguments of the constructor go into `env_config`. Python must find
# the module.

# %%
sys.path.insert(0, str(LAB))
config = parsecrl.PlanetConfig().environment("slider:Slider-v0", env_config={"mass": 0.5})
phase = parsecrl.load_spec(LAB / "slider.yaml").phases[0]
config.training(
    controller={"kind": "full", "horizon": 10, "num_samples": 100, "num_elites": 10, "num_iterations": 4},
    world_model={"deterministic_size": 32, "stochastic_size": 4, "hidden_size": 32},
    train_ratio=phase.train_ratio,
    batch_size=phase.batch_size,
    batch_length=phase.batch_length,
    decisions_per_iteration=200,
)
config.env_runners(num_env_runners=0).debugging(seed=0)
algorithm = config.build_algo()
while (result := algorithm.train())["env_steps"] < 2500:
    print(result["env_steps"], "steps, return", result["episode_return_mean"])
agent = parsecrl.load_agent(algorithm.save_to_path(Path("slider").resolve()))
algorithm.stop()

# %% [markdown]
# The agent is compared with random actions, from the same beginnings.

# %%
task = gymnasium.make("slider:Slider-v0", mass=0.5)
task.action_space.seed(0)
returns = {"agent": [], "random": []}
for name, found in returns.items():
    for seed in range(10):
        obs, _ = task.reset(seed=seed)
        state, total, over = agent.initial_state(), 0.0, False
        while not over:
            action, state = agent.act(obs, state)
            obs, reward, _, over, _ = task.step(action if name == "agent" else task.action_space.sample())
            total += reward
        found.append(total)
print({name: round(float(np.mean(found)), 1) for name, found in returns.items()})

# %%
assert np.mean(returns["agent"]) > np.mean(returns["random"])

# %% [markdown]
# [Environments](../environments.md) has all rules. Next: [parts of your own](own_parts.md).
