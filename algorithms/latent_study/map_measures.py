"""Whether latents are a map of a grid world, or cells put at one another's places.

Rotations and translations cannot tell the two apart: docs/symmetry.md. Axes: S cells, Z latent, R rows, C columns.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from parsecrl.algorithms.latent_study.worlds import World
from parsecrl.algorithms.models import LatentDynamics


class Mode(NamedTuple):
    """A wave over a torus: how often it turns on the way around, and its share of the latents' variance."""

    rows: int  # turns on the way down all rows, in (-R / 2, R / 2]
    columns: int  # turns on the way along all columns, in (-C / 2, C / 2]
    share: float  # in [0, 1]


class MapMeasures(NamedTuple):
    """Measures of latents as a map; NaN where all latents fell together.

    A map has a small neighbour ratio (0.25 for the plane waves of a torus of 13 x 13 cells) and a correlation near 1.
    Cells at random places have 1 and 0.
    """

    neighbour_ratio: float  # mean latent distance of cells one move apart, over that of all pairs
    correlation: float  # Spearman's, of the latent distance and the moves of a shortest path, over all pairs
    mode: Mode | None  # the strongest of a torus, (1, 0) or (0, 1) on a map; None in other worlds


def map_measures(model: LatentDynamics, world: World) -> MapMeasures:
    """Measure how far a model's latents are a map.

    Args:
        model: What embeds.
        world: Whose cells are embedded.

    Returns:
        The measures, by the model's own distance.
    """
    z = embedded(model, world)
    apart = model.distance(z[:, None], z[None]).double().numpy()  # [S, S]
    return MapMeasures(*_distances(apart, world), strongest_mode(z.double().numpy(), world))


@torch.no_grad()
def embedded(model: LatentDynamics, world: World) -> torch.Tensor:
    """The latents [S, Z] of all cells, as the model begins an episode in them.

    Args:
        model: What embeds.
        world: Whose cells are embedded.

    Returns:
        [S, Z] on the CPU.
    """
    some = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    return model.latent(model.begin(torch.from_numpy(world.observations).to(some.device))).cpu()


def _distances(apart: np.ndarray, world: World) -> tuple[float, float]:
    """Neighbour ratio and rank correlation of distances [S, S]."""
    first, second = np.triu_indices(len(apart), 1)
    pairs, moves = apart[first, second], world.distances[first, second]
    if not pairs.size or np.ptp(pairs) == 0:
        return float("nan"), float("nan")
    near = apart[world.neighbours[:, 0], world.neighbours[:, 1]]
    reached = moves >= 0
    return float(near.mean() / pairs.mean()), float(spearmanr(pairs[reached], moves[reached]).statistic)


def strongest_mode(z: np.ndarray, world: World) -> Mode | None:
    """The plane wave that holds most of the latents' variance, by the discrete Fourier transform over a torus.

    A wave and its conjugate are one mode: that whose first turn is positive is named.

    Args:
        z: Latents [S, Z], a row a cell.
        world: Where the cells lie.

    Returns:
        The mode; None where the world does not wrap, or all latents fell together.
    """
    sides = world.cells.max(0) + 1  # [2] rows and columns
    if not world.wraps or len(world.cells) != sides.prod():
        return None
    grid = np.zeros((*sides, z.shape[1]))
    grid[world.cells[:, 0], world.cells[:, 1]] = z - z.mean(0)
    power = np.square(np.abs(np.fft.fft2(grid, axes=(0, 1)))).sum(-1)  # [R, C]
    if power.sum() == 0:
        return None
    conjugate = np.roll(power[::-1, ::-1], 1, (0, 1))
    both = power + conjugate
    row, column = np.unravel_index(both.argmax(), both.shape)
    rows, columns = (int(k - side if k > side // 2 else k) for k, side in zip((row, column), sides, strict=True))
    if (rows, columns) < (0, 0):
        rows, columns = -rows, -columns
    own = power[row, column] if 2 * row % sides[0] == 2 * column % sides[1] == 0 else both[row, column]
    return Mode(rows, columns, float(own / power.sum()))
