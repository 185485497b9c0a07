"""Rotations, translations and their composition as transformations of latents (Saanum and Schulz 2022, section 2.3).

Axes: Z latent dimensions, P parameters of a transformation, n rows of a square matrix. Leading axes are independent of
each other to the bit, so that a transformation computed once can stand for all that are equal to it.
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
    """z -> linear z + offset. A missing part is the identity's: nothing is multiplied or added."""

    linear: Tensor | None  # [..., Z, Z]
    offset: Tensor | None  # [..., Z]

    def apply(self, z: Tensor) -> Tensor:
        """Transform points.

        Args:
            z: Points [..., Z].

        Returns:
            The points [..., Z] that they are taken to.
        """
        if self.linear is not None:
            z = (self.linear * z.unsqueeze(-2)).sum(-1)  # unlike a batched product, a row never depends on the others
        return z if self.offset is None else z + self.offset

    def after(self, first: Affine) -> Affine:
        """Compose two transformations.

        Args:
            first: The one that is applied first; this one follows.

        Returns:
            The transformation z -> self(first(z)).
        """
        offset = self.offset if first.offset is None else self.apply(first.offset)
        if self.linear is None or first.linear is None:
            return Affine(first.linear if self.linear is None else self.linear, offset)
        return Affine(self.linear @ first.linear, offset)

    def select(self, index: Tensor) -> Affine:
        """Pick transformations along the first axis.

        Args:
            index: int64 [M], positions in the first axis.

        Returns:
            The M transformations there.
        """
        return Affine(*(None if part is None else part[index] for part in self))


def check_transformation(kind: str) -> None:
    """Check the name of a transformation.

    Args:
        kind: One of `TRANSFORMATIONS`: "rotation", "translation" or "affine".

    Raises:
        ValueError: kind is another name.
    """
    if kind not in TRANSFORMATIONS:
        raise ValueError(
            f"transformation must be one of {', '.join(TRANSFORMATIONS)}, got {kind!r}; choose one of them"
        )


def num_parameters(kind: str, size: int) -> int:
    """Count the numbers that fix a transformation: P.

    Args:
        kind: One of `TRANSFORMATIONS`.
        size: Z, at least 1.

    Returns:
        Z (Z - 1) / 2 angles of a rotation, Z numbers of a translation, their sum for "affine".

    Raises:
        ValueError: kind is unknown.
    """
    check_transformation(kind)
    angles = size * (size - 1) // 2
    return {"rotation": angles, "translation": size, "affine": angles + size}[kind]


def transformation(kind: str, parameters: Tensor, size: int) -> Affine:
    """Make transformations from the outputs of a network (section 2.3).

    Args:
        kind: "rotation" about the origin, "translation", or "affine": a rotation, then a translation.
        parameters: [..., P]; radians, then latent units.
        size: Z.

    Returns:
        One transformation for each leading position.

    Raises:
        ValueError: kind is unknown.
    """
    check_transformation(kind)
    if kind == "translation":
        return Affine(None, parameters)
    if kind == "rotation":
        return Affine(rotation(parameters, size), None)
    angles = parameters.shape[-1] - size
    return Affine(rotation(parameters[..., :angles], size), parameters[..., angles:])


def movement(kind: str, parameters: Tensor, size: int, unit: float = 1.0) -> Tensor:
    """How much transformations move: half the squared norm of log R, and the squared offset in units.

    Half the squared Frobenius norm of log R is the sum of the squared angles of the planes that R turns.

    Args:
        kind: One of `TRANSFORMATIONS`.
        parameters: [..., P]; radians, then latent units.
        size: Z.
        unit: Latent units that count as much as a radian, > 0.

    Returns:
        [...] square radians, 0 or more.

    Raises:
        ValueError: kind is unknown.
    """
    angles = num_parameters(kind, size) - (0 if kind == "rotation" else size)
    offset = parameters[..., angles:]
    return parameters[..., :angles].square().sum(-1) + (offset / unit).square().sum(-1)


def skew_symmetric(parameters: Tensor, size: int) -> Tensor:
    """Arrange parameters as the lower triangle of a matrix, row by row, less its transpose.

    Args:
        parameters: [..., n (n - 1) / 2].
        size: n.

    Returns:
        Skew-symmetric matrices [..., n, n].
    """
    lower, upper = _triangles(size, parameters.device)
    flat = parameters.new_zeros(*parameters.shape[:-1], size * size)
    return flat.index_add(-1, lower, parameters).index_add(-1, upper, -parameters).unflatten(-1, (size, size))


def rotation(parameters: Tensor, size: int) -> Tensor:
    """Make the rotation whose logarithm has the given parameters: exp of a skew-symmetric matrix.

    The result is a rotation for any finite parameters. It turns by less than they ask for where `matrix_exp` scales
    them down: networks do come there, and back.

    Args:
        parameters: [..., Z (Z - 1) / 2], radians.
        size: Z.

    Returns:
        Rotation matrices [..., Z, Z].
    """
    return matrix_exp(skew_symmetric(parameters, size))


def matrix_exp(a: Tensor) -> Tensor:
    """Exponentiate matrices by scaling and squaring: a Taylor polynomial of degree 8 of a / 2^s, squared s times.

    Each matrix has an s of its own, so that its result does not depend on the rest of the batch. The backward pass of
    torch.linalg.matrix_exp exponentiates matrices of twice the size: 74 ms for 150 of 15 x 15, where this needs a few.

    Args:
        a: Matrices [..., n, n]. One of a 1-norm above 2^11 is scaled down to that first: the result and its gradient
            would overflow otherwise.

    Returns:
        exp(a) [..., n, n], exact to rounding for 1-norms up to 2^11.
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
