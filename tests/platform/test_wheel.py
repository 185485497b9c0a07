"""The wheel in an environment that knows nothing of the repository."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pytest

from parsecrl.platform.specs import bundled_specs, load_spec
from tests.docs.site import HOOKS
from tests.platform.test_packaging import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The binaries of an environment with the wheel. What the wheel depends on is borrowed from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder), "build", "--build-base"]
    command += [str(folder), "bdist_wheel", "--bdist-dir", str(folder / "b"), "--dist-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=False)
    binaries = folder / "venv" / "bin"
    (site_packages,) = folder.glob("venv/lib/python*/site-packages")
    # A path of a .pth file is searched for modules, while its own .pth files, which find the sources, are not read.
    borrowed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (site_packages / "borrowed.pth").write_text("\n".join(borrowed))
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(binaries / "python"), "install", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--ignore-installed", str(wheel)], check=True, capture_output=True)
    return binaries


@pytest.fixture
def command(installed, tmp_path):
    """Run a program of that environment, in a folder of its own, and answer what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}

    def run(name, *arguments):
        command = [str(installed / name), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    return run


def test_specs_and_documentation_are_in_it(command, installed):
    (package,) = installed.parent.glob("lib/python*/site-packages/parsecrl")
    assert command("python", "-c", "import parsecrl; print(parsecrl.__file__)").strip() == f"{package}/__init__.py"
    assert re.fullmatch(r"parsec \d+\.\d+\.\d+\n", command("parsec", "--version"))
    assert [line.split()[0] for line in command("parsec", "specs").splitlines()] == list(bundled_specs())
    assert "algorithm: planet" in command("parsec", "specs", "inverted_pendulum_quick")
    pages = [line.split()[0] for line in command("parsec", "docs").splitlines()]
    assert command("parsec", "docs", "plugins") == (ROOT / "docs" / "plugins.md").read_text() + "\n"
    # What messages send a reader to is there.
    sources = "".join(file.read_text() for file in package.rglob("*.py"))
    named = set(re.findall(r"parsec docs ([a-z_/]+)", sources))
    assert "plugins" in named
    assert named <= set(pages)


def test_every_bundled_spec_is_read_and_printed(command):
    code = (
        "import yaml\n"
        "from parsecrl.platform.specs import bundled_specs, dump, load_spec\n"
        "for name in bundled_specs():\n"
        "    print(yaml.safe_load(dump(load_spec(name)))['name'])"
    )
    printed = command("python", "-c", code).split()
    assert printed == [load_spec(name).name for name in bundled_specs()]


def test_links_lead_to_files_that_it_holds(command, installed):
    """Those of its description, and those from page to page; pages also link to what is made for the site alone."""
    (package,) = installed.parent.glob("lib/python*/site-packages/parsecrl")
    description = command(
        "python", "-c", "import importlib.metadata as m; print(m.metadata('parsec-rl').get_payload())"
    )
    assert "Where to read on" in description
    paths = list(linked(description))
    assert len(paths) > 10
    assert [path for path in paths if not (package / path).exists()] == []
    pages = {line.split()[0] for line in command("parsec", "docs").splitlines()}
    of_the_site = {f"reference/{name}" for name in ("command_line", "envs", *HOOKS.API)}
    found = set()
    for file in (package / "docs").rglob("*.md"):
        for path in linked(file.read_text()):
            target = Path(os.path.normpath(file.parent / path))
            if target.suffix == ".md" and target.is_relative_to(package / "docs"):
                found.add(target.relative_to(package / "docs").with_suffix("").as_posix())
            elif target.suffix in {".md", ".cff"}:
                assert target.is_file(), f"{file}: {path}"
    assert len(found) > 30
    assert found <= pages | of_the_site


def linked(text):
    """The paths that a page links to."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    paths = (found.group(3).partition("#")[0] for found in HOOKS.LINK.finditer(text))
    return (path for path in paths if path and not re.match("[a-z]+:", path))


@pytest.mark.slow
def test_a_trained_agent_is_in_it(command):
    code = (
        "import json, parsecrl\n"
        "agent = parsecrl.load_agent('pretrained:pendulum')\n"
        "action, _ = agent.act([1.0, 0.0, 0.0], agent.initial_state())\n"
        "print(json.dumps(action.tolist()))"
    )
    (action,) = json.loads(command("python", "-c", code))
    assert -2 <= action <= 2
    assert "median" in command("parsec", "evaluate", "pretrained:pendulum", "--episodes", "1")


@pytest.mark.slow
def test_the_agent_serves(installed, tmp_path):
    pytest.importorskip("fastapi")
    arguments = ["serve", "pretrained:pendulum", "--port", "0", "--token-file", "token"]
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [installed / "parsec", *arguments], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", (tmp_path / "log").read_text())):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        headers = {"Authorization": f"Bearer {(tmp_path / 'token').read_text().strip()}"}
        headers["Content-Type"] = "application/json"

        def post(path, body):
            request = urllib.request.Request(found[0] + path, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        session = post("/sessions", {"seed": 0})["session"]
        (action,) = post(f"/sessions/{session}/act", {"observation": [1.0, 0.0, 0.0]})["action"]
        assert -2 <= action <= 2
    finally:
        server.terminate()
        server.wait(60)
