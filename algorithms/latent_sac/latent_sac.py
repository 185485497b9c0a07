"""Soft actor-critic over latents: the paper's Algorithm 1 (Saanum and Schulz 2022, appendices A.5 and A.6)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS
from torch import Tensor

from parsecrl.algorithms.checkpoints.files import check_local
from parsecrl.algorithms.controllers.acting import describe_space
from parsecrl.algorithms.latent_sac.checkpoint import REPLAY_FILE, save_trial
from parsecrl.algorithms.latent_sac.latent_sac_learner import LatentSACLearner
from parsecrl.algorithms.latent_sac.latent_sac_rl_module import VISITS, LatentSACRLModule, check_bonus, latent_model
from parsecrl.algorithms.latent_sac.policy_losses import UPDATE
from parsecrl.algorithms.latent_sac.replay import TransitionReplay
from parsecrl.algorithms.latent_sac.runner import WholeEpisodeRunner
from parsecrl.algorithms.latent_sac.settings import LatentSACSettings
from parsecrl.algorithms.latent_study.record import GridRecord
from parsecrl.algorithms.latent_study.units import warn_of_units
from parsecrl.algorithms.latent_study.worlds import (
    NAMESPACE,
    WORLD,
    check_slices,
    space_sizes,
    world_arguments,
    world_of,
)
from parsecrl.algorithms.models import LatentDynamics
from parsecrl.algorithms.registry.algorithm import EVALUATION, UNTRAINED
from parsecrl.algorithms.registry.settings import StudySettings
from parsecrl.algorithms.training.evaluation import Evaluation
from parsecrl.algorithms.training.experience import Experience
from parsecrl.algorithms.training.measurements import Measurements, PlanTime
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.algorithms.training.rllib_phase import UnnamedTask, named_task
from parsecrl.algorithms.training.rllib_settings import RECENT_EPISODES, SettingsConfig, learner_terms
from parsecrl.algorithms.training.seeding import derive_seed

ROLE = "latent_sac"
LOSSES = ("actor_loss", "critic_loss", "dynamics_loss")


class LatentSACConfig(SettingsConfig):
    """Config of a trial; `LatentSACSettings` says what the settings mean.

    `.environment(...)` takes the id of a world with vectors for observations, a class, or the name of a creator that
    was registered with Tune; `.debugging(seed=...)` seeds everything. Of `training()` the groups model and policy are
    the attributes latent_model and policy_network: RLlib has others.

    Args:
        algo_class: What `.build_algo()` makes; None: `LatentSAC`.
    """

    env: Any
    env_config: dict[str, Any]

    settings = LatentSACSettings
    attributes: ClassVar = {"model": "latent_model", "policy": "policy_network"}
    elsewhere: ClassVar = {
        "world": "environment()",
        "seed": "debugging(seed=...)",
        "num_cpus_per_trial": "resources()",
        "num_gpus_per_trial": "learners(num_gpus_per_learner=...)",
    }

    # Those that are read here; all of the settings are attributes.
    world: dict[str, Any]
    latent_model: dict[str, Any]
    policy_network: dict[str, Any]
    exploration: dict[str, Any]
    policy_updates: int
    dynamics_updates: int
    batch_size: int
    replay_capacity: int
    episodes_per_step: int
    measure_at: list[int]
    evaluation_every: int | None
    evaluation_episodes: int

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or LatentSAC)
        self.given_seed = 0  # the spec's; `seed` and `trial_seed` are derived from it
        self.trial_seed = 0
        # No remote runner: a sweep runs many trials at a time, and one of them plays an episode in milliseconds.
        self.env_runners(env_runner_cls=WholeEpisodeRunner, num_envs_per_env_runner=1, batch_mode="complete_episodes")
        self.learners(num_learners=0)

    def set_settings(self, values: Mapping[str, Any]) -> None:
        """Set attributes by the settings' names, those of a study's trials aside; nothing is checked."""
        super().set_settings({name: value for name, value in values.items() if name not in StudySettings.model_fields})

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> LatentSACConfig:
        """The config of a trial from a spec's phase.

        Args:
            settings: The keys of `LatentSACSettings`, and `run_seed` (default 0), with which `seed` is mixed.

        Returns:
            The config, with world, seed and learner set.

        Raises:
            ValueError: A key is unknown, or a value out of range.
        """
        config, own = cls(), LatentSACSettings.from_config(settings)
        config.set_settings({name: own.plain().get(name) for name in LatentSACSettings.model_fields})
        config.given_seed = own.seed
        config.trial_seed = derive_seed(settings.get("run_seed", 0), ROLE, own.seed)
        config.learners(num_gpus_per_learner=own.num_gpus_per_trial)
        config.debugging(seed=config.trial_seed)
        config.environment(WORLD, env_config=world_arguments(config.world, config.layout_seed, continuous=True))
        return config

    @property
    def layout_seed(self) -> int:
        """Of a world's vectors, where its settings name none: every trial has its own."""
        return derive_seed(self.trial_seed, "layout")

    def validate(self) -> None:
        """As RLlib's; the environment becomes the world, and the seed that of the trial. Raises ValueError."""
        if self.num_env_runners or self.num_learners > 1:
            raise ValueError(
                f"latent_sac plays and learns in one process, got num_env_runners={self.num_env_runners} and "
                f"num_learners={self.num_learners}; leave both at 0, and run several trials at a time"
            )
        if self.trial_seed != (self.seed or 0):  # it was not made from a spec's phase
            self.trial_seed = self.given_seed = self.seed or 0
        if self.env is not None:
            self._wrap_world()
        super().validate()

    def _wrap_world(self) -> None:
        """Put parsecrl/World-v0, which RLlib makes by its id, around the world that was given."""
        given = {**self.env_config}
        before = given.pop("env_id", None)  # RLlib's environment() keeps the keys of an earlier call
        given.pop("continuous", None)
        if self.env == WORLD and before is None:
            raise ValueError(f"{self.env} needs a world; give .environment() the world's own id in its place")
        task = named_task(before if self.env == WORLD else self.env)
        if isinstance(task, UnnamedTask):
            self.world = {"id": task.name}
            made = self.env_config if self.env == WORLD else {"env_id": task, "kwargs": given, "continuous": True}
        else:
            made = world_arguments(self.world, self.layout_seed, continuous=True)
            if self.env != WORLD:
                self.world = {**given, "id": task.removeprefix(NAMESPACE)}
            elif self.env_config != made:
                limit = given.pop("env_max_episode_steps", None)
                self.world = {**given, "id": task.removeprefix(NAMESPACE), "max_episode_steps": limit}
            made = world_arguments(self.world, self.layout_seed, continuous=True)
        self.env, self.env_config = WORLD, made

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """As RLlib asks."""
        return RLModuleSpec(module_class=LatentSACRLModule)

    def get_default_learner_class(self) -> type:
        """As RLlib asks."""
        return LatentSACLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        names = ("latent_model", "policy_network", "encoder_training", "encoder_tau", "exploration", "alpha")
        return {name: getattr(self, name) for name in (*names, "target_entropy", "discount", "trial_seed")}


class LatentSAC(Algorithm):
    """Play an episode, update the model, update the policy (Saanum and Schulz 2022, algorithm 1).

    Result keys at top level: episodes, env_steps, num_updates, episode_return_mean and score (of the last 10 episodes),
    entropy (nats), alpha, losses.

    Args:
        config: A `LatentSACConfig`, or the plain settings that make one.
        kwargs: As RLlib's Algorithm takes them.

    Raises:
        ValueError: Plain settings have an unknown key or a value out of range.
    """

    config: LatentSACConfig
    plans: list[PlanTime] = []  # noqa: RUF012  it never plans, and nothing is added

    def __init__(self, config: Any = None, **kwargs: Any):
        # RLlib's own dicts, of checkpoints and of Tune's param_space, have one of these.
        if isinstance(config, dict) and not {"class", "enable_rl_module_and_learner"} & config.keys():
            config = LatentSACConfig.from_settings(config)
        super().__init__(config, **kwargs)

    @classmethod
    def get_default_config(cls) -> LatentSACConfig:
        """As RLlib asks."""
        return LatentSACConfig()

    def setup(self, config: Any) -> None:
        """As RLlib asks: make the replay, and the tables of the world."""
        make_process_quick()  # an update frees and asks for some 50 MB
        super().setup(config)
        self.measurements = Measurements()
        self.experience = Experience()
        self.counts = {"env_steps": 0, "updates": 0, "model_updates": 0, "requests": 0}
        self.scores: list[float] = []  # the return of every episode
        self.evaluations: list[tuple[int, float]] = []  # episodes before it, mean return
        self.evaluation = Evaluation(
            self.config.evaluation_every, self.config.evaluation_episodes, self.config.trial_seed
        )
        env = self.env_runner.env.unwrapped.envs[0]
        check_slices(env, self._rollout_steps, "model.rollout_steps")
        self.spaces = {"observation": describe_space(env.observation_space), "action": describe_space(env.action_space)}
        self.obs_size, self.num_actions = space_sizes(env)
        world = world_of(env)
        self.record = None if world is None else GridRecord(world)
        self.continuous = isinstance(env.action_space, spaces.Box)
        check_bonus(self.config.exploration, env.action_space)
        vectors = self.num_actions if self.continuous else None
        self.replay = TransitionReplay(self.config.replay_capacity, self.obs_size, vectors)

    def training_step(self) -> None:
        """Algorithm 1, `episodes_per_step` times: play an episode, store it, update model and policy."""
        c, end = self.config, len(self.scores) + self.config.episodes_per_step
        while len(self.scores) < end:
            before = len(self.scores)
            with self.measurements.time("waiting"):
                episodes = self._play()
            for episode in episodes:
                self._store(episode)
            played = len(self.scores) - before
            with self.measurements.time("learning"):
                if self._model_trains and self.replay.has_slice(self._rollout_steps):
                    self._update(self._slices, played * c.dynamics_updates)
                    self.counts["model_updates"] += played * c.dynamics_updates
                self._update(self._transitions, played * c.policy_updates)
            if self.record and any(before < n <= len(self.scores) for n in c.measure_at):
                self.record.measure(self.current_model(), len(self.scores), derive_seed(c.trial_seed, "walks"))

    # Gathering.

    def _play(self) -> list[SingleAgentEpisode]:
        self.counts["requests"] += 1
        seed = derive_seed(self.config.trial_seed, "rollout", self.counts["requests"])
        episodes = self.env_runner.play(self._acting_weights(), seed)
        self.metrics.aggregate([self.env_runner.get_metrics()], key=ENV_RUNNER_RESULTS)
        return episodes

    def _returns_of(self, seeds: Sequence[int]) -> list[float]:
        """An episode of each seed, with the most probable actions."""
        weights = self._acting_weights()
        played = (self.env_runner.play(weights, seed, explore=False, counted=False) for seed in seeds)
        return [float(episode.get_return()) for episodes in played for episode in episodes[:1]]

    def _acting_weights(self) -> dict[str, Any]:
        state = self.learner_group.get_state(components="learner/rl_module", inference_only=True)
        return state["learner"]["rl_module"]

    def _store(self, episode: SingleAgentEpisode) -> None:
        obs = np.asarray(episode.get_observations(), np.float32)  # [T + 1, O]
        action = np.asarray(episode.get_actions(), np.float32 if self.continuous else np.int64)
        reward = np.asarray(episode.get_rewards(), np.float32)
        if not self.scores:
            warn_of_units(obs, self.config.world["id"])
        self.replay.add(obs, action, reward, episode.is_terminated)
        self.counts["env_steps"] += len(action)
        self.scores.append(float(reward.sum(dtype=np.float64)))
        self.experience.add(reward)
        if self.record:
            self.record.add(obs, action)

    # Learning.

    @property
    def _model_trains(self) -> bool:
        return self.config.latent_model["kind"] != "encoder_only"

    @property
    def _rollout_steps(self) -> int:
        return self.config.latent_model["rollout_steps"]

    def _slices(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        obs, action = self.replay.slices(self.config.batch_size, self._rollout_steps, rng)
        return {Columns.OBS: obs, Columns.ACTIONS: action}

    def _transitions(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        counts = self.config.exploration.get("bonus") == "count"
        batch = self.replay.sample(self.config.batch_size, rng, with_visits=counts)
        visits = {} if batch.visits is None else {VISITS: batch.visits}
        return {
            **visits,
            Columns.OBS: batch.obs,
            Columns.ACTIONS: batch.action,
            Columns.REWARDS: batch.reward,
            Columns.NEXT_OBS: batch.next_obs,
            Columns.TERMINATEDS: batch.terminated,
        }

    def _update(self, draw: Callable[[np.random.Generator], dict[str, np.ndarray]], count: int) -> None:
        """`count` updates, each on a batch of its own, in one call of the learner: a call costs some milliseconds."""
        if count == 0:
            return
        B, first = self.config.batch_size, self.counts["updates"]
        batches = []
        for number in range(first, first + count):
            batch = draw(np.random.default_rng(derive_seed(self.config.trial_seed, "replay", number)))
            batches.append({**batch, UPDATE: np.full(B, number, np.int64)})
        columns = {name: torch.from_numpy(np.concatenate([batch[name] for batch in batches])) for name in batches[0]}
        results = self.learner_group.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=count * B),
            timesteps={"num_env_steps_sampled_lifetime": self.counts["env_steps"]},
            minibatch_size=B,
        )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.counts["updates"] += count

    # Measuring.

    def weights(self) -> dict[str, Tensor]:
        """The learner's weights on the CPU, by their names in the module."""
        state = self.learner_group.get_weights()[DEFAULT_MODULE_ID]
        return {name: torch.as_tensor(value) for name, value in state.items()}

    def current_model(self) -> LatentDynamics:
        """A copy of the learner's model on the CPU."""
        c = self.config
        model = latent_model(c.latent_model, self.obs_size, self.num_actions, c.trial_seed)
        weights = self.weights()
        model.load_state_dict(
            {name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")}
        )
        return model.eval()

    # Results and checkpoints.

    def phase_results(self) -> dict[str, Any]:
        """What was counted since the first episode."""
        recent = self.scores[-RECENT_EPISODES:]
        return {
            "episodes": len(self.scores),
            "env_steps": self.counts["env_steps"],
            "num_updates": self.counts["updates"],
            "replay_decisions": len(self.replay),
            "episode_return_mean": float(np.mean(recent)) if recent else float("nan"),
        }

    def step(self) -> dict[str, Any]:
        """One result: a training step, with its losses and measurements."""
        began = time.perf_counter()
        results = super().step()
        terms = learner_terms(results)
        results.update(self.phase_results())
        if self._model_trains and self.config.dynamics_updates and not self.counts["model_updates"]:
            results[UNTRAINED] = (
                f"no episode of {len(self.scores)} lasted model.rollout_steps={self._rollout_steps} steps; lower "
                f"rollout_steps, or prolong the phase"
            )
        results |= self.evaluation.results(
            results["env_steps"], results["num_updates"], results["episode_return_mean"], self._returns_of
        )
        if math.isfinite(found := results.get(EVALUATION, math.nan)):
            self.evaluations.append((len(self.scores), found))
        results["losses"] = terms
        results |= {name: terms[name] for name in ("entropy", "alpha") if name in terms}
        results["episode_ms"] = 1e3 * (time.perf_counter() - began) / self.config.episodes_per_step
        results.update(self.experience.take())
        results["measured"] = self.measurements.take()
        results["measured"]["losses"] = {name: terms[name] for name in LOSSES if name in terms}
        return results

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """As RLlib's, with counts, scores and what was recorded."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None:
            state[ROLE] = {"counts": self.counts.copy(), "scores": self.scores.copy()}
            state[ROLE] |= {"evaluation": self.evaluation.state(), "evaluations": self.evaluations.copy()}
            if self.record:
                state[ROLE]["record"] = self.record.state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what `get_state` returned."""
        super().set_state(state)
        if ROLE in state:
            self.counts, self.scores = (state[ROLE][name].copy() for name in ("counts", "scores"))
            self.evaluation.set_state(state[ROLE]["evaluation"])
            self.evaluations = state[ROLE]["evaluations"].copy()
            if self.record:
                self.record.set_state(state[ROLE]["record"])

    def save_to_path(self, path: Any = None, *args: Any, **kwargs: Any) -> str:
        """As RLlib's, with the replay and the trial's own files."""
        check_local(path)
        saved = super().save_to_path(path, *args, **kwargs)
        self.replay.save(Path(saved) / REPLAY_FILE)
        c = self.config
        description = {
            "world": c.world,
            "layout_seed": c.layout_seed,
            "spaces": self.spaces,
            "model": c.latent_model,
            "policy": c.policy_network,
            "seed": c.given_seed,
            "trial_seed": c.trial_seed,
            "env_steps": self.counts["env_steps"],
            "scores": self.scores,
        }
        if c.evaluation_every is not None:
            description["evaluations"] = self.evaluations
        save_trial(saved, description, self.weights(), self.record)
        return saved

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """As RLlib's, with the replay."""
        check_local(path)
        super().restore_from_path(path, *args, **kwargs)
        if kwargs.get("component") is None:
            self.replay.load(Path(path) / REPLAY_FILE)
