# %% [markdown]
# # A world model, a controller or a cost of your own
#
# A spec names your code as `module:name`, and nothing of parsecrl is edited. Here an agent for
# `Pendulum-v1` is made of three parts that parsecrl does not have. The script takes 10 seconds.
#
# ## The parts
#
# A cost is a function of what the model predicts. This one is in a package of another project,
# `tests/example_plugin/parsec_example`.

# %% [file] ../../tests/example_plugin/parsec_example/cost.py

# %% [markdown]
# A controller plans. This one is `lab/shooting.py`.

# %% [file] lab/shooting.py

# %% [markdown]
# A world model filters and predicts. This one is a GRU, of the other package again.

# %% [file] ../../tests/example_plugin/parsec_example/gru_model.py

# %% [markdown]
# ## A check before anything runs
#
# `make_controller` and `make_world_model` make a part and try the part with a batch of two. A part
# that breaks its protocol is refused with the rule, the value and the remedy.
# `parsec specs SPEC` does the same for all parts of a spec.

# %%
import sys
from pathlib import Path

import gymnasium

import parsecrl
from parsecrl.algorithms.controllers import make_controller, make_world_model

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "lab"), str(HERE.parents[1] / "tests" / "example_plugin")]
controller = {
    "kind": "shooting:Shooting",
    "horizon": 5,
    "objective": "parsec_example.cost:upright",
    "options": {"num_samples": 16},
}
world_model = {"kind": "parsec_example.gru_model:GRUModel", "options": {"hidden_size": 16}}
model = make_world_model(3, 1, world_model)  # sizes of Pendulum-v1's observations and actions
planner = make_controller(model, controller, {})
print(type(model).__name__, type(planner).__name__, planner.trajectories, "candidates")

# %% [markdown]
# ## An agent of these parts

# %%
config = parsecrl.PlanetConfig().environment("Pendulum-v1", env_config={"action_repeat": 2})
config.training(
    controller=controller,
    world_model=world_model,
    seed_episodes=1,
    train_ratio=0.05,
    batch_size=8,
    batch_length=10,
    decisions_per_iteration=100,
)
config.env_runners(num_env_runners=0).debugging(seed=0)
algorithm = config.build_algo()
losses = [algorithm.train()["losses"].get("model_loss") for _ in range(6)]
path = algorithm.save_to_path(Path("plugged").resolve())
algorithm.stop()
print("loss of the world model", losses)

# %% [markdown]
# The checkpoint names the three parts. Loading runs their code, so that loading asks for your
# trust. So short a training makes no good agent.

# %%
agent = parsecrl.load_agent(path, trust=True)
task = gymnasium.make("Pendulum-v1")
obs, _ = task.reset(seed=0)
state, total, over = agent.initial_state(), 0.0, False
while not over:
    action, state = agent.act(obs, state)
    assert task.action_space.contains(action)
    obs, reward, _, over, _ = task.step(action)
    total += reward
print(f"return {total:.0f}")

# %% [markdown]
# [Parts of your own](../plugins.md) has the protocols, and how a package registers an algorithm.
# Next: [a sweep and its report](sweep.md).
