"""Small pieces of HTML. Every function escapes the text that it is given; what it returns is safe to join.

Parts of a section are taken as they are: they come from these functions.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from parsecrl.algorithms.reporting.cells import NOT_EVALUATED
from parsecrl.algorithms.reporting.figures import Image

VIDEO_LIMIT = 12 * 2**20  # bytes; a data URI is a third larger
NUMERIC = set("0123456789+-–")


def section(anchor: str, title: str, *parts: str) -> Markup:
    """A card of the page with a heading.

    Args:
        anchor: Links go to #anchor.
        title: The heading's text.
        parts: HTML of these functions, below each other.

    Returns:
        HTML.
    """
    return Markup('<section id="{}">\n<h2>{}</h2>\n{}\n</section>').format(anchor, title, Markup("\n".join(parts)))


def heading(text: str) -> Markup:
    """A heading within a section.

    Args:
        text: Is escaped.

    Returns:
        HTML.
    """
    return Markup("<h3>{}</h3>").format(text)


def paragraph(text: str, css: str = "") -> Markup:
    """A paragraph of text.

    Args:
        text: Is escaped.
        css: Classes of the page's style, such as "soft small" for a note.

    Returns:
        HTML.
    """
    return Markup('<p class="{}">{}</p>').format(css, text) if css else Markup("<p>{}</p>").format(text)


def details(summary: str, *parts: str) -> Markup:
    """What is shown when its summary is clicked on.

    Args:
        summary: Text that is always shown.
        parts: HTML of these functions, below each other.

    Returns:
        HTML.
    """
    return Markup("<details><summary>{}</summary>\n{}\n</details>").format(summary, Markup("\n".join(parts)))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], swatches: Sequence[str] = ()) -> Markup:
    """A table of text, which scrolls where it is too wide.

    A column whose cells all start like a number is set right, the first column aside.

    Args:
        headings: Of the columns.
        rows: A cell for each heading.
        swatches: A colour for each row, shown before its first cell; none for none.

    Returns:
        HTML.
    """
    rows = [list(row) for row in rows]
    right = [
        all(row[i][:1] in NUMERIC or row[i] == NOT_EVALUATED for row in rows if row[i]) and i > 0
        for i in range(len(headings))
    ]

    def line(tag: str, cells: Sequence[str], swatch: str = "") -> Markup:
        marks = [Markup('<span class="swatch" style="background:{}"></span>').format(swatch)] if swatch else []
        return Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup("<{0}{1}>{2}{3}</{0}>").format(
                    Markup(tag), Markup(' class="number"' if right[i] else ""), "" if i or not marks else marks[0], text
                )
                for i, text in enumerate(cells)
            )
        )

    lines = Markup("").join(line("td", row, swatches[r] if swatches else "") for r, row in enumerate(rows))
    return Markup('<div class="scroll"><table><thead>{}</thead><tbody>{}</tbody></table></div>').format(
        line("th", headings), lines
    )


def figure(image: Image) -> Markup:
    """The light and the dark drawing, of which the reader's colour scheme chooses, and the caption.

    Args:
        image: On disk; its files become part of the page.

    Returns:
        HTML.
    """
    plot = image.plot
    widest = f"max-width:{plot.size[0] * 96:.0f}px"
    floor = f";min-width:{min(plot.size[0] * 72, 760):.0f}px" if plot.wide else ""
    return Markup(
        '<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{}">'
        '<img src="{}" alt="{}" style="{}"></picture><figcaption>{}</figcaption></figure>'
    ).format(
        data_uri(image.dark, "image/png"), data_uri(image.light, "image/png"), plot.alt, widest + floor, plot.caption
    )


def video(path: Path, caption: str) -> Markup:
    """The film inside the page, or, above VIDEO_LIMIT, a line that says where it lies.

    Args:
        path: An .mp4 file, in the run folder's videos/.
        caption: The text below, escaped.

    Returns:
        HTML.
    """
    size = path.stat().st_size
    if size > VIDEO_LIMIT:
        return paragraph(
            f"{caption}: the film has {size / 2**20:.0f} MiB, more than the {VIDEO_LIMIT // 2**20} MiB that this page "
            f"takes in; open videos/{path.name} in the run folder."
        )
    return Markup(
        '<figure><video controls muted loop playsinline preload="metadata" src="{}">'
        "This browser shows no video; open videos/{} in the run folder.</video>"
        "<figcaption>{}</figcaption></figure>"
    ).format(data_uri(path, "video/mp4"), path.name, caption)


def data_uri(path: Path, mime: str) -> Markup:
    """A file's bytes as an address, so that a page needs no other file.

    Args:
        path: The file.
        mime: Its type, such as "image/png".

    Returns:
        data:<mime>;base64,...
    """
    return Markup(f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}")
