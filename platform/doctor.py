"""`parsec doctor`: is this machine fit for a run?"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from parsecrl.platform.errors import UserError, last_line, text_line

PACKAGES = ("parsec-rl", "torch", "ray", "gymnasium", "shimmy", "dm_control", "mujoco", "numpy", "pydantic")
OK, NOTE, BAD = "ok", "note", "BAD"
Finding = tuple[str, str, str]  # how, what, detail


def examine(address: str | None = None) -> Iterator[Finding]:
    """Each check in turn; one that fails is a finding, never an exception."""
    for check in (_versions, _processors, _products, _gpus, _rendering, _pixels, lambda: _ray(address), _disk):
        try:
            yield from check()
        except Exception as error:
            name = getattr(check, "__name__", "check").strip("_<>")
            yield BAD, name, f"{type(error).__name__}: {text_line(error)}"


def report(address: str | None = None, write: Callable[[str], object] = print) -> bool:
    """Print the findings; True when nothing is bad."""
    fine = True
    for how, what, detail in examine(address):
        fine = fine and how != BAD
        write(f"{how:4}  {what:10}  {detail}")
    return fine


def machine() -> dict[str, Any]:
    """What numbers are measured on, for the summary of a run."""
    import torch

    from parsecrl.algorithms.models.matrix_products import describe

    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "products": describe(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str | None]:
    """Of what numbers depend on; None where a package is not installed."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> Iterator[Finding]:
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    yield (
        (OK if supported else BAD),
        "python",
        f"{platform.python_version()}" + ("" if supported else "; use 3.10 to 3.12"),
    )
    for package, found in package_versions().items():
        if found is None:
            yield BAD, package, "not installed; run make install"
            continue
        bad = package == "mujoco" and int(found.split(".")[0]) >= 4
        yield (BAD if bad else OK), package, found + ("; dm_control needs mujoco below 4" if bad else "")


def _processors() -> Iterator[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield OK, "cpu", f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB memory"


def _products() -> Iterator[Finding]:
    from parsecrl.algorithms.models.matrix_products import describe

    yield OK, "products", describe()


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield NOTE, "gpu", "none that torch can use; runs work without"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield OK, "gpu", f"{torch.cuda.get_device_name(index)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"


def _rendering() -> Iterator[Finding]:
    """In a process of its own: a broken driver can crash it."""
    failure = _failure(
        "from parsecrl.envs import make_env\n"
        "env = make_env('dm_control/cheetah-run-v0', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "env.render()\n"
    )
    from parsecrl.envs import choose_rendering_backend

    choose_rendering_backend()
    backend = os.environ.get("MUJOCO_GL", "default")
    if failure is None:
        yield OK, "rendering", f"MUJOCO_GL={backend}"
    else:
        yield NOTE, "rendering", f"MUJOCO_GL={backend} draws nothing ({failure}); runs work, without videos"


def _pixels() -> Iterator[Finding]:
    """The default world of first-person images, in a process of its own: it starts Doom's engine."""
    failure = _failure(
        "from parsecrl.envs import make_world\n"
        "env = make_world('parsecrl/HealthGathering-v0')\n"
        "env.reset(seed=0)\n"
        "env.close()\n"
    )
    if failure is None:
        yield OK, "pixels", f"vizdoom {version('vizdoom')}"
    else:
        yield NOTE, "pixels", f"no world of ViZDoom ({failure}); all but open_loop_pixels works"


def _failure(code: str) -> str | None:
    """Run the code in a process of its own; its last words, or None when it ends well."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    return None if done.returncode == 0 else last_line(done.stderr or "no message")


def _ray(address: str | None) -> Iterator[Finding]:
    from parsecrl.platform.cluster.connection import quiet_ray

    quiet_ray()
    import ray

    from parsecrl.platform.cluster.connection import connect

    started = not ray.is_initialized()
    try:
        connect(address, dashboard=False)
    except UserError as error:
        yield BAD, "ray", str(error)
        return
    have = ray.cluster_resources()
    yield OK, "ray", f"{address or 'a local runtime'}: {have.get('CPU', 0):g} CPU, {have.get('GPU', 0):g} GPU"
    if started:
        ray.shutdown()


def _disk() -> Iterator[Finding]:
    for what, folder in (("here", Path.cwd()), ("Ray's temporary files", Path("/tmp"))):
        free = shutil.disk_usage(folder).free / 2**30
        yield (OK if free > 5 else NOTE), "disk", f"{free:.0f} GiB free in {folder} ({what})"
