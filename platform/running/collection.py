"""Episodes of a random policy in a world of pixels, collected by Ray workers into a dataset on disk.

The data depend on the settings alone: an episode's world and its actions are seeded by (seed, split, number), whoever
collects it and when. So what is there and whole is kept, and only what is missing or damaged is collected.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parsecrl.algorithms.latent_study.worlds import make_pixel_world
from parsecrl.algorithms.offline_data import picture_files
from parsecrl.algorithms.offline_data.picture_collector import TRIES, Collector, NoEpisodeLasts, Task
from parsecrl.algorithms.offline_data.picture_files import DamagedEpisode
from parsecrl.algorithms.registry.algorithm import Episodes
from parsecrl.platform.errors import UserError
from parsecrl.platform.runs.results import ERROR_FILE
from parsecrl.platform.runs.user_code import causes_told
from parsecrl.platform.terminal import StatusLine

QUEUED = 2  # episodes a worker has been asked for: the next one need not wait for the writing of the last


def collect(wanted: Episodes, show: StatusLine | None = None, patience_s: float | None = None) -> None:
    """Fill FOLDER/train and FOLDER/held_out (`open_dataset` reads them), going on where an earlier call stopped.

    Training episodes end with the world's or after max_steps; held-out ones have held_out_steps, and one that the world
    ends before that is played again with another seed. Actions are uniform and independent. As many workers as the
    cluster has processors for. Connects to Ray if nothing has.

    Args:
        wanted: Folder, world and numbers of the episodes.
        show: Says how far it is.
        patience_s: Longest wait for an episode, in seconds; None waits on.

    Raises:
        UserError: The world cannot be made, or the folder has other data in it or no space.
        RunFailed: Workers keep dying, or no episode ends within `patience_s`.
    """
    folder, env_config, seed = wanted.folder, wanted.env_config, wanted.seed
    if "://" in folder:
        raise UserError(f"a dataset lies in a folder that all nodes see, got {folder}; give a path")
    line = show or StatusLine()
    image_size, num_actions, env_spec = _look_at(env_config)
    tasks: list[Task] = []
    metadata: dict[str, dict[str, Any]] = {}
    for split, count, steps, must_last in (
        ("train", wanted.num_episodes, wanted.max_steps, False),
        ("held_out", wanted.num_held_out, wanted.held_out_steps, True),
    ):
        if count:
            settings = {"env": dict(env_config), "policy": "uniform", "seed": seed, "steps": steps}
            name = f"parsecrl/{split}-v0"
            metadata[split] = picture_files.dataset_metadata(name, image_size, num_actions, env_spec, settings)
            missing = _prepare(Path(folder, split), metadata[split], count, line)
            tasks += [Task(split, number, steps, must_last) for number in missing]
    try:
        if tasks:
            _collect(Path(folder), dict(env_config), seed, tasks, wanted.num_workers, line, patience_s)
        for split, described in metadata.items():
            _write_metadata(Path(folder, split), described)
    except OSError as error:
        remedy = "free some" if error.errno == errno.ENOSPC else "give another folder"
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); {remedy}") from None


def _look_at(env_config: Mapping[str, Any]) -> tuple[int, int, str | None]:
    """(side of a picture, number of actions, Gymnasium's description) of the world."""
    try:
        env = make_pixel_world(env_config)
    except ValueError as error:
        raise UserError(str(error)) from None
    spaces: Any = env  # make_pixel_world has seen pictures and discrete actions, where Gymnasium's types say any space
    S, n = spaces.observation_space.shape[0], int(spaces.action_space.n)
    spec = env.unwrapped.spec.to_json() if env.unwrapped.spec else None
    env.close()
    return S, n, spec


def _prepare(folder: Path, metadata: dict[str, Any], count: int, line: StatusLine) -> list[int]:
    """Make the folder ready for writing; the numbers of the episodes that are missing or damaged."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = picture_files.read_metadata(folder)
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror or error}); give another folder") from None
    wanted = json.loads(json.dumps(metadata[picture_files.SETTINGS]))
    found = there.get(picture_files.SETTINGS)
    numbers = picture_files.numbers(folder)
    if (there or numbers) and found != wanted:
        differing = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
        got = {key: found.get(key) for key in differing} if isinstance(found, dict) else "no settings"
        raise UserError(
            f"{folder} holds episodes of other settings ({got} where this asks for "
            f"{ {key: wanted[key] for key in differing} }); give another folder, or delete it"
        )
    if numbers and numbers[-1] >= count:
        raise UserError(
            f"{folder} holds {numbers[-1] + 1} episodes, more than the {count} that are asked for; "
            f"give another folder, or delete it"
        )
    picture_files.remove_partial(folder)
    missing = sorted(set(range(count)) - set(numbers))
    for number in numbers:
        try:
            picture_files.read_episode(folder, number)
        except DamagedEpisode as error:
            line.note(f"{error}; collecting it again")
            missing.append(number)
    if not there:
        picture_files.write_metadata(folder, {**metadata, "total_episodes": 0, "total_steps": 0})
    return sorted(missing)


def _collect(
    folder: Path,
    env_config: dict[str, Any],
    seed: int,
    tasks: list[Task],
    num_workers: int,
    line: StatusLine,
    patience_s: float | None,
) -> None:
    from parsecrl.platform.cluster.connection import connect, quiet_ray
    from parsecrl.platform.cluster.nodes import check_resources, wait_for_any

    quiet_ray()
    import ray

    connect()
    check_resources([{"CPU": 1}], "collecting episodes")
    num_workers = min(num_workers, len(tasks), max(1, int(ray.cluster_resources().get("CPU", 1))))
    remote = ray.remote(Collector).options(num_cpus=1, max_restarts=TRIES, max_task_retries=TRIES)
    workers = [remote.remote(env_config, seed) for _ in range(num_workers)]
    waiting = iter(tasks)
    running: dict[Any, tuple[Any, Task]] = {}

    def ask(worker: Any) -> None:
        for task in itertools.islice(waiting, 1):
            running[worker.collect.remote(task)] = worker, task

    progress = _Progress(str(env_config["id"]), len(tasks), line)
    try:
        for worker in workers * QUEUED:
            ask(worker)
        while running:
            done, _ = wait_for_any(list(running), patience_s, "collecting episodes")
            worker, task = running.pop(done)
            ask(worker)
            episode, attempts = ray.get(done)
            picture_files.write_episode(folder / task.split, task.number, episode, attempts=attempts)
            progress.add(len(episode.images))
    except (ray.exceptions.RayTaskError, ray.exceptions.RayActorError) as error:
        if isinstance(error, NoEpisodeLasts):
            raise UserError(str(getattr(error, "cause", error))) from None
        with causes_told(f"collecting episodes of {env_config['id']}", folder / ERROR_FILE):
            raise
    finally:
        with contextlib.suppress(ray.exceptions.RayError):  # a world may have a program and a folder of its own
            ray.get([worker.close.remote() for worker in workers], timeout=10)
        for worker in workers:
            ray.kill(worker)
    progress.end()


class _Progress:
    def __init__(self, world: str, total: int, line: StatusLine):
        self.world, self.total, self.line = world, total, line
        self.done, self.frames, self.start = 0, 0, time.perf_counter()

    def add(self, frames: int) -> None:
        self.done += 1
        self.frames += frames
        self.line.show(self._text(final=False))

    def end(self) -> None:
        self.line.show(self._text(final=True), final=True)

    def _text(self, *, final: bool) -> str:
        from parsecrl.platform.terminal import duration

        seconds = max(time.perf_counter() - self.start, 1e-9)
        bar = "#" * (20 * self.done // self.total)
        left = duration(seconds / self.done * (self.total - self.done))
        return (
            f"collecting {self.world}: [{bar:<20}] {self.done:,} of {self.total:,} episodes | "
            f"{self.frames / seconds:,.0f} frames a second | {duration(seconds) if final else left + ' left'}"
        )


def _write_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    """With the counts of what is there now."""
    numbers = picture_files.numbers(folder)
    described = [json.loads((folder / str(number) / picture_files.METADATA).read_text()) for number in numbers]
    steps = sum(int(one["total_steps"]) for one in described)
    counts = {"total_episodes": len(numbers), "total_steps": steps}
    picture_files.write_metadata(folder, {**metadata, **counts})
