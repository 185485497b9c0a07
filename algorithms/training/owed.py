"""Numbered pieces of work for the runners of an algorithm: what lost runners owe, the others do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from parsecrl.algorithms.training.user_errors import Failure

RESTORE_PAUSE_S = 0.5  # between two looks whether lost runners are back


class Answer(Protocol):
    """What a runner brings back; `failure` is what went wrong, if anything did."""

    @property
    def failure(self) -> Failure | None:
        """None where nothing did."""


AnyAnswer = TypeVar("AnyAnswer", bound=Answer)


def raise_errors(answers: list[AnyAnswer]) -> list[AnyAnswer]:
    """Hand answers on, if none met an error.

    Args:
        answers: What runners brought back.

    Returns:
        The answers as they are.

    Raises:
        Failed: What a runner raised first, in one sentence.
        FailedForNow: The same, of what may not happen again.
    """
    for answer in answers:
        if answer.failure:
            answer.failure.reraise()
    return answers


def gather_owed(
    algorithm: Any,
    count: int,
    request: Callable[..., AnyAnswer],
    brought: Callable[[AnyAnswer], Mapping[int, Any]],
    what: str,
) -> tuple[list[Any], list[AnyAnswer]]:
    """Have an algorithm's runners play `count` episodes; which ones, no runner decides.

    Args:
        algorithm: Of RLlib.
        count: Episodes, by the numbers from 0.
        request: Runs in a runner: (runner, numbers=...) -> what it played.
        brought: The episodes of an answer, by their numbers.
        what: Whose episodes they are, for the message.

    Returns:
        The episodes in their order, and all answers.

    Raises:
        Failed: As `raise_errors`.
        FailedForNow: As `raise_errors`.
        TimeoutError: No episode arrived within `sample_timeout_s`.
    """
    config, group = algorithm.config, algorithm.env_runner_group
    found: dict[int, Any] = {}
    answers: list[AnyAnswer] = []
    deadline = time.monotonic() + config.sample_timeout_s
    while owed := [number for number in range(count) if number not in found]:
        latest = raise_errors(_ask_runners(algorithm, request, owed))
        episodes = {number: episode for answer in latest for number, episode in brought(answer).items()}
        if episodes:
            found |= episodes
            answers += latest
            deadline = time.monotonic() + config.sample_timeout_s
        elif time.monotonic() < deadline:  # all runners are lost, and return nothing at once
            algorithm.restore_env_runners(group)
            time.sleep(RESTORE_PAUSE_S)
        else:
            raise TimeoutError(
                f"{what} gathered no episode within sample_timeout_s={config.sample_timeout_s:.0f} s from "
                f"{group.num_healthy_remote_workers()} healthy of {group.num_remote_env_runners()} remote runners; "
                f"see their logs, or raise sample_timeout_s if planning is that slow"
            )
    return [found[number] for number in range(count)], answers


def _ask_runners(algorithm: Any, request: Callable[..., AnyAnswer], owed: list[int]) -> list[AnyAnswer]:
    """Share the episodes `owed` out among the runners that are there; less what lost ones do not bring."""
    group, config = algorithm.env_runner_group, algorithm.config
    if group.num_remote_env_runners() == 0:
        return [request(group.local_env_runner, numbers=owed)]
    runners = group.healthy_env_runner_ids()[: len(owed)]
    if not runners:
        return []
    # Each episode in turn has sample_timeout_s, and one more passes until a runner that hangs is given up.
    in_turn = math.ceil(len(owed) / len(runners) / config.num_envs_per_env_runner)
    return group.foreach_env_runner(
        [partial(request, numbers=owed[i :: len(runners)]) for i in range(len(runners))],
        local_env_runner=False,
        remote_worker_ids=runners,
        timeout_seconds=(in_turn + 1) * config.sample_timeout_s,
    )
