"""What algorithms use of RLlib without a public name, with the reason beside each. Nothing else here uses such parts.

They may change with any version of Ray: after an update look here first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune import Trainable
from ray.tune.registry import ENV_CREATOR, _global_registry
from torch import Tensor


class OwnUpdate:
    """Put before a TorchLearner: `update_with` is the whole update with a minibatch. The public hooks see one loss and
    its gradient, so that micro-batches and several optimisers' steps have no place between them."""

    def update_with(self, batch: dict[str, Any]) -> Tensor:
        """Step the optimisers; returns the loss []. batch: columns by module."""
        raise NotImplementedError

    def _uncompiled_update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[dict, dict, dict]:
        return {}, {DEFAULT_MODULE_ID: self.update_with(batch)}, {}

    @property
    def update_calls(self) -> int:
        """Calls of `update` so far; after a restart from the checkpoint's number."""
        return self._weights_seq_no  # type: ignore[attr-defined]


class PreparedBatch:
    """Put before a Learner: `prepare` adds to a batch before it is divided into minibatches. A learner connector, the
    public way, is asked for batches made of episodes alone."""

    def prepare(self, batch: Any) -> None:
        """Change the MultiAgentBatch in place."""
        raise NotImplementedError

    def _make_batch_if_necessary(self, training_data: Any) -> Any:
        batch = super()._make_batch_if_necessary(training_data)  # type: ignore[misc]
        self.prepare(batch)
        return batch


def registered_creator(name: str) -> Callable[[Any], Any] | None:
    """The creator of environments that `tune.register_env` was given. Tune has no call for it.

    Args:
        name: As it was registered.

    Returns:
        A function of an `EnvContext`; None of another name.
    """
    return _global_registry.get(ENV_CREATOR, name) if _global_registry.contains(ENV_CREATOR, name) else None


def count_episodes(runner: SingleAgentEnvRunner, episodes: Sequence[SingleAgentEpisode]) -> None:
    """Have the runner's metrics count episodes that its own `sample` did not play, which alone does so by itself.

    Args:
        runner: Whose metrics.
        episodes: Whole ones.
    """
    runner._done_episodes_for_metrics.extend(episodes)
    runner._increase_sampled_metrics(sum(len(episode) for episode in episodes), len(episodes))


def algorithm_inside(trainable: Trainable, config: AlgorithmConfig) -> Algorithm:
    """An algorithm that another trainable drives. Built by itself, it would make a folder in ~/ray_results.

    Args:
        trainable: Whose folder the algorithm shares.
        config: Of the algorithm, validated.

    Returns:
        The algorithm.
    """
    return config.algo_class(config, storage=trainable._storage)


def seed_runner(runner: SingleAgentEnvRunner, seed: int) -> None:
    """What the runner seeds in its first `sample`. Publicly its seed comes from config and worker index alone.

    Args:
        runner: One that has not sampled yet; its environments are seeded once.
        seed: >= 0.
    """
    runner._seed = seed
