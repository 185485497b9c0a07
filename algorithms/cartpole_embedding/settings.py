"""The numbers of the embedding's training, and the dynamics that a spec can name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from parsecrl.algorithms.models.cartpole import cartpole
from parsecrl.algorithms.models.known_dynamics import KnownDynamics
from parsecrl.algorithms.models.pendulum import pendulum
from parsecrl.algorithms.training.user_functions import own_function

DYNAMICS: dict[str, Callable[[], KnownDynamics]] = {"cartpole": cartpole, "pendulum": pendulum}


@dataclass(frozen=True)
class EmbeddingSettings:
    """Algorithm 2 on known dynamics; the defaults are the paper's (section 5.2.1, appendix C).

    Raises ValueError on numbers out of range.
    """

    latent_size: int = 2
    temperature: float = 1.0  # 0: no gradient through the search
    horizon: int = 20
    num_samples: int = 100
    num_elites: int = 10
    num_iterations: int = 10
    init_std: float = 0.5  # of the search, in the latent box [-1, 1]
    hidden_size: int = 256
    num_layers: int = 3
    init_scale: float = math.sqrt(2)  # times Xavier: standard deviation 2 / sqrt(fan_in + fan_out)
    learning_rate: float = 5e-4
    max_grad_norm: float = 1.0
    states_per_update: int = 1
    validate_every: int = 100  # updates
    validation_states: int = 100
    patience: int = 20  # validations without a new best before the learning rate is halved
    expert_samples: int = 100
    expert_elites: int = 10
    expert_iterations: int = 30
    control_states: int = 10  # episodes of receding-horizon control in the analysis
    control_steps: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int":
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise ValueError(f"{field.name} must be an integer of 1 or more, got {value!r}")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{field.name} must be a finite number of 0 or more, got {value!r}")
        for name in ("init_std", "init_scale", "learning_rate", "max_grad_norm"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        for samples, elites in (("num_samples", "num_elites"), ("expert_samples", "expert_elites")):
            if not getattr(self, elites) < getattr(self, samples):
                raise ValueError(
                    f"{elites} must lie in [1, {samples}), got {getattr(self, elites)} with "
                    f"{samples}={getattr(self, samples)}"
                )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> EmbeddingSettings:
        """The settings in a phase's keys: its groups controller, decoder and expert, and the fields beside them.

        Keys beside the groups that are no fields are left to whoever knows them.
        """
        known = {field.name for field in fields(cls)}
        flat = {**config.get("controller", {}), **config.get("decoder", {})}
        flat |= {f"expert_{key.removeprefix('num_')}": value for key, value in config.get("expert", {}).items()}
        unknown = sorted(set(flat) - known)
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)} in controller, decoder or expert; leave them out")
        return cls(**flat, **{key: value for key, value in config.items() if key in known})


def make_dynamics(name: str) -> KnownDynamics:
    """A name of `DYNAMICS`, or module:function for a function without arguments that returns `KnownDynamics`.

    Raises ValueError where there is none.
    """
    made = (DYNAMICS.get(name) or own_function(name, "dynamics", DYNAMICS))()
    if not isinstance(made, KnownDynamics):
        raise ValueError(f"dynamics {name!r} must return KnownDynamics, got {type(made).__name__}")
    return made
