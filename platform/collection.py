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
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from parsecrl.algorithms.open_loop import episode_files
from parsecrl.algorithms.open_loop.episode_files import DamagedEpisode, Episode
from parsecrl.algorithms.seeding import derive_seed
from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.status_line import StatusLine

ATTEMPTS = 100  # to draw a held-out episode that lasts
QUEUED = 2  # episodes a worker has been asked for: the next one need not wait for the writing of the last
TRIES = 3  # of a worker whose process, or whose world's process, ends


class Task(NamedTuple):
    """An episode to collect: at most `steps` steps, or exactly as many if it must last."""

    split: str
    number: int
    steps: int
    must_last: bool


class Collected(NamedTuple):
    episode: Episode
    attempts: int  # episodes that were played for it; more than 1 only where it must last


def collect(
    folder: str | Path,
    env_config: Mapping[str, Any],
    num_episodes: int,
    max_steps: int,
    num_held_out: int,
    held_out_steps: int,
    seed: int,
    num_workers: int,
    show: StatusLine | None = None,
    patience_s: float | None = None,
) -> None:
    """Fill FOLDER/train and FOLDER/held_out (`open_dataset` reads them), going on where an earlier call stopped.

    env_config: `id`, and the world's other arguments. Training episodes end with the world's or after max_steps;
    held-out ones have held_out_steps, and one that the world ends before that is played again with another seed.
    Actions are uniform and independent. num_workers: as many as the cluster has processors for.

    Connects to Ray if nothing has. Raises UserError for what can be put right (a world that cannot be made, a folder
    with other data in it or without space), RunFailed where workers keep dying, or where no episode ends within
    patience_s.
    """
    counts = {"num_episodes": num_episodes, "max_steps": max_steps, "num_workers": num_workers}
    if num_held_out:
        counts["held_out_steps"] = held_out_steps
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name} must be 1 or more, got {value}; set it in the spec's dataset")
    if "://" in str(folder):
        raise UserError(f"a dataset lies in a folder that all nodes see, got {folder}; give a path")
    line = show or StatusLine()
    image_size, num_actions, env_spec = _look_at(env_config)
    tasks: list[Task] = []
    metadata: dict[str, dict[str, Any]] = {}
    for split, count, steps, must_last in (
        ("train", num_episodes, max_steps, False),
        ("held_out", num_held_out, held_out_steps, True),
    ):
        if count:
            settings = {"env": dict(env_config), "policy": "uniform", "seed": seed, "steps": steps}
            name = f"parsecrl/{split}-v0"
            metadata[split] = episode_files.dataset_metadata(name, image_size, num_actions, env_spec, settings)
            missing = _prepare(Path(folder, split), metadata[split], count, line)
            tasks += [Task(split, number, steps, must_last) for number in missing]
    try:
        if tasks:
            _collect(Path(folder), dict(env_config), seed, tasks, num_workers, line, patience_s)
        for split, described in metadata.items():
            _write_metadata(Path(folder, split), described)
    except OSError as error:
        remedy = "free some" if error.errno == errno.ENOSPC else "give another folder"
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); {remedy}") from None


def make_world(env_config: Mapping[str, Any]) -> gymnasium.Env:
    """The world of `id` with the other keys as arguments.

    Raises ValueError as it does itself, on an unknown id, and unless it has square RGB pictures and discrete actions.
    """
    options = dict(env_config)
    id = str(options.pop("id", ""))
    try:
        env = gymnasium.make(
            f"parsecrl.envs:{id}" if id.startswith("parsecrl/") else id, disable_env_checker=True, **options
        )
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"env.id must be a world that Gymnasium can make with the arguments beside it, got {id!r} ({reason}); "
            f"choose parsecrl/HealthGathering-v0 or parsecrl/GoalsMaze-v0"
        ) from error
    seen, action = env.observation_space, env.action_space
    shape = seen.shape or ()
    is_picture = isinstance(seen, spaces.Box) and seen.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
    if not (is_picture and shape[0] == shape[1] and isinstance(action, spaces.Discrete) and action.start == 0):
        env.close()
        raise ValueError(
            f"a world of pixels has uint8 pictures [S, S, 3] and discrete actions, got {seen} and {action} "
            f"from {id!r}; "
            f"choose parsecrl/HealthGathering-v0 or parsecrl/GoalsMaze-v0"
        )
    return env


class Collector:
    """One worker: a world, and episodes from it by their number."""

    def __init__(self, env_config: Mapping[str, Any], seed: int):
        self.env_config, self.seed = env_config, seed
        self.env = make_world(env_config)

    def collect(self, task: Task) -> Collected:
        """Play the task's episode. Raises ValueError where none lasts that must."""
        for attempt in range(ATTEMPTS):
            episode = self._play_safely(task, attempt)
            if not task.must_last or (len(episode.actions) == task.steps and not episode.terminated):
                return Collected(episode, attempt + 1)
        raise ValueError(
            f"held-out sequences need episodes that last, got none of {task.steps} steps in {ATTEMPTS} of "
            f"{self.env_config['id']}; lower held_out_steps or env.frame_skip"
        )

    def close(self) -> None:
        self.env.close()

    def _play_safely(self, task: Task, attempt: int) -> Episode:
        for left in reversed(range(TRIES)):
            try:
                return self._play(task, attempt)
            except RuntimeError:  # the world's own process ended
                if not left:
                    raise
                self.env.close()
                self.env = make_world(self.env_config)
        raise AssertionError

    def _play(self, task: Task, attempt: int) -> Episode:
        index = (task.number, attempt)
        seed = derive_seed(self.seed, f"{task.split} world", *index)
        rng = np.random.default_rng(derive_seed(self.seed, f"{task.split} actions", *index))
        actions = rng.integers(self.env.action_space.n, size=task.steps)  # type: ignore[attr-defined]  # discrete
        images, rewards, terminated = [self.env.reset(seed=seed)[0]], [], False
        for action in actions:
            image, reward, terminated, truncated, _ = self.env.step(action)
            images.append(image)
            rewards.append(float(reward))
            if terminated or truncated:
                break
        return Episode(np.stack(images), actions[: len(rewards)], np.array(rewards), bool(terminated), seed)


def _look_at(env_config: Mapping[str, Any]) -> tuple[int, int, str | None]:
    """(side of a picture, number of actions, Gymnasium's description) of the world."""
    try:
        env = make_world(env_config)
    except ValueError as error:
        raise UserError(str(error)) from None
    spaces: Any = env  # make_world has seen pictures and discrete actions, where Gymnasium's types say any space
    S, n = spaces.observation_space.shape[0], int(spaces.action_space.n)
    spec = env.spec.to_json() if env.spec else None
    env.close()
    return S, n, spec


def _prepare(folder: Path, metadata: dict[str, Any], count: int, line: StatusLine) -> list[int]:
    """Make the folder ready for writing; the numbers of the episodes that are missing or damaged."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = episode_files.read_metadata(folder)
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror or error}); give another folder") from None
    wanted = json.loads(json.dumps(metadata[episode_files.SETTINGS]))
    found = there.get(episode_files.SETTINGS)
    numbers = episode_files.numbers(folder)
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
    episode_files.remove_partial(folder)
    missing = sorted(set(range(count)) - set(numbers))
    for number in numbers:
        try:
            episode_files.read_episode(folder, number)
        except DamagedEpisode as error:
            line.note(f"{error}; collecting it again")
            missing.append(number)
    if not there:
        episode_files.write_metadata(folder, {**metadata, "total_episodes": 0, "total_steps": 0})
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
    from parsecrl.platform.cluster import check_resources, connect, quiet_ray
    from parsecrl.platform.faults import wait_for_any

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
            episode_files.write_episode(folder / task.split, task.number, episode, attempts=attempts)
            progress.add(len(episode.images))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ValueError):
            raise UserError(str(error.cause)) from None
        raise RunFailed(f"collecting episodes of {env_config['id']} failed ({_last_line(error)})") from error
    except ray.exceptions.RayActorError as error:
        raise RunFailed(
            f"a worker that collects episodes of {env_config['id']} ended {TRIES + 1} times ({_last_line(error)}); "
            f"the same command goes on from what there is"
        ) from error
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
        from parsecrl.platform.progress import duration

        seconds = max(time.perf_counter() - self.start, 1e-9)
        bar = "#" * (20 * self.done // self.total)
        left = duration(seconds / self.done * (self.total - self.done))
        return (
            f"collecting {self.world}: [{bar:<20}] {self.done:,} of {self.total:,} episodes | "
            f"{self.frames / seconds:,.0f} frames a second | {duration(seconds) if final else left + ' left'}"
        )


def _write_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    """With the counts of what is there now."""
    numbers = episode_files.numbers(folder)
    described = [json.loads((folder / str(number) / episode_files.METADATA).read_text()) for number in numbers]
    steps = sum(int(one["total_steps"]) for one in described)
    counts = {"total_episodes": len(numbers), "total_steps": steps}
    episode_files.write_metadata(folder, {**metadata, **counts})


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:200] if lines else type(error).__name__
