"""simulator_planner as specs name it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from parsecrl.algorithms.registry.algorithm import CONTROL, ENV_STEPS, Algorithm, StopCondition
from parsecrl.algorithms.simulator_planner.settings import SimulatorPlannerSettings


class SimulatorPlannerAlgorithm(Algorithm):
    """CEM in the true simulator. Nothing is trained: the phase plays an episode, and evaluation the rest."""

    name = "simulator_planner"
    settings = SimulatorPlannerSettings
    stop_conditions: ClassVar = {
        "episodes": StopCondition("episodes", "episodes", "episodes played"),
        "env_steps": ENV_STEPS,
    }
    acts = True
    agent_file = "agent.json"
    plays = CONTROL

    def trainable(self) -> Any:
        """A plain trainable, imported now."""
        from parsecrl.algorithms.simulator_planner.trainable import SimulatorPlanning

        return SimulatorPlanning

    def default_stop(self, settings: Any) -> dict[str, float]:
        """One episode, in whose results nothing is learned."""
        return {"episodes": 1}

    def check_environment(self, phase: Any, env: Any) -> None:
        """Refuse a task whose state cannot be copied."""
        env.simulator_state()

    def load_policy(self, folder: Any, seed: int, trust: bool | Collection[str]) -> tuple[Any, dict[str, Any]]:
        """The planner that a checkpoint describes; it needs the environment to act in."""
        from parsecrl.algorithms.checkpoints.agent import read_description
        from parsecrl.algorithms.simulator_planner.planner import SimulatorPlanner
        from parsecrl.algorithms.simulator_planner.settings import SimulatorController

        description = read_description(folder)
        try:
            stored = {key: value for key, value in description["controller"].items() if key != "kind"}
            settings = SimulatorController.checked(stored).plain()
            obs_size, action_size = description["sizes"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder} describes no simulator planner ({error}); give an undamaged checkpoint folder"
            ) from error
        return SimulatorPlanner(settings, (obs_size, action_size), seed), description


SIMULATOR_PLANNER = SimulatorPlannerAlgorithm()
