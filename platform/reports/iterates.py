"""What the planner tries for one belief: the iterates of figures 14 and 15, recomputed from a phase's checkpoint.

Axes: N samples of one iteration, H decisions of the horizon, A action dimensions; actions in [-1, 1].
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from parsecrl.platform.storage import Location

ITERATIONS = (1, 5, 7, 10)


@dataclass(frozen=True)
class IterateView:
    """One iteration: what was sampled in it, and the mean after its update. number counts from 1."""

    number: int
    actions: np.ndarray  # [N, H, A]
    costs: np.ndarray  # [N] finite
    mean: np.ndarray  # [H, A]


@dataclass(frozen=True)
class Iterates:
    """Iterations of one plan, for the belief after `decisions` decisions in the environment."""

    views: tuple[IterateView, ...]
    decisions: int
    env_steps: int
    sampled: str
    cost: str

    @property
    def horizon(self) -> int:
        """H."""
        return int(self.views[0].mean.shape[0])

    @property
    def action_size(self) -> int:
        """A."""
        return int(self.views[0].mean.shape[1])


def nearest_iterations(available: int, wanted: tuple[int, ...] = ITERATIONS) -> list[int]:
    """The paper's iterations 1, 5, 7 and 10, moved to the nearest that exist, the last one always among them.

    nearest_iterations(3) == [1, 3]; nearest_iterations(6) == [1, 5, 6].

    Args:
        available: Iterations that the search made, at least 1.
        wanted: Numbers, from 1.

    Returns:
        Numbers of iterations, rising.
    """
    return sorted({min(i, available) for i in wanted} | {available})


def compute_iterates(
    checkpoint: Location, *, decisions: int = 20, seed: int = 0, trust: bool = False
) -> Iterates | None:
    """Act for a few decisions with a checkpoint's own controller, then plan once more and keep every iteration.

    Args:
        checkpoint: Its folder.
        decisions: At least 1; fewer are made where the episode ends.
        seed: Of the episode and of the planner.
        trust: Whether code that the checkpoint names may run.

    Returns:
        The candidates, costs and means of the iterations that are shown; None of an agent that plans in no model.

    Raises:
        ValueError: `decisions` is below 1, or no iteration had a finite cost.
        UserError: The checkpoint cannot be read.
    """
    import torch

    from parsecrl.algorithms.controllers.acting import PlanningPolicy
    from parsecrl.envs import make_env
    from parsecrl.platform.evaluation.lockstep import play, resolve

    if decisions < 1:
        raise ValueError(f"decisions must be at least 1, got {decisions}")
    policy, described = resolve(checkpoint, None, trust)
    if not isinstance(policy, PlanningPolicy):
        return None
    agent = policy.agent
    generator, state = torch.Generator().manual_seed(seed), agent.initial_state(1)

    @torch.no_grad()
    def act(obs: np.ndarray) -> np.ndarray:
        nonlocal state
        action, state = agent.act(state, _rows(obs), generator=generator)
        return action.cpu().numpy()

    env = make_env(**described)
    try:
        played = list(itertools.islice(play(act, {0: env}, {0: seed}, 1), decisions + 1))
        env_steps = sum(step.env_steps for _, steps in played for step in steps)
        with torch.no_grad():
            return _plan(agent, state, _rows(played[-1][0]), generator, len(played) - 1, env_steps)
    finally:
        env.close()


def _rows(obs: np.ndarray) -> Any:
    import torch

    return torch.as_tensor(obs, dtype=torch.float32)


def _plan(agent: Any, state: dict[str, Any], obs: Any, generator: Any, decisions: int, env_steps: int) -> Iterates:
    belief = agent.update_belief(state, obs)
    plan = agent.plan(belief, state, generator, keep_history=True)
    views = []
    for number in nearest_iterations(len(plan.history)):
        iteration = plan.history[number - 1]
        costs = iteration.costs[0].cpu().numpy()
        finite = np.isfinite(costs)
        if finite.any():
            samples = agent.controller.decode(iteration.samples, belief)[0].cpu().numpy()  # [N, H, A]
            mean = agent.controller.decode(iteration.mean, belief)[0].cpu().numpy()  # [H, A]
            views.append(IterateView(number, samples[finite], costs[finite], mean))
    if not views:
        raise ValueError(f"no iteration had a finite cost after {decisions} decisions")
    sampled = "action sequences" if agent.kind != "embedded" else "latent points, shown as the actions they decode to"
    cost = (
        "minus the return predicted over the horizon"
        if agent.controller.score.objective is None
        else "that of the objective"
    )
    return Iterates(tuple(views), decisions, env_steps, sampled, cost)
