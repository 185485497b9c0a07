"""The pages of documentation that come with the package, as `parsec docs` prints them."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from parsecrl.algorithms.registry.user_functions import nearest
from parsecrl.platform.errors import UserError

# Pages that lie beside the folder docs: name -> file. The site has the same.
ELSEWHERE = {
    "algorithms": "algorithms/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "report_a_weakness": "SECURITY.md",
}


def pages() -> dict[str, Path]:
    """Name -> file of each page: its path in the folder docs, without the ending. Tutorials are scripts."""
    root = Path(str(files("parsecrl")))
    docs = root / "docs"
    found = [*docs.rglob("*.md"), *(docs / "tutorials").glob("*.py")]
    named = {file.relative_to(docs).with_suffix("").as_posix(): file for file in found}
    return dict(sorted((named | {name: root / file for name, file in ELSEWHERE.items()}).items()))


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
    found = re.search(r"^(?:# )?# (?!%%|#)(.+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""
