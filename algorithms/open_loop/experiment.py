"""A model of image sequences and its training on collected episodes (Saanum and Schulz 2022, appendix A.3)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from parsecrl.algorithms.models.pixel_dynamics import MODELS, PixelDynamics
from parsecrl.algorithms.models.pixels import ImageSequence
from parsecrl.algorithms.open_loop.settings import OpenLoopSettings
from parsecrl.algorithms.training.seeding import derive_seed

ADAM_EPSILON = 1e-4  # PlaNet's
PARSIMONIOUS_ONLY = ("transformation", "code_size", "parsimony_weight", "initial_logit", "printed_divergence")


def make_model(options: Mapping[str, Any], num_actions: int, image_size: int) -> PixelDynamics:
    """Make the model that a spec's `model` group describes.

    Args:
        options: `kind` and, of the other keys, those that its class takes.
        num_actions: A.
        image_size: S.

    Returns:
        The model.

    Raises:
        ValueError: The kind is unknown, or its class refuses an option.
    """
    own = dict(options)
    kind = own.pop("kind", "parsimonious")
    if kind not in MODELS:
        raise ValueError(f"model.kind must be one of {', '.join(MODELS)}, got {kind!r}")
    if kind != "parsimonious":
        own = {key: value for key, value in own.items() if key not in PARSIMONIOUS_ONLY}
    return MODELS[kind](num_actions, image_size=image_size, **own)


class OpenLoopExperiment:
    """One model, its optimiser, and the noise of its training.

    The noise of update n is seeded by (seed, n), so that a checkpoint between two updates has no generator to keep.

    Args:
        settings: Of model and training.
        num_actions: A.
        image_size: S, pixels of an image's side.
        seed: Of weights and noise.
        device: Of the model, such as "cuda".

    Raises:
        ValueError: The model cannot be made.
    """

    def __init__(self, settings: OpenLoopSettings, num_actions: int, image_size: int, seed: int, device: str = "cpu"):
        self.settings, self.seed, self.device = settings, seed, torch.device(device)
        self.num_actions, self.image_size = num_actions, image_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "weights"))
            self.model = make_model(settings.model.plain(), num_actions, image_size).to(self.device)
        lr = settings.learning_rate
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr, eps=ADAM_EPSILON, fused=True)
        self.num_updates = 0
        self.curve: list[dict[str, float]] = []  # a row a result

    def train(self, batches: Iterator[ImageSequence], num_updates: int) -> dict[str, float]:
        """Take gradient steps.

        Args:
            batches: What they are taken on.
            num_updates: How many, at least 1.

        Returns:
            Means of the loss, its terms and grad_norm; update_ms, the time of a step without waiting for its batch;
            waiting_share, the share of the time that was spent waiting for batches.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        sums: dict[str, Tensor] = {}
        seconds = waited = 0.0
        for _ in range(num_updates):
            asked = time.perf_counter()
            batch = next(batches)
            begin = time.perf_counter()
            waited += begin - asked
            for name, value in self._update(batch).items():
                sums[name] = sums[name] + value if name in sums else value
            seconds += time.perf_counter() - begin
            self.num_updates += 1
        begin = time.perf_counter()
        means = {name: float(value) / num_updates for name, value in sums.items()}  # waits for the device
        seconds += time.perf_counter() - begin
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(f"the loss is {means['loss']} before update {self.num_updates}")
        means["waiting_share"] = waited / (waited + seconds)
        self.curve.append({"num_updates": self.num_updates, **means})
        return {**means, "update_ms": 1e3 * seconds / num_updates}

    def _update(self, batch: ImageSequence) -> dict[str, Tensor]:
        generator = torch.Generator(self.device)
        generator.manual_seed(derive_seed(self.seed, "noise", self.num_updates))
        moved = ImageSequence(*(x.to(self.device, non_blocking=True) for x in batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model.loss(moved, generator)
        loss.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        return {"loss": loss.total.detach(), **loss.terms, "grad_norm": norm.detach()}
