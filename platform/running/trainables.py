"""Algorithms as Tune trains them: what the platform adds to any trainable."""

from __future__ import annotations

from functools import cache
from typing import Any

from parsecrl.algorithms.registry.lookup import RegistryError, algorithm_named
from parsecrl.algorithms.training.lasting_imports import lasting_imports
from parsecrl.algorithms.training.user_errors import causes_kept
from parsecrl.platform.metrics.table import CountsNothing, ReportsMetrics
from parsecrl.platform.runs import inner_paths
from parsecrl.platform.storage import Location, of_tune


class _KeepsCauses:
    """Put before an algorithm: what would fail the same way again says so, in a sentence. FaultRules reads that."""

    def __init__(self, *arguments: Any, **options: Any):
        with causes_kept():
            super().__init__(*arguments, **options)

    def step(self) -> dict[str, Any]:
        with causes_kept():
            return super().step()  # type: ignore[misc]

    def save_checkpoint(self, checkpoint_dir: str) -> Any:
        with causes_kept():
            return super().save_checkpoint(checkpoint_dir)  # type: ignore[misc]

    def load_checkpoint(self, checkpoint: Any) -> None:
        with causes_kept():
            super().load_checkpoint(checkpoint)  # type: ignore[misc]


class _InRunFolder:
    """Put before an algorithm: what its config names in the run folder is looked for where the folder is now."""

    driven: Location | None = None  # in a driver's process: the run folder of its trials

    def __init__(self, config: Any = None, *arguments: Any, **options: Any):
        if (storage := options.get("storage")) is not None:
            config = inner_paths.absolute(config, of_tune(storage.storage_fs_path, storage.storage_filesystem))
        super().__init__(config, *arguments, **options)  # type: ignore[call-arg]

    @classmethod
    def default_resource_request(cls, config: Any) -> Any:
        """As Tune asks in the driver's process."""
        if cls.driven is not None:
            config = inner_paths.absolute(config, cls.driven)
        return super().default_resource_request(config)  # type: ignore[misc]


@cache
def trainable_of(algorithm: str) -> Any:
    """The class of a trial, with what the platform adds.

    It has the name of the algorithm's own class, which is written into checkpoints. It is pickled by reference: as an
    attribute of this module, see `__getattr__`.

    Args:
        algorithm: Its name, or module:NAME.

    Returns:
        A subclass of the algorithm's own class, the same at every call.

    Raises:
        RegistryError: There is no such algorithm, or its class is made inside a function.
    """
    with lasting_imports():
        own: Any = algorithm_named(algorithm).trainable()
    if "<locals>" in own.__qualname__:  # pickled by value, its methods would lose their super()
        raise RegistryError(
            f"trainable() of {algorithm!r} must return a class of a module's top level, got {own!r}; move it"
        )
    reference = algorithm.replace(".", "/")  # a dot would name an attribute of an attribute
    place = {"__module__": __name__, "__qualname__": reference, "__doc__": own.__doc__}
    return type(own.__name__, (_KeepsCauses, _InRunFolder, ReportsMetrics, own, CountsNothing), place)


def __getattr__(reference: str) -> Any:
    """`trainable_of`, for pickle, which looks a class up by its module and qualified name."""
    try:
        return trainable_of(reference.replace("/", "."))
    except ValueError as error:
        raise AttributeError(f"{__name__} has no attribute {reference!r}: {error}") from None
