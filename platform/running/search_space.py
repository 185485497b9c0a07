"""The searched keys of a phase as Tune's search spaces."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import reduce
from typing import Any

from ray import tune
from ray.tune.search.sample import Domain as TuneDomain
from ray.tune.search.sample import Sampler

from parsecrl.platform.specs import Phase, get_path, set_path
from parsecrl.platform.specs.groups import Domain


class Conditional(Sampler):
    """Draws a value where the conditions of its key hold.

    Args:
        domain: With `when`.
        drawn: Its space without conditions.
        stated: The value elsewhere.
    """

    def __init__(self, domain: Domain, drawn: TuneDomain, stated: Any):
        self.domain, self.drawn, self.stated = domain, drawn, stated

    def sample(self, domain: TuneDomain, config: Any = None, size: int = 1, random_state: Any = None) -> Any:
        """As Tune asks. Reading a value that is not drawn yet raises Tune's own error, and Tune asks again later."""
        chosen = {key: _read(config.config, key) for key in self.domain.when or {}}
        if self.domain.applies(chosen):
            return self.drawn.sample(config, size=size, random_state=random_state)
        return self.stated


def _read(config: Any, key: str) -> Any:
    """By attributes, which Tune guards; it does not guard items."""
    return reduce(getattr, key.split("."), config)


def tune_space(domain: Domain, stated: Any = None, *, gridded: bool = False) -> Any:
    """A searched key's values as Tune has them.

    Args:
        domain: Where the values come from.
        stated: The value where `when` does not hold.
        gridded: Whether a grid stays one; otherwise its values are drawn.

    Returns:
        A search space, or a grid.
    """
    if domain.kind == "grid" and gridded:
        return tune.grid_search(domain.values)
    drawn = tune.choice(domain.values) if domain.is_list else getattr(tune, domain.kind)(*domain.arguments)
    if domain.when is None:
        return drawn
    conditional = copy.copy(drawn)
    conditional.sampler = Conditional(domain, drawn, stated)
    return conditional


def param_space(config: Any, phase: Phase) -> dict[str, Any]:
    """A config with Tune's search spaces at the searched paths.

    Args:
        config: RLlib's, or a plain one; stays as it is.
        phase: Of the spec. Optuna draws by itself: its spaces are in no config.

    Returns:
        A dict, as Tune takes it.
    """
    plain = dict(config if isinstance(config, dict) else config.to_dict())
    space = dict(plain)
    for path, domain in phase.search.items() if phase.search_alg != "optuna" else ():
        keys = path.split(".")
        if space[keys[0]] is plain[keys[0]]:
            space[keys[0]] = copy.deepcopy(space[keys[0]])
        set_path(space, keys, tune_space(domain, get_path(plain, keys), gridded=phase.search_alg == "grid"))
    return space


def mutations(search: Mapping[str, Domain]) -> dict[str, Any]:
    """What population based training changes, as Tune's class takes it.

    Args:
        search: Domains by dotted key.

    Returns:
        Nested keys: a list moves to a neighbour, a range is scaled, and either may be drawn anew.
    """
    found: dict[str, Any] = {}
    for path, domain in search.items():
        set_path(found, path.split("."), list(domain.values) if domain.is_list else tune_space(domain))
    return found


def clipped(config: dict[str, Any], search: Mapping[str, Domain]) -> dict[str, Any]:
    """A config whose searched values lie in their ranges, on their steps.

    Args:
        config: Changed in place.
        search: Domains by dotted key.

    Returns:
        The config.
    """
    for path, domain in search.items():
        if not domain.is_list:
            low, high = domain.values
            value = min(max(get_path(config, path.split(".")), low), high)
            if len(domain.arguments) > 2:
                step = domain.arguments[2]
                value = type(step)(round(value / step) * step)
            set_path(config, path.split("."), value)
    return config
