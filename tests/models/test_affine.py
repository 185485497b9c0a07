import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parsecrl.algorithms.models.affine import (
    Affine,
    matrix_exp,
    num_parameters,
    rotation,
    skew_symmetric,
    transformation,
)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# -- closed forms and another implementation


def test_a_rotation_of_the_plane_is_by_its_parameter():
    for angle in (0.0, 0.3, -2.0, 50.0):
        c, s = math.cos(angle), math.sin(angle)
        expected = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        torch.testing.assert_close(rotation(torch.tensor([angle], dtype=torch.float64), 2), expected)


def test_skew_symmetric_fills_the_lower_triangle_row_by_row():
    expected = [[0.0, -1.0, -2.0], [1.0, 0.0, -3.0], [2.0, 3.0, 0.0]]
    assert skew_symmetric(torch.tensor([1.0, 2.0, 3.0]), 3).tolist() == expected


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 30.0])
def test_exponential_is_torchs(scale: float):
    a = scale * randn(3, 4, 7, 7)
    a = a - a.mT if scale > 1 else a
    torch.testing.assert_close(matrix_exp(a), torch.linalg.matrix_exp(a), rtol=1e-6, atol=1e-7)


def test_gradient_of_the_exponential_is_the_finite_difference():
    for scale in (0.1, 2.0):
        assert torch.autograd.gradcheck(matrix_exp, (scale * randn(2, 3, 3)).requires_grad_())


# -- laws


@settings(max_examples=40, deadline=None, derandomize=True)
@given(size=st.integers(2, 16), scale=st.floats(0.0, 3.0), seed=st.integers(0, 99))
def test_rotations_are_orthogonal_and_undone_by_their_inverse(size: int, scale: float, seed: int):
    parameters = scale * randn(5, num_parameters("rotation", size), seed=seed, dtype=torch.float32)
    R = rotation(parameters, size)
    eye = torch.eye(size).expand(5, -1, -1)
    torch.testing.assert_close(R @ R.mT, eye, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(5), rtol=0, atol=1e-4)
    turn = transformation("rotation", parameters, size)
    back = Affine(turn.linear.mT, None)
    torch.testing.assert_close(back.after(turn).linear, eye, rtol=0, atol=1e-4)
    torch.testing.assert_close(rotation(-parameters, size), R.mT, rtol=0, atol=1e-4)
    z = randn(5, size, seed=seed + 1, dtype=torch.float32)
    torch.testing.assert_close(back.apply(turn.apply(z)), z, rtol=0, atol=1e-3)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    first=st.sampled_from(["rotation", "translation", "affine"]),
    second=st.sampled_from(["rotation", "translation", "affine"]),
    seed=st.integers(0, 99),
)
def test_composition_is_one_after_the_other(first: str, second: str, seed: int):
    a, b = (
        transformation(kind, randn(4, num_parameters(kind, 6), seed=seed + i), 6)
        for i, kind in ((0, first), (1, second))
    )
    z = randn(4, 6, seed=seed + 2)
    torch.testing.assert_close(b.after(a).apply(z), b.apply(a.apply(z)))


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4, 1e6, 1e12, 1e30])
def test_angles_beyond_what_float32_knows_still_give_a_rotation_and_a_gradient(scale: float):
    """As a beta-VAE's transition network asked for after 3,972 updates: 66,000 rad, and then NaN."""
    parameters = (scale * randn(8, 105, dtype=torch.float32)).requires_grad_()
    R = rotation(parameters, 15)
    torch.testing.assert_close(R @ R.mT, torch.eye(15).expand(8, -1, -1), rtol=0, atol=2e-3)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(8), rtol=0, atol=5e-3)
    (R * randn(8, 15, 15, seed=1, dtype=torch.float32)).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.norm(dim=-1).max() < 100
    assert rotation(parameters[:1], 15).equal(R[:1])


def test_a_row_does_not_depend_on_the_others():
    parameters = torch.cat([randn(20, 120, dtype=torch.float32), 40 * randn(20, 120, seed=1, dtype=torch.float32)])
    z = randn(40, 15, dtype=torch.float32)
    together = transformation("affine", parameters, 15)
    moved = together.apply(z)
    for rows in ([7], [3, 30, 11]):
        alone = transformation("affine", parameters[rows], 15)
        assert torch.equal(alone.linear, together.linear[rows])
        assert torch.equal(alone.apply(z[rows]), moved[rows])


def test_affine_is_the_rotation_then_the_translation():
    parameters, z = randn(2, 6 + 4), randn(2, 4, seed=1)
    expected = (rotation(parameters[:, :6], 4) @ z.unsqueeze(-1)).squeeze(-1) + parameters[:, 6:]
    torch.testing.assert_close(transformation("affine", parameters, 4).apply(z), expected)
    assert Affine(None, None).apply(z) is z
    assert [num_parameters(kind, 15) for kind in ("rotation", "translation", "affine")] == [105, 15, 120]


def test_an_unknown_transformation_is_refused():
    for call in (lambda: num_parameters("shear", 3), lambda: transformation("shear", torch.zeros(3), 3)):
        with pytest.raises(ValueError, match="one of rotation, translation, affine, got 'shear'"):
            call()
