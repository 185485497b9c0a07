"""Code blocks after the line `<!-- runs -->` run: those of a page together, in their order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.prose import ROOT, pages

BLOCK = re.compile(r"^<!-- runs -->\n```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def marked(language: str) -> list:
    found = []
    for file in pages():
        blocks = [code for kind, code in BLOCK.findall(file.read_text(encoding="utf-8")) if kind == language]
        if blocks:
            found.append(pytest.param(blocks, id=str(file.relative_to(ROOT))))
    return found


def test_every_mark_stands_before_a_block():
    for file in pages():
        text = file.read_text(encoding="utf-8")
        assert len(re.findall(r"^<!-- runs -->$", text, re.MULTILINE)) == len(BLOCK.findall(text)), file


@pytest.mark.parametrize("blocks", marked("python"))
def test_python(blocks, tmp_path):
    subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, check=True)


@pytest.mark.parametrize("blocks", marked("sh"))
def test_shell(blocks, tmp_path):
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = "set -e\n" + "\n".join(blocks)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
