"""Headless Chromium for tests that look at pages."""

import os
import shutil
import subprocess
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium found (chromium, chromium-browser, google-chrome)"


def load(address: str, picture: Path, width: int, height: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Load a page, save a picture of it; Chromium's output. Its profile goes into the picture's folder."""
    assert PROGRAM is not None
    command = [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--hide-scrollbars", f"--window-size={width},{height}", f"--user-data-dir={picture.parent / 'profile'}"]
    done = subprocess.run(
        [*command, f"--screenshot={picture}", *options, address],
        capture_output=True, text=True, timeout=600, env={**os.environ, "HOME": str(picture.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done
