"""cartpole_embedding as specs name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings
from parsecrl.algorithms.registry.algorithm import NUM_UPDATES, Algorithm, ParallelMap
from parsecrl.algorithms.registry.settings import blamed_on


class CartpoleEmbeddingAlgorithm(Algorithm):
    """A decoder of action sequences, learned on known dynamics."""

    name = "cartpole_embedding"
    settings = EmbeddingSettings
    stop_conditions: ClassVar = {"num_updates": NUM_UPDATES}
    checked = frozenset({"dynamics"})

    def trainable(self) -> Any:
        """The plain trainable, imported now."""
        from parsecrl.algorithms.cartpole_embedding.trainable import CartpoleEmbedding

        return CartpoleEmbedding

    def check(self, phase: Any) -> None:
        """Make the dynamics that the phase names."""
        from parsecrl.algorithms.cartpole_embedding.dynamics import make_dynamics

        with blamed_on("dynamics"):
            make_dynamics(phase.dynamics)

    def analyse(self, trials: Sequence[Any], parallel_map: ParallelMap) -> Any:
        """The tables of all trials' checkpoints."""
        from parsecrl.algorithms.cartpole_embedding.analysis import analyse_all

        return analyse_all([trial.checkpoint for trial in trials], parallel_map)

    def report(self) -> Any:
        """Result table and sections of the page."""
        from parsecrl.algorithms.cartpole_embedding.report import REPORT

        return REPORT


CARTPOLE_EMBEDDING = CartpoleEmbeddingAlgorithm()
