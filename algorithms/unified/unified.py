"""planet with all losses together: the three phases of the DCEM paper in one run (appendix D names it future work)."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from parsecrl.algorithms.planet.planet import Planet, PlanetConfig
from parsecrl.algorithms.planet.planet_learner import LOSSES
from parsecrl.algorithms.unified.settings import UnifiedSettings
from parsecrl.algorithms.unified.unified_rl_module import UnifiedRLModule


class UnifiedConfig(PlanetConfig):
    """Config of a run for everything; `UnifiedSettings` says what the settings mean.

    Args:
        algo_class: What `.build_algo()` makes; None: `Unified`.
    """

    settings = UnifiedSettings

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or Unified)
        self.algorithm_name = "unified"

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """As RLlib asks."""
        return RLModuleSpec(module_class=UnifiedRLModule)

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("losses", "value_gradient")}
        return {**super()._model_config_auto_includes, **own}


class Unified(Planet):
    """Gather rollouts that plan, store them, and take all losses in one update, in proportion.

    Result keys as of `Planet`, and the terms of `value_gradient_loss`.
    """

    loss_terms = (*LOSSES, "policy_loss")

    @classmethod
    def get_default_config(cls) -> UnifiedConfig:
        """As RLlib asks."""
        return UnifiedConfig()
