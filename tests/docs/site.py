"""The hooks of the site as a module, and the site as built."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_spec = importlib.util.spec_from_file_location("parsecrl_docs_hooks", ROOT / "docs" / "hooks.py")
HOOKS = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(HOOKS)


def build(folder: Path) -> Path:
    """Build the site as `make docs` does, into the folder; a warning is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
