"""What the algorithms of a pipeline share: settings common to phases, top-level results, readable checkpoints."""

from __future__ import annotations

import copy
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import ray
import torch
from ray import cloudpickle
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.checkpoints import Checkpointable
from torch import nn
from typing_extensions import Self

from parsecrl.algorithms.checkpoints.agent import save_agent
from parsecrl.algorithms.checkpoints.files import Folder, NotKept, check_local
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.controllers.acting import describe_space
from parsecrl.algorithms.models import RSSM
from parsecrl.algorithms.registry.algorithm import UNTRAINED
from parsecrl.algorithms.registry.settings import Settings
from parsecrl.algorithms.training.evaluation import Evaluation, returns_of_runners
from parsecrl.algorithms.training.experience import Experience
from parsecrl.algorithms.training.measurements import Measurements, PlanTime
from parsecrl.algorithms.training.rllib_private import registered_creator
from parsecrl.algorithms.training.rllib_settings import RECENT_EPISODES, SettingsConfig, learner_terms

ENVIRONMENT = "parsecrl.envs:parsecrl/Control-v0"
LIMIT = "env_max_episode_steps"  # its word for max_episode_steps, of which gymnasium.make makes a limit of decisions
SPACES = ("observation", "action")
# RLlib's name for what it clips, and ours for what we clip ourselves; the group is the optimiser.
GRADIENT_NORM = re.compile(r"gradients_(?P<rllib>.+)_global_norm|(?P<own>.+)_gradient_norm")


@dataclass(frozen=True)
class UnnamedTask:
    """An environment that no id names: a class, or a creator that was registered with Tune. name: for people."""

    name: str
    create: Callable[[EnvContext], Any]

    def __call__(self, arguments: dict[str, Any]) -> Any:
        """The environment, with these arguments."""
        return self.create(EnvContext(arguments, worker_index=0))

    def __repr__(self) -> str:
        return self.name


class PhaseConfig(SettingsConfig):
    """The settings that the phases of a pipeline have in common.

    `.environment(...)` takes the id of a task with bounded continuous actions (Gymnasium's or Shimmy's), a class, or
    the name of a creator that was registered with Tune. env_config: the task's own arguments; and `action_repeat`,
    simulator steps per decision, and `max_episode_steps`, simulator steps after which an episode is truncated.
    Observations become float32 vectors and actions [-1, 1] (parsecrl/Control-v0).

    Args:
        algo_class: What `.build_algo()` makes.
    """

    env: Any
    env_config: dict[str, Any]
    start_from: Folder | None
    start_from_trusted: bool
    algorithm_name: str  # what agent.json says: the phase's `algorithm`
    world_model: dict[str, Any]
    controller: dict[str, Any]
    decoder: dict[str, Any]
    value: dict[str, Any] | str | None
    evaluation_every: int | None
    evaluation_episodes: int

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        self.start_from_trusted = False
        self.algorithm_name = ""
        self.env_runners(sample_timeout_s=1800.0, max_requests_in_flight_per_env_runner=1)

    @classmethod
    def from_phase(
        cls, settings: Settings, env: dict[str, Any], resources: Mapping[str, Any], seed: int, start_from: Folder | None
    ) -> Self:
        """The config of a spec's phase: environment, runners and learners, then the algorithm's settings.

        Args:
            settings: A phase, or the settings of `cls.settings` alone.
            env: The spec's group `env`.
            resources: The spec's group `resources`.
            seed: Of everything random.
            start_from: The checkpoint that the phase starts from.

        Returns:
            The config; nothing of it is validated yet.
        """
        config = cls()
        config.environment(ENVIRONMENT, env_config=env_arguments(env))
        place(config, resources)
        config.debugging(seed=seed)
        config.algorithm_name = getattr(settings, "algorithm", config.algorithm_name)
        own = settings.plain()
        config.set_settings({name: own.get(name) for name in config.settings.model_fields})
        config.start_from = start_from
        return config

    def trust_start_from(self) -> Self:
        """Let the code run that the agent of `start_from` names as module:name, as `load_agent(trust=True)` does."""
        self.start_from_trusted = True
        return self

    @property
    def action_repeat(self) -> int:
        """Simulator steps per decision."""
        return self.env_config.get("action_repeat", 1)

    def validate(self) -> None:
        """Put the project's own task around the one that was given, then check as RLlib does."""
        if isinstance(self.start_from, str) and "://" not in self.start_from:
            self.start_from = Path(self.start_from)
        self._wrap_task()
        super().validate()

    def _wrap_task(self) -> None:
        """Put parsecrl/Control-v0, which RLlib makes by its id, around the task that was given."""
        if self.env is None:
            return
        given = dict(self.env_config)
        if self.env not in (ENVIRONMENT, ENVIRONMENT.partition(":")[2]):
            given["env_id"] = self.env
        elif "env_id" not in given:
            raise ValueError(f"{self.env} needs a task; give .environment() the task's own id in its place")
        env = {"id": named_task(given.pop("env_id")), "action_repeat": given.pop("action_repeat", 1)}
        limits = [given.pop(key, None) for key in (LIMIT, "max_episode_steps")]
        env["max_episode_steps"] = next((limit for limit in limits if limit is not None), None)
        env["kwargs"] = {**(given.pop("kwargs", None) or {}), **given}
        self.env, self.env_config = ENVIRONMENT, env_arguments(env)

    def task_description(self) -> dict[str, Any]:
        """The group `env` of agent.json; `id` is "" where none names the task, and `made_by` says what made it."""
        given = self.env_config
        task, arguments = given["env_id"], given.get("kwargs")
        described = {"id": task, "action_repeat": self.action_repeat}
        if LIMIT in given:
            described["max_episode_steps"] = given[LIMIT]
        if isinstance(task, UnnamedTask):
            return {**described, "id": "", "made_by": task.name}
        if not arguments:
            return described
        try:
            json.dumps(arguments)
        except TypeError:
            return {**described, "id": "", "made_by": f"{task} with arguments that JSON cannot hold"}
        return {**described, "kwargs": arguments}


def place(config: AlgorithmConfig, resources: Mapping[str, Any]) -> None:
    """Set how many runners and learners a config's trials have, and what each takes.

    Args:
        config: Changed.
        resources: The spec's group `resources`.
    """
    config.env_runners(
        num_env_runners=resources.get("num_env_runners", 0),
        num_envs_per_env_runner=resources.get("num_envs_per_env_runner", 1),
        num_cpus_per_env_runner=resources.get("num_cpus_per_env_runner", 1),
        num_gpus_per_env_runner=resources.get("num_gpus_per_env_runner", 0),
        sample_timeout_s=resources.get("sample_timeout_s", 1800.0),
    )
    main_cpus = resources.get("num_cpus_for_main_process", 1)
    num_learners = resources.get("num_learners", 0)
    config.learners(
        num_learners=num_learners,
        # A local learner runs in the main process; RLlib asks for the larger of the two.
        num_cpus_per_learner=1 if num_learners else main_cpus,
        num_gpus_per_learner=resources.get("num_gpus_per_learner", 0),
    )
    config.resources(num_cpus_for_main_process=main_cpus)


def env_arguments(env: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a spec's group `env` into what parsecrl/Control-v0 takes, as env_config.

    Args:
        env: `id`, and where they are set `action_repeat`, `kwargs` and `max_episode_steps` (simulator steps).

    Returns:
        `env_id`, `action_repeat`, and where they are set `kwargs` and `LIMIT`.
    """
    found = {"env_id": env["id"], "action_repeat": env.get("action_repeat", 1)}
    if env.get("kwargs"):
        found["kwargs"] = dict(env["kwargs"])
    if env.get("max_episode_steps") is not None:
        found[LIMIT] = env["max_episode_steps"]
    return found


def named_task(task: Any) -> str | UnnamedTask:
    """What parsecrl/Control-v0 takes as a task.

    Args:
        task: An id, a class, the name of a creator that was registered with Tune, or an `UnnamedTask`.

    Returns:
        An id as it is; a class or a creator with a name for people.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(task, UnnamedTask):
        return task
    if isinstance(task, str):
        creator = registered_creator(task)
        return UnnamedTask(task, creator) if creator else task
    if callable(task):
        return UnnamedTask(f"{task.__module__}:{task.__qualname__}", task)
    raise ValueError(f"an environment must be an id, a class or a registered name, got {task!r}")


def simulator_steps(episode: SingleAgentEpisode, action_repeat: int) -> int:
    """Count the simulator steps of an episode, or of a piece of one.

    Args:
        episode: With infos, which parsecrl/Control-v0 gives "env_steps": fewer at an early end.
        action_repeat: What a decision counts of whose info says nothing.

    Returns:
        The sum over the decisions.
    """
    infos = episode.get_infos()[1:]  # the first came with the observation before any decision
    return sum(int(info.get("env_steps", action_repeat)) for info in infos)


class PhaseMixin:
    """Put before Algorithm: results at top level; agent.json, agent.safetensors and the phase files in checkpoints."""

    # mypy does not know that super() is Algorithm here: hence the ignores.
    counts: dict[str, int]
    config: Any
    world_model: dict[str, Any]  # as agent.json has it
    loss_terms: ClassVar[tuple[str, ...]] = ()  # those of results["losses"] that are losses
    plans: list[PlanTime] = []  # noqa: RUF012 (replaced, never changed) of the last step

    def setup(self, config: Any) -> None:
        """As RLlib's; then check that the agent fits the task."""
        with runners_told(config):
            super().setup(config)  # type: ignore[misc]
        self.measurements = Measurements()
        self.experience = Experience()
        # RLlib's own mean is NaN in an iteration without an episode's end, and joins runners' means without weights.
        self.last_returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        c = self.config
        self.evaluation = Evaluation(c.evaluation_every, c.evaluation_episodes, c.seed or 0)
        self.spaces = self._task_spaces()
        self._check_agent()

    def _task_spaces(self) -> dict[str, Any]:
        """The task's own spaces as agent.json holds them; where only remote runners have the task, it is made once."""
        vector = self.env_runner.env  # type: ignore[attr-defined]
        if vector is None:
            task = gymnasium.make(ENVIRONMENT, **self.config.env_config)
            found = [task.get_wrapper_attr(f"task_{kind}_space") for kind in SPACES]
            task.close()
        else:
            found = [vector.unwrapped.get_attr(f"task_{kind}_space")[0] for kind in SPACES]
        return {kind: describe_space(space) for kind, space in zip(SPACES, found, strict=True)}

    def _check_agent(self) -> None:
        """Raise ValueError unless the settings describe the module's agent: a checkpoint is loaded by these alone."""
        module = self.env_runner.module  # type: ignore[attr-defined]
        agent = getattr(module, "agent", None)
        if agent is None:
            raise ValueError(
                f"an RLModule of {type(self).__name__} must hold its PlanningAgent as `agent`, got "
                f"{type(module).__name__} without one; subclass the module that it replaces"
            )
        c, sizes = self.config, (agent.model.obs_size, agent.model.action_size)
        self.world_model = described_model(agent.model, c.world_model)
        with torch.random.fork_rng(devices=[]):
            described = _parts(PlanningAgent(*sizes, self.world_model, c.controller, c.decoder, c.value))
        own = _parts(agent)
        for name in [*described, *own]:
            got, wanted = (parts.get(name, "nothing") for parts in (own, described))
            if got != wanted:
                raise ValueError(
                    f"no checkpoint of {type(module).__name__} could be loaded: its agent.{name} is {got}, and the "
                    f"settings describe {wanted}; move your class to the top level of a module and name it in the "
                    f"settings: world_model={{'kind': 'module:Class'}}"
                )

    def phase_results(self) -> dict[str, Any]:
        """Counters for the top level of each result; has env_steps."""
        raise NotImplementedError

    @property
    def gathers(self) -> bool:
        """Whether the phase plays in its task; else it learns from data that are there."""
        return True

    def why_untrained(self) -> str:
        """What an update still waits for, and the remedy; asked where `num_updates` of the results is 0."""
        return "nothing was learned from; prolong the phase"

    def save_phase_files(self, folder: str) -> None:
        """Further files of a checkpoint."""

    def restore_phase_files(self, folder: str) -> None:
        """Read what `save_phase_files` wrote."""

    def step(self) -> dict[str, Any]:
        """An iteration of RLlib, and what the run reads of its result: score, losses, measurements."""
        results = super().step()  # type: ignore[misc]
        results["episode_return_mean"] = float(np.mean(self.last_returns)) if self.last_returns else float("nan")
        results.update(self.phase_results())
        if results.get("num_updates") == 0:
            results[UNTRAINED] = self.why_untrained()
        counted = results["env_steps" if self.gathers else "num_updates"]
        results |= self.evaluation.results(  # of whose score Tune and the pipeline keep the best
            counted, results["num_updates"], results["episode_return_mean"], partial(returns_of_runners, self)
        )
        results.update(self.experience.take())
        results["losses"] = learner_terms(results)
        results["measured"] = self._measured(results["losses"])
        if "predicted_reward" in results["measured"]:
            results["predicted_reward"] = results["measured"].pop("predicted_reward")
        return results

    def _measured(self, terms: dict[str, float]) -> dict[str, Any]:
        """As `Measurements.take`, less the single plans; and the losses and gradient norms of the learner's terms."""
        measured = self.measurements.take()
        self.plans = measured.pop("plans", [])
        measured["losses"] = {name: terms[name] for name in self.loss_terms if name in terms}
        norms = ((GRADIENT_NORM.fullmatch(name), value) for name, value in terms.items())
        measured["gradient_norms"] = {found["rllib"] or found["own"]: value for found, value in norms if found}
        return measured

    def agent_description(self) -> dict[str, Any]:
        """agent.json, less the sizes."""
        c = self.config
        return {
            "algorithm": c.algorithm_name or type(self).__name__.lower(),
            "env": c.task_description(),
            "spaces": self.spaces,
            "world_model": self.world_model,
            "controller": c.controller,
            "decoder": c.decoder,
            "value": c.value,
            "env_steps": self.phase_results()["env_steps"],
            "seed": c.seed,
        }

    def current_agent(self) -> PlanningAgent:
        """A copy of the learner's agent on the CPU."""
        agent = copy.deepcopy(self.env_runner.module.agent).cpu().eval()  # type: ignore[attr-defined]
        weights = self.learner_group.get_weights()[DEFAULT_MODULE_ID]  # type: ignore[attr-defined]
        own = {name: torch.as_tensor(value) for name, value in weights.items() if name.startswith("agent.")}
        agent.load_state_dict({name.removeprefix("agent."): value for name, value in own.items()})
        return agent

    def save_to_path(self, path: Any = None, *args: Any, **kwargs: Any) -> str:
        """RLlib's checkpoint in a local folder, with the agent's and the phase's own files."""
        check_local(path)
        saved = super().save_to_path(path, *args, **kwargs)  # type: ignore[misc]
        _forget(self.config.start_from, saved)
        save_agent(saved, self.current_agent(), self.agent_description())
        self.save_phase_files(saved)
        return saved

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Restore RLlib's checkpoint and, where all of it is restored, the phase's own files."""
        check_local(path)
        super().restore_from_path(path, *args, **kwargs)  # type: ignore[misc]
        if kwargs.get("component") is None:
            self.restore_phase_files(str(path))

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state, the phase's counts and its last returns."""
        state = super().get_state(components, not_components=not_components, **kwargs)  # type: ignore[misc]
        if components is None:  # the whole state, not some parts of RLlib's
            state["counts"] = dict(self.counts)
            state["last_returns"] = list(self.last_returns)
            state["evaluation"] = self.evaluation.state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the state of `get_state`."""
        super().set_state(state)  # type: ignore[misc]
        self.counts.update(state.get("counts", {}))
        self.last_returns.extend(state.get("last_returns", []))
        if "evaluation" in state:
            self.evaluation.set_state(state["evaluation"])


@contextmanager
def runners_told(config: AlgorithmConfig) -> Iterator[None]:
    """Within it an algorithm is set up; where all remote runners fail, what their constructors raise is raised.

    RLlib only logs their errors, and then asks for the spaces of a runner that is not there.

    Args:
        config: Of the algorithm.

    Yields:
        Nothing.
    """
    try:
        yield
    except IndexError:
        runner = ray.remote(num_cpus=0)(config.env_runner_cls or SingleAgentEnvRunner)
        ray.get(runner.remote(config=config, worker_index=1, num_workers=1).ping.remote())
        raise


def described_model(model: nn.Module, settings: dict[str, Any]) -> dict[str, Any]:
    """The group world_model of agent.json.

    Args:
        model: The world model that the module has.
        settings: The group world_model of the settings.

    Returns:
        The settings; or, where they ask for an RSSM and the module has a subclass that can be imported, its module:name
        and options.
    """
    kind = type(model)
    is_own = isinstance(model, RSSM) and kind is not RSSM and settings.get("kind", "rssm") == "rssm"
    if not is_own or "<locals>" in kind.__qualname__ or kind.__module__ == "__main__":
        return settings
    options = {name: value for name, value in settings.items() if name != "kind"}
    return {"kind": f"{kind.__module__}:{kind.__qualname__}", "options": options}


class _Forgetful(cloudpickle.CloudPickler):
    """Pickles NotKept in place of a folder."""

    folder: Any

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is type(self.folder) and obj == self.folder:
            return NotKept, ()
        return super().reducer_override(obj)


def _forget(folder: Folder | None, checkpoint: str) -> None:
    """Take a folder out of the arguments that RLlib stores for `from_checkpoint`, of each part of an algorithm."""
    if not folder:
        return
    for file in Path(checkpoint).rglob(Checkpointable.CLASS_AND_CTOR_ARGS_FILE_NAME):
        stored = cloudpickle.loads(file.read_bytes())
        with file.open("wb") as stream:
            pickler = _Forgetful(stream)
            pickler.folder = folder
            pickler.dump(stored)


def _parts(agent: nn.Module) -> dict[str, Any]:
    """Class of each part, and shape of each weight, by name."""
    shapes = {name: list(value.shape) for name, value in agent.state_dict().items()}
    return {name: type(part) for name, part in agent.named_modules() if name} | shapes
