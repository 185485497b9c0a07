"""What `import parsecrl` gives: the names, without torch and Ray until they are used."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import parsecrl

ROOT = Path(parsecrl.__file__).parent
PUBLIC = [
    "__version__",
    *("ActionDecoder", "CategoricalController", "DCEMPPO", "DCEMPPOConfig", "EmbeddedController"),
    *("FullSpaceController", "LatentSAC", "LatentSACConfig", "ParsimoniousDynamics", "Planet", "PlanetConfig"),
    *("PlanningAgent", "RSSM", "Unified", "UnifiedConfig", "categorical_cem", "cem", "dcem", "lml_projection"),
    *("load_agent", "load_spec", "make_env", "run_spec", "unrolled_gd"),
]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_public_names_are_these():
    assert parsecrl.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(parsecrl))
    for name in PUBLIC:
        assert getattr(parsecrl, name) is not None
    assert parsecrl.__version__ == version("parsec-rl")
    with pytest.raises(AttributeError, match="no attribute 'load_agnet'; it has "):
        _ = parsecrl.load_agnet


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: f"{node.module}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == parsecrl._HOMES
    assert (ROOT / "py.typed").is_file()


def test_the_import_brings_neither_torch_nor_ray():
    heavy = "{'ray', 'torch', 'numpy', 'gymnasium', 'pydantic', 'importlib.metadata'}"
    assert run(f"import sys, parsecrl; print({heavy} & set(sys.modules))") == "set()\n"


def test_all_but_the_algorithms_works_without_ray():
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import parsecrl\n"
        "for name in parsecrl.__all__:\n"
        "    if not name.startswith(('Planet', 'DCEMPPO', 'LatentSAC', 'Unified')):\n"
        "        getattr(parsecrl, name)\n"
    )
    run(code)


@pytest.mark.parametrize("first", ["parsecrl", "ray.rllib.algorithms.registry"])
def test_tune_knows_the_names_whatever_was_imported_first(first):
    code = (
        f"import {first}\n"
        "import parsecrl\n"
        "from ray.tune.registry import get_trainable_cls\n"
        "for name in ('Planet', 'DCEMPPO', 'LatentSAC', 'Unified'):\n"
        "    assert get_trainable_cls(name) is getattr(parsecrl, name), name\n"
    )
    run(code)
