"""Sequences of images, and the networks between images and vectors (Ha and Schmidhuber 2018, "World Models").

Axes: B sequences, T images, M images of any arrangement, S side of an image, E embedding, F features.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models.latent_dynamics import check_sizes
from parsecrl.algorithms.models.matrix_products import Linear

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KERNELS = (5, 5, 6, 6)  # of the transposed convolutions, stride 2: from 1 x 1 to 64 x 64, from 2 x 2 to 80 x 80
SMALLEST, STEP = 64, 16  # a side more before the first of them is 2^4 more behind the last


class ImageSequence(NamedTuple):
    """B sequences of T images and the actions between them, each within one episode.

    actions[:, t] was taken after images[:, t] and led to images[:, t + 1].
    """

    images: Tensor  # uint8 [B, T, 3, S, S]; S is 80 in the paper
    actions: Tensor  # int64 [B, T - 1], numbers of discrete actions


def check_image_size(image_size: int) -> None:
    """Check that the decoder can make images of this size.

    Args:
        image_size: S: 64, 80, 96, ...

    Raises:
        ValueError: It is another number.
    """
    check_sizes(image_size=image_size)
    if image_size < SMALLEST or (image_size - SMALLEST) % STEP:
        raise ValueError(f"image_size must be 64, 80, 96 or more in steps of 16, got {image_size}; resize the images")


class ImageEncoder(nn.Module):
    """Four convolutions, kernel 4 and stride 2, ReLU: 32, 64, 128 and 256 maps with `channels` 32.

    `embedding_size` is E: 1024 for images of 64 x 64 and 2304 for 80 x 80, with `channels` 32.

    Args:
        image_size: S: 64, 80, 96, ...
        channels: Maps of the first convolution, at least 1; the others are multiples.

    Raises:
        ValueError: A size is out of range.
    """

    def __init__(self, image_size: int = 80, channels: int = 32):
        super().__init__()
        check_image_size(image_size)
        check_sizes(channels=channels)
        maps, side = [3, channels, 2 * channels, 4 * channels, 8 * channels], image_size
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(maps):
            layers += [nn.Conv2d(n_in, n_out, kernel_size=4, stride=2), nn.ReLU()]
            side = (side - 4) // 2 + 1
        self.layers = nn.Sequential(*layers)
        self.embedding_size = maps[-1] * side**2

    def forward(self, images: Tensor) -> Tensor:
        """Embed images [M, 3, S, S] in [0, 1]: [M, E], 0 or more."""
        return self.layers(images).flatten(1)


class ImageDecoder(nn.Module):
    """A linear layer of 1024 units (32 `channels`) and four transposed convolutions, stride 2, ReLU between them.

    For images of 64 x 64 the 1024 units are 1 x 1 places of 1024 maps, as in the paper. For 80 x 80 they are 2 x 2
    places of 256: all kernels stay as they are.

    Args:
        feature_size: F, at least 1.
        image_size: S: 64, 80, 96, ...
        channels: Maps before the last convolution, at least 1; the others are multiples.

    Raises:
        ValueError: A size is out of range.
    """

    def __init__(self, feature_size: int, image_size: int = 80, channels: int = 32):
        super().__init__()
        check_image_size(image_size)
        check_sizes(feature_size=feature_size, channels=channels)
        self.side = 1 + (image_size - SMALLEST) // STEP
        self.maps = max(1, 32 * channels // self.side**2)
        self.first = Linear(feature_size, self.maps * self.side**2)
        maps = [self.maps, 4 * channels, 2 * channels, channels, 3]
        layers: list[nn.Module] = []
        for (n_in, n_out), kernel in zip(pairwise(maps), KERNELS, strict=True):
            layers += [nn.ConvTranspose2d(n_in, n_out, kernel, stride=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """Make images [M, 3, S, S], unbounded, of features [M, F]."""
        return self.layers(self.first(features).unflatten(1, (self.maps, self.side, self.side)))
