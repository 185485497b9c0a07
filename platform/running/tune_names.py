"""The names by which Tune and RLlib find the RLlib algorithms: `tune.Tuner("Planet", param_space=config)`.

Tune asks RLlib's table for a name that it does not know, and an entry of that table imports its algorithm when it is
asked for. So three entries are added to the table: at once where RLlib has been imported, otherwise right after that
import. Nothing else is imported, and a program that never imports RLlib pays nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TABLE = "ray.rllib.algorithms.registry"
HOMES = {
    "Planet": "parsecrl.algorithms.planet.planet",
    "DCEMPPO": "parsecrl.algorithms.dcem_ppo.dcem_ppo",
    "LatentSAC": "parsecrl.algorithms.latent_sac.latent_sac",
}


def register_names() -> None:
    """Make the names known in this process, now or when RLlib's table is imported."""
    table = sys.modules.get(TABLE)
    if table is not None:
        _add(table)
    else:
        sys.meta_path.insert(0, _AfterImport())


def _add(table: ModuleType) -> None:
    for name in HOMES:
        table.ALGORITHMS.setdefault(name, _Entry(name))


class _Entry:
    """An entry of RLlib's table: called, it imports the algorithm and returns its class and default config."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self) -> tuple[Any, Any]:
        algorithm = getattr(importlib.import_module(HOMES[self.name]), self.name)
        return algorithm, algorithm.get_default_config()


class _AfterImport(MetaPathFinder):
    """Lets the other finders find RLlib's table, and adds the names once it is there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TABLE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_add(module: ModuleType) -> None:
            execute(module)
            _add(module)

        spec.loader.exec_module = execute_and_add  # type: ignore[method-assign]
        return spec
