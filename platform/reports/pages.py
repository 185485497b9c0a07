"""Pages: a template each, with its style and all that it shows inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from parsecrl.algorithms.reporting import markup


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: The page; its folder is made where it is missing.
        template: A file beside this one. It has the functions of `markup`, and escapes all text but what these return.
        values: What it shows.

    Returns:
        The path.
    """
    loader = PackageLoader(__package__, "")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = pages.get_template(template).render(markup=markup, **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path
