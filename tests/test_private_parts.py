"""Parts of Ray without a public name are used in few files alone, which give the reason beside each."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from parsecrl.platform.cluster.connection import quiet_ray

quiet_ray()

ROOT = Path(__file__).parents[1]
FILES = [file for room in ("algorithms", "envs", "platform") for file in sorted((ROOT / room).rglob("*.py"))]
GATHERED = {"rllib_private.py", "ray_private.py", "tune_private.py"}
# Each class keeps what one of Tune's forgets with its driver, for which Tune has no call.
ADAPTERS = {"schedulers.py", "optuna_search.py"}
# No underscore, and not in Ray's reference either.
INTERNAL = (
    "ray.autoscaler.v2",
    "ray.core.generated",
    "ray.dashboard",
    "ray.experimental.internal_kv",
    "ray.util.client",
)
# RLlib's documentation asks for these to be overridden.
HOOKS = {"_forward", "_forward_train", "_forward_inference", "_forward_exploration", "_model_config_auto_includes"}
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}


def is_private(name: str | None) -> bool:
    return bool(name) and name.startswith("_") and not name.startswith("__")


def private_uses(code: str) -> list[str]:
    """Imports of Ray's internal parts, and private attributes and arguments of what the file did not define itself."""
    nodes = list(ast.walk(ast.parse(code)))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    own = OF_NAMED_TUPLES | {node.name for node in nodes if isinstance(node, kinds)}
    stored = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
    own |= {n.attr for n in stored if ast.unparse(n.value) == "self"}
    own |= {n.target.id for n in nodes if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    found, uses_ray = [], False
    for node in nodes:
        names: list[str | None] = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [x.name for x in node.names]
            if any(module.split(".")[0] == "ray" for module in modules):
                uses_ray = True
                names = [*".".join(modules).split("."), *(x.name for x in node.names)]
                names += ["_internal"] * any(module.startswith(INTERNAL) for module in modules)
        elif isinstance(node, ast.Attribute) and not ast.unparse(node.value).startswith("torch"):
            names = [node.attr]
        elif isinstance(node, ast.keyword):
            names = [node.arg]
        if any(is_private(name) and name not in own for name in names):
            found.append(ast.unparse(node))
    return found if uses_ray else []


def test_no_other_file_uses_private_parts_of_ray():
    uses = {file.name: found for file in FILES if (found := private_uses(file.read_text(encoding="utf-8")))}
    assert uses.keys() == GATHERED | ADAPTERS, uses


def test_no_class_overrides_a_private_method_of_ray():
    for file in FILES:
        if file.name in ADAPTERS:
            continue
        name = ".".join(("parsecrl", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for _, kind in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if kind.__module__ == name:
                bases = [base for base in kind.__mro__ if base.__module__.startswith("ray.")]
                own = {
                    x
                    for x, value in vars(kind).items()
                    if is_private(x) and (callable(value) or hasattr(value, "fget"))
                }
                assert not {x for x in own - HOOKS for base in bases if x in vars(base)}, kind


@pytest.mark.parametrize(
    "code",
    [
        "import ray._private.worker",
        "from ray.core.generated import ray_client_pb2",
        "from ray.experimental import _internal_kv_get",
        "import ray\nray._private.worker",
        "from ray import tune\ntune.Tuner.restore('x', _resume_config=None)",
        "from ray import tune\ndef f(tuner):\n    return tuner._local_tuner",
    ],
)
def test_private_uses_are_found(code):
    assert private_uses(code)
