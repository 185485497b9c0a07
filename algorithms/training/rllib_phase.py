"""What the algorithms of a pipeline share: settings common to phases, top-level results, readable checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS
from typing_extensions import Self

from parsecrl.algorithms.checkpoints.agent import save_agent
from parsecrl.algorithms.checkpoints.files import Folder, check_local
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.training.measurements import Measurements, PlanTime
from parsecrl.algorithms.training.rllib_settings import SettingsConfig
from parsecrl.algorithms.training.settings import Settings

ENVIRONMENT = "parsecrl.envs:parsecrl/Control-v0"
# RLlib's name for what it clips, and ours for what we clip ourselves; the group is the optimiser.
GRADIENT_NORM = re.compile(r"gradients_(?P<rllib>.+)_global_norm|(?P<own>.+)_gradient_norm")


def configure_phase(
    config: PhaseConfig,
    settings: Settings,
    env: dict[str, Any],
    resources: Mapping[str, Any],
    seed: int,
    start_from: Folder | None,
) -> None:
    """Set what every phase has (environment, runners, learners), then the algorithm's settings.

    env, resources: the spec's groups as plain dicts.
    """
    config.api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
    config.environment(ENVIRONMENT, env_config={"env_id": env["id"], "action_repeat": env["action_repeat"]})
    config.framework("torch")
    config.env_runners(
        num_env_runners=resources.get("num_env_runners", 0),
        num_envs_per_env_runner=resources.get("num_envs_per_env_runner", 1),
        num_cpus_per_env_runner=resources.get("num_cpus_per_env_runner", 1),
        num_gpus_per_env_runner=resources.get("num_gpus_per_env_runner", 0),
        sample_timeout_s=resources.get("sample_timeout_s", 1800.0),
        max_requests_in_flight_per_env_runner=1,
    )
    main_cpus = resources.get("num_cpus_for_main_process", 1)
    num_learners = resources.get("num_learners", 0)
    config.learners(
        num_learners=num_learners,
        # A local learner runs in the main process; RLlib asks for the larger of the two.
        num_cpus_per_learner=1 if num_learners else main_cpus,
        num_gpus_per_learner=resources.get("num_gpus_per_learner", 0),
    )
    config.resources(num_cpus_for_main_process=main_cpus)
    config.reporting(
        metrics_num_episodes_for_smoothing=10,
        min_time_s_per_iteration=0,
        min_sample_timesteps_per_iteration=0,
        min_train_timesteps_per_iteration=0,
    )
    config.debugging(seed=seed, log_sys_usage=False, log_level="ERROR")
    config.env_id, config.action_repeat = env["id"], env["action_repeat"]
    own = settings.options()
    config.set_settings({name: own.get(name) for name in config.settings.model_fields})
    config.start_from = start_from


class PhaseConfig(SettingsConfig):
    """The settings that the phases of a pipeline have in common."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        self.env_id = ""
        self.action_repeat = 1

    start_from: Folder | None
    world_model: dict[str, Any]
    controller: dict[str, Any]
    decoder: dict[str, Any]

    @classmethod
    def from_phase(
        cls, settings: Settings, env: dict[str, Any], resources: Mapping[str, Any], seed: int, start_from: Folder | None
    ) -> Self:
        """The config of a spec's phase; see `configure_phase`.

        Args:
            settings: A phase, or the settings of `cls.settings` alone.
            env: The spec's group `env`.
            resources: The spec's group `resources`.
            seed: Of everything random.
            start_from: The checkpoint that the phase starts from.
        """
        config = cls()
        configure_phase(config, settings, env, resources, seed, start_from)
        return config


class PhaseMixin:
    """Put before Algorithm: results at top level; agent.json, agent.safetensors and the phase files in checkpoints."""

    # mypy does not know that super() is Algorithm here: hence the ignores.
    counts: dict[str, int]
    config: Any
    loss_terms: ClassVar[tuple[str, ...]] = ()  # those of results["losses"] that are losses
    plans: list[PlanTime] = []  # noqa: RUF012 (replaced, never changed) of the last step

    def setup(self, config: Any) -> None:
        super().setup(config)  # type: ignore[misc]
        self.measurements = Measurements()

    def phase_results(self) -> dict[str, Any]:
        """Counters for the top level of each result; has env_steps."""
        raise NotImplementedError

    def save_phase_files(self, folder: str) -> None:
        """Further files of a checkpoint."""

    def restore_phase_files(self, folder: str) -> None:
        """Read what `save_phase_files` wrote."""

    def step(self) -> dict[str, Any]:
        results = super().step()  # type: ignore[misc]
        runners, learner = results.get(ENV_RUNNER_RESULTS, {}), results.get(LEARNER_RESULTS, {})
        results["episode_return_mean"] = runners.get("episode_return_mean", float("nan"))
        results.update(self.phase_results())  # whose mean return, where it has one, RLlib's may lack or forget
        results["score"] = results["episode_return_mean"]  # of which Tune and the pipeline keep the best
        results["losses"] = {
            name: float(value)
            for name, value in learner.get(DEFAULT_MODULE_ID, {}).items()
            if isinstance(value, int | float) or getattr(value, "ndim", None) == 0
        }
        results["measured"] = self._measured(results["losses"])
        return results

    def _measured(self, terms: dict[str, float]) -> dict[str, Any]:
        """As `Measurements.take`, less the single plans; and the losses and gradient norms of the learner's terms."""
        measured = self.measurements.take()
        self.plans = measured.pop("plans", [])
        measured["losses"] = {name: terms[name] for name in self.loss_terms if name in terms}
        norms = ((GRADIENT_NORM.fullmatch(name), value) for name, value in terms.items())
        measured["gradient_norms"] = {found["rllib"] or found["own"]: value for found, value in norms if found}
        return measured

    def agent_description(self) -> dict[str, Any]:
        """agent.json, less the sizes."""
        c = self.config
        return {
            "algorithm": type(self).__name__.lower(),
            "env": {"id": c.env_id, "action_repeat": c.action_repeat},
            "world_model": c.world_model,
            "controller": c.controller,
            "decoder": c.decoder,
            "env_steps": self.phase_results()["env_steps"],
            "seed": c.seed,
        }

    def current_agent(self) -> PlanningAgent:
        """A copy of the learner's agent on the CPU."""
        module = self.env_runner.module  # type: ignore[attr-defined]
        agent = PlanningAgent(
            module.observation_space.shape[0],
            module.action_space.shape[0],
            self.config.world_model,
            self.config.controller,
            self.config.decoder,
        )
        weights = self.learner_group.get_weights()[DEFAULT_MODULE_ID]  # type: ignore[attr-defined]
        agent.load_state_dict(
            {
                name.removeprefix("agent."): torch.as_tensor(value)
                for name, value in weights.items()
                if name.startswith("agent.")
            }
        )
        return agent

    def save_to_path(self, path: Any = None, *args: Any, **kwargs: Any) -> str:
        check_local(path)
        saved = super().save_to_path(path, *args, **kwargs)  # type: ignore[misc]
        save_agent(saved, self.current_agent(), self.agent_description())
        self.save_phase_files(saved)
        return saved

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        check_local(path)
        super().restore_from_path(path, *args, **kwargs)  # type: ignore[misc]
        if kwargs.get("component") is None:
            self.restore_phase_files(str(path))

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)  # type: ignore[misc]
        if components is None:  # the whole state, not some parts of RLlib's
            state["counts"] = dict(self.counts)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)  # type: ignore[misc]
        self.counts.update(state.get("counts", {}))
