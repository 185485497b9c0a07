"""Episodes run in lockstep under one policy, whose result does not depend on which episodes share the batch.

An episode's environment is seeded by (seed, episode); its row in the batch is fixed; all rows share one noise tensor,
drawn from the seed; a batch that is not full is padded. Run again with the same batch size, alone or among others, an
episode gives the same numbers. (Another batch size changes the matrix shapes, and with them the last bits.)
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.controllers.acting import ControlPolicy, PlanningPolicy
from parsecrl.algorithms.controllers.lockstep import Step
from parsecrl.algorithms.controllers.lockstep import play as play_in_lockstep
from parsecrl.envs import make_env
from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.evaluation.policies import load_policy
from parsecrl.platform.storage import Location, RemotePath, location_of

RANDOM = "random"

# Roles in a seed sequence: (spec seed, role) gives streams that have nothing in common.
EPISODE_ROLE, ACTION_ROLE = 0xE0A1, 0xE0A3  # and NOISE_ROLE of the planner's noise

Controller = str | Location | PlanningAgent


class EpisodeResult(NamedTuple):
    """One finished episode."""

    episode: int
    seed: int
    episode_return: float  # sum of the environment's rewards, in its units
    env_steps: int  # simulator steps of this episode
    planning_ms: float  # milliseconds per decision: the median over the batch's calls, over the batch's size


def episode_seed(seed: int, episode: int) -> int:
    """The environment's seed of an evaluation episode; distinct for distinct episodes.

    Training seeds (the spec's seed plus small worker and environment numbers) lie below 2**31.

    Args:
        seed: The spec's, at least 0.
        episode: Its number, from 0.

    Returns:
        In [2**31, 2**32).
    """
    base = int(np.random.SeedSequence([seed, EPISODE_ROLE]).generate_state(1)[0])
    return 2**31 + (base + episode) % 2**31


def controller_kind(agent: ControlPolicy | None) -> str:
    """What the column `controller` says.

    Args:
        agent: None is the random policy.

    Returns:
        full, icem, mppi, embedded, module:name, random, or what another algorithm says.
    """
    return RANDOM if agent is None else agent.kind


class Policy:
    """Observations of a batch of episodes, in fixed rows, to actions.

    Args:
        agent: None is the random policy. It is moved to the device.
        action_size: A.
        seed: The spec's, at least 0.
        batch_size: B, rows.
        device: Of the planning.
    """

    def __init__(self, agent: ControlPolicy | None, action_size: int, seed: int, batch_size: int, device: str):
        self.agent = agent.to(device) if agent is not None else None
        self.action_size, self.seed, self.batch_size, self.device = action_size, seed, batch_size, device

    def start(self, episodes: Sequence[int], envs: Mapping[int, gymnasium.Env]) -> None:
        """Forget everything and begin these episodes, one a row, in these environments, by row."""
        self.milliseconds: list[float] = []
        self.rng = [np.random.default_rng([self.seed, ACTION_ROLE, episode]) for episode in episodes]
        self.state = {}
        if self.agent is not None:
            self.agent.begin(envs)
            self.state = self.agent.initial_state(self.batch_size)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """obs [B, O] -> action [B, A] in [-1, 1]."""
        if self.agent is None:
            return np.stack([rng.uniform(-1.0, 1.0, self.action_size).astype(np.float32) for rng in self.rng])
        begin = time.perf_counter()
        result, self.state = self.agent.act(self.state, torch.as_tensor(obs, device=self.device), None)
        self.milliseconds.append(1e3 * (time.perf_counter() - begin) / self.batch_size)
        return result

    @property
    def planning_ms(self) -> float:
        """Milliseconds per decision, the median over the calls; 0 of the random policy."""
        return float(np.median(self.milliseconds)) if self.milliseconds else 0.0


def run_batch(
    agent: ControlPolicy | None,
    env: Mapping[str, Any],
    rows: Sequence[int | None],
    seed: int,
    device: str = "cpu",
    num_threads: int = 1,
    patience_s: float | None = None,
) -> list[EpisodeResult]:
    """Run the episodes in `rows` in lockstep to their ends.

    Rows without an episode, and those whose episode is over, are planned all the same and their actions dropped: the
    batch keeps its shape, so that no episode notices when another ends.

    Args:
        agent: None is the random policy.
        env: As `make_env` takes it.
        rows: The number of the episode in each row; None is a row without one.
        seed: The spec's, at least 0.
        device: Of the planning.
        num_threads: Of torch, where it plans on the CPU.
        patience_s: Longest time for the batch, in seconds; None waits on.

    Returns:
        A result for each episode, in the order of the rows.

    Raises:
        RunFailed: The patience ends.
    """
    episodes = [episode for episode in rows if episode is not None]
    with torch_threads(num_threads, device):
        envs = {row: make_env(**env) for row, episode in enumerate(rows) if episode is not None}
        try:
            return _lockstep(agent, envs, rows, seed, device, patience_s) if episodes else []
        finally:
            for task in envs.values():
                task.close()


def play(
    act: Callable[[np.ndarray], np.ndarray],
    envs: Mapping[int, gymnasium.Env],
    seeds: Mapping[int, int],
    num_rows: int,
    patience_s: float | None = None,
) -> Iterator[tuple[np.ndarray, list[Step]]]:
    """As `algorithms.controllers.lockstep.play`, with a limit of time.

    Args:
        act: Observations [B, O] of all rows -> actions [B, A].
        envs: By row.
        seeds: Of the resets, by row.
        num_rows: B.
        patience_s: Longest time for all episodes, in seconds; None waits on.

    Returns:
        Observations and steps, one after the other.

    Raises:
        RunFailed: The episodes take longer than `patience_s`.
    """
    began = time.monotonic()

    def check(decisions: int) -> None:
        if patience_s is not None and time.monotonic() - began > patience_s:
            raise RunFailed(
                f"an episode of evaluation did not end within resources.no_progress_timeout_s={patience_s:g} s, after "
                f"{decisions} decisions; limit episodes by env.max_episode_steps, or raise the timeout"
            )

    return play_in_lockstep(act, envs, seeds, num_rows, check)


def _lockstep(
    agent: ControlPolicy | None,
    envs: Mapping[int, gymnasium.Env],
    rows: Sequence[int | None],
    seed: int,
    device: str,
    patience_s: float | None,
) -> list[EpisodeResult]:
    action_shape = next(iter(envs.values())).action_space.shape or ()
    policy = Policy(agent, int(np.prod(action_shape)), seed, len(rows), device)
    policy.start([episode or 0 for episode in rows], envs)
    seeds = {row: episode_seed(seed, rows[row] or 0) for row in envs}
    totals, env_steps = np.zeros(len(rows)), np.zeros(len(rows), int)
    for _, steps in play(policy.act, envs, seeds, len(rows), patience_s):
        for step in steps:
            totals[step.row] += step.reward
            env_steps[step.row] += step.env_steps
    return [
        EpisodeResult(episode, seeds[row], float(totals[row]), int(env_steps[row]), policy.planning_ms)
        for row, episode in enumerate(rows)
        if episode is not None
    ]


@contextmanager
def torch_threads(count: int, device: str = "cpu") -> Iterator[None]:
    """Within it, torch plans on some threads: workers share a machine, and the count may change the last bits.

    Args:
        count: Threads, at least 1.
        device: Another than "cpu" leaves the count as it is.

    Yields:
        Nothing; afterwards the count is what it was.
    """
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def resolve(
    controller: Controller, env: Mapping[str, Any] | None, trust: bool | Collection[str] = False, seed: int = 0
) -> tuple[ControlPolicy | None, dict[str, Any]]:
    """Find the agent and the environment that are meant.

    Args:
        controller: A checkpoint folder, an agent, which is copied, or "random".
        env: None: that of the checkpoint.
        trust: As `load_agent` has it.
        seed: Of what the agent draws, at least 0.

    Returns:
        The agent, None for the random policy; and the environment as `make_env` takes it.

    Raises:
        UserError: The checkpoint cannot be read, or no environment is known.
    """
    agent: ControlPolicy | None = None
    if isinstance(controller, PlanningAgent):
        agent = PlanningPolicy(copy.deepcopy(controller), seed)  # the caller's stays on its device and in its mode
    elif controller != RANDOM:
        try:
            agent, description = load_policy(location_of(controller), seed, trust)
        except ValueError as error:
            raise UserError(str(error)) from error
        env = env or description.get("env")
    if env is None:
        raise UserError(f"an environment must be given for the controller {controller!r}; pass env={{'id': ...}}")
    if not env["id"]:
        raise UserError(
            f"{controller} was trained on {env.get('made_by')}, which no id names; register it with gymnasium.register "
            f"in a module of yours, and give the id as module:ID (--env)"
        )
    given = {key: env[key] for key in ("kwargs", "max_episode_steps") if env.get(key)}
    return agent, {"id": env["id"], "action_repeat": env.get("action_repeat", 1), **given}


def check_sizes(agent: ControlPolicy | None, env: Mapping[str, Any], controller: Controller) -> None:
    """Fail before anything is started.

    Args:
        agent: None is the random policy, which fits anywhere.
        env: As `make_env` takes it.
        controller: What was asked for, for the message.

    Raises:
        UserError: The environment cannot be made, or the agent is one of other sizes.
    """
    try:
        task = make_env(**env)
    except ValueError as error:
        raise UserError(str(error)) from error
    sizes = [int(np.prod(space.shape or ())) for space in (task.observation_space, task.action_space)]
    task.close()
    if agent is None:
        return
    own = [*agent.sizes]
    if own != sizes:
        name = controller if isinstance(controller, str | Path | RemotePath) else "the controller"
        raise UserError(
            f"a controller must have the sizes of its environment, got {name} with {own[0]} observations and {own[1]} "
            f"actions for {env['id']} with {sizes[0]} and {sizes[1]}; choose the environment that it was trained on"
        )
