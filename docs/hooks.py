"""What mkdocs cannot do alone: pages from scripts, from argparse and from files outside docs/; equations as MathML.

Everything is made while the site is built, so that no page can be out of date.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import os
import re
import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from parsecrl.platform.specs import documentation

ROOT = Path(__file__).parents[1]
# Pages that live elsewhere in the repository, by their place in the site.
ELSEWHERE = {f"{name}.md": source for name, source in documentation.ELSEWHERE.items()}
LANGUAGES = {".py": "python", ".yaml": "yaml"}
# Pages of the API: what a package exports, so that a new name has its place.
API = {
    "solvers": ("Solvers", "Pure torch. Every solver minimises a batch of objectives.", ()),
    "models": ("Models", "Torch modules, and the records that they take.", ("known_dynamics.KnownDynamics",)),
    "controllers": ("Controllers", "A model and a solver make a function from belief to actions.", ()),
}
COMMANDS = """# Command line

Made from the parser of `parsec`. `parsec COMMAND --help` prints the same. `python -m parsecrl` is the
same command."""
EXIT_CODES = """| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a run stopped by itself: a fault, or a store that is away |
| 2 | a mistake in the command, the spec or the code that the spec names; nothing is written |
| 130, 143 | Ctrl-C, SIGTERM: the same command continues |"""
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


@event_priority(100)  # before mkdocstrings reads its paths
def on_config(config: Any) -> Any:
    """Fences of ```math become MathML, which browsers draw without a script; mkdocstrings finds the package."""
    fence = {"name": "math", "class": "math", "format": equation}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_package()]
    return config


def _package() -> str:
    """A folder with the rooms under their import names, as setuptools maps them: griffe reads files, not the map.

    griffe skips folders without an __init__.py, and platform/ has none.
    """
    folder = Path(tempfile.mkdtemp(prefix="parsecrl-docs-"))
    atexit.register(shutil.rmtree, folder)
    package = folder / "parsecrl"
    (package / "platform").mkdir(parents=True)
    (package / "platform" / "__init__.py").touch()
    for source in [ROOT / "__init__.py", ROOT / "algorithms", ROOT / "envs", *(ROOT / "platform").iterdir()]:
        (package / source.relative_to(ROOT)).symlink_to(source)
    return str(folder)


def equation(source: str, language: str, css_class: str, options: Any, md: Any, **more: Any) -> str:
    """A fence of LaTeX as MathML."""
    made = latex2mathml.converter.convert(source.strip(), display="block")
    if "\\" in made:
        raise ValueError(f"latex2mathml does not know a command of {source!r}; use another")
    return made


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that have no file of their own below docs/."""
    for place, source in ELSEWHERE.items():
        if (ROOT / source).exists():
            files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for script in sorted((ROOT / "docs" / "tutorials").glob("*.py")):
        files.append(File.generated(config, f"tutorials/{script.stem}.md", content=literate(script)))
    for room, words in API.items():
        files.append(File.generated(config, f"reference/{room}.md", content=api_page(f"algorithms.{room}", *words)))
    worlds = api_page("envs", "Environments", "[Environments](../environments.md) tells which can be used.")
    files.append(File.generated(config, "reference/envs.md", content=worlds))
    files.append(File.generated(config, "reference/command_line.md", content=command_line()))
    _place_the_rest(files, config.nav)
    return files


def _place_the_rest(files: Files, nav: list[dict[str, Any]]) -> None:
    """Pages without a line in nav go to the end of their folder's section; those of docs/ itself to how-to."""
    listed = set(re.findall(r"[\w./-]+\.md", str(nav)))
    sections = {name.lower(): pages for section in nav for name, pages in section.items()}
    for file in files.documentation_pages():
        if file.src_uri not in listed:
            sections.get(file.src_uri.partition("/")[0], sections["how-to"]).append(file.src_uri)


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Links that are right in the repository are made right in the site; what the site has not is named, not linked."""
    place = page.file.src_uri
    home = Path(ELSEWHERE.get(place, f"docs/{place}")).parent
    places = {source: there for there, source in ELSEWHERE.items()}

    def rewrite(found: re.Match[str]) -> str:
        mark, text, target = found.groups()
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found.group()
        source = os.path.normpath(home / path)
        if source in places:
            there = places[source]
        elif source.startswith("docs/") and not (ROOT / source).is_dir():
            there = source.removeprefix("docs/")
        elif (ROOT / source).exists():
            return f"{text} (`{source}`)" if source not in text else text
        else:
            return found.group()
        link = os.path.relpath(there, os.path.dirname(place) or ".") + (f"#{anchor}" if anchor else "")
        return f"{mark}[{text}]({link})"

    return LINK.sub(rewrite, markdown)


def literate(script: Path) -> str:
    """A script in cells as a page: `# %% [markdown]` begins prose in comments, `# %%` code, as Jupytext has them.

    `# %% [file] PATH` stands for a file beside the script.

    Args:
        script: A Python file (cells), or a shell script of the same form.

    Returns:
        The page, with a line that says how the whole is run.
    """
    parts: list[str] = []
    for cell in re.split(r"^# %%", script.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if "[file]" in kind:
            file = script.parent / kind.replace("[file]", "").strip()
            text = file.read_text(encoding="utf-8").strip()
            parts.append(f"```{LANGUAGES[file.suffix]}\n{text}\n```")
        elif "[markdown]" in kind:
            parts.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()))
        elif body.strip():
            parts.append(f"```python\n{body.strip()}\n```")
    place = script.relative_to(ROOT).as_posix()
    parts.append(f"The page is the script `{place}`.\n`python {place}` runs the script, and a test does.")
    return "\n\n".join(parts) + "\n"


def api_page(package: str, title: str, sentence: str, more: tuple[str, ...] = ()) -> str:
    """What a package exports by `__all__`, and more names in it, for mkdocstrings."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    objects = [f"::: parsecrl.{package}.{name}" for name in [*names, *more]]
    return "\n\n".join([f"# {title}", sentence, *objects]) + "\n"


def command_line() -> str:
    """Every command of `parsec` with its arguments, from argparse."""
    from parsecrl.platform.cli import _parser

    parser = _parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    choices = [(choice.dest, choice.help) for choice in commands._choices_actions]
    rows = [f"| [`parsec {name}`](#parsec-{name}) | {said} |" for name, said in choices]
    parts = [
        COMMANDS,
        "\n".join(["| command | what |", "|---|---|", *rows]),
        EXIT_CODES,
        "## parsec",
        _arguments(parser),
    ]
    for name, said in choices:
        command = commands.choices[name]
        usage = re.sub(r"\s+", " ", command.format_usage().removeprefix("usage: ")).strip()
        parts += [f"## parsec {name}", _sentence(said), f"```text\n{_wrapped(usage)}\n```", _arguments(command)]
    return "\n\n".join(parts) + "\n"


def _sentence(text: str | None) -> str:
    text = (text or "").strip()
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _wrapped(usage: str, width: int = 96) -> str:
    return "\n".join(
        textwrap.wrap(usage, width, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False)
    )


def _arguments(parser: argparse.ArgumentParser) -> str:
    rows = ["| argument | meaning |", "|---|---|"]
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help is argparse.SUPPRESS:
            continue
        names = ", ".join(action.option_strings) or formatter._format_args(action, action.dest.upper())
        if action.option_strings and action.nargs != 0:
            names += f" {formatter._format_args(action, action.dest.upper())}"
        said = (formatter._expand_help(action) if action.help else "").replace("|", "\\|")
        rows.append(f"| `{names.replace('|', chr(92) + '|')}` | {said} |")
    return "\n".join(rows)
