"""The prior towards small movements: closed forms, gradients, and the torus whose symmetry it breaks.

The symmetry: with rotations each invertible K modulo n embeds the torus so that an action is one fixed rotation.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.models import (
    BetaVAE,
    ParsimoniousDynamics,
    ParsimonyObjective,
    RecurrentDynamics,
    StateSpaceModel,
    TransitionSequence,
)
from parsecrl.algorithms.models.affine import movement, num_parameters, skew_symmetric
from parsecrl.algorithms.models.parsimony_terms import contrastive_loss, pairwise_distance, transition_error

SIDE = 13
MOVES = np.array([(0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- closed forms and gradients


def test_a_turn_of_a_plane_costs_its_squared_angle_and_an_offset_its_squared_length_in_units():
    turn = torch.zeros(6, dtype=torch.float64)
    turn[2] = 0.3
    assert movement("rotation", turn, 4).item() == pytest.approx(0.09)
    offset = torch.tensor([3.0, 0.0, 4.0, 0.0], dtype=torch.float64)
    assert movement("translation", offset, 4, unit=10.0).item() == pytest.approx(0.25)
    both = torch.cat([turn, offset])
    assert movement("affine", both, 4, unit=10.0).item() == pytest.approx(0.34)
    assert movement("affine", 0 * both, 4).item() == 0.0


def test_the_angles_term_is_half_the_squared_norm_of_the_logarithm_and_the_sum_of_squared_angles():
    parameters = randn(7, num_parameters("rotation", 6))
    log = skew_symmetric(parameters, 6)
    found = movement("rotation", parameters, 6)
    torch.testing.assert_close(found, 0.5 * log.square().sum((-2, -1)))
    angles = torch.linalg.eigvals(log).imag  # of each plane one and its negative
    torch.testing.assert_close(found, 0.5 * angles.square().sum(-1))


@pytest.mark.parametrize("kind", ["rotation", "translation", "affine"])
def test_the_gradient_is_twice_the_parameters_in_their_units(kind: str):
    parameters = randn(5, num_parameters(kind, 3)).requires_grad_()
    (gradient,) = torch.autograd.grad(movement(kind, parameters, 3, unit=2.0).sum(), parameters)
    scale = torch.ones(parameters.shape[-1], dtype=torch.float64)
    scale[(0 if kind == "translation" else 3) :] = 0.25
    torch.testing.assert_close(gradient, 2 * scale * parameters)
    assert torch.autograd.gradcheck(lambda p: movement(kind, p, 3, 2.0), parameters)


def a_batch(B: int = 7) -> TransitionSequence:
    action = torch.randint(5, (B, 2), generator=torch.Generator().manual_seed(1))
    return TransitionSequence(randn(B, 3, 6).float(), action)


def parsimonious(weight: float, **options) -> ParsimoniousDynamics:
    torch.manual_seed(0)
    objective = ParsimonyObjective(movement_weight=weight, **options.pop("objective", {}))
    return ParsimoniousDynamics(6, 5, latent_size=3, code_size=4, hidden_size=16, objective=objective, **options)


@pytest.mark.parametrize(
    ("options", "unit"),
    [
        ({}, 10.0),
        ({"transformation": "translation", "objective": {"similarity_scale_latent": 0.5}}, 2.0),
        ({"stochastic": True, "objective": {"diversity": "reconstruction"}}, 1.0),
    ],
)
def test_the_loss_has_the_mean_movement_of_the_batch_with_its_weight(options: dict, unit: float):
    batch, found = a_batch(), []
    for weight in (0.0, 3.0):
        model = parsimonious(weight, **{key: dict(v) if isinstance(v, dict) else v for key, v in options.items()})
        found.append(model.loss(batch, torch.Generator().manual_seed(0)))
    z = model.encode(batch.obs[:, :-1])
    parameters = model.decoder(model.with_action(model.codes(z, batch.action), batch.action))
    expected = movement(model.transformation, parameters, 3, unit).mean()
    torch.testing.assert_close(found[1].terms["movement"], expected.detach())
    torch.testing.assert_close(found[1].total - found[0].total, 3 * expected)


@pytest.mark.parametrize("kind", [BetaVAE, RecurrentDynamics, StateSpaceModel])
def test_the_transitions_of_the_other_models_have_the_same_prior(kind: type):
    losses = []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        model = kind(6, 5, latent_size=3, hidden_size=16, movement_weight=weight)
        losses.append(model.loss(a_batch(), torch.Generator().manual_seed(3)))
    moved = losses[1].terms["movement"]
    assert moved > 0
    torch.testing.assert_close((losses[1].total - losses[0].total).detach(), 2 * moved)
    losses[1].total.backward()
    assert (model.transition_net[0].weight.grad != 0).any()
    with pytest.raises(ValueError, match=r"movement_weight must be a finite number of 0 or more, got -1\.0"):
        kind(6, 5, movement_weight=-1.0)


# -- the symmetry of the torus, and what breaks it


def relabellings(side: int = SIDE) -> np.ndarray:
    """All matrices [K, 2, 2] that are invertible modulo a prime."""
    entries = np.stack(np.meshgrid(*[np.arange(side)] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
    determinant = entries[:, 0, 0] * entries[:, 1, 1] - entries[:, 0, 1] * entries[:, 1, 0]
    return entries[determinant % side != 0]


def embedded(k: np.ndarray, side: int = SIDE) -> Tensor:
    """Latents [side², 4]: plane i of cell x turns by 2 pi (k x)_i / side."""
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
    angles = torch.from_numpy(2 * math.pi / side * (cells @ k.T % side))
    return torch.stack([angles.cos(), angles.sin()], -1).flatten(1)


def turns(k: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The angles [..., A, 2] by which actions turn the planes, each in (-pi, pi]."""
    by = np.einsum("...ij,aj->...ai", k, MOVES) % side
    return 2 * np.pi / side * np.where(by > side / 2, by - side, by)


def rotated(z: Tensor, angles: np.ndarray) -> Tensor:
    planes = z.unflatten(1, (2, 2))
    c, s = (torch.from_numpy(f(angles))[:, None] for f in (np.cos, np.sin))
    x, y = planes[..., :1], planes[..., 1:]
    return torch.cat([c * x - s * y, s * x + c * y], -1).flatten(1)


def test_there_are_26208_relabellings_and_each_only_renames_the_cells():
    """So all sets of pairwise distances, and with them all contrastive losses, are equal."""
    all_k = relabellings()
    assert len(all_k) == (SIDE**2 - 1) * (SIDE**2 - SIDE) == 26_208
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2)
    images = np.einsum("kij,sj->ksi", all_k, cells) % SIDE
    numbers = np.sort(images[..., 0] * SIDE + images[..., 1], 1)
    assert (numbers == np.arange(SIDE**2)).all()


def test_no_term_of_the_paper_tells_relabellings_apart():
    """Transition error 0, one transformation an action, and one contrastive loss."""
    rng, all_k = np.random.default_rng(0), relabellings()
    chosen = [np.eye(2, dtype=int), np.array([(2, 1), (1, 11)]), *all_k[rng.permutation(len(all_k))[:20]]]
    target, found = torch.eye(SIDE**2, dtype=torch.float64), []
    cells = np.arange(SIDE**2)
    for k in chosen:
        z = embedded(k)
        for move, angles in zip(MOVES, turns(k), strict=True):
            to = (cells // SIDE + move[0]) % SIDE * SIDE + (cells % SIDE + move[1]) % SIDE
            assert transition_error(rotated(z, angles) - z[to]).max() < 1e-9
        found.append(contrastive_loss(target, pairwise_distance(30 * z), 0.1))
    torch.testing.assert_close(torch.stack(found), found[0].expand(len(found)), rtol=1e-9, atol=0)


def test_the_least_movement_is_the_maps_alone():
    """Eight matrices: the map, with its axes mirrored and exchanged. 30 would scale all alike."""
    all_k = relabellings()
    movements = np.square(turns(all_k)).sum((-1, -2)) / len(MOVES)
    least = all_k[np.isclose(movements, movements.min())]
    signed = np.where(least > SIDE // 2, least - SIDE, least)
    assert len(signed) == 8
    assert (np.abs(signed).sum(1) == 1).all()
    assert (np.abs(signed).sum(2) == 1).all()
    assert movements.min() == pytest.approx(4 / 5 * (2 * np.pi / SIDE) ** 2)
    assert np.median(movements) > 10 * movements.min()
