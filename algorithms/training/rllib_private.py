"""What algorithms use of RLlib without a public name, with the reason beside each. Nothing else here uses such parts.

They may change with any version of Ray: after an update look here first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_runner import ENV_STEP_FAILURE
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


class OwnFragments:
    """Put before a SingleAgentEnvRunner: `play` takes the place of the loop inside `sample`, which has no public hook.

    RLlib's own loop plays whole episodes and random actions, and where the config has connectors or callbacks of
    episodes.
    """

    _has_played = False  # since RLlib's own loop has

    config: Any
    _callbacks: list[Any]
    _needs_initial_reset: bool
    _ongoing_episodes: list[SingleAgentEpisode]

    def play(self, num_timesteps: int, explore: bool, anew: bool) -> list[SingleAgentEpisode]:
        """Step the environments.

        Args:
            num_timesteps: Of all environments together, at least.
            explore: As of `sample`.
            anew: Whether to reset all of them first.

        Returns:
            The episodes and parts of episodes, as `sample` returns them.
        """
        raise NotImplementedError

    @property
    def plays(self) -> bool:
        """Whether nothing is asked for that RLlib's own loop alone does."""
        c = self.config
        plain = all(type(callback) is RLlibCallback for callback in self._callbacks)
        plain &= not (c.callbacks_on_episode_created or c.callbacks_on_episode_start or c.callbacks_on_episode_step)
        return bool(plain) and not (
            c.callbacks_on_episode_end or c._env_to_module_connector or c._module_to_env_connector
        )

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        if num_timesteps is None or random_actions or not self.plays:
            self._needs_initial_reset |= self._has_played
            self._has_played = False
            return super()._sample(  # type: ignore[misc]
                num_timesteps=num_timesteps,
                num_episodes=num_episodes,
                explore=explore,
                random_actions=random_actions,
                force_reset=force_reset,
            )
        anew = force_reset or self._needs_initial_reset or not self._has_played
        self._has_played = True
        return self.play(num_timesteps, explore, anew)

    def reset_all(self, explore: bool) -> tuple[list[Any], list[Any]]:
        """Reset all environments, with the runner's seed at first; returns observations and infos."""
        runner: Any = self
        runner._reset_envs_and_episodes(explore)
        self._needs_initial_reset = False
        episodes = self._ongoing_episodes
        return [episode.get_observations(-1) for episode in episodes], [episode.get_infos(-1) for episode in episodes]

    def step_all(self, actions: Any) -> tuple[Any, ...] | None:
        """Step all environments; None where they failed, and RLlib has made them anew."""
        runner: Any = self
        results = runner._try_env_step(actions)
        return None if isinstance(results, str) and results == ENV_STEP_FAILURE else results

    def count_fragment(self, episodes: Sequence[SingleAgentEpisode]) -> None:
        """Have the metrics count what `play` returns."""
        runner: Any = self
        for episode in episodes:
            if episode.is_done:
                runner._done_episodes_for_metrics.append(episode)
            else:
                runner._ongoing_episodes_for_metrics[episode.id_].append(episode)
        steps = sum(len(episode) for episode in episodes)
        runner._log_env_steps(metric=runner._metrics_num_env_steps_sampled, num_steps=steps)
        runner._increase_sampled_metrics(steps, sum(episode.is_done for episode in episodes))


def forward(module: Any, batch: dict[str, Any], explore: bool) -> dict[str, Any]:
    """What a module answers, without RLlib's switch of all its parts to evaluation and back, 2 ms a step.

    Args:
        module: An RLModule in evaluation mode.
        batch: Columns.
        explore: As of `sample`.

    Returns:
        Columns.
    """
    return module._forward_exploration(batch) if explore else module._forward_inference(batch)


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
