"""rllib as specs name it: any algorithm of RLlib on the same task, for the same budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from parsecrl.algorithms.registry.algorithm import CONTROL, ENV_STEPS, NUM_UPDATES, Algorithm, PlayedTask
from parsecrl.algorithms.registry.searched import values_of
from parsecrl.algorithms.registry.settings import Settings
from parsecrl.algorithms.registry.units import units_warnings
from parsecrl.algorithms.rllib.settings import RLlibSettings


class RLlibAlgorithm(Algorithm):
    """One of RLlib's algorithms, with a policy that evaluation plays."""

    name = "rllib"
    settings: ClassVar[type[Settings]] = RLlibSettings
    stop_conditions: ClassVar = {"env_steps": ENV_STEPS, "num_updates": NUM_UPDATES}
    acts = True
    agent_file = "agent.json"
    plays = CONTROL
    checked = frozenset({"class", "config", "model"})

    def trainable(self) -> Any:
        """A trainable that has RLlib's algorithm inside: its class is a setting."""
        from parsecrl.algorithms.rllib.trainable import RLlibBaseline

        return RLlibBaseline

    def make_config(
        self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any], seed: int, start_from: str | None
    ) -> dict[str, Any]:
        """The settings, the spec's groups env and resources, and the seed."""
        return {**super().make_config(phase, env, resources, seed, start_from), "resources": dict(resources)}

    def processes(self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any]) -> list[dict[str, float]]:
        """What RLlib asks for the algorithm."""
        from parsecrl.algorithms.rllib.config import trial_config

        made: Any = trial_config(phase.plain(), env or {}, resources, 0)
        return made.algo_class.default_resource_request(made).bundles

    def check(self, phase: Any) -> None:
        """Find the class, and have it take the settings."""
        from parsecrl.algorithms.rllib.config import trial_config

        # Any task with bounded actions does: RLlib's own checks look at no environment here.
        trial_config(phase.plain(), {"id": "Pendulum-v1"}, {}, 0)

    def check_task(self, phase: Any, obs_size: int, action_size: int, earlier: Mapping[str, Any]) -> None:
        """Make the policy of each class for the task's spaces: not all of RLlib's know continuous actions."""
        from parsecrl.algorithms.rllib.config import check_spaces

        for name in values_of(phase, "class"):
            check_spaces({**phase.plain(), "class": name}, obs_size, action_size)

    def task_warnings(self, phase: Any, task: PlayedTask) -> list[str]:
        """A sentence where the unit of the observations does not suit."""
        return units_warnings(task.obs_rms, task.name, "RLlib's networks take them")

    def load_policy(self, folder: Any, seed: int, trust: bool | Collection[str]) -> tuple[Any, dict[str, Any]]:
        """The RLModule of a checkpoint as a policy, and its description; without pickles."""
        from parsecrl.algorithms.checkpoints.agent import check_trust, read_description
        from parsecrl.algorithms.rllib.acting import load_policy

        check_trust(folder, read_description(folder), trust)
        return load_policy(folder, seed)


RLLIB = RLlibAlgorithm()
