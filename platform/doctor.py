"""`parsec doctor`: is this machine fit for a run?"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from parsecrl.algorithms.registry.algorithm import CONTROL, GOALS, PICTURES, VECTORS
from parsecrl.algorithms.registry.lookup import usable
from parsecrl.platform.errors import UserError, last_line, text_line

PACKAGES = ("parsec-rl", "torch", "ray", "gymnasium", "shimmy", "dm_control", "mujoco", "numpy", "pydantic")
OK, NOTE, BAD = "ok", "note", "BAD"
Finding = tuple[str, str, str]  # how, what, detail
TASK_SECONDS = 5.0
TASK_SEEDS = (0, 2**31)  # as training has them, and as evaluation has
NOT_CONTROL = "must be a bounded Box"  # in what `make_env` says of other actions


def examine(address: str | None = None) -> Iterator[Finding]:
    """Each check in turn; one that fails is a finding, never an exception.

    Args:
        address: Of a Ray cluster that is to be reached; None: one is started here.

    Yields:
        How it is, what was looked at, and the detail.
    """
    for check in (_versions, _processors, _products, _gpus, _rendering, _pixels, lambda: _ray(address), _disk):
        try:
            yield from check()
        except Exception as error:
            name = getattr(check, "__name__", "check").strip("_<>")
            yield BAD, name, f"{type(error).__name__}: {text_line(error)}"


def report(address: str | None = None, write: Callable[[str], object] = print) -> bool:
    """Print the findings.

    Args:
        address: As `examine` takes it.
        write: Gets each line.

    Returns:
        True when nothing is bad.
    """
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


def report_task(
    id: str,
    kwargs: Mapping[str, Any],
    action_repeat: int = 1,
    max_episode_steps: int | None = None,
    write: Callable[[str], object] = print,
) -> bool:
    """Print what the project makes of a task.

    Args:
        id: As `make_env` takes it.
        kwargs: The task's own arguments.
        action_repeat: Simulator steps per decision, at least 1.
        max_episode_steps: Simulator steps after which an episode ends; None: the task's own limit.
        write: Gets each line.

    Returns:
        Whether a spec can take the task as it is.

    Raises:
        UserError: The task cannot be made or breaks its promises.
    """
    fine = True
    for how, what, detail in examine_task(id, kwargs, action_repeat, max_episode_steps):
        write(f"{how:4}  {what:13}  {detail}")
        fine = fine and how != BAD
    return fine


def examine_task(
    id: str, kwargs: Mapping[str, Any], action_repeat: int = 1, max_episode_steps: int | None = None
) -> Iterator[Finding]:
    """As `examine`, of a task that is played at random for up to TASK_SECONDS.

    Args:
        id: As `make_env` takes it.
        kwargs: The task's own arguments.
        action_repeat: Simulator steps per decision, at least 1.
        max_episode_steps: Simulator steps after which an episode ends; None: the task's own limit.

    Yields:
        How it is, what was looked at, and the detail.

    Raises:
        UserError: The task cannot be made or breaks its promises.
    """
    from parsecrl.envs import make_env, make_world
    from parsecrl.envs.inspection import inspect_task

    group: dict[str, Any] = {"id": id, **({"kwargs": dict(kwargs)} if kwargs else {})}
    limit: dict[str, Any] = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    control: dict[str, Any] = {**group, "action_repeat": action_repeat, **limit}
    amount: dict[str, Any] = {"episodes": 10, "seconds": TASK_SECONDS, "search_seconds": TASK_SECONDS}
    try:
        try:
            found, key = inspect_task(lambda: make_env(**control), id, TASK_SEEDS, **amount), "env"
        except ValueError as error:
            if NOT_CONTROL not in str(error):
                raise
            found, key = inspect_task(lambda: make_world(**group, **limit), id, TASK_SEEDS, **amount), "world"
    except ValueError as error:
        raise UserError(str(error)) from None
    seen, action, rewards = found.observation_space, found.action_space, found.rewards
    picture = len(seen.shape or ()) == 3
    kind = f"pictures {seen.shape}" if picture else f"a vector of {math.prod(seen.shape or ())}"
    yield OK, "observations", f"{text_line(found.task_observation_space)}, given as {kind}"
    low, high = float(found.first_low.min()), float(found.first_high.max())
    yield OK, "first of them", f"entries from {low:.4g} to {high:.4g} over the episodes"
    given = f"{math.prod(action.shape or ())} in [-1, 1]" if key == "env" else f"0 to {action.n - 1}"  # type: ignore[attr-defined]
    yield OK, "actions", f"{text_line(found.task_action_space)}, given as {given}"
    yield from _episodes(found, key)
    spread = f"{rewards.min():.4g} to {rewards.max():.4g}, mean {rewards.mean():.4g}, deviation {rewards.std():.4g}"
    yield (OK if np.ptp(rewards) else NOTE), "rewards", f"{spread}, of {len(rewards):,} random decisions"
    if (random := found.random_return) is not None:
        text = f"mean return {random['mean']:.4g}, deviation {random['std']:.4g}, of {random['episodes']:.0f} episodes"
        yield OK, "random policy", text
    yield OK, "speed", f"{found.steps_per_second:,.0f} simulator steps a second in this process"
    if found.reproducible:
        yield OK, "seeds", "the same seed begins the same"
    for warning in found.warnings:
        yield NOTE, "warning", warning
    kinds = {CONTROL, VECTORS} if key == "env" else {PICTURES} if picture else {VECTORS}
    kinds |= {GOALS} if key == "world" and found.has_goal else set()
    yield OK, "algorithms", ", ".join(entry.name for entry in usable() if entry.plays in kinds)
    stated = control if key == "env" else {**group, **limit}
    if not found.ends:
        stated = {**stated, "max_episode_steps": 1000}
    line = yaml.safe_dump(stated, default_flow_style=True, sort_keys=False, width=math.inf)
    yield OK, "spec", f"{key}: {line.strip()}"


def _episodes(found: Any, key: str) -> Iterator[Finding]:
    limit = "no limit known" if found.limit is None else f"a limit of {found.limit:,}"
    if not found.ends:
        text = f"no end in {found.env_steps:,} simulator steps of random actions, and {limit}"
        yield BAD, "episodes", f"{text}; set {key}.max_episode_steps"
    elif not found.lengths:
        yield OK, "episodes", f"{limit} simulator steps; none ended within {found.seconds:.0f} s of play"
    else:
        ended = len(found.lengths)
        terminated = f"{found.num_terminated} of {ended} terminated, {ended - found.num_terminated} truncated"
        yield OK, "episodes", f"{min(found.lengths):,} to {max(found.lengths):,} simulator steps, {limit}; {terminated}"


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
