"""An RLlib config whose own settings are a model: `.training(**settings)` with checked names and ranges."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import LEARNER_RESULTS
from ray.tune.search.sample import Domain
from typing_extensions import Self

from parsecrl.algorithms.registry.messages import nearest
from parsecrl.algorithms.registry.settings import Settings

# What RLlib's own training() takes, and what of it has an effect on these algorithms.
RLLIB_NAMES = frozenset(
    name
    for config in (AlgorithmConfig, PPOConfig)
    for name in inspect.signature(config.training).parameters
    if name not in {"self", "kwargs"}
)
WITH_EFFECT = frozenset(
    {
        *("grad_clip", "grad_clip_by", "learner_class", "learner_connector", "learner_config_dict"),
        "add_default_connectors_to_learner_pipeline",
    }
)
INSTEAD = {  # RLlib's name -> what settings, or the end of their names, say in its place
    "lr": "learning_rate",
    "gamma": "discount",
    "lambda_": "gae_lambda",
    "clip_param": "clip",
    "num_epochs": "passes",
    "entropy_coeff": "entropy_weight",
    "train_batch_size": "batch_size",
    "train_batch_size_per_learner": "batch_size",
    "minibatch_size": "minibatches",
    "replay_buffer_config": "replay_capacity",
}
RECENT_EPISODES = 10  # whose mean return is the score
FROM_STATE = frozenset({"class", "worker_index"})  # attributes that RLlib adds to configs of its own making
FROM_DICT = ("model", "optimizer", "replay_buffer_config")  # RLlib hands these to training() when it reads a dict
TO_EVALUATION = "evaluation_"  # RLlib hands to evaluation() what begins so


class SettingsConfig(AlgorithmConfig):
    """Each setting of `settings` is an attribute; groups are plain dicts with all their keys.

    Args:
        algo_class: What `.build_algo()` makes.

    Attributes:
        settings: Names, defaults, ranges.
        attributes: Setting -> attribute, where RLlib has one of the setting's name.
        elsewhere: Setting -> the method that sets it in Python.
    """

    settings: ClassVar[type[Settings]]
    attributes: ClassVar[Mapping[str, str]] = {}
    elsewhere: ClassVar[Mapping[str, str]] = {}

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class)
        self.framework("torch")
        self.env_runners(num_env_runners=0)
        self.reporting(
            metrics_num_episodes_for_smoothing=RECENT_EPISODES,
            min_time_s_per_iteration=0,
            min_sample_timesteps_per_iteration=0,
            min_train_timesteps_per_iteration=0,
        )
        self.debugging(log_sys_usage=False, log_level="ERROR")
        self.set_settings(self.settings.defaults())

    def training(self, **settings: Any) -> Self:  # type: ignore[override]
        """Set some of the algorithm's settings.

        Args:
            settings: By the names of `settings`, which `parsec specs --keys` prints with ranges and meanings. A group
                takes a dict; its other keys get their defaults. Tune's search objects are checked when a trial begins.
                Of RLlib's own names those that have an effect are taken: `grad_clip`, `grad_clip_by`, `learner_class`,
                `learner_connector`, `learner_config_dict`, `add_default_connectors_to_learner_pipeline`.

        Returns:
            The config itself.

        Raises:
            ValueError: A name is unknown or has no effect here, or a value is out of range.
        """
        rllibs = {name: settings.pop(name) for name in WITH_EFFECT & settings.keys()}
        for name in settings:
            if name in self.elsewhere:
                raise ValueError(f"{name} is not set by training(); use {self.elsewhere[name]}")
            if name not in self.settings.model_fields and name in RLLIB_NAMES:
                raise ValueError(f"{name} is RLlib's, and has no effect on {self._said}; {self._instead(name)}")
        fixed = {name: value for name, value in settings.items() if not is_searched(value)}
        self.set_settings(settings | self.settings.each_checked(fixed))
        super().training(**rllibs)
        return self

    def _instead(self, name: str) -> str:
        end = INSTEAD.get(name, name)
        own = [field for field in self.settings.model_fields if field == end or field.endswith(f"_{end}")]
        return f"set {' or '.join(own)}" if own else "leave it out"

    @property
    def _said(self) -> str:
        return type(self).__name__.removesuffix("Config")

    def set_settings(self, values: Mapping[str, Any]) -> None:
        """Set attributes by the settings' names; nothing is checked."""
        for name, value in values.items():
            setattr(self, self.attributes.get(name, name), value)

    def update_from_dict(self, config_dict: Any) -> Self:
        """As RLlib's; what it would hand to a method that does not know it is set as it is."""
        kept = (*FROM_DICT, *(name for name in self.settings.model_fields if name.startswith(TO_EVALUATION)))
        for name in kept:
            if name in config_dict:
                setattr(self, name, config_dict[name])
        return super().update_from_dict({k: v for k, v in config_dict.items() if k not in kept})

    def validate(self) -> None:
        """Check all settings and the rules between them, and that no attribute is misspelt. Raises ValueError."""
        known = vars(type(self)()).keys() | FROM_STATE
        for name in vars(self):
            if name not in known and not name.startswith("__"):  # such are Tune's
                raise ValueError(f"{type(self).__name__} has no setting {name!r}{nearest(name, self._own(known))}")
        names = [name for name in self.settings.model_fields if name not in self.elsewhere]
        values = {name: getattr(self, self.attributes.get(name, name)) for name in names}
        if values.get("start_from") is not None:  # a path is as good as its name
            values["start_from"] = str(values["start_from"])
        checked = self.settings.checked(values).plain()
        self.set_settings({name: checked.get(name) for name in names if name != "start_from"})
        super().validate()

    def _own(self, known: Iterable[str]) -> list[str]:
        """Names of attributes, those of settings first."""
        return [*(self.attributes.get(name, name) for name in self.settings.model_fields), *known]


def learner_terms(results: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers that the learner reports in a training result.

    Args:
        results: Of `Algorithm.train()`.

    Returns:
        Number by name; empty where the learner reports none.
    """
    terms = results.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
    return {name: float(x) for name, x in terms.items() if isinstance(x, int | float) or getattr(x, "ndim", None) == 0}


def is_searched(value: Any) -> bool:
    """Whether Tune is to draw the value, or something in it.

    Args:
        value: Of a setting; a dict is looked through.

    Returns:
        True for Tune's search objects and `{"grid_search": [...]}`.
    """
    if isinstance(value, Mapping):
        return "grid_search" in value or any(map(is_searched, value.values()))
    return isinstance(value, Domain)
