"""The hooks of the site as a module, and the site as built."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]

_spec = importlib.util.spec_from_file_location("parsecrl_docs_hooks", ROOT / "docs" / "hooks.py")
HOOKS = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(HOOKS)
