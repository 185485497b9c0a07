"""unified as specs name it: the three phases of the DCEM paper in one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parsecrl.algorithms.planet.algorithm import PlanetAlgorithm, agents_of_own_code
from parsecrl.algorithms.planet.settings import NO_VALUE, OVER_ACTIONS
from parsecrl.algorithms.planet.workload import plan_flop, planner
from parsecrl.algorithms.registry.searched import values_of
from parsecrl.algorithms.registry.workload import Sizes
from parsecrl.algorithms.unified.settings import UnifiedSettings


class UnifiedAlgorithm(PlanetAlgorithm):
    """World model, value, decoder and policy learned together, from the first planned episode on."""

    name = "unified"
    settings = UnifiedSettings
    tune_name = "Unified"

    def trainable(self) -> Any:
        """RLlib's algorithm, imported now."""
        from parsecrl.algorithms.unified.unified import Unified

        return Unified

    def make_config(
        self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any], seed: int, start_from: str | None
    ) -> Any:
        """RLlib's config of the phase."""
        from parsecrl.algorithms.unified.unified import UnifiedConfig

        assert env is not None  # the spec has seen to it
        return UnifiedConfig.from_phase(phase, env, resources, seed, start_from)

    def update_flop(self, phase: Any, sizes: Sizes) -> float:
        """As planet's; and the plans of the policy loss: forward, and backward through them and what they change."""
        flop = super().update_flop(phase, sizes)
        if "value_gradient" in phase.losses:
            model, beliefs = phase.world_model.model_dump(), phase.value_gradient.beliefs
            flop += 3 * plan_flop(planner(phase), model, sizes, beliefs)
        return flop

    def check_start(self, phase: Any, source: Any, earlier: Mapping[str, Any]) -> None:
        """As planet's; and refuse a source without what no loss of the phase trains."""
        super().check_start(phase, source, earlier)
        had = {"value": source.value != NO_VALUE, "decoder": source.controller.kind not in OVER_ACTIONS}
        used = {"value": phase.value != NO_VALUE, "decoder": phase.controller.kind not in OVER_ACTIONS}
        for losses in values_of(phase, "losses"):
            for part in ("value", "decoder"):
                if used[part] and part not in losses and not had[part]:
                    raise ValueError(
                        f"phases.{phase.name}.losses must have {part}, which {phase.start_from!r} has not trained, "
                        f"got {', '.join(losses)}; add it, or start from a phase that has"
                    )

    def check_task(self, phase: Any, obs_size: int, action_size: int, earlier: Mapping[str, Any]) -> None:
        """As planet's; and look whether the gradients of the losses reach what agents of own code have."""
        super().check_task(phase, obs_size, action_size, earlier)
        for settings in agents_of_own_code(phase):
            from parsecrl.algorithms.controllers import PlanningAgent
            from parsecrl.algorithms.unified.unified_rl_module import check_reached

            agent = PlanningAgent(obs_size, action_size, **settings)
            for losses in values_of(phase, "losses"):
                for parts in values_of(phase, "value_gradient.parts"):
                    check_reached(agent, losses, parts)


UNIFIED = UnifiedAlgorithm()
