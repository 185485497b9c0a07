"""Every key of a spec, from the models that check them: what `parsec specs --keys` prints and docs/specs.md holds.

python -m parsecrl.platform.specs.keys [ROOT]      writes docs/specs.md in the repository at ROOT (default: here)
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import annotated_types
import yaml
from pydantic import BaseModel

from parsecrl.algorithms.registry.lookup import RegistryError, algorithm_named, registered
from parsecrl.algorithms.registry.messages import OWN
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs.phases import FIXED, UNSEARCHABLE, PhaseBase, phase_model
from parsecrl.platform.specs.spec import Spec

DOCS = Path("docs/specs.md")
HEADINGS = ("key", "type", "default", "range", "search", "meaning")
TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "any", type(None): "none"}


class Key(NamedTuple):
    """One key, in words."""

    key: str
    type: str
    default: str
    range: str
    meaning: str
    search: str = ""  # "yes" where a phase's `search` takes it

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of HEADINGS."""
        return self.key, self.type, self.default, self.range, self.search, self.meaning


EXTENDS = Key(
    "extends",
    "text",
    "none",
    "",
    "bundled spec or file whose keys this one changes; phases go by name, null takes a key or a phase away",
)


def keys_of(model: type[BaseModel], prefix: str = "", leave_out: frozenset[str] = frozenset()) -> Iterator[Key]:
    """The keys of a model and of the groups in it, in their order.

    Args:
        model: Of a spec, a phase or an algorithm's settings.
        prefix: What each dotted key begins with.
        leave_out: Keys of the model itself that are not told.

    Yields:
        Each key with its type, default, range and meaning, in words.
    """
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        path, parts = f"{prefix}{name}", _parts(field.annotation)
        limits = _limits(field.metadata) + [limit for part in parts for limit in part.limits]
        kinds = " or ".join(dict.fromkeys(part.said for part in parts))
        default = "required" if field.is_required() else _said(field.get_default(call_default_factory=True))
        yield Key(path, kinds, default, " and ".join(dict.fromkeys(limits)), field.description or "")
        for part in parts:
            if len(part.groups) > 1:
                tags = ", ".join(map(_tag, part.groups))
                yield Key(f"{path}.{part.between}kind", f"one of {tags}", "", "", "which of the groups below it is")
            for group in part.groups:
                several = len(part.groups) > 1
                inner = keys_of(group, f"{path}.{part.between}", frozenset({"kind"}) if several else frozenset())
                kind = f"kind {_tag(group)}: " if several else ""
                yield from (key._replace(meaning=kind + key.meaning) for key in inner)


class _Part(NamedTuple):
    said: str
    limits: list[str]
    groups: list[type[BaseModel]]
    between: str = ""  # what stands between the key and those of its groups


def _parts(annotation: Any) -> list[_Part]:
    """What a value may be: one part, or several where the annotation is a union."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        inner, limits = _parts(arguments[0]), _limits(arguments[1:])
        return [part._replace(limits=part.limits + limits) for part in inner]
    if origin in (typing.Union, types.UnionType):
        parts = [part for argument in arguments for part in _parts(argument)]
        groups = [group for part in parts for group in part.groups]
        others = [part for part in parts if not part.groups]
        if len(groups) > 1:
            return [_Part("group by kind", [], groups), *others]
        return parts
    if origin is Literal:
        return [_Part("one of " + ", ".join(map(str, arguments)), [], [])]
    if origin is list:
        (item,) = _parts(arguments[0])
        return [_Part(f"list of {item.said}", [f"each {limit}" for limit in item.limits], item.groups)]
    if origin is dict:
        (value,) = _parts(arguments[1])
        return [_Part(f"{value.said} by name", value.limits, value.groups, "NAME.")]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [_Part("group", [], [annotation])]
    return [_Part(TYPES.get(annotation, str(annotation)), [], [])]


def _tag(group: type[BaseModel]) -> str:
    """What `kind` says of one group of a union."""
    kind = group.model_fields["kind"]
    return OWN if kind.is_required() else str(kind.default)


def _limits(metadata: Any) -> list[str]:
    found = []
    for item in metadata:
        for part in getattr(item, "metadata", None) or [item]:  # of a FieldInfo, or itself
            match part:
                case annotated_types.Ge(ge=low):
                    found.append(f"{_number(low)} or more")
                case annotated_types.Gt(gt=low):
                    found.append(f"above {_number(low)}")
                case annotated_types.Le(le=high):
                    found.append(f"{_number(high)} or less")
                case annotated_types.Lt(lt=high):
                    found.append(f"below {_number(high)}")
                case annotated_types.MinLen(min_length=low):
                    found.append(f"length {_number(low)} or more")
                case annotated_types.MaxLen(max_length=high):
                    found.append(f"length {_number(high)} or less")
    return found


def _number(value: Any) -> str:
    return str(int(value) if value == int(value) else value)


def _said(default: Any) -> str:
    if isinstance(default, BaseModel) or default in ({}, None):
        return "" if isinstance(default, BaseModel) else "none"
    if isinstance(default, dict) and any(isinstance(value, BaseModel) for value in default.values()):
        return f"{{{', '.join(default)}}}"
    text = yaml.safe_dump(default, default_flow_style=True, width=1000).replace("...", "").strip()
    return _number(default) if isinstance(default, float) else text


def tables(algorithm: str | None = None) -> list[tuple[str, str, list[Key]]]:
    """The keys of specs, by what they belong to.

    Args:
        algorithm: Only those of its phases; by its name, or module:NAME.

    Returns:
        (title, sentence, keys) of the spec's top, of any phase and of each registered algorithm, or of the one alone.

    Raises:
        UserError: There is no such algorithm.
    """
    found: list[tuple[str, str, list[Key]]] = []
    if algorithm is None:
        found = [
            ("spec", "The top of a spec file.", [EXTENDS, *keys_of(Spec, leave_out=frozenset({"phases"}))]),
            ("phase", "Every item of `phases`, whatever its algorithm.", list(keys_of(PhaseBase))),
        ]
    for name in [algorithm] if algorithm else sorted(registered()):
        try:
            model, settings = phase_model(name), algorithm_named(name).settings
        except RegistryError as error:
            if algorithm:
                raise UserError(f"the algorithm of --keys {error}") from None
            found.append((f"algorithm: {name}", f"not available: {error}", []))
            continue
        said_above = PhaseBase.model_fields.keys() - settings.model_fields.keys() if algorithm is None else ()
        keys = [_marked(key) for key in keys_of(model, leave_out=frozenset(said_above))]
        found.append((f"algorithm: {name}", _first_line(settings), keys))
    return found


def _marked(key: Key) -> Key:
    fixed = {key.key, key.key.partition(".")[0]} & {*UNSEARCHABLE, *FIXED}
    return key if fixed or key.type.startswith("group") else key._replace(search="yes")


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0]


def text(algorithm: str | None = None) -> str:
    """The keys as aligned columns, as `parsec specs --keys` prints them.

    Args:
        algorithm: As `tables` takes it.

    Returns:
        Lines.

    Raises:
        UserError: There is no such algorithm.
    """
    lines = []
    for title, sentence, keys in tables(algorithm):
        rows = [key.cells for key in keys]
        widths = [max(len(row[i]) for row in [HEADINGS, *rows]) for i in range(5)]
        lines += [f"{title}: {sentence}" if sentence else title]
        lines += ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]]) for row in rows]
        lines += [""]
    return "\n".join(line.rstrip() for line in lines).strip()


def page() -> str:
    """docs/specs.md."""
    parts = [
        "# Keys of a spec",
        "Written by `make keys` from the models that check a spec; `parsec specs --keys [ALGORITHM]` prints the same.\n"
        "A dot leads into a group. `--set` takes all keys so written, `search` those marked yes.",
    ]
    for title, sentence, keys in tables():
        rows = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
        for key in keys:
            default = f"`{key.default}`" if key.default else ""
            cells = [f"`{key.key}`", key.type, default, key.range, key.search, key.meaning]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts += [f"## {title}", *([sentence] if sentence else []), "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    (root / DOCS).write_text(page(), encoding="utf-8")
