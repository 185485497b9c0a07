"""The site as built: nothing from elsewhere, every link holds, and the reference has all of keys, commands, metrics."""

import argparse
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

import parsecrl
from parsecrl.platform.cli import _parser
from parsecrl.platform.metrics.table import METRICS
from parsecrl.platform.specs import keys
from tests.docs.site import HOOKS, ROOT, build
from tests.platform import chromium

LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("source", "src"), ("video", "src"), ("iframe", "src")}


class Page(HTMLParser):
    """What a page loads, links to, and can be linked to at."""

    def __init__(self, file: Path):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        for name, value in attrs:
            if (tag, name) in LOADS and value and found.get("rel") not in ("canonical", "prev", "next"):
                self.loads.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site") / "site")


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file) for file in site.rglob("*.html")}


def shown(site: Path, page: str) -> str:
    return html.unescape((site / page).read_text(encoding="utf-8"))


def test_no_page_loads_anything_from_elsewhere(site, pages):
    assert len(pages) > 40
    for file, page in pages.items():
        assert page.loads
        for address in page.loads:
            assert not urlsplit(address).netloc, f"{file.relative_to(site)} loads {address}"
    for file in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text), file


def test_every_link_within_the_site_holds(site, pages):
    checked = 0
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or file.name == "404.html":
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert target.exists(), f"{file.relative_to(site)} links to {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{file.relative_to(site)} links to {link}"
            checked += 1
    assert checked > 1000


def test_every_link_between_files_of_the_repository_holds():
    sources = [*ROOT.glob("*.md"), ROOT / "algorithms" / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = 0
    for file in sources:
        text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for found in HOOKS.LINK.finditer(text):
            path = found.group(3).partition("#")[0]
            if not path or re.match("[a-z]+:", path):
                continue
            target = (file.parent / path).resolve()
            made = {ROOT / "docs" / place: ROOT / source for place, source in HOOKS.ELSEWHERE.items()}
            generated = ("command_line", "envs", *HOOKS.API)
            made |= {ROOT / "docs" / "reference" / f"{name}.md": ROOT / "docs" / "hooks.py" for name in generated}
            made |= {script.with_suffix(".md"): script for script in (ROOT / "docs" / "tutorials").glob("*.py")}
            assert made.get(target, target).exists(), f"{file.relative_to(ROOT)}: {path}"
            links += 1
    assert links > 200


def test_every_spec_key_is_in_the_reference(site):
    text = shown(site, "specs.html")
    for title, _, found in keys.tables():
        section = text[text.index(f">{title}<") :]
        for key in found:
            assert f"<code>{key.key}</code>" in section, f"{title}: {key.key}"


def test_every_command_and_option_is_in_the_reference(site):
    text = shown(site, "reference/command_line.html")
    parser = _parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    assert {"run", "specs", "report"} <= commands.choices.keys()
    for name, command in commands.choices.items():
        section = text[text.index(f'id="parsec-{name}"') :].partition("<h2")[0]
        for action in command._actions:
            for word in action.option_strings or [action.metavar or action.dest]:
                assert word in section, f"parsec {name} {word}"


def test_every_metric_is_in_the_reference(site):
    text = shown(site, "metrics.html")
    for metric in METRICS:
        assert metric.prometheus_name in text


def test_every_public_name_is_in_the_reference(site):
    text = "".join(file.read_text(encoding="utf-8") for file in (site / "reference").glob("*.html"))
    for name in set(parsecrl.__all__) - {"__version__"}:
        assert re.search(rf'id="parsecrl\.[\w.]+\.{name}"', text), name


def test_a_page_without_a_line_in_nav_gets_its_place():
    pages = ["new.md", "results/new.md", "tutorials/old.md"]
    files = SimpleNamespace(documentation_pages=lambda: [SimpleNamespace(src_uri=page) for page in pages])
    nav = [{"How-to": []}, {"Results": ["results/a.md"]}, {"Tutorials": [{"Old": "tutorials/old.md"}]}]
    HOOKS._place_the_rest(files, nav)
    assert nav == [
        {"How-to": ["new.md"]},
        {"Results": ["results/a.md", "results/new.md"]},
        {"Tutorials": [{"Old": "tutorials/old.md"}]},
    ]


def test_equations_need_no_script(site):
    text = (site / "explanation" / "methods.html").read_text(encoding="utf-8")
    assert text.count("<math ") > 8
    assert "mathjax" not in text.lower()


def test_every_page_has_a_title(pages):
    for file in pages:
        text = file.read_text(encoding="utf-8")
        assert re.search(r"<h1[ >]", text), file


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
def test_a_browser_shows_the_start_page_without_a_network(site, tmp_path):
    """All names but the loopback's lead nowhere; a page that waited for another host would say so."""
    picture = tmp_path / "start.png"
    offline = ("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0")
    done = chromium.load((site / "index.html").as_uri(), picture, 1300, 900, *offline)
    assert "ERR_NAME_NOT_RESOLVED" not in done.stderr
    assert picture.stat().st_size > 20_000
