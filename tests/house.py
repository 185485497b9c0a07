"""What the code's imports say of its structure: modules, rooms, arrows, floors, circles.

    python -m tests.house [FOLDER]     the figures of a source tree (default: this one)

An import counts wherever it stands: in a function, for types only, or as a string that names a module of ours. A room
is a file or folder at the top of a house; an arrow leads from a room to one that it imports. A circle is a set of
modules that reach each other. Floors count the rooms of the longest way down.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path

import networkx

from parsecrl.algorithms.registry.lookup import registered

ROOT = Path(__file__).parents[1]
HOUSES = ("algorithms", "envs", "platform", "tune_specs")
MODULE = re.compile(r"parsecrl(\.\w+)+(:\w+)?")  # not a Gymnasium id, by which algorithms and environments meet


def modules(root: Path) -> dict[str, Path]:
    """Name below `parsecrl.` -> file; a package goes by its own name."""
    files = [file for house in HOUSES for file in (root / house).rglob("*.py")]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(root: Path) -> dict[str, set[str]]:
    """Module -> the modules that its text imports or names."""
    known = modules(root)
    return {
        name: {m for word in _words(file) if (m := _module(word, known)) not in {None, name}}
        for name, file in known.items()
    }


def _words(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE.fullmatch(node.value):
            yield node.value.partition(":")[0]


def _module(word: str, known: dict[str, Path]) -> str | None:
    """The module that a dotted name lies in; None for names of others, and for folders without code of their own."""
    name = word.removeprefix("parsecrl.")
    while word.startswith("parsecrl.") and name:
        if name in known:
            return name
        name = name.rpartition(".")[0]
    return None


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules, or rooms, that reach each other; empty where all arrows run down."""
    found = networkx.strongly_connected_components(networkx.DiGraph(arrows))
    return sorted(sorted(members) for members in found if len(members) > 1)


def rooms_of(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same arrows between the rooms at the top of platform/ and algorithms/, in place of single modules."""
    rooms: dict[str, set[str]] = {}
    for module, others in arrows.items():
        own = ".".join(module.split(".")[:2])
        rooms.setdefault(own, set()).update({".".join(other.split(".")[:2]) for other in others} - {own})
    return rooms


def floors(arrows: dict[str, set[str]]) -> int:
    """How many rooms the longest way down passes; those of a circle count as one."""
    return networkx.dag_longest_path_length(networkx.condensation(networkx.DiGraph(arrows))) + 1


def naming(root: Path, names: Collection[str]) -> list[str]:
    """The modules of platform/ that name one of these algorithms: import from its folder, or hold its name as text."""

    def names_one(file: Path, arrows: set[str]) -> bool:
        texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        return bool(texts & set(names) or {".".join(arrow.split(".")[:2]) for arrow in arrows} & folders)

    folders, arrows = {f"algorithms.{name}" for name in names}, imports(root)
    platform = {name: file for name, file in modules(root).items() if name.startswith("platform.")}
    return sorted(name for name, file in platform.items() if names_one(file, arrows[name]))


def lines_of_code(text: str) -> int:
    """Lines that hold more than a comment or a docstring."""
    documented = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in blank]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - documented)


def figures(root: Path) -> list[tuple[str, int]]:
    """What and how many, of a source tree."""
    arrows, files = imports(root), list(modules(root).values())
    found = [("modules", len(files)), ("circles between modules", len(circles(arrows)))]
    for house in ("platform", "algorithms"):
        inside = {
            room: {other for other in others if other.startswith(f"{house}.")}
            for room, others in rooms_of(arrows).items()
            if room.startswith(f"{house}.")
        }
        found += [(f"rooms at the top of {house}/", len(inside)), (f"floors of {house}/", floors(inside))]
        found += [(f"arrows between rooms of {house}/", sum(map(len, inside.values())))]
    found.append(("modules of platform/ that name one of the algorithms", len(naming(root, registered()))))
    texts = [file.read_text(encoding="utf-8") for file in files]
    lengths = [len(text.splitlines()) for text in texts]
    found += [("lines of the longest module", max(lengths)), ("lines in all", sum(lengths))]
    return [*found, ("lines of code among them", sum(map(lines_of_code, texts)))]


if __name__ == "__main__":
    for what, number in figures(Path(*sys.argv[1:2] or [ROOT])):
        print(f"{what:54} {number:7,}")
