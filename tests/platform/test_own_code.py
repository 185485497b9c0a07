"""Own code that goes with a run: what is taken, what is refused, and what a run folder remembers of it."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from parsecrl.platform import doctor
from parsecrl.platform.cli import main
from parsecrl.platform.errors import UserError
from parsecrl.platform.runs import code_record
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.shipping import own_code, secrets, wheels
from parsecrl.platform.specs import load_spec
from tests.platform.own_code_files import EXAMPLE, WORLDS, example_wheel_in, write_files, write_lab


@pytest.fixture
def lab(tmp_path):
    return write_lab(tmp_path / "lab")


@pytest.fixture
def put_on_path(monkeypatch):
    """`own_code.put_on_path`, undone after the test; a second call takes the place of the first."""
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def put(*places):
        sys.path[:] = before
        own_code.put_on_path([str(place) for place in places])
        return own_code.on_path()

    return put


@pytest.fixture(scope="module")
def example_wheel(tmp_path_factory):
    return example_wheel_in(tmp_path_factory.mktemp("example"))


# --- what is taken --------------------------------------------------------------------------------------------------


def test_a_folder_of_modules_lies_on_the_path_as_it_is(lab, tmp_path):
    left_behind = (".git/config", ".env", "__pycache__/tool.pyc", "old.pyc", "venv/pyvenv.cfg", "venv/lib/site.py")
    left_behind += ("runs/small/made_by.json", "runs/small/notes.py", "small.yaml")
    write_files(lab, dict.fromkeys(left_behind, "x = 1\n"))
    (lab / "link.py").symlink_to(lab / "tool.py")
    code = own_code.read(str(lab), str(lab / "small.yaml"))
    assert sorted(code.contents) == ["tool.py", "worlds/__init__.py", "worlds/robot.urdf"]
    assert code.modules == {"tool", "worlds"}
    copy = shutil.copytree(lab, tmp_path / "copy" / "lab", symlinks=True)
    assert code.digest == own_code.read(str(copy), str(copy / "small.yaml")).digest


def test_a_folder_that_is_a_package_has_its_name(lab):
    code = own_code.read(str(lab / "worlds"))
    assert sorted(code.contents) == ["worlds/__init__.py", "worlds/robot.urdf"]
    assert (code.name, code.modules) == ("worlds", {"worlds"})


def test_every_process_finds_what_was_put_on_the_path(lab, example_wheel, put_on_path, tmp_path):
    given = [own_code.read(str(place)) for place in (lab, example_wheel)]
    found = put_on_path(lab, example_wheel)
    assert [(code.name, code.digest) for code in found] == [(code.name, code.digest) for code in given]
    (lab / "tool.py").write_text("later = 1\n")  # a run that goes on keeps its copy
    child = (
        "import tool, worlds, pathlib, importlib.metadata, parsec_example\n"
        "from parsecrl.platform.shipping import own_code\n"
        "from parsecrl.platform.specs import load_spec\n"
        "assert tool.A == 1\n"
        "assert pathlib.Path(worlds.__file__).with_name('robot.urdf').is_file()\n"
        "assert importlib.metadata.version('parsec-example') == '0.1.0'\n"
        "print(*(code.digest for code in own_code.on_path()))\n"
        f"print(load_spec({str(EXAMPLE / 'study.yaml')!r}).phases[0].algorithm)\n"  # by the wheel's entry point
    )
    done = subprocess.run([sys.executable, "-c", child], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [*(code.digest for code in given), "search_study"], done.stderr
    again = [code.wheel(tmp_path) for code in found]
    assert [path.read_bytes() for path in again] == [code.wheel(tmp_path).read_bytes() for code in given]


def test_pip_installs_the_wheels_without_an_index(lab, example_wheel, tmp_path):
    """As Ray has it done on every node; the example depends on parsec-rl, which no index there has."""
    for code in (own_code.read(str(lab)), own_code.read(str(example_wheel))):
        wheel, target = code.wheel(tmp_path), tmp_path / code.digest
        assert code.digest in wheel.name
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", f"--target={target}", wheel]
        subprocess.run(pip, check=True)
        for name, data in code.contents.items():
            assert (target / name).read_bytes() == data


# --- what is refused ------------------------------------------------------------------------------------------------

KEY = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"


def refused(capsys, place, command="submit"):
    assert main([command, "cheetah_run_quick", "--code", str(place)]) == 2  # before --address is missed
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_doctor_plays_a_task_of_the_code(put_on_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "TASK_SECONDS", 0.1)
    world = WORLDS.replace("import tool\n", "").replace("tool.A", "1.0").replace("Point-v0", "Shipped-v0")
    mine = write_files(tmp_path / "mine", {"shipped_world.py": world.replace("worlds:Point", "shipped_world:Point")})
    assert main(["doctor", "--code", str(mine), "--env", "shipped_world:Shipped-v0"]) == 0
    assert "30 to 30 simulator steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["holds no Python module", "a folder with an __init__.py is a package"]),
        ({"notes.txt": "x"}, ["holds no Python module"]),
        ({"setup.py": "", "src/mine/__init__.py": ""}, ["its packages in src", "--code", "src"]),
        ({"random.py": ""}, ["a module random, which would hide Python's own"]),
        ({"parsecrl/__init__.py": ""}, ["a module parsecrl, which would hide parsecrl's own"]),
        ({"torch/__init__.py": ""}, ["a module torch, which would hide that of torch"]),
        ({"yaml.py": ""}, ["a module yaml, which would hide that of PyYAML"]),
        (
            {"a.py": f"\nWANDB_API_KEY = '{KEY}'\n"},
            ["line 2 of a.py looks like a secret", "environment of the cluster"],
        ),
        ({"a.py": "", "conf/site.yaml": f"a: 1\npassword: {KEY}\n"}, ["line 2 of conf/site.yaml"]),
        ({"a.py": "", "data.json": f'{{"api_key": "{KEY}"}}'}, ["line 1 of data.json"]),
        ({"a.py": 'URL = "postgres://me:secret@host/db"\n'}, ["line 1 of a.py"]),
        ({"a.py": "", "deploy.txt": "-----BEGIN RSA PRIVATE KEY-----\nMII\n"}, ["line 1 of deploy.txt"]),
        ({"a.py": "", "ray_token": "abc"}, ["line 1 of ray_token"]),
        ({"a.py": "", "server.pem": "abc"}, ["line 1 of server.pem"]),
    ],
)
def test_a_folder_is_refused_in_one_sentence(files, words, tmp_path, capsys):
    folder = write_files(tmp_path / "mine", files)
    said = refused(capsys, folder)
    assert all(word in said for word in (str(folder), *words)), said
    assert KEY not in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", ["no such folder or wheel"]),
        ("spec.yaml", ["is no wheel", "`pip wheel`"]),
        ("mine-1.0-py3-none-any.whl", ["is no wheel"]),
        ("mine-1.0-cp38-cp38-win_amd64.whl", ["another Python or machine", "build it for this one"]),
        ("mine-2.0-py3-none-any.whl", ["another Python or machine"]),
        ("mine-3.0-py3-none-any.whl", ["damaged, or no wheel"]),
    ],
)
def test_a_file_that_is_no_wheel_of_this_python_is_refused(name, words, tmp_path, capsys):
    (tmp_path / "spec.yaml").write_text("name: a\n")
    (tmp_path / "mine-1.0-py3-none-any.whl").write_text("not a zip")
    needs = {"mine-2.0.dist-info/METADATA": b"Name: mine\nVersion: 2.0\nRequires-Python: >=3.99\n"}
    wheels.write_wheel(tmp_path, "mine", "2.0", {"mine.py": b"", **needs}).rename(
        tmp_path / "mine-2.0-py3-none-any.whl"
    )
    shutil.copy(tmp_path / "mine-2.0-py3-none-any.whl", tmp_path / "mine-1.0-cp38-cp38-win_amd64.whl")
    with zipfile.ZipFile(tmp_path / "mine-3.0-py3-none-any.whl", "w") as archive:
        archive.writestr("mine.py", "")
    said = refused(capsys, tmp_path / name)
    assert all(word in said for word in (name, *words)), said


def test_code_over_the_limit_names_its_largest_files(lab, capsys):
    with (lab / "recordings.npz").open("wb") as stream:
        stream.truncate(101 * 2**20)
    said = refused(capsys, lab, "run")
    assert all(word in said for word in ("recordings.npz (101.0 MiB)", "takes 100.0 MiB", "move what is not code"))


def test_two_codes_with_one_module_are_refused(lab, tmp_path):
    other = write_files(tmp_path / "other", {"tool.py": ""})
    with pytest.raises(UserError, match="--code lab and --code other both hold tool"):
        own_code.put_on_path([str(lab), str(other)])
    assert not own_code.on_path()


@pytest.mark.parametrize(
    "line",
    [
        "API_KEY = os.environ['WANDB_API_KEY']",
        'sort_key = "episode_return_mean"',
        'tokenizer_name = "gpt2-tokenizer-v123"',
        'eos_token = "<|endoftext|>"',
        'pip = "git+ssh://git@github.com/me/mine"',
        'url = f"https://{user}:{password}@host"',
        'TOKEN_FILE = "/home/me/.ray/auth_token_123"',
        "num_tokens: int = 123456789012",
        "site_packages = 'http://localhost:8265'  # mail me@host",
    ],
)
def test_ordinary_code_is_no_secret(line):
    assert secrets.line_of_secret(f"import os\n{line}\n", is_python=True) is None


def test_the_projects_own_code_holds_no_secret():
    for folder in ("algorithms", "envs", "platform", "tests/example_plugin"):
        for name, file in own_code.files_below(EXAMPLE.parents[1] / folder):
            assert secrets.line_of_secret(file.read_text(encoding="utf-8"), name.endswith(".py")) is None, name


# --- what a run folder remembers ------------------------------------------------------------------------------------


def begin(folder, new_code=False):
    run = RunFolder(folder, load_spec("cheetah_run_quick"), new_code=new_code)
    run._check()
    run.open()
    run.close()
    return run


def test_a_run_goes_on_with_the_code_that_it_began_with_or_is_told(lab, put_on_path, tmp_path):
    run = tmp_path / "runs" / "mine"
    (first,) = put_on_path(lab)
    begin(run)
    begin(run)  # the same
    (copy,) = (run / code_record.FOLDER).iterdir()
    assert own_code.read(str(copy)).digest == first.digest
    write_files(lab, {"tool.py": "A = 2\n", "more.py": ""})
    (lab / "worlds" / "robot.urdf").unlink()
    put_on_path(lab)
    changes = r"changed: tool\.py; new: more\.py; gone: worlds/robot\.urdf"
    with pytest.raises(UserError, match=rf"{changes}.*--new-code") as told:
        begin(run)
    assert f"--code {copy}" in str(told.value)
    put_on_path(copy)
    begin(run)  # the copy is the code that it began with
    put_on_path(lab)
    begin(run, new_code=True)
    begin(run)
    assert len(list((run / code_record.FOLDER).iterdir())) == 2  # nothing was lost
    stages = json.loads((run / code_record.FILE).read_text())
    assert [[code["name"] for code in stage["code"]] for stage in stages] == [["lab"], ["lab"]]
    put_on_path()
    with pytest.raises(UserError, match=r"was begun with --code lab; give it again .*--new-code to go on without"):
        begin(run)
    begin(run, new_code=True)
    begin(run)
    put_on_path(lab)
    with pytest.raises(UserError, match=r"was begun without --code lab \("):
        begin(run)


def test_a_copy_is_kept_in_a_store(lab, put_on_path, s3):
    from parsecrl.platform.storage import location_of

    put_on_path(lab)
    run = location_of(f"{s3}/runs/mine")
    begin(run)
    begin(run)
    (copy,) = (run / code_record.FOLDER).iterdir()
    assert copy.name in (run / code_record.FILE).read_text()
    put_on_path()
    with pytest.raises(UserError, match="was begun with --code lab"):
        begin(run)
