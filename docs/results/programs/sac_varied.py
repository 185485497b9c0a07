"""A trial of the gridworld for 95 episodes: its total, and how many of the last 45 scored below 0."""

import ray
import torch

from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC

torch.set_num_threads(1)
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
trial = LatentSAC(
    {"seed": 100, "measure_at": []}
)  # and 'dynamics_updates': 5, or 'model': {'kind': 'parsimonious', 'transformation': 'translation'}
while len(trial.scores) < 95:
    trial.train()
print(sum(trial.scores), sum(score < 0 for score in trial.scores[50:]))
