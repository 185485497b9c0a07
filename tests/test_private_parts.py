"""Parts of Ray without a public name are used in two files alone, which give the reason beside each."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from parsecrl.platform.cluster.connection import quiet_ray

quiet_ray()

ROOT = Path(__file__).parents[1]
FILES = [file for room in ("algorithms", "envs", "platform") for file in sorted((ROOT / room).rglob("*.py"))]
GATHERED = {"rllib_private.py", "ray_private.py"}
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
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)} | OF_NAMED_TUPLES
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                own.add(name)

    def found() -> Iterator[ast.AST]:
        for node in nodes:
            match node:
                case ast.Import(names=names) if any(
                    name.name.startswith(INTERNAL) or name.name.startswith("ray._") for name in names
                ):
                    yield node
                case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "ray":
                    parts = [*module.split("."), *(name.name for name in names)]
                    if module.startswith(INTERNAL) or any(map(is_private, parts)):
                        yield node
                case ast.Attribute(value=of, attr=name) if is_private(name) and name not in own:
                    if not ast.unparse(of).startswith("torch"):
                        yield node
                case ast.keyword(arg=name) if is_private(name):
                    yield node

    uses_ray = any(isinstance(n, ast.Import | ast.ImportFrom) and "ray" in ast.unparse(n) for n in nodes)
    return [ast.unparse(node) for node in found()] if uses_ray else []


def test_no_other_file_uses_private_parts_of_ray():
    uses = {file.name: found for file in FILES if (found := private_uses(file.read_text(encoding="utf-8")))}
    assert uses.keys() == GATHERED, {name: found for name, found in uses.items() if name not in GATHERED}


def test_no_class_overrides_a_private_method_of_ray():
    overridden = []
    for file in FILES:
        name = ".".join(("parsecrl", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for kind in vars(importlib.import_module(name)).values():
            if not inspect.isclass(kind) or kind.__module__ != name:
                continue
            bases = [base for base in kind.__mro__ if base.__module__.split(".")[0] == "ray"]
            methods = {
                x for x, value in vars(kind).items() if is_private(x) and (callable(value) or hasattr(value, "fget"))
            }
            overridden += [f"{name}: {x}" for x in methods - HOOKS if any(x in vars(base) for base in bases)]
    assert not overridden


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
