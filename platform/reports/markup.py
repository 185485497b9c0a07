"""Small pieces of HTML. Every function escapes the text it is given; what it returns is safe to join."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from parsecrl.platform.reports.figures import Image
from parsecrl.platform.reports.table import NOT_EVALUATED

VIDEO_LIMIT = 12 * 2**20  # bytes; a data URI is a third larger
NUMERIC = set("0123456789+-–")


def page(title: str, body: Iterable[str]) -> str:
    files = resources.files("parsecrl.platform.reports")
    template = Template(files.joinpath("page.html").read_text(encoding="utf-8"))
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    return template.substitute(title=escape(title), style=style, body="\n".join(body))


def section(anchor: str, title: str, *parts: str, kind: str = "") -> str:
    css = f' class="{escape(kind)}"' if kind else ""
    return f'<section id="{escape(anchor)}"{css}>\n<h2>{escape(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, css: str = "") -> str:
    return f'<p class="{escape(css)}">{escape(text)}</p>' if css else f"<p>{escape(text)}</p>"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], swatches: Sequence[str] = ()) -> str:
    """Rows of text; a column whose cells all start like a number is set right.

    swatches: a colour for each row, shown before its first cell.
    """
    rows = [list(row) for row in rows]
    right = [
        all(row[i][:1] in NUMERIC or row[i] == NOT_EVALUATED for row in rows if row[i]) and i > 0
        for i in range(len(headings))
    ]

    def cell(tag: str, text: str, i: int, mark: str = "") -> str:
        css = ' class="number"' if right[i] else ""
        return f"<{tag}{css}>{mark}{escape(text)}</{tag}>"

    head = "".join(cell("th", text, i) for i, text in enumerate(headings))
    lines = []
    for r, row in enumerate(rows):
        mark = f'<span class="swatch" style="background:{escape(swatches[r])}"></span>' if swatches else ""
        lines.append("<tr>" + "".join(cell("td", t, i, mark if i == 0 else "") for i, t in enumerate(row)) + "</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def tile(label: str, value: str, notes: Iterable[str], color: str) -> str:
    return (
        f'<div class="tile" style="border-left-color:{escape(color)}"><div class="soft small">{escape(label)}</div>'
        f'<div class="value">{escape(value)}</div><div class="soft small">{"<br>".join(map(escape, notes))}</div></div>'
    )


def code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def details(summary: str, *parts: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def bullets(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def figure(image: Image, caption: str, *, wide: bool = False) -> str:
    """The light and the dark drawing; the reader's colour scheme chooses.

    wide: many small panels, which scroll sideways on a narrow screen rather than shrink.
    """
    widest = f"{image.width * 96:.0f}px"
    floor = f";min-width:{min(image.width * 72, 760):.0f}px" if wide else ""
    return (
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{data_uri(image.dark, "image/png")}">'
        f'<img src="{data_uri(image.light, "image/png")}" alt="{escape(image.alt)}" style="max-width:{widest}{floor}">'
        f"</picture><figcaption>{escape(caption)}</figcaption></figure>"
    )


def video(path: Path, caption: str) -> str:
    """The film inside the page, or, above VIDEO_LIMIT, a line that says where it lies."""
    size = path.stat().st_size
    if size > VIDEO_LIMIT:
        return paragraph(
            f"{caption}: the film has {size / 2**20:.0f} MiB, more than the {VIDEO_LIMIT // 2**20} MiB that this page "
            f"takes in; open videos/{path.name} in the run folder."
        )
    return (
        f'<figure><video controls muted loop playsinline preload="metadata" src="{data_uri(path, "video/mp4")}">'
        f"This browser shows no video; open videos/{escape(path.name)} in the run folder.</video>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def data_uri(path: Path, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def write_page(path: Path, text: str) -> Path:
    """Write the page whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return path
