import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import pip._vendor.tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("algorithms", "envs", "platform", "tune_specs")


def test_the_package_list_is_that_of_the_folders():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        ".".join(["parsecrl", *file.parent.relative_to(ROOT).parts])
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.suffix in {".py", ".yaml"} and "__pycache__" not in file.parts
    }
    assert sorted(listed) == sorted(folders)


def test_every_data_file_is_packaged():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for room in ROOMS:
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and file.suffix not in {".py", ".pyc", ".md"}:
                package = ".".join(["parsecrl", *file.parent.relative_to(ROOT).parts])
                assert f"*{file.suffix}" in data.get(package, []), file


def test_platform_stays_out_of_the_standard_librarys_way():
    assert not (ROOT / "platform" / "__init__.py").exists()
    code = "import platform; print(platform.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()).parent == Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize("room", ["solvers", "models", "controllers"])
def test_math_needs_no_ray(room):
    code = f"import sys; sys.modules['ray'] = None; import parsecrl.algorithms.{room}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from parsecrl.platform import cli\n"
        "cli._parser().format_help()\n"
        "heavy = {'ray', 'torch', 'dm_control', 'pandas', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
