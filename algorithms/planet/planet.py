"""PlaNet on proprioceptive observations, with CEM or embedded DCEM as its planner (DCEM paper, algorithm 3)."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from parsecrl.algorithms.planet.planet_learner import LOSSES, PlanetLearner
from parsecrl.algorithms.planet.planet_rl_module import (
    DECODER_ONLY,
    INITIAL_ACTIONS,
    INITIAL_OBS,
    PLANNED_H,
    PLANNED_S,
    UPDATE,
    PlanetRLModule,
)
from parsecrl.algorithms.planet.replay import bare_episode, beginnings, episodes_of_dataset, load_replay, save_replay
from parsecrl.algorithms.planet.rollouts import Rollout, collect
from parsecrl.algorithms.planet.runner import BatchedEnvRunner
from parsecrl.algorithms.planet.settings import PlanetSettings
from parsecrl.algorithms.training.owed import RESTORE_PAUSE_S, raise_errors
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.algorithms.training.rllib_phase import PhaseConfig, PhaseMixin, simulator_steps
from parsecrl.algorithms.training.seeding import derive_seed

SEED_UPDATES = 100  # as PlaNet before its first planned episode (Hafner et al. 2018, algorithm 1)


class PlanetConfig(PhaseConfig):
    """Config of phases 1 and 2 (DCEM paper, algorithm 3); `PlanetSettings` says what the settings mean.

    Args:
        algo_class: What `.build_algo()` makes; None: `Planet`.
    """

    settings = PlanetSettings

    # Those that are read here; all of the settings are attributes.
    train_ratio: float
    seed_episodes: int
    batch_size: int
    batch_length: int
    decoder_training: str
    decoder_warmup_updates: int
    decisions_per_iteration: int
    updates_per_iteration: int
    replay_capacity: int
    keep_replay: bool
    offline_data: str | None

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or Planet)
        self.algorithm_name = "planet"
        self.replay_buffer_config: dict[str, Any] = {}  # made by validate()
        self.grad_clip = 100.0
        self.grad_clip_by = "global_norm"
        self.env_runner_cls = BatchedEnvRunner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """As RLlib asks."""
        return RLModuleSpec(module_class=PlanetRLModule)

    def get_default_learner_class(self) -> type:
        """As RLlib asks."""
        return PlanetLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        names = (
            *("world_model", "controller", "decoder", "value", "loss", "exploration_noise", "keep_model", "start_from"),
            *("decoder_beliefs", "decoder_initial_beliefs", "decoder_anchor", "decoder_proposals"),
        )
        return {**{name: getattr(self, name) for name in names}, "seed": self.seed or 0}

    @property
    def gathers(self) -> bool:
        """Whether there are rollouts; else the phase learns from data that are there."""
        return self.decoder_training != "offline" and self.offline_data is None

    def validate(self) -> None:
        """As RLlib's. Raises ValueError where settings do not go together."""
        # While nothing is gathered, an iteration is one training step, not a number of decisions.
        if self.offline_data is not None:
            self.offline_data = str(Path(self.offline_data).expanduser().absolute())  # trials run in their own folders
        self.min_sample_timesteps_per_iteration = self.decisions_per_iteration if self.gathers else 0
        # RLlib builds the buffer from this dict.
        self.replay_buffer_config = {
            "type": "EpisodeReplayBuffer",
            "capacity": self.replay_capacity,
            "batch_size_B": self.batch_size,
            "batch_length_T": self.batch_length,
        }
        super().validate()


class Planet(PhaseMixin, Algorithm):
    """Gather rollouts that plan, store them, update the model (and the decoder) in proportion.

    Result keys at top level: env_steps (simulator steps), num_updates, episode_return_mean, planning_ms (per decision),
    the loss terms, and under `measured` what `algorithms/training/measurements.py` says.
    """

    config: PlanetConfig
    loss_terms: ClassVar[tuple[str, ...]] = LOSSES

    @classmethod
    def get_default_config(cls) -> PlanetConfig:
        """As RLlib asks."""
        return PlanetConfig()

    def setup(self, config: Any) -> None:
        """As RLlib asks: take over the replay of start_from, if it is kept."""
        make_process_quick()
        super().setup(config)
        self.counts = dict.fromkeys(
            ("decisions", "env_steps", "updates", "decoder_only_updates", "requests", "episodes", "trajectories"), 0
        )
        self.counts["seed_steps"] = -1  # until the seed episodes are in
        self._recent_beliefs: list[np.ndarray] = []  # not in checkpoints: a new rollout brings new ones
        self._last_end = time.monotonic()  # of an episode
        self._running_rewards: dict[str, list[float]] = {}  # of episodes that have not ended
        self._random_returns: list[float] = []  # of the seed episodes, whose actions are uniform
        if self.config.start_from and self.config.keep_replay:
            self._add_to_replay(load_replay(self.config.start_from))
        if self.config.offline_data is not None:
            task = self.config.task_description()
            self._add_to_replay(episodes_of_dataset(self.config.offline_data, task, self.config.replay_capacity))

    def training_step(self) -> None:
        """Gather rollouts, store them, make the updates that are due."""
        decoder_only = self._decoder_only_updates_due()
        if decoder_only == 0 and self.config.offline_data is None:
            with self.measurements.time("waiting"):
                rollouts = self._gather()
            for rollout in rollouts:
                self._store(rollout)
        offline = self.config.offline_data is not None
        due = decoder_only or (self.config.updates_per_iteration if offline else self._updates_due())
        if due:
            start = time.perf_counter()
            with self.measurements.time("learning"):
                for _ in range(due):
                    self._update(decoder_only=decoder_only > 0)
            self._log_time("learning_ms_per_update", (time.perf_counter() - start) / due)

    # Gathering.

    def _gather(self) -> list[Rollout]:
        """At least one fragment. Remote runners go on sampling while the learner updates."""
        weights = self.learner_group.get_weights()
        group = self.env_runner_group
        if group.num_remote_env_runners() == 0:
            return raise_errors([collect(group.local_env_runner, weights, self._next_seed())])
        weights_ref = ray.put(weights)
        deadline = time.monotonic() + self.config.sample_timeout_s
        while time.monotonic() < deadline:
            self._ask_idle_runners(weights_ref)
            ready = group.fetch_ready_async_reqs(tags="collect", timeout_seconds=0.05)
            if ready:
                # Before the updates, not after them: a runner waits for nothing, and is a fragment's updates behind.
                self._ask_idle_runners(weights_ref)
                return raise_errors([rollout for _, rollout in ready])
            if not group.healthy_env_runner_ids():
                self.restore_env_runners(group)
                time.sleep(RESTORE_PAUSE_S)
        raise TimeoutError(
            f"no rollout arrived within sample_timeout_s={self.config.sample_timeout_s:.0f} s from "
            f"{group.num_healthy_remote_workers()} healthy of {group.num_remote_env_runners()} runners; "
            f"see their logs, or raise resources.sample_timeout_s if planning is that slow"
        )

    def _ask_idle_runners(self, weights_ref: Any) -> None:
        """One request each; none of a runner that is still busy with its last one."""
        group = self.env_runner_group
        for index in group.healthy_env_runner_ids():
            made = group.foreach_env_runner_async(
                collect,
                tag="collect",
                kwargs={"weights": weights_ref, "seed": self._next_seed()},
                remote_worker_ids=[index],
            )
            self.counts["requests"] -= 1 - made

    def _next_seed(self) -> int:
        self.counts["requests"] += 1
        return derive_seed(self.config.seed or 0, "rollout", self.counts["requests"])

    def _store(self, rollout: Rollout) -> None:
        self.metrics.aggregate([rollout.metrics], key=ENV_RUNNER_RESULTS)
        times = rollout.times
        if times.num_decisions:
            self._log_time("planning_ms", times.planning_seconds / times.num_decisions)
            self.metrics.log_value("planning_share", times.planning_seconds / times.seconds, window=20)
        self.measurements.add(times)
        self.counts["trajectories"] += times.trajectories
        if self.config.decoder_training == "after_planning":
            self._remember_beliefs(rollout)
        steps = sum(len(episode) for episode in rollout.episodes)
        if steps == 0:
            raise RuntimeError("a runner returned a rollout without a step; see its log for what failed")
        self.counts["decisions"] += steps
        for episode in rollout.episodes:
            self.counts["env_steps"] += simulator_steps(episode, self.config.action_repeat)
            self.experience.add(episode.get_rewards(), episode.get_actions())
            rewards = [*self._running_rewards.pop(episode.id_, []), *map(float, episode.get_rewards())]
            if episode.is_done:
                total = math.fsum(rewards)
                self.counts["episodes"] += 1
                self._last_end = time.monotonic()
                self.last_returns.append(total)
                if self.counts["updates"] == 0 and not self.config.start_from:
                    self._random_returns.append(total)
                if self.counts["updates"]:
                    self.experience.end(rewards, episode.is_terminated, self.config.controller["horizon"])
            else:
                self._running_rewards[episode.id_] = rewards
        self._add_to_replay([bare_episode(episode) for episode in rollout.episodes])

    def _add_to_replay(self, episodes: list[Any]) -> None:
        self.local_replay_buffer.add([episode for episode in episodes if len(episode)])

    def _remember_beliefs(self, rollout: Rollout) -> None:
        for episode in rollout.episodes:
            state = episode.get_extra_model_outputs(Columns.STATE_OUT)
            self._recent_beliefs.append(np.concatenate([state["h"], state["s"]], -1))

    def _log_time(self, name: str, seconds: float) -> None:
        self.metrics.log_value(name, 1000 * seconds, window=20)

    # Learning.

    def _decoder_only_updates_due(self) -> int:
        """Updates before (or, offline, instead of) the next rollout; at most an iteration's worth."""
        c = self.config
        left = c.updates_per_iteration
        if c.decoder_training != "offline":
            left = min(left, c.decoder_warmup_updates - self.counts["decoder_only_updates"])
        return max(left, 0)

    def _updates_due(self) -> int:
        """What is owed: train_ratio per simulator step since the seed episodes, which owe SEED_UPDATES at most."""
        c, ratio = self.counts, self.config.train_ratio
        if c["seed_steps"] < 0:
            if c["episodes"] < self.config.seed_episodes and not self.starts_with_data:
                self._check_seed_episodes()
                return 0
            c["seed_steps"] = 0 if self.starts_with_data else c["env_steps"]
        owed = ratio * (c["env_steps"] - c["seed_steps"]) + min(SEED_UPDATES, ratio * c["seed_steps"])
        return int(owed) - (c["updates"] - c["decoder_only_updates"])

    def why_untrained(self) -> str:
        """What the first update waits for."""
        c, steps, ended = self.config, self.counts["env_steps"], self.counts["episodes"]
        if self.counts["seed_steps"] < 0:
            return (
                f"{ended} of {c.seed_episodes} seed_episodes ended in {steps:,} simulator steps; prolong the phase, "
                f"lower seed_episodes, or limit episodes by env.max_episode_steps"
            )
        return f"train_ratio={c.train_ratio:g} makes no whole update of {steps:,} simulator steps; raise one of them"

    def _check_seed_episodes(self) -> None:
        """Raise RuntimeError where no episode ends: without one there is never an update."""
        limit = self.config.sample_timeout_s
        if time.monotonic() - self._last_end > limit:
            raise RuntimeError(
                f"no episode ended within sample_timeout_s={limit:g} s, where seed_episodes asks for "
                f"{self.config.seed_episodes}; limit episodes by env.max_episode_steps, or raise "
                f"resources.sample_timeout_s"
            )

    @property
    def starts_with_data(self) -> bool:
        """Whether the replay of an earlier phase is taken over."""
        return bool(self.config.start_from) and self.config.keep_replay

    def _update(self, decoder_only: bool) -> None:
        buffer, c = self.local_replay_buffer, self.config
        buffer.rng = np.random.default_rng(derive_seed(c.seed or 0, "replay", self.counts["updates"]))
        rows = buffer.sample(batch_size_B=c.batch_size, batch_length_T=c.batch_length)
        batch: dict[str, Any] = {
            Columns.OBS: rows["obs"].astype(np.float32),
            Columns.ACTIONS: rows["actions"].astype(np.float32),
            Columns.REWARDS: rows["rewards"].astype(np.float32),
            "is_first": rows["is_first"],
            "is_terminated": rows["is_terminated"],
            UPDATE: np.full(c.batch_size, self.counts["updates"], dtype=np.int64),
            DECODER_ONLY: np.full(c.batch_size, decoder_only),
        }
        horizon = c.controller["horizon"]
        batch[INITIAL_OBS], batch[INITIAL_ACTIONS] = beginnings(buffer, c.batch_size, horizon, buffer.rng)
        if self._recent_beliefs:
            h, s = self._next_beliefs(c.batch_size)
            batch[PLANNED_H], batch[PLANNED_S] = h, s
        tensors = SampleBatch({name: torch.from_numpy(value) for name, value in batch.items()})
        results = self.learner_group.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: tensors}, env_steps=c.batch_size * c.batch_length),
            timesteps={"num_env_steps_sampled_lifetime": self.counts["decisions"]},
        )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.counts["updates"] += 1
        self.counts["decoder_only_updates"] += decoder_only

    def _next_beliefs(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The oldest `count` unused beliefs, in the order of planning; the last ones again when too few are left."""
        pool = np.concatenate(self._recent_beliefs)
        take = pool[:count] if len(pool) >= count else pool[np.resize(np.arange(len(pool)), count)]
        rest = pool[count:]
        self._recent_beliefs = [rest] if len(rest) else [take]
        size = self.env_runner.module.agent.model.deterministic_size
        return np.ascontiguousarray(take[:, :size]), np.ascontiguousarray(take[:, size:])

    # Results and checkpoints.

    @property
    def gathers(self) -> bool:
        """As of its config."""
        return self.config.gathers

    def phase_results(self) -> dict[str, Any]:
        """What was counted in this phase."""
        return {
            "env_steps": self.counts["env_steps"],
            "num_updates": self.counts["updates"],
            "trajectories": self.counts["trajectories"],
            "replay_decisions": self.local_replay_buffer.get_num_timesteps(),
            **self._random_policy(),
        }

    def _random_policy(self) -> dict[str, float]:
        """Mean and standard deviation of the seed episodes' returns, where there were two or more."""
        known = self._random_returns
        if len(known) < 2:
            return {}
        mean, std = float(np.mean(known)), float(np.std(known, ddof=1))
        return {"random_return_mean": mean, "random_return_std": std, "random_episodes": len(known)}

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """As RLlib's, with the random policy's returns."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state["random_returns"] = list(self._random_returns)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what `get_state` returned."""
        super().set_state(state)
        self._random_returns = list(state.get("random_returns", []))

    def save_phase_files(self, folder: str) -> None:
        """Write the replay into a checkpoint's folder."""
        save_replay(self.local_replay_buffer, folder)

    def restore_phase_files(self, folder: str) -> None:
        """Read the replay from a checkpoint's folder."""
        c = self.config
        self.local_replay_buffer = EpisodeReplayBuffer(
            c.replay_capacity, batch_size_B=c.batch_size, batch_length_T=c.batch_length
        )
        self._add_to_replay(load_replay(folder))
