"""What the agent does at the goal, and what it values there, as it loses the goal on the torus."""

import ray
import torch

from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC

torch.set_num_threads(1)
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
torus = {"id": "parsecrl/Torus-v0", "observation_size": 50, "episode_steps": 250}
trial = LatentSAC({"seed": 100, "measure_at": [], "world": torus, "episodes_per_step": 1})
module = trial.learner_group._learner.module["default_policy"].unwrapped()
while len(trial.scores) < 60:
    trial.train()
    goal = trial.record.visited.sum(1).argmax()
    with torch.no_grad():
        z = module.model.encode(torch.from_numpy(trial.record.world.observations[goal]))
        q, pi = torch.minimum(module.qf(z), module.qf_twin(z)), module.policy(z).softmax(-1)
    print(len(trial.scores), trial.scores[-1], trial.visited[goal], q.numpy().round(1), pi.numpy().round(2))
