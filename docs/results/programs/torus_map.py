"""Latents of a torus, learned from uniformly drawn transitions with and without a movement prior: are they a map?

python docs/results/programs/torus_map.py [key=value ...], keys those below; a row a weight and seed.
"""

import sys
import time

import numpy as np
import torch

from parsecrl.algorithms.latent_study.map_measures import map_measures
from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.latent_study.worlds import make_vector_world, world_of
from parsecrl.algorithms.models import TransitionSequence

given = {
    "id": "parsecrl/Torus-v0",
    "size": "none",
    "weights": "0,30",
    "seeds": "100,101,102",
    "steps": "600",
    "transformation": "affine",
    "kind": "parsimonious",
    "latent_size": "15",
    "hidden_size": "128",
    "rate": "3e-3",
    "beta": "1",
    "every": "200",
} | dict(word.split("=") for word in sys.argv[1:])
torch.set_num_threads(1)
print("weight  seed  step  seconds  nbr  correlation  mode (share)  movement  error")
for weight in map(float, given["weights"].split(",")):
    for seed in map(int, given["seeds"].split(",")):
        group = {"id": given["id"]} | ({} if given["size"] == "none" else {"size": int(given["size"])})
        if "size" in group:
            group |= {"start": [0, 0], "goal": [1, 1]}
        world = world_of(make_vector_world(group, seed))
        sizes = {key: int(given[key]) for key in ("latent_size", "hidden_size")}
        objective = {"beta": float(given["beta"]), "movement_weight": weight}
        settings = {"kind": given["kind"], "transformation": given["transformation"], **sizes, **objective}
        model = make_model(settings, world.observations.shape[1], 5, seed)
        optimizer = torch.optim.Adam(model.parameters(), float(given["rate"]), fused=True)
        rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        obs, began = torch.from_numpy(world.observations), time.time()
        for step in range(1, int(given["steps"]) + 1):
            s, a = rng.integers(len(obs), size=150), rng.integers(5, size=150)
            batch = TransitionSequence(
                torch.stack([obs[s], obs[world.transitions[s, a]]], 1), torch.from_numpy(a)[:, None]
            )
            loss = model.loss(batch, noise)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            if step % int(given["every"]) == 0:
                found = map_measures(model, world)
                mode = (
                    "-" if found.mode is None else f"({found.mode.rows}, {found.mode.columns}) {found.mode.share:.2f}"
                )
                error = loss.terms.get("error", loss.terms.get("prediction"))
                print(
                    f"{weight:6g}  {seed:4d}  {step:4d}  {time.time() - began:7.1f}  {found.neighbour_ratio:.2f}  "
                    f"{found.correlation:11.2f}  {mode:>14}  {loss.terms['movement']:8.3f}  {error:.3f}",
                    flush=True,
                )
