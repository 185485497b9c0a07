"""The house: every import runs down, none in a circle. `make lint` runs this file alone.

An import counts wherever it stands: in a function, for types only, or as a string that names a module of ours.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSES = ("algorithms", "envs", "platform", "tune_specs")
# From the ground up: a room imports rooms that stand before it, and no other.
PLATFORM = (
    *("errors", "terminal", "shipping", "cluster", "metrics", "storage", "specs", "doctor", "runs", "evaluation"),
    *("reports", "capacity", "running", "submission", "exchange", "cli"),
)
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
    }  # type: ignore[misc]


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


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in order; empty where there is none."""
    state: dict[str, int] = {}

    def visit(module: str, path: list[str]) -> list[str]:
        state[module] = 1
        for other in sorted(arrows.get(module, ())):
            if state.get(other) == 1:
                return [*path[path.index(other) :], other]
            if other not in state and (found := visit(other, [*path, other])):
                return found
        state[module] = 2
        return []

    return next((found for module in sorted(arrows) if module not in state and (found := visit(module, [module]))), [])


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """The imports that break a rule of the house."""
    broken = []
    for module, others in arrows.items():
        house, _, rest = module.partition(".")
        for other in others:
            other_house, _, other_rest = other.partition(".")
            if house in {"algorithms", "envs"}:
                wrong = other_house != house
            elif house == other_house == "platform":
                own, target = (PLATFORM.index(name.partition(".")[0]) for name in (rest, other_rest))
                wrong = target > own
            else:
                wrong = house == "tune_specs"
            broken += [f"{module} -> {other}"] if wrong else []
    return sorted(broken)


def rooms_of(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same arrows between the rooms at the top of platform/ and algorithms/, in place of single modules."""
    rooms: dict[str, set[str]] = {}
    for module, others in arrows.items():
        own = ".".join(module.split(".")[:2])
        rooms.setdefault(own, set()).update({".".join(other.split(".")[:2]) for other in others} - {own})
    return rooms


def test_no_circle_between_modules():
    assert circle(imports(ROOT)) == []


def test_no_circle_between_rooms():
    assert circle(rooms_of(imports(ROOT))) == []


def test_imports_run_down():
    assert upward(imports(ROOT)) == []


def test_platform_has_few_rooms():
    top = {module.split(".")[1] for module in modules(ROOT) if module.startswith("platform.")}
    assert top == set(PLATFORM)
    assert len(top) <= 16


def house(root: Path, files: dict[str, str]) -> dict[str, set[str]]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return imports(root)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("algorithms/solvers/lml.py", "from parsecrl.platform.errors import UserError"),
        ("algorithms/solvers/lml.py", "def late():\n    import parsecrl.envs.control"),
        ("platform/errors.py", "LATER = 'parsecrl.platform.cli:main'"),
        ("platform/errors.py", "if TYPE_CHECKING:\n    from parsecrl.platform.cli import main"),
    ],
)
def test_an_upward_import_is_found(tmp_path, file, text):
    files = dict.fromkeys(["platform/errors.py", "platform/cli.py", "envs/control.py"], "")
    assert upward(house(tmp_path, files)) == []
    assert len(upward(house(tmp_path, {**files, file: text}))) == 1


def test_a_circle_is_found(tmp_path):
    files = {"algorithms/models/a.py": "from parsecrl.algorithms.models import b", "algorithms/models/b.py": ""}
    assert circle(house(tmp_path, files)) == []
    files["algorithms/models/b.py"] = "if TYPE_CHECKING:\n    from parsecrl.algorithms.models.a import A"
    assert circle(house(tmp_path, files)) == ["algorithms.models.a", "algorithms.models.b", "algorithms.models.a"]
