"""Actor and critics of latent_sac alone, over latents of the torus that are given and stay.

python docs/results/programs/sac_static_latents.py [key=value ...], keys those below; a row a table of latents and seed.
Networks are scaled down: 128 units, and a learning rate of 6e-4. All else is the spec's.
"""

import sys

import numpy as np
import torch

from parsecrl.algorithms.latent_sac.latent_sac import LatentSACConfig
from parsecrl.algorithms.latent_sac.latent_sac_rl_module import LatentSACRLModule
from parsecrl.algorithms.latent_sac.policy_losses import LATENTS, NEXT_LATENTS
from parsecrl.algorithms.latent_study.worlds import make_vector_world, world_of

given = {
    "latents": "map,mirrored,random,scrambled",
    "seeds": "100,101",
    "episodes": "150",
    "radius": "40",
    "discount": "0.99",
} | dict(word.split("=") for word in sys.argv[1:])
torch.set_num_threads(1)
K = {"map": [[1, 0], [0, 1]], "mirrored": [[0, -1], [1, 0]], "scrambled": [[2, 1], [1, -2]]}


def table(name: str, cells: np.ndarray, seed: int) -> torch.Tensor:
    """[169, 15]: two planes by the matrix K, or normal numbers; the rms radius is the one given."""
    z = np.random.default_rng(seed).normal(size=(169, 15))
    if name in K:
        angles = 2 * np.pi / 13 * (cells @ np.array(K[name]).T)
        z = np.concatenate([np.cos(angles), np.sin(angles), np.zeros((169, 11))], 1)
    return torch.from_numpy(z * float(given["radius"]) / np.sqrt(np.square(z).sum(1).mean())).float()


print("latents    seed    total  found at  below 0 after it  last tenth  critic loss")
for name in given["latents"].split(","):
    for seed in map(int, given["seeds"].split(",")):
        env = make_vector_world({"id": "parsecrl/Torus-v0"}, seed)
        world = world_of(env)
        z = table(name, world.cells, seed)
        own = {"kind": "parsimonious", "hidden_size": 8}
        config = LatentSACConfig.from_settings(
            {"model": own, "policy": {"hidden_size": 128}, "seed": seed, "discount": float(given["discount"])}
        )
        module = LatentSACRLModule(
            observation_space=env.observation_space,
            action_space=env.action_space,
            model_config=config._model_config_auto_includes,
        )
        parts = [module.policy, module.qf, module.qf_twin]
        optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], 6e-4, fused=True)
        rng, scores, losses = np.random.default_rng(seed), [], []
        state, action, reward, after = (np.empty(0, np.int64) for _ in range(4))
        for _ in range(int(given["episodes"])):
            with torch.no_grad():
                cumulative = module.policy(z).softmax(-1).double().cumsum(-1)[:, :-1].numpy()
            env.reset(seed=0)
            walk = [env.unwrapped._state]
            draws = rng.random(250)
            chosen = np.empty(250, np.int64)
            for t in range(250):
                chosen[t] = (cumulative[walk[-1]] <= draws[t]).sum()
                walk.append(int(world.transitions[walk[-1], chosen[t]]))
            came = np.where(np.array(walk[:-1]) == env.unwrapped.goal, 1.0, -1.0)
            scores.append(came.sum())
            state, after = np.append(state, walk[:-1]), np.append(after, walk[1:])
            action, reward = np.append(action, chosen), np.append(reward, came)
            for _ in range(15):
                i = rng.integers(len(state), size=150)
                batch = {LATENTS: z[state[i]], NEXT_LATENTS: z[after[i]], "actions": torch.from_numpy(action[i])}
                batch |= {"rewards": torch.from_numpy(reward[i]).float(), "terminateds": torch.zeros(150)}
                found = module.policy_loss(batch)
                optimizer.zero_grad()
                found["loss"].backward()
                optimizer.step()
                with torch.no_grad():
                    for network, target in module.get_target_network_pairs():
                        torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), config.tau)
                losses.append(found["terms"]["critic_loss"].item())
        scores = np.array(scores)
        at = next((i for i in range(len(scores) - 4) if scores[i : i + 5].sum() > 0), len(scores))
        late = f"{100 * (scores[at + 5 :] < 0).mean():.0f} %" if at + 5 < len(scores) else "-"
        last = scores[-max(1, len(scores) // 10) :].mean()
        told = f"{scores.sum():7,.0f}  {at + 1:8}  {late:>16}  {last:10.0f}  {np.mean(losses[-75:]):.2f}"
        print(f"{name:10} {seed}  {told}", flush=True)
