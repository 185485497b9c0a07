"""What a model of latent dynamics has made of a grid world.

Axes: S cells, O observation, A actions, Z latent, W walks, K steps of a walk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from parsecrl.algorithms.latent_study.map_measures import embedded
from parsecrl.algorithms.latent_study.worlds import World
from parsecrl.algorithms.models import LatentDynamics, ParsimoniousDynamics, distinct_transformations

HELD = 0.01  # a component that holds less of the variance is left out


class LatentMap(NamedTuple):
    """Where the cells lie along the latents' principal components (the paper's figure 2): P of them, 2 or more."""

    positions: np.ndarray  # [S, P] units of the latent
    explained: np.ndarray  # [P] shares of the latents' variance, falling


def latent_map(model: LatentDynamics, world: World) -> LatentMap:
    """Project the latents of all cells onto their principal components (figure 2).

    The first two are kept, and of the others those that hold HELD of the variance. The signs of the components are
    fixed: the largest entry is positive.

    Args:
        model: What embeds.
        world: Whose cells are embedded.

    Returns:
        Positions [S, P] and the shares of the variance that they hold.
    """
    z = embedded(model, world).double().numpy()  # [S, Z]
    z = z - z.mean(0)
    _, singular, components = np.linalg.svd(z, full_matrices=False)
    if len(singular) < 2:  # a latent of one number
        singular, components = np.append(singular, 0.0), np.vstack([components, np.zeros_like(components)])
    explained = singular**2 / max((singular**2).sum(), 1e-30)
    kept = max(2, int((explained >= HELD).sum()))
    components = components[:kept]
    largest = np.abs(components).argmax(1)
    components = components * np.where(components[np.arange(kept), largest] < 0, -1.0, 1.0)[:, None]
    return LatentMap(z @ components.T, explained[:kept])


@torch.no_grad()
def transformations_used(model: LatentDynamics, world: World) -> np.ndarray:
    """Count the distinct transformations that each action uses over all cells.

    They are the codes of a model with codes. Of one that computes a transformation from the latent they are the
    distinct results: as many as cells, unless it came to ignore the latent.

    Args:
        model: What transforms.
        world: Whose cells are embedded.

    Returns:
        [A] float. NaN for a model without transformations, or with a memory, where they are not the cell's.
    """
    A = world.transitions.shape[1]
    obs = torch.from_numpy(world.observations)
    if isinstance(model, ParsimoniousDynamics):
        return distinct_transformations(model, obs).numpy().astype(float)
    net = getattr(model, "transition_net", None)
    if net is None or model.state_size != model.latent_size:
        return np.full(A, np.nan)
    z = model.encode(obs)
    parameters = [net(model.with_action(z, torch.full((len(z),), a))) for a in range(A)]
    return np.array([len(torch.unique(p, dim=0)) for p in parameters], dtype=float)


class PredictionErrors(NamedTuple):
    """How predictions of 1 to K steps end, a mean over walks; NaN where there is no walk of that length.

    `relative` is the distance of the predicted from the encoded latent, over the mean distance between two cells'
    latents. `hits` is the share of predictions to whose latent the right cell is the nearest of all that were seen.
    """

    relative: np.ndarray  # [K]
    hits: np.ndarray  # [K]
    walks: np.ndarray  # [K] int64, how many


@torch.no_grad()
def prediction_errors(
    model: LatentDynamics, world: World, visited: np.ndarray, new: bool, steps: int = 5, walks: int = 500, seed: int = 0
) -> PredictionErrors:
    """Predict many steps along walks whose first transition was never visited in training, or was.

    Only cells that were seen count, in either case: of a random vector that was never seen nothing can be known. A
    walk begins with a uniformly drawn transition of its kind. It goes on with random actions to cells that were seen,
    STAY and moves into walls among them.

    Args:
        model: What predicts.
        world: Where the walks are.
        visited: How often each action was taken in each cell, [S, A].
        new: Whether the first transition is one that was never visited.
        steps: K, at least 1.
        walks: W, how many are walked.
        seed: Of the walks.

    Returns:
        Errors [K].

    Raises:
        ValueError: The model cannot predict.
    """
    if not model.predicts:
        raise ValueError("prediction errors need a model that predicts, got one with an encoder alone")
    rng = np.random.default_rng(seed)
    taken = np.asarray(visited > 0)  # [S, A]
    seen = np.asarray(taken.any(1))  # [S]
    seen[np.unique(world.transitions[taken])] = True
    candidates = np.argwhere((~taken if new else taken) & seen[:, None] & seen[world.transitions])  # [C, 2]
    nothing = np.full(steps, np.nan)
    if not len(candidates):
        return PredictionErrors(nothing, nothing, np.zeros(steps, dtype=np.int64))
    first = candidates if len(candidates) >= walks else candidates[np.arange(walks) % len(candidates)]
    first = first[rng.permutation(len(first))[:walks]]
    state, action = first[:, 0], first[:, 1]  # [W]
    all_z = model.latent(model.begin(torch.from_numpy(world.observations)))  # [S, Z]
    apart = model.distance(all_z[:, None], all_z[None])[seen][:, seen]  # [N, N] of those seen
    scale = float(apart.sum() / max(len(apart) * (len(apart) - 1), 1))
    nearest_of = torch.from_numpy(np.flatnonzero(seen))
    alive = np.ones(len(state), dtype=bool)
    believed = model.begin(torch.from_numpy(world.observations[state]))
    relative, hits, counts = nothing.copy(), nothing.copy(), np.zeros(steps, dtype=np.int64)
    for k in range(steps):
        believed = model.predict(believed, torch.from_numpy(action))
        state = world.transitions[state, action]
        alive &= seen[state]
        counts[k] = alive.sum()
        if counts[k]:
            there = torch.from_numpy(state)
            z = model.latent(believed)
            distances = model.distance(z[:, None], all_z[nearest_of][None])  # [W, N]
            own = model.distance(z, all_z[there])
            relative[k] = float(own[alive].mean()) / max(scale, 1e-30)
            hits[k] = _hits(distances, own, nearest_of, there)[alive].mean()
        allowed = seen[world.transitions[state]]  # [W, A]
        draw = rng.random(allowed.shape)
        action = np.where(allowed, draw, -1.0).argmax(1)
    return PredictionErrors(relative, hits, counts)


def _hits(distances: Tensor, own: Tensor, candidates: Tensor, there: Tensor) -> np.ndarray:
    """[W] bool: the right cell is the nearest of the candidates, alone; latents that fell together are no hit."""
    others = torch.where(candidates[None] == there[:, None], torch.inf, distances)
    return (own < others.amin(1)).numpy()
