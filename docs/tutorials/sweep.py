# %% [markdown]
# # A sweep with seeds and an ablation report
#
# You ask whether more iterations of CEM help. The spec holds two seeds and one variant. The run
# answers with intervals. The script takes two minutes.
#
# ## The question as a spec
#
# `variants` are named changes of keys. Each is compared with the spec as it is, the reference.
# Each seed and variant is a chain: its phases, evaluation and report.

# %%
from pathlib import Path

import parsecrl

Path("iterations.yaml").write_text("""
name: iterations
env: {id: Pendulum-v1, action_repeat: 4}
resources: {num_env_runners: 0, num_envs_per_env_runner: 2}
seeds: 2
variants:
  deeper: {phases.planet.controller.num_iterations: 4}
phases:
  - name: planet
    algorithm: planet
    controller: {kind: full, horizon: 8, num_samples: 50, num_elites: 5, num_iterations: 1}
    world_model: {deterministic_size: 32, stochastic_size: 4, hidden_size: 32}
    seed_episodes: 2
    train_ratio: 0.05
    batch_size: 16
    batch_length: 20
    decisions_per_iteration: 100
    stop: {env_steps: 1600}
evaluate: {episodes: 4, videos: false}
""")
spec = parsecrl.load_spec("iterations.yaml")

# %% [markdown]
# ## The run
#
# Training is so short here that both variants stay below the random policy. The report warns of
# that.
#
# `run_spec` does what `parsec run iterations.yaml` does. Interrupted, the same call goes on where
# the run was. Chains run side by side as far as there are cores.

# %%
folder = parsecrl.run_spec(spec, storage="runs")

# %% [markdown]
# ## The report
#
# The report compares the variant with the reference, seed by seed.
# `runs/iterations/report/index.html` has the figures. `parsec report runs/iterations` prints the
# table:

# %%
from parsecrl.platform.reports import build_report, format_table  # noqa: E402

print(format_table(folder))
print(build_report(folder))

# %%
chains = sorted(chain.name for chain in Path("runs/iterations/chains").iterdir())
assert chains == ["deeper-seed0", "deeper-seed1", "reference-seed0", "reference-seed1"]

# %% [markdown]
# Two seeds tell little: [experiments](../experiments.md#what-the-report-says) says how little. More
# seeds later are one key: `seeds: 5`, and the same command trains the new chains alone. Next: [from
# a laptop to a cluster](cluster.md).
