"""The names by which Tune and RLlib find the RLlib algorithms: `tune.Tuner("Planet", param_space=config)`.

Tune asks RLlib's table for a name that it does not know. An entry of that table imports its algorithm when it is asked
for. So each registered algorithm with a `tune_name` is added to the table: at once where RLlib has been imported,
otherwise right after that import. A program that never imports RLlib pays nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TABLE = "ray.rllib.algorithms.registry"


def register_names() -> None:
    """Make the names known in this process, now or when RLlib's table is imported."""
    table = sys.modules.get(TABLE)
    if table is not None:
        _add(table)
    else:
        sys.meta_path.insert(0, _AfterImport())


def _add(table: ModuleType) -> None:
    from parsecrl.algorithms.registry.lookup import usable

    for entry in usable():
        name = vars(type(entry)).get("tune_name")  # one that is inherited is another algorithm's
        if not name:
            continue
        known = table.ALGORITHMS.setdefault(name, functools.partial(_class_and_config, entry))
        if getattr(known, "func", None) is not _class_and_config:
            warnings.warn(
                f"the algorithm {entry.name} has the tune_name {name!r}, by which Tune knows RLlib's own; rename it",
                stacklevel=2,
            )


def _class_and_config(entry: Any) -> tuple[Any, Any]:
    """What an entry of RLlib's table returns: the class, imported now, and its default config."""
    algorithm = entry.trainable()
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
