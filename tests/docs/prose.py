"""Sentences and lines of prose that are too long.

python -m tests.docs.prose [--wrap]      lists them; --wrap breaks long lines first

Tables, code, headings and comments are no prose. A list item ends a sentence; inline code and a link's address are no
words.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
MOST_WORDS, MOST_COLUMNS = 25, 100
ABBREVIATION = (
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bal)(?<!\beq)(?<!\beqs)(?<!\bfig)(?<!\bvs)(?<!\bcf)(?<!\bDr)(?<!\bapp)(?<!\bsec)"
)
END = re.compile(rf"{ABBREVIATION}[.!?]['\")*]*(?=\s+[\"'(*`\[]*[A-Z0-9`ΠΣ|‖-])|{ABBREVIATION}[.!?]['\")*]*$")
ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s+")


class Fault(NamedTuple):
    """What is too long, and where."""

    line: int
    size: int
    text: str


def pages() -> list[Path]:
    """All Markdown by hand. docs/specs.md is generated."""
    found = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    found += [ROOT / "algorithms" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [file for file in found if file != ROOT / "docs" / "specs.md"]


def blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """(first line's number, lines) of each paragraph and list item."""
    block: list[str] = []
    fence, comment, begin = "", False, 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        bare = line.strip()
        if found := re.match(r"(```+|~~~+)", bare):
            opens = not fence
            fence = found.group(1) if opens else "" if bare.startswith(fence) else fence
            skip = True
        else:
            comment = comment or bare.startswith("<!--")
            skip = bool(fence) or comment or bare.startswith(("#", "|", "!!!", ":::", "![")) or not bare
            comment = comment and "-->" not in bare
        if block and (skip or ITEM.match(line)):
            yield begin, block
            block = []
        if not skip:
            begin = begin if block else number
            block.append(line)


def sentences(block: list[str]) -> list[str]:
    """The sentences of a paragraph, without markup."""
    text = " ".join(ITEM.sub("", line).strip().lstrip("> ") for line in block)
    text = re.sub(r"`+[^`]+`+", "`code`", text)
    text = re.sub(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\([^()\s]*\)", r"\1", text)
    text = re.sub(r"<https?://[^>]*>", "", text)
    text = re.sub(r"\s\*\*([^*]+)\*\*", r" \1", text)
    cut, parts = 0, []
    for found in END.finditer(text):
        parts.append(text[cut : found.end()].strip())
        cut = found.end()
    return [part for part in [*parts, text[cut:].strip()] if part]


def words(sentence: str) -> int:
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def long_sentences(text: str) -> list[Fault]:
    return [
        Fault(begin, words(sentence), sentence)
        for begin, block in blocks(text)
        for sentence in sentences(block)
        if words(sentence) > MOST_WORDS
    ]


def long_lines(text: str) -> list[Fault]:
    """Lines that could be broken: not tables, code, nor a single long word."""
    found = []
    for begin, block in blocks(text):
        for number, line in enumerate(block, begin):
            if len(line) > MOST_COLUMNS and " " in ITEM.sub("", line).strip():
                found.append(Fault(number, len(line), line))
    return found


def wrapped(text: str) -> str:
    """The text with the paragraphs that have a long line broken anew."""
    lines = text.splitlines()
    for begin, block in reversed(list(blocks(text))):
        if any(fault.line in range(begin, begin + len(block)) for fault in long_lines(text)):
            first = re.match(r"\s*(?:(?:[-*+]|\d+\.)\s+)?", block[0]).group()
            whole = " ".join(line.strip() for line in block)[len(first.lstrip()) :]
            later = " " * len(first)
            options = {"break_long_words": False, "break_on_hyphens": False}
            lines[begin - 1 : begin - 1 + len(block)] = textwrap.wrap(
                whole, MOST_COLUMNS, initial_indent=first, subsequent_indent=later, **options
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print all faults of the pages; with --wrap, break long lines first."""
    for file in pages():
        text = file.read_text(encoding="utf-8")
        if "--wrap" in sys.argv and long_lines(text):
            file.write_text(text := wrapped(text), encoding="utf-8")
        for fault in [*long_sentences(text), *long_lines(text)]:
            print(f"{file.relative_to(ROOT)}:{fault.line}: {fault.size}: {fault.text}")


if __name__ == "__main__":
    main()
