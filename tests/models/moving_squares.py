"""Sequences of images that have a dynamics: a square on a torus, moved by four actions and left alone by two."""

import torch

from parsecrl.algorithms.models import ImageSequence

MOVES = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0], [0, 0], [0, 0]])


def moving_squares(B: int, T: int, size: int = 64, seed: int = 0) -> ImageSequence:
    """B sequences of T images: on grey a square of a quarter's side and a colour of its own, a sixteenth a move."""
    g = torch.Generator().manual_seed(seed)
    actions = torch.randint(len(MOVES), (B, T - 1), generator=g)
    place = torch.randint(16, (B, 1, 2), generator=g)
    places = torch.cat([place, place + MOVES[actions].cumsum(1)], 1) * (size // 16)  # [B, T, 2]
    color = torch.randint(100, 256, (B, 3), generator=g)
    images = torch.full((B, T, 3, size, size), 60, dtype=torch.uint8)
    side = torch.arange(size // 4)
    for b in range(B):
        for t in range(T):
            rows, columns = ((places[b, t, i] + side) % size for i in (0, 1))
            images[b, t, :, rows[:, None], columns] = color[b, :, None, None].to(torch.uint8)
    return ImageSequence(images, actions)
