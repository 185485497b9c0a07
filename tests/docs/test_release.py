"""What a release says of itself says the same everywhere."""

import re
from importlib.metadata import version

import yaml

import parsecrl
from tests.docs.prose import ROOT


def test_the_version_is_the_same_everywhere():
    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert stated == newest == cited == version("parsec-rl") == parsecrl.__version__


def test_both_papers_are_cited():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    families = [{author["family-names"] for author in paper["authors"]} for paper in cited["references"]]
    assert families == [{"Amos", "Yarats"}, {"Saanum", "Schulz"}]
    assert {"cff-version", "message", "title", "authors", "license"} <= cited.keys()


def test_changes_go_by_kind():
    text = (ROOT / "CHANGELOG.md").read_text()
    newest = re.split(r"^## ", text, flags=re.MULTILINE)[1]
    kinds = re.findall(r"^### (.+)$", newest, re.MULTILINE)
    assert kinds == ["Added", "Changed", "Fixed", "Removed", "Security"]
    lines = [line for line in newest.splitlines() if line.startswith("- ")]
    assert len(lines) == len(set(lines))
