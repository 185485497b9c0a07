"""Evaluation: episodes of a trained controller, or of the random policy, each from its own seed.

Several episodes run in lockstep in a worker and are planned in one batch; lockstep.py says why that changes no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from parsecrl.algorithms.controllers.acting import ControlPolicy
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.lockstep import (
    RANDOM,
    Controller,
    EpisodeResult,
    check_sizes,
    controller_kind,
    resolve,
    run_batch,
)
from parsecrl.platform.evaluation.videos import record_video

COLUMNS = ["phase", "controller", "episode", "seed", "episode_return", "env_steps", "planning_ms"]
MAX_BATCH_SIZE = 8

Progress = Callable[[int, int], None]
Rows = list[int | None]  # an episode number for each row of a batch, or None

__all__ = ["COLUMNS", "RANDOM", "evaluate", "record_video"]


class Work(NamedTuple):
    """What every batch shares."""

    agent: ControlPolicy | None
    env: dict[str, Any]
    seed: int
    device: str
    num_threads: int


def evaluate(
    controller: Controller,
    env: Mapping[str, Any] | None = None,
    *,
    episodes: int | Sequence[int],
    seed: int = 0,
    phase: str = "",
    num_workers: int = 0,
    batch_size: int | None = None,
    num_gpus_per_worker: float = 0,
    num_threads: int = 1,
    device: str | None = None,
    progress: Progress | None = None,
    patience_s: float | None = None,
    trust: bool | Collection[str] = False,
) -> pd.DataFrame:
    """Evaluate a controller: one row an episode, in the columns of evaluation.csv, ordered by episode.

    Args:
        controller: A checkpoint folder (on disk or in an object store), a PlanningAgent, or "random" (uniform in
            [-1, 1], seeded).
        env: {"id", "action_repeat", "kwargs", "max_episode_steps"}, the last three optional; with a checkpoint folder
            its own by default.
        episodes: How many, or the numbers of those to run, each at least 0.
        seed: The spec's, at least 0; fixes the episodes' initial states, the planner's noise and the random policy.
        phase: Written into the column `phase`; "random" for the random policy by default.
        num_workers: Ray tasks at a time, one CPU each; needs a Ray runtime. 0: in this process.
        batch_size: Episodes planned together; by default the largest divisor of their number, up to 8, that keeps every
            worker busy. Give the same one to repeat single episodes exactly.
        num_gpus_per_worker: GPUs, or a share of one, for each Ray task.
        num_threads: Of torch in each worker, where it plans on the CPU.
        device: Of the planning; cuda by default where num_gpus_per_worker > 0, else cpu.
        progress: Called with (episodes done, episodes in all) after each batch.
        patience_s: Longest wait for a batch, in seconds, such as for a node that is gone or an episode without an end;
            None waits on.
        trust: Whether code that a checkpoint names may be run, or the names that may; see `load_agent`.

    Returns:
        Columns phase, controller, episode, seed, episode_return (environment units), env_steps (simulator steps),
        planning_ms (milliseconds per decision).

    Raises:
        UserError: An argument is out of range, a checkpoint cannot be read, or its sizes are not the environment's.
        RunFailed: The patience ends.
    """
    numbers = list(range(episodes)) if isinstance(episodes, int) else list(episodes)
    _check(numbers, seed, num_workers, batch_size)
    agent, env = resolve(controller, env, trust, seed)
    check_sizes(agent, env, controller)
    batch_size = batch_size or default_batch_size(len(numbers), max(num_workers, 1))
    work = Work(agent, env, seed, device or ("cuda" if num_gpus_per_worker else "cpu"), num_threads)
    batches = _batches(numbers, batch_size)
    run = _run_here(work, batches, patience_s)
    if num_workers:
        run = _run_in_ray(work, batches, num_workers, num_gpus_per_worker, patience_s, f"evaluation of {phase}")
    results: list[EpisodeResult] = []
    for done in run:
        results.extend(done)
        if progress is not None:
            progress(len(results), len(numbers))
    table = pd.DataFrame(sorted(results), columns=list(EpisodeResult._fields))
    table.insert(0, "controller", controller_kind(agent))
    table.insert(0, "phase", phase or (RANDOM if agent is None else ""))
    return table[COLUMNS]


def _run_here(work: Work, batches: list[Rows], patience_s: float | None) -> Iterator[list[EpisodeResult]]:
    for rows in batches:
        yield run_batch(work.agent, work.env, rows, work.seed, work.device, work.num_threads, patience_s)


def _run_in_ray(
    work: Work, batches: list[Rows], num_workers: int, num_gpus: float, patience_s: float | None, name: str
) -> Iterator[list[EpisodeResult]]:
    """Batches as Ray tasks, num_workers at a time; a task whose process dies is tried again."""
    import ray

    from parsecrl.platform.cluster.nodes import wait_for_any

    if not ray.is_initialized():
        raise UserError(
            f"num_workers={num_workers} needs a Ray runtime, and none is connected; call ray.init first, or use 0"
        )
    task = ray.remote(run_batch).options(name=name, num_cpus=1, num_gpus=num_gpus, max_retries=3)
    agent = ray.put(work.agent)
    waiting = list(reversed(batches))
    flying: list[Any] = []
    while waiting or flying:
        while waiting and len(flying) < num_workers:
            flying.append(task.remote(agent, work.env, waiting.pop(), work.seed, work.device, work.num_threads))
        ready, flying = wait_for_any(flying, patience_s, "evaluation")
        yield ray.get(ready)


def _batches(numbers: Sequence[int], batch_size: int) -> list[Rows]:
    """Episodes into batches of exactly batch_size rows; episode e always sits in row e modulo batch_size.

    Where the numbers have gaps, an episode joins the first batch whose row is free.
    """
    batches: list[Rows] = []
    used = [0] * batch_size  # batches in which this row is taken
    for number in sorted(numbers):
        row = number % batch_size
        if used[row] == len(batches):
            batches.append([None] * batch_size)
        batches[used[row]][row] = number
        used[row] += 1
    return batches


def default_batch_size(episodes: int, workers: int) -> int:
    """The largest divisor of the number of episodes, so that no row is padding, that leaves a batch for each worker.

    Args:
        episodes: Of them all.
        workers: That play at a time.

    Returns:
        At most MAX_BATCH_SIZE.
    """
    limit = min(MAX_BATCH_SIZE, math.ceil(episodes / workers))
    return max(size for size in range(1, limit + 1) if episodes % size == 0)


def _check(numbers: Sequence[int], seed: int, num_workers: int, batch_size: int | None) -> None:
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        shown = numbers if numbers else "none"
        raise UserError(
            f"episodes must be 1 or more, each number once and at least 0, got {shown}; set evaluate.episodes"
        )
    if seed < 0:
        raise UserError(f"seed must be at least 0, got {seed}; set seed in the spec")
    if num_workers < 0:
        raise UserError(f"num_workers must be at least 0, got {num_workers}; 0 evaluates in this process")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}; leave it out for a sensible one")
