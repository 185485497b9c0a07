"""What describes an algorithm wholly: an instance of a subclass of `Algorithm`. Neither Ray nor torch is imported here.

`lookup` finds it by its name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from parsecrl.algorithms.registry.settings import Settings
from parsecrl.algorithms.registry.user_functions import RAISED, is_own, one_line
from parsecrl.algorithms.registry.workload import Stage, Workplace

if TYPE_CHECKING:
    import pandas as pd
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.tune import Trainable

# Keys that every phase of a spec has beside its algorithm's settings.
PHASE_KEYS = (
    *("name", "algorithm", "stop", "search", "search_alg", "scheduler", "grace_period", "perturbation_interval"),
    *("num_samples", "checkpoint_every"),
)
TRAIN_KEYS = frozenset({*PHASE_KEYS, "start_from"})  # keys of a phase that no plain trial is told

UNTRAINED = (
    "untrained"  # result key: why there was no update yet; a trial that reaches its phase's end with it has failed
)

# Result keys of evaluations while a phase trains: the mean return, NaN where there was none; and of the last one
# `num_updates`, -1 before the first, and the mean return, NaN before the first.
EVALUATION, EVALUATED_UPDATES, EVALUATED_RETURN = "evaluation_return_mean", "evaluated_updates", "evaluated_return"

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
TIME_KEY, TIME_S = "time_s", StopCondition("time_total_s", "s of training", "training time of a trial, in seconds")


class OwnWorld(NamedTuple):
    """A world of a phase's own, which is not the spec's `env`.

    group: The settings that describe it. make: Makes the environment as training gets it. bounded: Whether the
    algorithm itself ends episodes that go on.
    """

    group: Mapping[str, Any]
    make: Callable[[], Any]
    bounded: bool = False


class PlayedTask(NamedTuple):
    """What random episodes show of a task.

    name: For messages. terminates: Whether one terminated. obs_rms: Root mean square of the observations' entries.
    """

    name: str
    terminates: bool
    obs_rms: float


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

    def __init_subclass__(cls, **options: Any):
        """Let what the methods of other packages raise or return by mistake be said in a sentence."""
        super().__init_subclass__(**options)
        for name, kinds in RETURNS.items() if not is_own(cls.__module__) else ():
            if inspect.isfunction(method := vars(cls).get(name)):
                setattr(cls, name, _blamed(method, f"{name}() of {cls.__module__}:{cls.__qualname__}", kinds))

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
        if not hasattr(config, "build_algo"):
            raise ValueError(f"make_config() of {self.name} must return RLlib's config or a dict, got {config!r}")
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

    def task_warnings(self, phase: Any, task: PlayedTask) -> list[str]:
        """What of a phase does not suit its task, the spec's or its own world, as sentences."""
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

    def gathered(self, folder: Any) -> Any:
        """What a trial has seen until a checkpoint, for `parsec export`.

        Args:
            folder: A path, or a folder elsewhere (`algorithms.checkpoints.files`).

        Returns:
            A `Dataset` (`algorithms.offline_data.episodes`); `about` says of which task.

        Raises:
            ValueError: There is no replay.
        """
        raise ValueError(f"checkpoints of {self.name} hold no replay")

    def played(self, folder: Any, seeds: Sequence[int], trust: bool) -> Any:
        """Episodes of a checkpoint's agent in a world of the trial's own, for `parsec export --episodes`.

        Args:
            folder: A path, or a folder elsewhere (`algorithms.checkpoints.files`).
            seeds: Of the resets.
            trust: Whether code that the checkpoint names may run.

        Returns:
            A `Dataset`, as of `gathered`.

        Raises:
            ValueError: There is no such agent.
        """
        raise ValueError(f"checkpoints of {self.name} hold no agent that plays; leave --episodes out")

    def stage(self, phase: Any, work: Workplace, earlier: Mapping[str, Any]) -> Stage | None:
        """What a trial asks of a cluster, for `parsec capacity`.

        Args:
            phase: Of a spec.
            work: Where it is done.
            earlier: Phases by name.

        Returns:
            The queues' view of the trial; None where that is not known.

        Raises:
            ValueError: It is not known of these settings.
        """
        return None

    def decision_s(self, phase: Any, work: Workplace, batch: int, earlier: Mapping[str, Any]) -> float:
        """How long a decision of an evaluation takes; asked where `stage` is known.

        Args:
            phase: Of a spec.
            work: Where it is done.
            batch: Episodes at a time.
            earlier: Phases by name.

        Returns:
            Seconds, a share of what is done for all of the batch in it.
        """
        return work.acting_s

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


# What methods may return. `analyse` is not here: a run keeps its traceback in a file.
_NOTHING = type(None)
RETURNS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("check_start", "check_resources", "check", "check_task", "check_environment"), (object,)),
    **{"trainable": (type,), "make_config": (object,), "processes": (list,), "default_stop": (dict, _NOTHING)},
    **{"inherit": (dict,), "world": (OwnWorld, _NOTHING), "task_warnings": (list,), "resolve": (Settings,)},
    **{"episodes": (Episodes, _NOTHING), "load_policy": (tuple,), "report": (object,)},
    **{"gathered": (tuple,), "played": (tuple,), "stage": (Stage, _NOTHING), "decision_s": (float,)},
}


def _blamed(method: Callable[..., Any], said: str, kinds: tuple[type, ...]) -> Callable[..., Any]:
    """The method, whose mistakes are ValueErrors of one sentence; those that it raises itself are its own words."""

    @functools.wraps(method)
    def told(*arguments: Any, **options: Any) -> Any:
        try:
            found = method(*arguments, **options)
        except ValueError:
            raise
        except RAISED as error:
            raise ValueError(f"{said} raised {one_line(error)}; correct it") from error
        if not isinstance(found, kinds):
            wanted = " or ".join(kind.__name__.replace("NoneType", "None") for kind in kinds)
            raise ValueError(f"{said} must return {wanted}, got {found!r}; `parsec docs plugins` has the protocol")
        return found

    return told
