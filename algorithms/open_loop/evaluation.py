"""Open-loop prediction measured: divergences and reconstruction errors by step (Saanum and Schulz 2022, section 5).

Axes: N sequences of T images, C of them as context, H = T - C predicted steps, S side of an image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from parsecrl.algorithms.models.beliefs import Gaussian
from parsecrl.algorithms.models.pixel_dynamics import ParsimoniousPixels, PixelDynamics
from parsecrl.algorithms.models.pixels import ImageSequence
from parsecrl.algorithms.models.recurrent_core import kl_divergence

SEQUENCES_AT_ONCE = 5


class Measured(NamedTuple):
    """Of each sequence and predicted step, all [N, H]."""

    kl: Tensor  # KL(predicted || inferred), nats: the paper's
    kl_inferred: Tensor  # KL(inferred || predicted), nats: what training lowers
    error: Tensor  # squared error of the predicted image, pixels 0 to 1, mean over an image
    error_closed: Tensor  # the same where every image so far was seen: what no prediction can be better than


@torch.no_grad()
def measure(model: PixelDynamics, sequences: ImageSequence, context: int) -> Measured:
    """Predict what follows a context from the actions alone, and compare it with what all images tell.

    Args:
        model: What predicts.
        sequences: [N, T].
        context: C, images that are seen, 1 <= C < T.

    Returns:
        Divergences and errors of each sequence and predicted step, [N, H].

    Raises:
        ValueError: context is out of range.
    """
    check_context(sequences, context)
    parts = []
    for first in range(0, len(sequences.images), SEQUENCES_AT_ONCE):
        some = ImageSequence(*(x[first : first + SEQUENCES_AT_ONCE] for x in sequences))
        filtered = model.observe(some)
        ahead = model.open_loop(*split(some, context))
        inferred = Gaussian(*(x[:, context:] for x in filtered.posterior))
        truth = some.images[:, context:]
        closed = model.decode(type(filtered.belief)(*(x[:, context:] for x in filtered.belief)))
        parts.append(
            Measured(
                kl_divergence(ahead.latents, inferred),
                kl_divergence(inferred, ahead.latents),
                image_error(ahead.images, truth),
                image_error(closed, truth),
            )
        )
    return Measured(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


@torch.no_grad()
def codes_used(model: ParsimoniousPixels, sequences: ImageSequence) -> tuple[Tensor, Tensor]:
    """Count each action's codes, and so transformations, over the states that are inferred with all images seen.

    Args:
        model: What infers.
        sequences: [N, T].

    Returns:
        How many different codes each action has, int64 [A], and the share of its bits that are on, [A] in [0, 1].
    """
    parts = []
    for first in range(0, len(sequences.images), SEQUENCES_AT_ONCE):
        filtered = model.observe(ImageSequence(*(x[first : first + SEQUENCES_AT_ONCE] for x in sequences)))
        parts.append(torch.stack([model.codes(filtered, action).flatten(0, 1) for action in range(model.num_actions)]))
    codes = torch.cat(parts, 1)  # [A, N T, n]
    return torch.tensor([len(torch.unique(own, dim=0)) for own in codes]), codes.mean((1, 2)).cpu()


def floors(sequences: ImageSequence, context: int, mean_image: Tensor) -> dict[str, Tensor]:
    """Errors of predictors that know nothing of dynamics: the context's last image, and the training data's mean image.

    Args:
        sequences: [N, T].
        context: C, 1 <= C < T.
        mean_image: [3, S, S] in [0, 1].

    Returns:
        "last_frame" and "mean_frame", each [N, H].

    Raises:
        ValueError: context is out of range.
    """
    check_context(sequences, context)
    truth = sequences.images[:, context:]
    last = sequences.images[:, context - 1 : context].float() / 255.0
    return {"last_frame": image_error(last, truth), "mean_frame": image_error(mean_image, truth)}


def image_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """The mean squared error of each image.

    Args:
        predicted: In [0, 1]; broadcasts to truth.
        truth: uint8 [N, H, 3, S, S].

    Returns:
        [N, H].
    """
    return (predicted - truth.float() / 255.0).square().mean((-3, -2, -1))


def split(sequences: ImageSequence, context: int) -> tuple[ImageSequence, Tensor]:
    """Part sequences behind their context.

    Args:
        sequences: [N, T].
        context: C.

    Returns:
        The first C images with the actions between them, and the actions after the last of them, [N, H].
    """
    images, actions = sequences
    return ImageSequence(images[:, :context], actions[:, : context - 1]), actions[:, context - 1 :]


def check_context(sequences: ImageSequence, context: int) -> None:
    """Check the length of a context.

    Args:
        sequences: [N, T].
        context: C.

    Raises:
        ValueError: Not 1 <= C < T.
    """
    T = sequences.images.shape[1]
    if isinstance(context, bool) or not isinstance(context, int) or not 1 <= context < T:
        raise ValueError(f"context must lie in [1, images of a sequence), got {context!r} with {T}; set context")
