"""`seeds` and `variants` of a spec: the chains of phases that it stands for, and what of them is the same.

    chains_of(load_spec("cheetah_run_quick", ["seeds=2"]))      reference-seed0, reference-seed1

A chain is a spec of its own: one seed, one variant. Two chains share a phase where everything that shapes it is equal:
the environment, the seed, the resources, its settings, and the phase that it starts from.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any, NamedTuple

from parsecrl.algorithms.registry.messages import short
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs.dotted_keys import differences
from parsecrl.platform.specs.phases import PhaseBase
from parsecrl.platform.specs.reading import parse_spec, set_key
from parsecrl.platform.specs.spec import REFERENCE, Spec

CHAIN_KEYS = ("seeds", "variants")
FIXED = ("name", "seed", "seeds", "variants", "resources", "runtime", "evaluate", "loggers")  # the same in all variants

WITHOUT_EFFECT = ("checkpoint_every",)  # on what a phase learns
RESOURCES = ("num_env_runners", "num_envs_per_env_runner", "num_learners")  # that shape what a phase learns


class Chain(NamedTuple):
    """The phases of one variant and one seed.

    Attributes:
        name: Of its folder.
        variant: REFERENCE, or a key of `variants`.
        seed: Of everything random in it.
        spec: Its own, without seeds and variants.
        shared: Phase -> the earlier chain that trains it for both.
    """

    name: str
    variant: str
    seed: int
    spec: Spec
    shared: dict[str, str]


def has_chains(spec: Spec) -> bool:
    """Whether a spec stands for several chains, or for one of a stated seed.

    Args:
        spec: As `load_spec` returns it.

    Returns:
        True where it has `seeds` or `variants`.
    """
    return spec.seeds is not None or bool(spec.variants)


def seeds_of(spec: Spec) -> list[int]:
    """The seeds of a spec.

    Args:
        spec: As `load_spec` returns it.

    Returns:
        Those listed; of a number n, `seed` and the n - 1 after it; by default `seed` alone.
    """
    if isinstance(spec.seeds, list):
        return spec.seeds
    return [spec.seed + i for i in range(spec.seeds or 1)]


def chains_of(spec: Spec) -> list[Chain]:
    """The chains of a spec, variant by variant, the reference first.

    Args:
        spec: As `load_spec` or `parse_spec` returns it.

    Returns:
        A chain for each variant and seed.

    Raises:
        UserError: A variant names no key, is no valid spec, or is another one again.
    """
    found: list[Chain] = []
    trained: dict[str, str] = {}  # content of a phase -> the chain that trains it
    reference = _chain_spec(spec, REFERENCE, spec.seed)
    for variant in (REFERENCE, *spec.variants):
        if variant != REFERENCE:
            _check_effect(spec, variant, reference)
        for seed in seeds_of(spec):
            name = f"{variant}-seed{seed}"  # without variants too, so that some may come later
            chain = Chain(name, variant, seed, _chain_spec(spec, variant, seed), {})
            for phase, content in _contents(chain.spec).items():
                if (owner := trained.setdefault(content, name)) != name:
                    chain.shared[phase] = owner
            evaluated = chain.spec.evaluate
            evaluated.phases = [name for name in evaluated.phases or [] if name not in chain.shared]
            evaluated.random &= variant == REFERENCE or chain.spec.env != reference.env
            found.append(chain)
    return found


def one_of_each_variant(spec: Spec) -> list[Spec]:
    """The specs of the first seed's chains.

    Args:
        spec: As `load_spec` returns it.

    Returns:
        A spec for each variant; the spec itself where there are neither seeds nor variants.
    """
    if not has_chains(spec):
        return [spec]
    chains = chains_of(spec)
    return [chain.spec for chain in chains if chain.seed == chains[0].seed]


def _chain_spec(spec: Spec, variant: str, seed: int) -> Spec:
    data = {key: copy.deepcopy(value) for key, value in spec.stated.items() if key not in CHAIN_KEYS}
    source = spec.name if variant == REFERENCE else f"variants.{variant}"
    for key, value in spec.variants.get(variant, {}).items():
        set_key(data, key, value, f"{source}.{key}")
    return parse_spec({**data, "seed": seed}, source)


def _check_effect(spec: Spec, variant: str, reference: Spec) -> None:
    """Raise UserError where a variant changes nothing, or a key of it has no effect."""
    for key in spec.variants[variant]:
        if key.partition(".")[0] in FIXED:
            raise UserError(f"variants.{variant} must change env or phases, got {key!r}; take it out")
    changed = _chain_spec(spec, variant, spec.seed)
    if not differences(reference.model_dump(), changed.model_dump()):
        raise UserError(
            f"variants.{variant} must change something, got {short(spec.variants[variant])}, which the spec says "
            f"already; change it, or take the variant out"
        )
    for key in spec.variants[variant]:
        group, _, rest = key.partition(".")
        phase, _, setting = rest.partition(".")
        if group == "phases" and any(setting in p.search for p in changed.phases if phase in (p.name, "*")):
            raise UserError(
                f"variants.{variant}.{key} has no effect, because the phase searches over {setting}; "
                f"take it out of phases.{phase}.search"
            )


def _contents(spec: Spec) -> dict[str, str]:
    """Phase -> a hash of all that shapes what it learns."""
    found: dict[str, str] = {}
    around = {
        "seed": spec.seed,
        "env": spec.env and spec.env.model_dump(),
        "resources": spec.resources.model_dump(include=set(RESOURCES)),
        "env_vars": spec.runtime.env_vars,
    }
    for phase in spec.phases:
        shape = {**around, "phase": _shape(phase), "from": found.get(phase.start_from or "")}
        found[phase.name] = hashlib.sha256(json.dumps(shape, sort_keys=True, default=str).encode()).hexdigest()
    return found


def _shape(phase: PhaseBase) -> dict[str, Any]:
    return {"algorithm": phase.algorithm, **phase.model_dump(exclude=set(WITHOUT_EFFECT))}


def plan_rows(chains: list[Chain]) -> list[tuple[str, ...]]:
    """What is trained, as a table.

    Args:
        chains: Of `chains_of`.

    Returns:
        The headings, then a row a chain, a column a phase; "shared with X" where another chain trains it.
    """
    names = list(dict.fromkeys(phase.name for chain in chains for phase in chain.spec.phases))
    rows = []
    for chain in chains:
        has = {phase.name for phase in chain.spec.phases}
        cells = (
            f"shared with {chain.shared[name]}" if name in chain.shared else "trained" if name in has else ""
            for name in names
        )
        rows.append((chain.name, *cells))
    return [("chain", *names), *rows]
