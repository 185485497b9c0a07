"""The tutorials run to their ends; each asserts what it says. Those that use Ray share one session."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
WITHOUT_RAY = ("plan",)
IN_ONE_SESSION = ("train_and_act", "own_task", "own_parts", "sweep")
WITH_A_CLUSTER = ("cluster",)


def test_every_tutorial_is_run():
    assert {file.stem for file in TUTORIALS.glob("*.py")} == {*WITHOUT_RAY, *IN_ONE_SESSION, *WITH_A_CLUSTER}


@pytest.mark.parametrize("name", WITHOUT_RAY)
def test_a_tutorial_without_ray(name, tmp_path):
    code = f"import runpy, sys; sys.modules['ray'] = None; runpy.run_path({str(TUTORIALS / name)!r} + '.py')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.ray
@pytest.mark.parametrize("name", IN_ONE_SESSION)
def test_a_tutorial_with_ray(name, ray_runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(TUTORIALS / f"{name}.py"), run_name="__main__")


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_A_CLUSTER)
def test_a_tutorial_with_a_cluster(name, tmp_path):
    subprocess.run([sys.executable, TUTORIALS / f"{name}.py"], cwd=tmp_path, check=True)
