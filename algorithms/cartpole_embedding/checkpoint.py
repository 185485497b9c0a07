"""An embedding on disk: embedding.json (what it is, its curve) and embedding.safetensors (its tensors)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parsecrl.algorithms.cartpole_embedding.embedding import EmbeddingLearner
from parsecrl.algorithms.checkpoints.study import StudyCheckpoint, fill_optimizer, optimizer_tensors

FILES = StudyCheckpoint("embedding", "an embedding")
_DECODERS = ("decoder", "best_decoder")
_NUMBERS = ("num_updates", "best_cost", "validations_since_best")


def save_embedding(folder: str | Path, learner: EmbeddingLearner, description: dict[str, Any]) -> None:
    """Write everything into an existing folder.

    Args:
        folder: Of the checkpoint.
        learner: What is kept.
        description: What is added to the learner's own.
    """
    state = learner.state_dict()
    text = {
        "settings": learner.settings.plain(),
        "learning_rate": learner.learning_rate,
        **{key: state[key] for key in _NUMBERS},
        **description,
    }
    tensors = {part: state[part] for part in _DECODERS} | {"optimizer": optimizer_tensors(learner.optimizer)}
    FILES.write_groups(folder, text, tensors)


def load_embedding(folder: Any, learner: EmbeddingLearner) -> dict[str, Any]:
    """Fill a learner of the same settings.

    Args:
        folder: Of the checkpoint.
        learner: What is filled.

    Returns:
        The description.

    Raises:
        ValueError: A file is missing, damaged, or of a decoder of other sizes.
    """
    description, groups = FILES.read_description(folder), FILES.read_groups(folder)
    for part in _DECODERS:
        FILES.check_sizes(folder, groups.get(part, {}), learner.controller.decoder.state_dict(), "a decoder")
    fill_optimizer(learner.optimizer, groups.get("optimizer", {}))
    for group in learner.optimizer.param_groups:
        group["lr"] = description["learning_rate"]
    state = {key: description[key] for key in _NUMBERS} | {part: groups[part] for part in _DECODERS}
    learner.load_state_dict({**state, "optimizer": learner.optimizer.state_dict()})
    return description
