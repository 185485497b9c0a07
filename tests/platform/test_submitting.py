"""What a job is sent with: the wheel of this package, the command, the token."""

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from parsecrl.platform import cli
from parsecrl.platform.errors import UserError
from parsecrl.platform.submission import packing, submitting, tokens


def test_the_wheel_is_the_whole_package_and_packs_itself_again(site, tmp_path):
    code = (
        "import pathlib, sys, parsecrl.platform.cli as cli\n"
        "from parsecrl.platform.submission import packing\n"
        "from parsecrl.platform.specs import bundled_specs\n"
        "assert 'cheetah_run_quick' in bundled_specs()\n"
        "print(cli.__file__)\n"
        "print(packing.build_wheel(pathlib.Path(sys.argv[1]), packing.package_files()))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    module, again = map(Path, done.stdout.split())
    assert module.is_relative_to(site)
    here = packing.build_wheel(tmp_path.parent, packing.package_files())
    assert again.name == here.name  # installed or in the source tree: the same wheel
    assert again.read_bytes() == here.read_bytes()
    names = zipfile.ZipFile(here).namelist()
    assert not any("__pycache__" in name or ".git" in name or name.startswith("tests") for name in names)
    metadata = zipfile.ZipFile(here).read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert "Requires-Dist" not in metadata


def test_another_file_makes_another_wheel(tmp_path):
    files = dict(packing.package_files())
    first = packing.build_wheel(tmp_path, files)
    (tmp_path / "changed.py").write_text("changed = True\n")
    files["parsecrl/envs/__init__.py"] = tmp_path / "changed.py"
    assert packing.build_wheel(tmp_path, files).name != first.name  # Ray tells wheels apart by name alone


HOSTILE = [
    "/x; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a' 'b\"; touch pwned #",
    "--trust",
    "a\ntouch pwned\n",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_reaches_the_shell(tmp_path, value):
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    fake.chmod(0o755)
    done = subprocess.run(
        submitting.entrypoint(value, value), shell=True, cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    words = json.loads(done.stdout)
    assert words[:2] == ["-m", "parsecrl"]
    options = cli._parser().parse_args(words[2:])
    assert (options.storage, options.name, options.address) == (value, value, "auto")
    assert not options.trust
    assert not (tmp_path / "pwned").exists()
    assert shlex.split(submitting.entrypoint("/x", "n", fresh=True, trust=True))[-2:] == ["--fresh", "--trust"]


def test_where_the_token_comes_from(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a").write_text("from-a-file\n")
    (tmp_path / "b").write_text("two words")
    assert tokens.read_token() is None
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "a"))
    assert tokens.read_token() == "from-a-file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from-the-environment")
    assert tokens.read_token() == "from-the-environment"
    assert tokens.read_token(tmp_path / "a") == "from-a-file"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert tokens.read_token() is None
    for bad in (tmp_path / "b", tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="token file") as told:
            tokens.read_token(bad)
        assert "two words" not in str(told.value)
