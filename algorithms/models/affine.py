"""Rotations, translations and their composition as transformations of latents (Saanum and Schulz 2022, section 2.3).

Axes: Z latent dimensions, P parameters of a transformation; leading axes are independent of each other, to the bit,
so that a transformation computed once can stand for all that are equal to it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

TRANSFORMATIONS = ("rotation", "translation", "affine")
MAX_SQUARINGS = 12
MAX_NORM = 2.0 ** (MAX_SQUARINGS - 1)  # float32 knows the angles of rotations by up to 2^11 rad, not of larger ones


class Affine(NamedTuple):
    """z -> linear z + offset. A missing part is the identity's: it is not multiplied with, nor added."""

    linear: Tensor | None  # [..., Z, Z]
    offset: Tensor | None  # [..., Z]

    def apply(self, z: Tensor) -> Tensor:
        """z [..., Z] -> [..., Z]."""
        if self.linear is not None:
            z = (self.linear * z.unsqueeze(-2)).sum(-1)  # unlike a batched product, a row never depends on the others
        return z if self.offset is None else z + self.offset

    def after(self, first: Affine) -> Affine:
        """The composition: `first`, then this one."""
        offset = self.offset if first.offset is None else self.apply(first.offset)
        if self.linear is None or first.linear is None:
            return Affine(first.linear if self.linear is None else self.linear, offset)
        return Affine(self.linear @ first.linear, offset)

    def inverse_rotation(self) -> Affine:
        """What undoes it, where `linear` is a rotation: its inverse is its transpose."""
        undo = Affine(None if self.linear is None else self.linear.mT, None)
        return undo if self.offset is None else Affine(undo.linear, undo.apply(-self.offset))

    def select(self, index: Tensor) -> Affine:
        """The transformations at `index` of the first axis."""
        return Affine(*(None if part is None else part[index] for part in self))


def check_transformation(kind: str) -> None:
    """Raises ValueError unless kind is one of TRANSFORMATIONS."""
    if kind not in TRANSFORMATIONS:
        raise ValueError(
            f"transformation must be one of {', '.join(TRANSFORMATIONS)}, got {kind!r}; choose one of them"
        )


def num_parameters(kind: str, size: int) -> int:
    """Numbers that fix a transformation of `size` dimensions. Raises ValueError on an unknown kind."""
    check_transformation(kind)
    angles = size * (size - 1) // 2
    return {"rotation": angles, "translation": size, "affine": angles + size}[kind]


def transformation(kind: str, parameters: Tensor, size: int) -> Affine:
    """parameters [..., P] -> a rotation about the origin, a translation, or "affine": the one, then the other.

    Raises ValueError on an unknown kind.
    """
    check_transformation(kind)
    if kind == "translation":
        return Affine(None, parameters)
    if kind == "rotation":
        return Affine(rotation(parameters, size), None)
    angles = parameters.shape[-1] - size
    return Affine(rotation(parameters[..., :angles], size), parameters[..., angles:])


def skew_symmetric(parameters: Tensor, size: int) -> Tensor:
    """The lower triangle, row by row, [..., size (size - 1) / 2] -> [..., size, size], minus its transpose."""
    lower, upper = _triangles(size, parameters.device)
    flat = parameters.new_zeros(*parameters.shape[:-1], size * size)
    return flat.index_add(-1, lower, parameters).index_add(-1, upper, -parameters).unflatten(-1, (size, size))


def rotation(parameters: Tensor, size: int) -> Tensor:
    """The rotation whose logarithm has `parameters` [..., size (size - 1) / 2], radians: [..., size, size].

    A rotation for any finite parameters. By less than they ask for where `matrix_exp` scales them down: networks do
    come there, and back.
    """
    return matrix_exp(skew_symmetric(parameters, size))


def matrix_exp(a: Tensor) -> Tensor:
    """exp(a) of a [..., n, n] by scaling and squaring: a Taylor polynomial of degree 8 of a / 2^s, squared s times.

    s is each matrix's own, so that its result does not depend on the rest of the batch. torch.linalg.matrix_exp has a
    backward pass that exponentiates matrices of twice the size: 74 ms for 150 of 15 x 15, where this needs a few.
    Exact to rounding for 1-norms up to 2^11; a larger matrix is scaled down to that first, without which the result and
    its gradient would grow until they overflow.
    """
    shape = a.shape
    a = a.reshape(-1, *shape[-2:])
    norm = a.detach().abs().sum(-2).amax(-1)  # [M]
    s = torch.frexp(norm).exponent.add(1).clamp(0, MAX_SQUARINGS)  # norm / 2^s <= 1/2: the polynomial errs by 5e-9
    a = a * (torch.exp2(-s.to(a.dtype)) * (MAX_NORM / norm).clamp(max=1.0))[:, None, None]
    eye = torch.eye(shape[-1], dtype=a.dtype, device=a.device)
    a2 = a @ a
    a3 = a2 @ a
    high = eye / 720 + a / 5040 + a2 / 40320
    middle = eye / 6 + a / 24 + a2 / 120
    result = eye + a + a2 / 2 + a3 @ (middle + a3 @ high)
    readable = a.device.type == "cpu" and not torch.compiler.is_compiling() and len(s) > 0
    for i in range(int(s.max()) if readable else MAX_SQUARINGS):
        result = torch.where((i < s)[:, None, None], result @ result, result)
    return result.reshape(shape)


@lru_cache(maxsize=32)
def _triangles(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of the lower triangle's entries in a flat matrix, and of those opposite to them."""
    row, column = torch.tril_indices(size, size, -1, device=device)
    return row * size + column, column * size + row
