"""The house: every import runs down, none in a circle. `make lint` runs this file alone.

An import counts wherever it stands: in a function, for types only, or as a string that names a module of ours.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from parsecrl.algorithms.registry.lookup import registered
from tests.house import ROOT, circles, imports, modules, naming, rooms_of

# From the ground up: a room imports rooms that stand before it, and no other.
PLATFORM = (
    *("errors", "terminal", "shipping", "cluster", "metrics", "storage", "specs", "doctor", "runs", "evaluation"),
    *("reports", "capacity", "running", "submission", "exchange", "cli"),
)


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """The imports that break a rule of the house."""
    broken = []
    for module, others in arrows.items():
        house, _, rest = module.partition(".")
        for other in others:
            other_house, _, other_rest = other.partition(".")
            if house in {"algorithms", "envs"}:
                wrong = other_house != house
            elif house == other_house == "platform":
                own, target = (PLATFORM.index(name.partition(".")[0]) for name in (rest, other_rest))
                wrong = target > own
            else:
                wrong = house == "tune_specs"
            broken += [f"{module} -> {other}"] if wrong else []
    return sorted(broken)


def test_no_circle_between_modules():
    assert circles(imports(ROOT)) == []


def test_no_circle_between_rooms():
    assert circles(rooms_of(imports(ROOT))) == []


def test_imports_run_down():
    assert upward(imports(ROOT)) == []


def test_platform_has_few_rooms():
    top = {module.split(".")[1] for module in modules(ROOT) if module.startswith("platform.")}
    assert top == set(PLATFORM)
    assert len(top) <= 16


def test_the_platform_names_no_algorithm():
    assert naming(ROOT, registered()) == []


def house(root: Path, files: dict[str, str]) -> dict[str, set[str]]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return imports(root)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("algorithms/solvers/lml.py", "from parsecrl.platform.errors import UserError"),
        ("algorithms/solvers/lml.py", "def late():\n    import parsecrl.envs.control"),
        ("platform/errors.py", "LATER = 'parsecrl.platform.cli:main'"),
        ("platform/errors.py", "if TYPE_CHECKING:\n    from parsecrl.platform.cli import main"),
    ],
)
def test_an_upward_import_is_found(tmp_path, file, text):
    files = dict.fromkeys(["platform/errors.py", "platform/cli.py", "envs/control.py"], "")
    assert upward(house(tmp_path, files)) == []
    assert len(upward(house(tmp_path, {**files, file: text}))) == 1


@pytest.mark.parametrize("text", ["from parsecrl.algorithms.planet import replay", "if name == 'planet': pass"])
def test_a_module_that_names_an_algorithm_is_found(tmp_path, text):
    files = dict.fromkeys(["platform/errors.py", "platform/cli.py", "algorithms/planet/replay.py"], "")
    house(tmp_path, {**files, "platform/cli.py": text})
    assert naming(tmp_path, ["planet", "unified"]) == ["platform.cli"]


def test_a_circle_is_found(tmp_path):
    files = {"algorithms/models/a.py": "from parsecrl.algorithms.models import b", "algorithms/models/b.py": ""}
    assert circles(house(tmp_path, files)) == []
    files["algorithms/models/b.py"] = "if TYPE_CHECKING:\n    from parsecrl.algorithms.models.a import A"
    assert circles(house(tmp_path, files)) == [["algorithms.models.a", "algorithms.models.b"]]
