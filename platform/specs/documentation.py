"""The pages of documentation that come with the package, as `parsec docs` prints them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from parsecrl.algorithms.registry.user_functions import nearest
from parsecrl.platform.errors import UserError


def pages() -> dict[str, Path]:
    """Name -> file of each page: its path in the folder docs, without the ending."""
    root = Path(str(files("parsecrl"))) / "docs"
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.md"))}


def page(name: str) -> str:
    """A page's text.

    Args:
        name: As `pages` has it; docs/ before it and .md behind it may be there.

    Returns:
        Markdown.

    Raises:
        UserError: There is no such page.
    """
    known, short = pages(), name.removeprefix("docs/").removesuffix(".md")
    if short not in known:
        raise UserError(f"no page {name!r} in the documentation{nearest(short, known)}; `parsec docs` lists them all")
    return known[short].read_text(encoding="utf-8")


def contents() -> str:
    """A line for each page, with its title."""
    known = pages()
    width = max(map(len, known))
    return "\n".join(f"{name:{width}}  {_title(file)}" for name, file in known.items())


def _title(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")
