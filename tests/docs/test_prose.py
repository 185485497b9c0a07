"""All prose: sentences of at most 25 words, lines of at most 100 columns. `make lint` runs this file."""

import pytest

from tests.docs import prose
from tests.docs.site import HOOKS

LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"


@pytest.mark.parametrize("file", prose.pages(), ids=lambda file: str(file.relative_to(prose.ROOT)))
def test_sentences_and_lines_are_short(file):
    text = file.read_text(encoding="utf-8")
    faults = [*prose.long_sentences(text), *prose.long_lines(text)]
    assert not faults, "\n".join(f"{file}:{line}: {size}: {said}" for line, size, said in faults)


@pytest.mark.parametrize("script", sorted((prose.ROOT / "docs" / "tutorials").glob("*.py")), ids=lambda file: file.stem)
def test_those_of_tutorials_too(script):
    text = HOOKS.literate(script)
    assert text.startswith("# ")
    assert not [*prose.long_sentences(text), *prose.long_lines(text)]


def test_the_readme_is_short():
    lines = (prose.ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120, f"README.md has {len(lines)} lines; details belong into docs/"


def test_a_long_sentence_is_found_across_lines_and_a_short_one_is_not():
    long = f"{LONG}\neighteen nineteen twenty one two three four five six.\n"
    (fault,) = prose.long_sentences(f"# Title\n\nShort.\n\n{long}")
    assert (fault.line, fault.size) == (5, 26)
    assert not prose.long_sentences(long.replace("eighteen", "eighteen. Then"))
    assert not prose.long_sentences(f"- {LONG}\n- {LONG}\n")  # items
    assert not prose.long_sentences(f"```text\n{long}```\n| {long} |\n<!-- {long} -->\n")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("As et al. Say, e.g. This, in eq. 4. Then 3 more! Yes?", 3),
        ("A [link with. Dots](a.b.c/d.md) and `code. More` end.", 2),
        ("**Bold.** Then plain.", 2),
        ("Version 0.1 is one.", 1),
    ],
)
def test_where_sentences_end(text, number):
    assert len(prose.sentences([text])) == number


def test_long_lines_are_broken_and_nothing_else_changes():
    long = f"- {LONG} {LONG}."
    text = f"# Title\n\nShort\nlines.\n\n{long}\n\n| {LONG} {LONG} |\n"
    assert [fault.line for fault in prose.long_lines(text)] == [6]
    done = prose.wrapped(text)
    assert not prose.long_lines(done)
    assert done.split() == text.split()
    assert done.startswith("# Title\n\nShort\nlines.\n\n- One")
    assert "\n  fifteen" in done or "\n  sixteen" in done or "\n  seventeen" in done or "\n  One" in done
