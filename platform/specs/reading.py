"""Spec files, from text to a checked spec and back.

    load_spec("cheetah_run_quick", ["phases.planet.stop.env_steps=5000"])

Every mistake is a UserError whose one sentence names the key, the value and what would do.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from parsecrl.algorithms.registry.messages import explain, nearest, short
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs.dotted_keys import leaves, set_path
from parsecrl.platform.specs.extending import extended
from parsecrl.platform.specs.groups import Domain, in_order
from parsecrl.platform.specs.phases import FIXED, UNSEARCHABLE, PhaseBase
from parsecrl.platform.specs.spec import Spec

SEARCH_KEYS = ("search", "search_alg", "grace_period", "perturbation_interval")  # that one trial does not have
MAX_COMBINATIONS = 4096  # of searched values that are checked together; above it, one key at a time


class _Loader(yaml.SafeLoader):
    """YAML with two mends: 3e-4 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: what it brings may be given again
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str | int | float):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def bundled_specs() -> dict[str, Any]:
    """Name -> file of each spec that comes with the package; those of ablations/ keep their folder in the name."""
    root = files("parsecrl.tune_specs")
    found = {entry.name[:-5]: entry for entry in root.iterdir() if entry.name.endswith(".yaml")}
    for entry in root.joinpath("ablations").iterdir():
        if entry.name.endswith(".yaml"):
            found[f"ablations/{entry.name[:-5]}"] = entry
    return dict(sorted(found.items()))


def load_spec(path_or_name: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """Read a spec, apply overrides, and check it.

    Args:
        path_or_name: A YAML file, or the name of a bundled spec (`parsec specs` lists them). A file goes first.
        overrides: `key=value` with dotted keys, phases by name: "phases.planet.stop.env_steps=1000".

    Returns:
        The spec, with defaults filled in.

    Raises:
        UserError: There is no such spec, or it or an override is wrong: one sentence with key, rule and value.
    """
    data, source = _read_whole(str(path_or_name), ())
    for override in overrides:
        _apply_override(data, override)
    return parse_spec(data, source)


def parse_spec(data: dict[str, Any], source: str) -> Spec:
    """Check the contents of a spec file.

    Args:
        data: Plain data, as YAML holds them.
        source: What messages call it.

    Returns:
        The spec, with defaults filled in.

    Raises:
        UserError: A key is unknown or missing, or a value is wrong.
    """
    try:
        spec = Spec.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, data, Spec)}") from None
    for phase in spec.phases:
        _check_search(phase, source)
    spec.stated = _without_aliases(data)
    return spec


def dump(spec: Spec) -> str:
    """The spec as YAML, defaults filled in, keys in the order of the models.

    Args:
        spec: As `load_spec` returns it.

    Returns:
        Text that `load_spec` reads as the same spec.
    """
    data = spec.model_dump(exclude_none=True)
    data["phases"] = [
        {"name": phase.name, "algorithm": phase.algorithm, "start_from": phase.start_from, **plain}
        for phase, plain in zip(spec.phases, data["phases"], strict=True)
    ]
    if spec.variants:
        data["variants"] = spec.variants  # with what they set to none
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


# --- reading -------------------------------------------------------------------------------------------------------


def _read_whole(name: str, extending: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """The contents of a spec file merged into those of what it extends; `extending`: the files that led here."""
    text, source = _read(name)
    data = _parse_yaml(text, source)
    if not isinstance(data, dict):
        raise UserError(f"{source} must be a YAML mapping with the keys name, env, phases, got {short(data)}")
    if "extends" not in data:
        return data, source
    base = data.pop("extends")
    if source in extending:
        raise UserError(f"extends leads back to {source} ({' -> '.join((*extending, source))}); take one of them out")
    if not isinstance(base, str):
        raise UserError(f"{source}: extends must name a bundled spec or a file, got {short(base)}")
    beside = Path(source).parent / Path(base).expanduser()
    base = str(beside) if Path(source).is_file() and beside.is_file() else base
    return extended(_read_whole(base, (*extending, source))[0], data, source), source


def _read(name: str) -> tuple[str, str]:
    bundled = bundled_specs()
    path = Path(name).expanduser()
    try:
        if name in bundled and not path.is_file():
            return bundled[name].read_text(encoding="utf-8"), name
        if path.is_file():
            return path.read_text(encoding="utf-8"), str(path)
    except UnicodeDecodeError:
        raise UserError(f"{name} is not YAML: it is not UTF-8 text; give a spec file") from None
    except OSError as error:
        raise UserError(f"the spec {name} cannot be read: {error.strerror or error}; give a readable file") from None
    if path.is_dir():
        raise UserError(f"the spec {name} is a folder; give a YAML file, or one of {', '.join(bundled)}")
    raise UserError(f"no spec {name!r}: it is neither a file nor one of {', '.join(bundled)}{nearest(name, bundled)}")


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return _without_aliases(yaml.load(text, Loader=_Loader))
    except RecursionError:
        raise UserError(f"{source} contains itself: an alias stands inside of what it names; take it out") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{source} is not YAML: {where}{' '.join(str(problem).split())}") from None


def _without_aliases(data: Any) -> Any:
    """A copy of which no two parts are the same object, so that a value is changed in one place alone."""
    if isinstance(data, dict):
        return {key: _without_aliases(value) for key, value in data.items()}
    return [_without_aliases(value) for value in data] if isinstance(data, list) else data


def _apply_override(data: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise UserError(
            f"--set takes key=value with a dotted key, such as phases.0.stop.env_steps=1000, got {override!r}"
        )
    set_key(data, path.strip(), _parse_yaml(text, f"the value of --set {override}"), f"--set {override}")


def set_key(data: dict[str, Any], path: str, value: Any, said: str) -> None:
    """Set a value in a spec as it was read.

    Args:
        data: The spec; changed.
        path: Dotted key, such as `phases.planet.train_ratio`; `phases.*` are all phases.
        value: Of the key.
        said: What messages call the change.

    Raises:
        UserError: The path leads to no phase, or through a value.
    """
    keys = path.split(".")
    groups: list[dict[str, Any]] = [data]
    if keys[0] == "phases" and len(keys) > 1:
        groups, keys = _phases_named(data, keys[1], said), keys[2:]
        if not keys or not all(isinstance(phase, dict) for phase in groups):
            raise UserError(f"{said} must name a key of the phase, such as phases.0.train_ratio=0.2")
        if keys[0] == "search" and len(keys) > 2:  # the keys of a search are dotted paths themselves
            last = [keys.pop()] if keys[-1] in Domain.model_fields else []
            keys = ["search", ".".join(keys[1:]), *last]
    try:
        for group in groups:
            set_path(group, keys, _without_aliases(value))
    except KeyError as error:
        raise UserError(f"{said}: {error.args[0]} is a value, not a group of keys") from None


def _phases_named(data: dict[str, Any], name: str, said: str) -> list[dict[str, Any]]:
    """The phase of a name or a number, or with * all of them, as they were read."""
    phases = data.get("phases")
    if not isinstance(phases, list):
        raise UserError(f"{said}: the spec has no list of phases")
    if name == "*":
        return phases
    names = [str(phase.get("name")) if isinstance(phase, dict) else "?" for phase in phases]
    index = names.index(name) if name in names else int(name) if name.isdigit() else len(phases)
    if index >= len(phases):
        known = ", ".join(names)
        raise UserError(f"{said}: no phase {name!r}; the spec has {known} (* for all){nearest(name, names)}")
    return [phases[index]]


# --- checking ------------------------------------------------------------------------------------------------------


def _check_search(phase: PhaseBase, source: str) -> None:
    """Every searched key must exist in the phase and every value that it can take must be a valid one."""
    where = f"{source}: phases.{phase.name}.search"
    plain = phase.model_dump(exclude=set(SEARCH_KEYS))
    fixed = {*UNSEARCHABLE, *FIXED}
    searchable = [path for path in leaves(plain) if not {path, path.partition(".")[0]} & fixed]
    for path in phase.search:
        if path not in searchable:
            raise UserError(
                f"{where}: {path!r} is not a key of the phase that can be searched{nearest(path, searchable)}"
            )
    for chosen in combinations(phase, list(phase.search)) if phase.search else ():
        candidate = phase.model_dump(exclude=set(SEARCH_KEYS))
        for path, value in chosen.items():
            set_path(candidate, path.split("."), value)
        try:
            type(phase).model_validate(candidate)
        except ValidationError as error:
            said = ", ".join(f"{path}={short(value)}" for path, value in chosen.items())
            message = explain(error, candidate, type(phase))
            raise UserError(f"{where} reaches {said}, where {message}") from None


def combinations(phase: PhaseBase, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What trials may choose of some searched keys; of ranges the ends, and of very many combinations one key each.

    Args:
        phase: Whose search it is.
        paths: Dotted keys of it; those that their conditions name are chosen too.

    Yields:
        Values by dotted key, those that apply.
    """
    needed = set(paths)
    for path in reversed(in_order(phase.search)):  # conditions come after what names them
        needed |= set(phase.search[path].when or {}) if path in needed else set()
    domains = {path: phase.search[path] for path in phase.search if path in needed}
    listed = [domain.values for domain in domains.values()]
    products: Iterable[tuple[Any, ...]] = itertools.product(*listed)
    if math.prod(map(len, listed)) > MAX_COMBINATIONS:
        base = [values[0] for values in listed]
        products = ((*base[:i], value, *base[i + 1 :]) for i, values in enumerate(listed) for value in values)
    for values in products:
        chosen = dict(zip(domains, values, strict=True))
        yield {path: value for path, value in chosen.items() if domains[path].applies(chosen)}
