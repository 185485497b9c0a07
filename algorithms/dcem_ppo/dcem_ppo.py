"""PPO through the DCEM planner fine-tunes what the planner is made of (DCEM paper, section 5.2.2 and appendix D)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)

from parsecrl.algorithms.checkpoints.agent import check_trust, read_description
from parsecrl.algorithms.dcem_ppo.dcem_ppo_learner import LOSSES, DCEMPPOLearner
from parsecrl.algorithms.dcem_ppo.dcem_ppo_rl_module import DCEMPPORLModule
from parsecrl.algorithms.dcem_ppo.episodes import play_episodes
from parsecrl.algorithms.dcem_ppo.settings import DCEMPPOSettings, check_planner
from parsecrl.algorithms.planet.rollouts import Rollout, collect
from parsecrl.algorithms.training.owed import gather_owed
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.algorithms.training.rllib_phase import PhaseConfig, PhaseMixin, simulator_steps
from parsecrl.algorithms.training.seeding import derive_seed


class DCEMPPOConfig(PhaseConfig, PPOConfig):
    """Config of phase 3 (DCEM paper, section 5.2.2); `DCEMPPOSettings` says what the settings mean.

    `start_from` is the checkpoint of an embedded agent. A PPO step's episodes are a fixed set, whatever the number of
    runners and environments.

    Args:
        algo_class: What `.build_algo()` makes; None: `DCEMPPO`.
    """

    settings = DCEMPPOSettings

    # Those that are read here; all of the settings are attributes.
    fine_tune: list[str]
    passes: int
    minibatches: int
    episodes_per_step: int
    discount: float
    gae_lambda: float

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or DCEMPPO)
        self.algorithm_name = "dcem_ppo"
        self.world_model, self.controller, self.decoder, self.value = {}, {}, {}, None  # the agent's, once it is known
        self.grad_clip = 0.5
        self.grad_clip_by = "global_norm"
        self.batch_mode = "complete_episodes"

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """As RLlib asks."""
        return RLModuleSpec(module_class=DCEMPPORLModule)

    def get_default_learner_class(self) -> type:
        """As RLlib asks."""
        return DCEMPPOLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        names = (
            *("start_from", "start_from_trusted", "world_model", "controller", "decoder", "value"),
            *("fine_tune", "std", "noise_bank_size"),
        )
        # Rows of the train batch; the learner flattens them, so the length only affects the padding.
        return {**{name: getattr(self, name) for name in names}, "seed": self.seed or 0, "max_seq_len": 64}

    def validate(self) -> None:
        """As RLlib's; reads the agent of start_from.

        Raises:
            ValueError: Settings do not go together, or the agent names code and there was no `trust_start_from()`.
        """
        if not self.start_from and not self.controller:
            raise ValueError(
                "dcem_ppo fine-tunes an agent, got start_from=None; name an earlier phase or its checkpoint"
            )
        # The agent is what its checkpoint says; RLlib's names for the rest.
        if self.start_from:
            description = read_description(self.start_from)
            check_trust(self.start_from, description, self.start_from_trusted, "config.trust_start_from()")
            self.world_model, self.controller = description["world_model"], description["controller"]
            self.decoder, self.value = description["decoder"], description.get("value")
        self.gamma, self.lambda_ = self.discount, self.gae_lambda
        self._check_settings()
        super().validate()

    def _check_settings(self) -> None:
        kind = self.controller.get("kind", "full")
        temperatures = [self.controller["temperature"]] if "temperature" in self.controller else []
        check_planner(kind, temperatures, [self.fine_tune], str(self.start_from), "")
        if self.num_learners > 1:
            raise ValueError(f"dcem_ppo runs on one learner, got num_learners={self.num_learners}; set it to 0 or 1")


class DCEMPPO(PhaseMixin, PPO):
    """Gather whole episodes with the planner as a stochastic policy, then learn from them in minibatches through it.

    Result keys at top level: env_steps (simulator steps of this phase), ppo_steps, num_updates (gradient steps of the
    policy), episode_return_mean, planning_ms (per decision), ratio_deviation (mean |ratio - 1| on the first minibatch),
    losses.
    """

    config: DCEMPPOConfig
    loss_terms = ("policy_loss", "value_loss", "entropy")

    @classmethod
    def get_default_config(cls) -> DCEMPPOConfig:
        """As RLlib asks."""
        return DCEMPPOConfig()

    def setup(self, config: Any) -> None:
        """As RLlib asks."""
        make_process_quick()
        self.counts = dict.fromkeys(("decisions", "env_steps", "ppo_steps", "updates", "trajectories"), 0)
        super().setup(config)

    def training_step(self) -> None:
        """Gather `episodes_per_step` whole episodes, then make `passes` passes through them in minibatches."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)), self.measurements.time("waiting"):
            episodes = self._gather()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)), self.measurements.time("learning"):
            results = self.learner_group.update(
                episodes=episodes, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.counts["decisions"]}
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.counts["ppo_steps"] += 1
        self.counts["updates"] += self.config.passes * min(self.config.minibatches, sum(map(len, episodes)))

    def _gather(self) -> list[SingleAgentEpisode]:
        """The episodes of this PPO step, in their order."""
        config, step = self.config, self.counts["ppo_steps"]
        request = partial(
            collect_episodes,
            weights=self.learner_group.get_weights(),
            seed=config.seed or 0,
            step=step,
            patience_s=config.sample_timeout_s,
        )
        episodes, rollouts = gather_owed(
            self, config.episodes_per_step, request, _episodes_by_number, f"PPO step {step + 1}"
        )
        self._log_rollouts(rollouts)
        return episodes

    def _log_rollouts(self, rollouts: list[Rollout]) -> None:
        for episode in (episode for rollout in rollouts for episode in rollout.episodes):
            self.counts["decisions"] += len(episode)
            self.counts["env_steps"] += simulator_steps(episode, self.config.action_repeat)
        self.metrics.aggregate([rollout.metrics for rollout in rollouts], key=ENV_RUNNER_RESULTS)
        for rollout in rollouts:
            self.measurements.add(rollout.times)
            for episode in rollout.episodes:
                self.experience.add(episode.get_rewards(), episode.get_actions())
                self.experience.end(episode.get_rewards(), episode.is_terminated, self.config.controller["horizon"])
                self.last_returns.append(float(episode.get_return()))
            self.counts["trajectories"] += rollout.times.trajectories
        seconds = sum(rollout.times.planning_seconds for rollout in rollouts)
        decisions = sum(rollout.times.num_decisions for rollout in rollouts)
        self.metrics.log_value("planning_ms", 1000 * seconds / decisions, window=20)

    def phase_results(self) -> dict[str, Any]:
        """What was counted in this phase."""
        counted = {name: self.counts[name] for name in ("env_steps", "ppo_steps", "trajectories")}
        return counted | {"num_updates": self.counts["updates"]}

    def step(self) -> dict[str, Any]:
        """One result: a training step, with its losses."""
        results = super().step()
        learner = results[LEARNER_RESULTS][DEFAULT_MODULE_ID]
        results["losses"] = {name: float(learner[name]) for name in LOSSES}
        results["ratio_deviation"] = float(learner["ratio_deviation"])
        return results


def _episodes_by_number(rollout: Rollout) -> dict[int, SingleAgentEpisode]:
    return {int(episode.id_): episode for episode in rollout.episodes}


def collect_episodes(
    runner: SingleAgentEnvRunner, weights: Any, seed: int, step: int, numbers: Sequence[int], patience_s: float
) -> Rollout:
    """Play some episodes of a PPO step; runs inside the runner.

    Each has a seed of its own, whoever plays it, so that no two begin in the same states, and a restored run draws what
    it would have.

    Args:
        runner: Whose module is a DCEMPPORLModule.
        weights: Of the module.
        seed: Of the phase.
        step: Number of the PPO step, from 0.
        numbers: Of the episodes in the step, from 0; each becomes an episode's `id_`.
        patience_s: The longest time that an episode may take.

    Returns:
        The episodes; an exception inside a remote runner is the rollout's `failure`.
    """
    seeds = [derive_seed(seed, "ppo_episode", step, number) for number in numbers]
    play = partial(play_episodes, seeds=seeds, names=[str(number) for number in numbers], patience_s=patience_s)
    return collect(runner, weights, derive_seed(seed, "ppo_rollout", step), play)
