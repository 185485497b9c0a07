"""What describes an algorithm wholly, and where it is found by its name.

An algorithm is an instance of a subclass of `Algorithm`. An installed package registers it by an entry point:

    [project.entry-points."parsecrl.algorithms"]
    mine = "my_package.algorithm:MINE"

or a spec names it where it lies, as `algorithm: my_package.algorithm:MINE`. Neither Ray nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from parsecrl.algorithms.registry.messages import nearest
from parsecrl.algorithms.registry.settings import RUN_KEYS, Settings

if TYPE_CHECKING:
    import pandas as pd
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.tune import Trainable

ENTRY_POINTS = "parsecrl.algorithms"
OWN_PACKAGE = "parsecrl."
# Keys that every phase of a spec has beside its algorithm's settings.
PHASE_KEYS = (
    *("name", "algorithm", "stop", "search", "search_alg", "scheduler", "grace_period", "perturbation_interval"),
    *("num_samples", "checkpoint_every"),
)
TRAIN_KEYS = frozenset({*PHASE_KEYS, "start_from"})  # keys of a phase that no plain trial is told

UNTRAINED = (
    "untrained"  # result key: why there was no update yet; a trial that reaches its phase's end with it has failed
)

ParallelMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # as the built-in map, in order


class StopCondition(NamedTuple):
    """What a phase may end at.

    result_key: The key of a result that counts it. label: The counted things, in the plural, as the status line says.
    """

    result_key: str
    label: str
    meaning: str = ""


# Kinds of task: continuous actions; discrete ones and vectors, the same with a goal in the info of reset, or pictures.
# Continuous actions; vectors to see and any actions; discrete actions towards a goal; pictures.
CONTROL, VECTORS, GOALS, PICTURES = "control", "vectors", "goals", "pictures"
ENV_STEPS = StopCondition("env_steps", "env steps", "simulator steps of the phase")
NUM_UPDATES = StopCondition("num_updates", "updates", "gradient updates")
TIME_S = StopCondition("time_total_s", "s of training", "training time of a trial, in seconds")


class OwnWorld(NamedTuple):
    """A world of a phase's own, which is not the spec's `env`.

    group: The settings that describe it. make: Makes the environment as training gets it. bounded: Whether the
    algorithm itself ends episodes that go on.
    """

    group: Mapping[str, Any]
    make: Callable[[], Any]
    bounded: bool = False


@dataclass(frozen=True)
class Episodes:
    """Episodes of a random policy that a phase's trials train on, collected before they begin.

    folder: Holds, or will hold, the episodes. env_config: `id` of the world and its arguments. num_episodes: For
    training, each of at most max_steps. num_held_out: For tests, each of exactly held_out_steps. num_workers: At most
    so many processes collect.
    """

    folder: str
    env_config: Mapping[str, Any]
    num_episodes: int
    max_steps: int
    num_held_out: int
    held_out_steps: int
    seed: int
    num_workers: int


class Algorithm:
    """An algorithm: settings, trainable, stop conditions, and what is made of its trials.

    `phase` below is a phase of a spec: the algorithm's settings, and `name`, `start_from`, `search`, `stop`.

    name: As a spec's `algorithm` says it. settings: Names, defaults, ranges, meanings. stop_conditions: By the key of
    `stop`; `time_s` is always there. acts: The checkpoints hold an agent that is evaluated in the spec's environment.
    checked: The settings that `check` looks at, by their first keys. keeps_controller: Its agent plans with the
    controller of the phase that it starts from. agent_file: The file of a checkpoint that `load_policy` reads.
    tune_name: By which Tune and RLlib know the trainable of an RLlib algorithm. plays: The kind of task: CONTROL,
    VECTORS, GOALS or PICTURES; "" where users bring none.
    """

    name: ClassVar[str]
    settings: ClassVar[type[Settings]]
    stop_conditions: ClassVar[Mapping[str, StopCondition]]
    acts: ClassVar[bool] = False
    keeps_controller: ClassVar[bool] = False
    agent_file: ClassVar[str] = ""
    tune_name: ClassVar[str] = ""
    plays: ClassVar[str] = ""
    checked: ClassVar[frozenset[str]] = frozenset()

    def trainable(self) -> type[Trainable]:
        """The class of a trial. Ray is imported here, not above."""
        raise NotImplementedError

    def make_config(
        self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any], seed: int, start_from: str | None
    ) -> AlgorithmConfig | dict[str, Any]:
        """The config of a trial: RLlib's, or a dict for a plain trainable, which is the default.

        Args:
            phase: The settings, of which a plain trial gets all.
            env: The spec's group `env`.
            resources: The spec's group `resources`.
            seed: Of the run; a plain trial gets it as `run_seed`, to be mixed with its own `seed`.
            start_from: The checkpoint that the trials start from.

        Returns:
            The config.
        """
        own = {key: value for key, value in phase.plain().items() if key not in TRAIN_KEYS}
        return {**own, "run_seed": seed, "env": env}

    def processes(self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any]) -> list[dict[str, float]]:
        """What each process of a trial needs, all on one node, by the names of Ray's resources."""
        config = self.make_config(phase, env, resources, 0, None)
        if isinstance(config, dict):
            return [plain_resources(config)]
        request: Any = self.trainable().default_resource_request(config)
        return request.bundles

    def default_stop(self, settings: Any) -> dict[str, float] | None:
        """The stop conditions of a phase that states none; None where a phase must state some."""
        return None

    def inherit(self, phase: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        """The keys of a phase as the spec states them, with what it takes over from `source`, where it starts."""
        return phase

    def check_start(self, phase: Any, source: Any, earlier: Mapping[str, Any]) -> None:
        """Raise ValueError unless `phase` can start from a checkpoint of `source`. earlier: phases by name."""
        raise ValueError(
            f"phases.{phase.name}.start_from cannot hand an agent from {source.algorithm} to {phase.algorithm}, "
            f"got {phase.start_from!r}; leave it out"
        )

    def check_resources(self, phase: Any, resources: Any) -> None:
        """Raise ValueError where the spec's `resources` do not suit `phase`."""

    def check(self, phase: Any) -> None:
        """Make what the settings name, before anything runs.

        A phase that searches over `checked` settings is checked with every combination of their values.

        Args:
            phase: Of a spec, with one value for each setting of `checked`.

        Raises:
            ValueError: Something cannot be made; `BadSetting` where one key is at fault.
        """

    def world(self, phase: Any) -> OwnWorld | None:
        """The world that the settings name as `world`; None where there is none. It is played before anything runs."""
        return None

    def check_task(self, phase: Any, obs_size: int, action_size: int, earlier: Mapping[str, Any]) -> None:
        """Make what acts in a task of these sizes, before anything runs. Raises ValueError. earlier: phases by name."""

    def check_environment(self, phase: Any, env: Any) -> None:
        """Look at the spec's environment, made and reset, before anything runs. Raises ValueError."""

    def task_warnings(self, phase: Any, terminates: bool) -> list[str]:
        """What of a phase does not suit its task, as far as random episodes show. terminates: one did."""
        return []

    def resolve(self, phase: Any, data_folder: str) -> Any:
        """The phase with what the run decides. data_folder: a folder of the phase in the run."""
        return phase

    def episodes(self, phase: Any) -> Episodes | None:
        """What is to be collected before the trials of a resolved phase begin."""
        return None

    def load_policy(self, folder: Any, seed: int, trust: bool | Collection[str]) -> tuple[Any, dict[str, Any]]:
        """The trained policy of a checkpoint with an `agent_file`, and the checkpoint's description; without Ray.

        Args:
            folder: A path, or a folder elsewhere (`algorithms.checkpoints.files`).
            seed: Of what the policy draws.
            trust: Whether code that the checkpoint names may run, or the names that may.

        Returns:
            A `Policy` (`algorithms.controllers.acting`), and a description with the task's `spaces`.
        """
        raise NotImplementedError

    def analyse(self, trials: Sequence[Any], parallel_map: ParallelMap) -> dict[str, pd.DataFrame]:
        """Tables by name of trials whose checkpoints hold no agent.

        Args:
            trials: Each has `name`, `checkpoint` (its folder), `parameters` (searched values by dotted key), `config`.
            parallel_map: As the built-in map; each call is a task of its own.

        Returns:
            What `report` shows.
        """
        raise NotImplementedError

    def report(self) -> Any:
        """The `StudyReport` of the tables. Matplotlib is imported here, not above."""
        return None


def plain_resources(config: Mapping[str, Any]) -> dict[str, float]:
    """What a plain trial needs.

    Args:
        config: Of the trial; `num_cpus_per_trial` (default 1) and `num_gpus_per_trial` (default 0) are read.

    Returns:
        Amounts by the names of Ray's resources, CPU and GPU.
    """
    return {"CPU": config.get("num_cpus_per_trial", 1), "GPU": config.get("num_gpus_per_trial", 0)}


# --- lookup ---------------------------------------------------------------------------------------------------------


class RegistryError(ValueError):
    """An algorithm that is not found, or is not one."""


@cache
def registered() -> dict[str, EntryPoint]:
    """Name -> entry point, parsecrl's own where a package shadows one; nothing is imported."""
    return {name: points[0] for name, points in _by_name().items()}


@cache
def _by_name() -> dict[str, list[EntryPoint]]:
    """Name -> its different entry points, parsecrl's own first."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: not is_own(point.value)):
        points = found.setdefault(point.name, [])
        if point.value not in (other.value for other in points):
            points.append(point)
    return found


def is_own(module: str) -> bool:
    """Whether code is parsecrl's.

    Args:
        module: A module, or module:NAME.

    Returns:
        True for modules of this package.
    """
    return module.startswith(OWN_PACKAGE)


@cache
def algorithm_named(name: str) -> Algorithm:
    """Find an algorithm, importing it.

    Args:
        name: Registered, or module:NAME.

    Returns:
        The algorithm, the same object at every call.

    Raises:
        RegistryError: There is none, it cannot be imported, lacks a part, or shadows another's name.
    """
    points = registered()
    if name in points:
        mine, *others = _by_name()[name]
        if others:
            raise RegistryError(
                f"the entry point {_said(others[0])} shadows the algorithm {name!r} of {mine.value}; "
                f"give it another name, or uninstall its package"
            )
        return _loaded(mine, f"the entry point {_said(mine)}")
    if ":" not in name:
        raise RegistryError(f"must be one of {', '.join(points)}, or module:NAME, got {name!r}{nearest(name, points)}")
    return _loaded(EntryPoint(name, name, ENTRY_POINTS), f"module:NAME {name!r}")


def algorithms() -> dict[str, Algorithm]:
    """Every registered algorithm by its name. Raises RegistryError as `algorithm_named` does."""
    return {name: algorithm_named(name) for name in registered()}


def usable() -> list[Algorithm]:
    """Every registered algorithm that can be imported, parsecrl's own first."""
    found = []
    for name in sorted(registered(), key=lambda name: not is_own(registered()[name].value)):
        with suppress(RegistryError):
            found.append(algorithm_named(name))
    return found


def _loaded(point: EntryPoint, said: str) -> Algorithm:
    module, _, attribute = point.value.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module's code does
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RegistryError(
            f"{said} cannot be imported ({reason}); put its package on the path of every node, and check its name"
        ) from error
    lacks = _lacks(found)
    if lacks:
        raise RegistryError(f"{said} {lacks}; see parsecrl.algorithms.registry.algorithm")
    own = point.name if point.name == point.value else None  # what module:NAME names goes by that
    if own is None and found.name != point.name:
        raise RegistryError(f"{said} must have the name of its algorithm, {found.name!r}; rename one of them")
    if own is not None and found.name in registered():
        raise RegistryError(
            f"{said} shadows the registered algorithm {found.name!r}; give it another name, or say "
            f"algorithm: {found.name}"
        )
    return found


def _lacks(found: Any) -> str:
    """What keeps an object from being an algorithm; empty if nothing does."""
    if not isinstance(found, Algorithm):
        kind = found.__name__ if isinstance(found, type) else f"a {type(found).__name__}"
        return f"must be an instance of a subclass of Algorithm, got {kind}"
    if not isinstance(getattr(found, "name", None), str):
        return "must have a name, a string"
    settings = getattr(found, "settings", None)
    if not (isinstance(settings, type) and issubclass(settings, Settings)):
        return f"must have settings, a subclass of Settings, got {settings!r}"
    taken = [key for key in (*PHASE_KEYS, *sorted(RUN_KEYS)) if key in settings.model_fields]
    if taken:
        return f"has a setting {taken[0]!r}, which every phase or run has itself; rename the setting"
    conditions = getattr(found, "stop_conditions", None)
    if not (isinstance(conditions, Mapping) and conditions):
        return f"must have stop_conditions, a mapping with one key or more, got {conditions!r}"
    if not all(isinstance(condition, StopCondition) for condition in conditions.values()):
        return f"must have stop_conditions of StopCondition values, got {dict(conditions)!r}"
    parts = ["trainable"] if found.acts else ["trainable", "analyse"]
    parts += ["load_policy"] if found.agent_file else []
    for part in parts:
        if getattr(type(found), part) is getattr(Algorithm, part):
            return f"must define {part}()"
    return ""


def _said(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if getattr(point, "dist", None) else ""  # type: ignore[union-attr]
    return f"{point.name} = {point.value}{package}"
