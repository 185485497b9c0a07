"""Algorithm 2 on known dynamics as a Tune trainable (DCEM paper, section 5.2.1 and appendix C)."""

from __future__ import annotations

import time
from typing import Any

import torch
from ray.tune import Trainable

from parsecrl.algorithms.cartpole_embedding.checkpoint import load_embedding, save_embedding
from parsecrl.algorithms.cartpole_embedding.dynamics import make_dynamics
from parsecrl.algorithms.cartpole_embedding.embedding import EmbeddingLearner
from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.algorithms.training.seeding import derive_seed


class CartpoleEmbedding(Trainable):
    """One decoder, trained by algorithm 2.

    config: `EmbeddingSettings`, and run_seed, which is mixed with seed.

    Results: num_updates; loss, the mean over the step's updates of the planned cost, each before it was made;
    validation_cost and best_validation_cost, means over the validation states; score, minus the validation cost;
    learning_rate; update_ms.

    """

    def setup(self, config: dict[str, Any]) -> None:
        """Make the dynamics and the learner of an embedding."""
        settings = EmbeddingSettings.from_config(config)
        make_process_quick()
        seed = derive_seed(config.get("run_seed", 0), "cartpole_embedding", settings.seed)
        self.learner = EmbeddingLearner(make_dynamics(settings.dynamics), settings, seed)
        self.curve: list[dict[str, float | None]] = []  # a point for each validation
        self.losses: list[float] = []  # since the last one

    def step(self) -> dict[str, Any]:
        """`updates_per_step` updates, validated where due."""
        if not self.curve:
            self._validate()
        losses, seconds = [], 0.0
        for _ in range(self.learner.settings.updates_per_step):
            start = time.perf_counter()
            losses.append(self.learner.update())
            seconds += time.perf_counter() - start
            self.losses.append(float(losses[-1]))
            if self.learner.num_updates % self.learner.settings.validate_every == 0:
                self._validate()
        validation_cost = self.curve[-1]["validation_cost"]
        assert validation_cost is not None
        loss = float(torch.stack(losses).mean())
        return {
            "num_updates": self.learner.num_updates,
            "loss": loss,
            "validation_cost": validation_cost,
            "best_validation_cost": self.learner.best_cost,
            "score": -validation_cost,
            "learning_rate": self.learner.learning_rate,
            "update_ms": 1e3 * seconds / len(losses),
            "measured": {"losses": {"planned_cost": loss}},
        }

    def _validate(self) -> None:
        cost = float(self.learner.validate().costs.mean())
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        self.curve.append({"num_updates": self.learner.num_updates, "loss": loss, "validation_cost": cost})
        self.losses = []

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial into an existing folder."""
        description = {
            "algorithm": "cartpole_embedding",
            "dynamics": self.learner.settings.dynamics,
            "seed": self.learner.settings.seed,
            "curve": self.curve,
            "losses": self.losses,
        }
        save_embedding(checkpoint_dir, self.learner, description)

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Go on where `save_checkpoint` wrote."""
        assert isinstance(checkpoint, str)  # save_checkpoint returns nothing, so Tune hands over the folder
        description = load_embedding(checkpoint, self.learner)
        self.curve, self.losses = description["curve"], description["losses"]
