"""Phases in miniature, and the command that runs them."""

# Phase 1, to which a test adds keys of its own, indented by four.
PLANET = """  - name: planet
    algorithm: planet
    controller: {kind: full, horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 2}
    world_model: {deterministic_size: 16, stochastic_size: 4, hidden_size: 16}
    train_ratio: 0.002
    seed_episodes: 1
    batch_size: 4
    batch_length: 10
"""
TINY = (
    """
name: tiny
env: {id: dm_control/cheetah-run-v0, action_repeat: 10}
resources: {num_env_runners: 0, num_envs_per_env_runner: 1}
phases:
"""
    + PLANET
    + """    decoder: {hidden_size: 16}
    stop: {env_steps: 15000}
    checkpoint_every: 1
  - name: embed
    algorithm: planet
    start_from: planet
    controller: {kind: embedded, latent_size: 2, horizon: 3, num_samples: 8, num_elites: 2, num_iterations: 2}
    train_ratio: 0.002
    seed_episodes: 0
    batch_size: 4
    batch_length: 10
    decoder_beliefs: 4
    stop: {env_steps: 15000}
    checkpoint_every: 1
  - name: finetune
    algorithm: dcem_ppo
    start_from: embed
    episodes_per_step: 1
    noise_bank_size: 2
    stop: {ppo_steps: 6}
    checkpoint_every: 1
evaluate: {episodes: 2, videos: false}
"""
)
# The command, with a Ray runtime as light as that of the other tests.
DRIVER = """
import logging, sys
import ray
from parsecrl.platform.cluster.connection import quiet_ray
quiet_ray()
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
         object_store_memory=256 * 1024**2)
from parsecrl.platform.cli import main
sys.exit(main(["run", "tiny.yaml", *sys.argv[1:]]))
"""
