"""The settings of rllib: which of RLlib's algorithms, and what differs from its defaults."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, create_model

from parsecrl.algorithms.registry.settings import Arguments, Count, EvaluatedSettings, Settings
from parsecrl.algorithms.registry.user_functions import names_code


def _named(value: str) -> str:
    if not value or (names_code(value) and not all(value.split(":", 1))):
        raise ValueError(f"class must name an algorithm of RLlib, such as SAC, or module:name, got {value!r}")
    return value


_FIELDS: dict[str, Any] = {
    "class": (
        Annotated[str, AfterValidator(_named)],
        Field(description="RLlib's name of the algorithm, such as SAC, PPO or APPO, or module:name"),
    ),
    "config": (
        Arguments,
        Field(
            default_factory=dict,
            description="for `training()` of the algorithm's AlgorithmConfig; a key that is searched needs a value too",
        ),
    ),
    "model": (
        Arguments,
        Field(default_factory=dict, description="networks, by the keys of RLlib's DefaultModelConfig"),
    ),
    "decisions_per_iteration": (Count, Field(1000, description="decisions between two results, at the least")),
}
# A field called `class` cannot be declared in a class statement.
RLlibSettings: type[Settings] = create_model(
    "RLlibSettings", __base__=EvaluatedSettings, __doc__="RLlib's own algorithms on the same task.", **_FIELDS
)
