"""What ruff's D417 does not see: the arguments of a class stand in its own docstring, and all of them are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [file for room in ("algorithms", "envs", "platform") for file in sorted((ROOT / room).rglob("*.py"))]


def documented(node: ast.AST) -> list[str]:
    """Names in the Args section of a docstring."""
    doc = ast.get_docstring(node) or ""  # type: ignore[arg-type]
    section = re.search(r"^Args:\n((?: {4}.*\n|\n)*)", doc + "\n", re.MULTILINE)
    return re.findall(r"^ {4}\*{0,2}(\w+): ", section.group(1), re.MULTILINE) if section else []


def taken(node: ast.FunctionDef) -> list[str]:
    a = node.args
    every = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    return [arg.arg for arg in every if arg.arg not in ("self", "cls")]


def public(body: list[ast.stmt]) -> Iterator[tuple[ast.ClassDef | ast.FunctionDef, list[str]]]:
    """Public functions, methods and classes, and what they take."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node, taken(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((inner, names) for inner, names in public(node.body))
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    yield node, taken(inner)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_args_sections_name_what_is_taken(file: Path):
    tree = ast.parse(file.read_text())
    for node, names in public(tree.body):
        assert documented(node) in ([], names), f"{node.name} takes {names}"
        # A method of one line is another class's, told there.
        is_inherited = node not in tree.body and "\n" not in (ast.get_docstring(node) or "")
        assert documented(node) or not names or is_inherited, f"{node.name} has no Args section"
