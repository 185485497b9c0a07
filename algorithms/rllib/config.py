"""RLlib's config of a baseline, from a phase's settings."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.impala import IMPALA
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from parsecrl.algorithms.registry.messages import nearest
from parsecrl.algorithms.registry.settings import BadSetting, blamed_on
from parsecrl.algorithms.registry.user_functions import RAISED, names_code, one_line, own_function
from parsecrl.algorithms.rllib.episode_counts import EpisodeCounts
from parsecrl.algorithms.rllib.runner import BaselineEnvRunner
from parsecrl.algorithms.training.rllib_phase import ENVIRONMENT, env_arguments, place
from parsecrl.algorithms.training.rllib_settings import RECENT_EPISODES

REQUESTS = 10  # that a runner may have waiting: with one, the weights after a restart would not reach it in time


def algorithm_class(name: str) -> type[Algorithm]:
    """Find an algorithm of RLlib.

    Args:
        name: As RLlib has it, or module:name of a class of users' own.

    Returns:
        A subclass of RLlib's Algorithm.

    Raises:
        BadSetting: There is none, or it is one of parsecrl's, which a spec names as its `algorithm`.
    """
    with blamed_on("class"):
        if names_code(name):
            found = own_function(name, "class", ALGORITHMS)
        else:
            rllibs = [known for known, load in ALGORITHMS.items() if not hasattr(load, "func")]  # ours are partials
            if name not in rllibs:
                raise ValueError(
                    f"must be one of {', '.join(rllibs)}, or module:name, got {name!r}{nearest(name, rllibs)}"
                )
            found = ALGORITHMS[name]()[0]
        if not (isinstance(found, type) and issubclass(found, Algorithm)):
            raise ValueError(f"must name a subclass of ray.rllib.algorithms.Algorithm, got {found!r}; correct it")
    return found


def baseline_config(settings: Mapping[str, Any]) -> AlgorithmConfig:
    """The algorithm's config with the settings of a phase, of no task yet.

    Args:
        settings: Plain, with `class`, and where they are set `config`, `model` and `decisions_per_iteration`.

    Returns:
        RLlib's config; nothing of it is validated yet.

    Raises:
        BadSetting: A key is unknown, or a value is refused.
    """
    made = algorithm_class(settings["class"])
    config = made.get_default_config()
    _check_keys("config", settings.get("config", {}), _training_keys(type(config)))
    with blamed_on("config"):
        config.training(**settings.get("config", {}))
    if model := settings.get("model"):
        _check_keys("model", model, [field.name for field in dataclasses.fields(DefaultModelConfig)])
        config.rl_module(model_config=DefaultModelConfig(**model))
    return config


def trial_config(settings: Mapping[str, Any], env: Mapping[str, Any], resources: Mapping[str, Any], seed: int) -> Any:
    """The whole config of a trial, validated.

    Args:
        settings: As `baseline_config` takes them.
        env: The spec's group `env`.
        resources: The spec's group `resources`.
        seed: Of everything random.

    Returns:
        RLlib's config.

    Raises:
        BadSetting: As `baseline_config`, or RLlib refuses the whole.
    """
    config = baseline_config(settings)
    config.environment(ENVIRONMENT, env_config=env_arguments(env))
    config.framework("torch")
    place(config, resources)
    # An asynchronous algorithm's rollouts would be that many updates old.
    requests = 1 if issubclass(config.algo_class, IMPALA) else REQUESTS
    config.env_runners(max_requests_in_flight_per_env_runner=requests)
    config.reporting(
        metrics_num_episodes_for_smoothing=RECENT_EPISODES,
        min_time_s_per_iteration=0,
        min_sample_timesteps_per_iteration=settings.get("decisions_per_iteration", 1000),
    )
    config.callbacks(EpisodeCounts)
    if config.env_runner_cls is None:  # RLlib's SingleAgentEnvRunner
        config.env_runners(env_runner_cls=BaselineEnvRunner)
    config.debugging(seed=seed, log_sys_usage=False, log_level="ERROR")
    with blamed_on("config"), _without_warnings():
        config.validate()
    return config


def module_of(settings: Mapping[str, Any], observation: gymnasium.Space, action: gymnasium.Space) -> Any:
    """A new RLModule of a baseline, for acting alone.

    Args:
        settings: As `baseline_config` takes them.
        observation: As the border of `parsecrl.envs` has it.
        action: The same.

    Returns:
        The module, in evaluation mode, with random weights.
    """
    config = baseline_config(settings).framework("torch")
    module = config.get_rl_module_spec(spaces={"default_policy": (observation, action)}, inference_only=True).build()
    return module.eval()


def check_spaces(settings: Mapping[str, Any], obs_size: int, action_size: int) -> None:
    """Make a policy for a task, and forget it.

    Args:
        settings: As `baseline_config` takes them.
        obs_size: Numbers of an observation.
        action_size: Numbers of an action, which is continuous.

    Raises:
        BadSetting: The algorithm has no policy for such a task.
    """
    spaces = gymnasium.spaces.Box(-np.inf, np.inf, (obs_size,)), gymnasium.spaces.Box(-1, 1, (action_size,))
    name = settings["class"]
    try:
        with _without_warnings():
            module_of(settings, *spaces)
    except RAISED as error:
        why = one_line(error.__context__ or error)  # where RLlib raises anew its sentence is of something else
        raise BadSetting(
            "class", f"{name!r} makes no policy for {action_size} continuous actions ({why}); take another, such as SAC"
        ) from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """RLlib warns in three lines of its interface's age, and of an older one that it tries for a module."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _training_keys(config: type[AlgorithmConfig]) -> list[str]:
    """What `training` takes by name, the algorithm's own first."""
    own = (vars(kind).get("training") for kind in config.__mro__)
    names = (name for method in own if method for name in inspect.signature(method).parameters)
    return [name for name in dict.fromkeys(names) if name not in {"self", "kwargs"}]


def _check_keys(group: str, given: Mapping[str, Any], known: list[str]) -> None:
    for key in given:
        if key not in known:
            raise BadSetting(f"{group}.{key}", f"is not a known key{nearest(key, known) or ': ' + ', '.join(known)}")
