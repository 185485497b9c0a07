import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from parsecrl.platform.submission.packing import ROOT_FILES, build_wheel, package_files

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("algorithms", "envs", "platform", "tune_specs", "pretrained")


def built_files(sources, folder):
    """The names of the files that an installation of these sources has."""
    # Its metadata too, or those beside the sources, which other tests read, would be written anew.
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder)]
    command += ["build", "--build-base", str(folder)]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    (library,) = folder.glob("lib*")
    return {file.relative_to(library).as_posix() for file in library.rglob("*") if file.is_file()}


def test_an_installation_holds_every_file_and_no_other(tmp_path):
    built = built_files(ROOT, tmp_path)
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*") if file.is_file()]
    own = {
        f"parsecrl/{file.relative_to(ROOT).as_posix()}"
        for file in [*files, *(ROOT / name for name in ROOT_FILES)]
        if "__pycache__" not in file.parts and (file.suffix != ".md" or "pretrained" in file.parts)
    }
    docs = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs" / "tutorials").rglob("*"), *ROOT.glob("*.md")]
    docs += [ROOT / name for name in ("CITATION.cff", "algorithms/README.md", "docs/images/cartpole.gif")]
    assert built == own | {
        f"parsecrl/{file.relative_to(ROOT).as_posix()}"
        for file in docs
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_a_job_brings_along_what_is_installed_and_its_entry_points(tmp_path):
    with zipfile.ZipFile(build_wheel(tmp_path, package_files())) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        assert "parsec = parsecrl.platform.cli:main" in wheel.read(entry_points).decode()
    assert {"parsecrl/__init__.py", "parsecrl/py.typed", "parsecrl/envs/__init__.py"} <= names


def test_the_version_is_printed():
    found = subprocess.check_output([sys.executable, "-m", "parsecrl", "--version"], text=True)
    assert found == f"parsec {version('parsec-rl')}\n"


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


def test_commands_on_runs_and_jobs_import_no_more_than_they_need():
    code = (
        "import sys\n"
        "import parsecrl.platform.runs.status\n"
        "heavy = {'ray', 'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "import parsecrl.platform.submission.jobs\n"
        "heavy |= {'ray.tune', 'ray.data', 'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
