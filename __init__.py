"""Planning inside learned latent spaces, on Ray.

    import parsecrl

    agent = parsecrl.load_agent("runs/cheetah_run_quick/embed")
    state = agent.initial_state()
    action, state = agent.act(obs, state)

Names are imported when they are first used: `import parsecrl` imports neither torch nor Ray. All but the four RLlib
algorithms and `run_spec` work without Ray. Tune and RLlib know "Planet", "DCEMPPO", "LatentSAC" and "Unified" by name
once this package is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from parsecrl.algorithms.registry.tune_names import register_names

if TYPE_CHECKING:
    __version__: str
    from parsecrl.algorithms.controllers import CategoricalController as CategoricalController
    from parsecrl.algorithms.controllers import EmbeddedController as EmbeddedController
    from parsecrl.algorithms.controllers import FullSpaceController as FullSpaceController
    from parsecrl.algorithms.controllers import PlanningAgent as PlanningAgent
    from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPO as DCEMPPO
    from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPOConfig as DCEMPPOConfig
    from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC as LatentSAC
    from parsecrl.algorithms.latent_sac.latent_sac import LatentSACConfig as LatentSACConfig
    from parsecrl.algorithms.models import RSSM as RSSM
    from parsecrl.algorithms.models import ActionDecoder as ActionDecoder
    from parsecrl.algorithms.models import ParsimoniousDynamics as ParsimoniousDynamics
    from parsecrl.algorithms.planet.planet import Planet as Planet
    from parsecrl.algorithms.planet.planet import PlanetConfig as PlanetConfig
    from parsecrl.algorithms.solvers import categorical_cem as categorical_cem
    from parsecrl.algorithms.solvers import cem as cem
    from parsecrl.algorithms.solvers import dcem as dcem
    from parsecrl.algorithms.solvers import lml_projection as lml_projection
    from parsecrl.algorithms.solvers import unrolled_gd as unrolled_gd
    from parsecrl.algorithms.unified.unified import Unified as Unified
    from parsecrl.algorithms.unified.unified import UnifiedConfig as UnifiedConfig
    from parsecrl.envs import make_env as make_env
    from parsecrl.platform.evaluation.loading import load_agent as load_agent
    from parsecrl.platform.running.pipeline import run_spec as run_spec
    from parsecrl.platform.specs import load_spec as load_spec

_NAMES = {
    "algorithms.controllers": ("CategoricalController", "EmbeddedController", "FullSpaceController", "PlanningAgent"),
    "algorithms.dcem_ppo.dcem_ppo": ("DCEMPPO", "DCEMPPOConfig"),
    "algorithms.latent_sac.latent_sac": ("LatentSAC", "LatentSACConfig"),
    "algorithms.models": ("RSSM", "ActionDecoder", "ParsimoniousDynamics"),
    "algorithms.planet.planet": ("Planet", "PlanetConfig"),
    "algorithms.solvers": ("categorical_cem", "cem", "dcem", "lml_projection", "unrolled_gd"),
    "algorithms.unified.unified": ("Unified", "UnifiedConfig"),
    "envs": ("make_env",),
    "platform.evaluation.loading": ("load_agent",),
    "platform.running.pipeline": ("run_spec",),
    "platform.specs": ("load_spec",),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]

register_names()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("parsec-rl")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    if f"{name.removesuffix('Config')}Config" in _HOMES:  # an RLlib algorithm
        import_module(f"{__name__}.envs")  # chooses how MuJoCo renders, before RLlib imports dm_control
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
