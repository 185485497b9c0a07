"""What a terminal shows: a line that says how far a run is, and tables of text."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

SECONDS_BETWEEN_LINES = 30.0  # where lines cannot be rewritten


class StatusLine:
    """A line on a terminal that is rewritten in place; elsewhere a new line every half minute, and where work begins.

    Args:
        stream: Written to; None: standard error.
    """

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.rewrites = self.stream.isatty()
        self._last, self._printed, self._told = "", -math.inf, ""
        self.publishers: list[Callable[[str], object]] = []  # also told what the line says

    def show(self, text: str, *, final: bool = False) -> None:
        """Put the text in the line's place; final: it stays."""
        for publish in self.publishers:
            publish(text)
        if self.rewrites:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[K" + text[:width] + ("\n" if final else ""))
        elif final or begins(text, self._told) or time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._write(text + "\n")
            self._printed, self._told = time.monotonic(), text
        self._last = "" if final else text

    def note(self, text: str) -> None:
        """A line of its own that stays."""
        self._write(("\r\x1b[K" if self.rewrites and self._last else "") + text + "\n")

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:  # the terminal is gone; the run goes on
            pass


def begins(text: str, before: str) -> bool:
    """Whether a line tells of other work than the one before.

    Args:
        text: "phase: how far it is".
        before: Likewise, or empty.

    Returns:
        True where the words before the colon differ.
    """
    return text.partition(":")[0] != before.partition(":")[0]


def text_table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int | None = None, rule: str = "") -> str:
    """Aligned columns.

    Args:
        headings: Of the columns.
        rows: A cell for each heading.
        left: So many columns, the first ones, are aligned to the left, and the others to the right; None: all to the
            left.
        rule: A character that underlines the headings; empty: nothing does.

    Returns:
        Lines.
    """
    cells = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if rule:
        cells.insert(1, [rule * width for width in widths])
    last = len(headings) if left is None else left
    sides = [str.ljust if column < last else str.rjust for column in range(len(headings))]
    aligned = (
        "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)) for row in cells
    )
    return "\n".join(line.rstrip() for line in aligned)


def duration(seconds: float) -> str:
    """A time as a person says it.

    Args:
        seconds: At least 0.

    Returns:
        Seconds below 90, then minutes, and from an hour and a half on hours.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
