"""Sequences of images, and the networks between images and vectors (Ha and Schmidhuber 2018).

Axes: B sequences, T images.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ImageSequence(NamedTuple):
    """B sequences of T images and the actions between them, each within one episode.

    actions[:, t] was taken after images[:, t] and led to images[:, t + 1].
    """

    images: Tensor  # uint8 [B, T, 3, S, S]; S is 80 in the paper
    actions: Tensor  # int64 [B, T - 1], numbers of discrete actions
