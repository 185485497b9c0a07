"""dcem_ppo as specs name it: phase 3 of the DCEM paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from parsecrl.algorithms.dcem_ppo import workload
from parsecrl.algorithms.dcem_ppo.settings import DCEMPPOSettings, check_planner
from parsecrl.algorithms.planet.algorithm import PLANET, agents_of_own_code
from parsecrl.algorithms.planet.settings import PlanetSettings
from parsecrl.algorithms.registry.algorithm import CONTROL, ENV_STEPS, Algorithm, StopCondition
from parsecrl.algorithms.registry.searched import values_of
from parsecrl.algorithms.registry.workload import Stage, Workplace


class DCEMPPOAlgorithm(Algorithm):
    """The embedded controller fine-tuned by PPO through the planner."""

    name = "dcem_ppo"
    settings = DCEMPPOSettings
    stop_conditions: ClassVar = {
        "env_steps": ENV_STEPS,
        "ppo_steps": StopCondition("ppo_steps", "PPO steps", "collect-and-update rounds"),
    }
    acts = True
    keeps_controller = True
    tune_name = "DCEMPPO"
    plays = CONTROL

    def trainable(self) -> Any:
        """RLlib's algorithm, imported now."""
        from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPO

        return DCEMPPO

    def make_config(
        self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any], seed: int, start_from: str | None
    ) -> Any:
        """RLlib's config of the phase."""
        from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPOConfig

        assert env is not None  # the spec has seen to it
        return DCEMPPOConfig.from_phase(phase, env, resources, seed, start_from)

    def processes(self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any]) -> list[dict[str, float]]:
        """The same runners and learners as planet's: a config of its own is valid only once its agent is there."""
        return PLANET.processes(phase, env, resources)

    def stage(self, phase: Any, work: Workplace, earlier: Mapping[str, Any]) -> Stage:
        """A trial's rounds of gathering and learning, which take turns."""
        return workload.stage(phase, _planner(phase, earlier), work)

    def decision_s(self, phase: Any, work: Workplace, batch: int, earlier: Mapping[str, Any]) -> float:
        """As of the phase whose controller it has."""
        return PLANET.decision_s(_planner(phase, earlier), work, batch, earlier)

    def check_start(self, phase: Any, source: Any, earlier: Mapping[str, Any]) -> None:
        """Refuse a source without a planner that `fine_tune` reaches."""
        source = _planner(source, earlier)
        if not isinstance(source, PlanetSettings):
            super().check_start(phase, source, earlier)
        controller, at = source.controller, f"phases.{phase.name}."
        temperatures = values_of(source, "controller.temperature") if controller.kind == "embedded" else []
        check_planner(controller.kind, temperatures, values_of(phase, "fine_tune"), source.name, at)

    def check_task(self, phase: Any, obs_size: int, action_size: int, earlier: Mapping[str, Any]) -> None:
        """Make the agent that the phase begins with, where it is of own code, and look for what is fine-tuned."""
        for settings in agents_of_own_code(_planner(phase, earlier)):
            from parsecrl.algorithms.controllers import PlanningAgent
            from parsecrl.algorithms.dcem_ppo.dcem_ppo_rl_module import check_fine_tuned

            agent = PlanningAgent(obs_size, action_size, **settings)
            for parts in values_of(phase, "fine_tune"):
                check_fine_tuned(agent, parts, repr(phase.start_from))

    def check_resources(self, phase: Any, resources: Any) -> None:
        """Refuse more than one learner."""
        if resources.num_learners > 1:
            raise ValueError(
                f"resources.num_learners must be 0 or 1 for the algorithm of phases.{phase.name}, dcem_ppo, "
                f"got {resources.num_learners}"
            )


def _planner(phase: Any, earlier: Mapping[str, Any]) -> Any:
    """The phase whose controller this one has."""
    while isinstance(phase, DCEMPPOSettings):
        phase = earlier[phase.start_from]
    return phase


DCEM_PPO = DCEMPPOAlgorithm()
