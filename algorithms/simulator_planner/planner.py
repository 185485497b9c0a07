"""Model predictive control in the true simulator: CEM over action sequences, each played in a copy of the task's state.

Axes: B environments, N candidates, H horizon, A action. Rewards are the task's own, so the plans are judged without any
model error: what remains is the search and the horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parsecrl.algorithms.solvers import cem

KIND = "simulator"


class SimulatorPlanner:
    """A policy that plans in the environments that it acts in, and leaves them as they were.

    Args:
        settings: `SimulatorController`, as plain data.
        sizes: O and A.
        seed: Of the candidates' draws, at least 0; the same draws at every decision.
    """

    kind = KIND

    def __init__(self, settings: Mapping[str, Any], sizes: tuple[int, int], seed: int = 0):
        self.settings, self.sizes = dict(settings), sizes
        s, size = self.settings, self.plan_size
        generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(s["num_iterations"], 1, s["num_samples"], size, generator=generator)
        self._envs: dict[int, Any] = {}

    @property
    def plan_size(self) -> int:
        """H times A."""
        return self.settings["horizon"] * self.sizes[1]

    def to(self, device: str) -> SimulatorPlanner:
        """The policy itself: the simulator runs on processors, whatever the device."""
        return self

    def begin(self, envs: Mapping[int, Any]) -> None:
        """Episodes begin in these environments, by row; each has `simulator_state` and `restore_simulator`."""
        self._envs = dict(envs)

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """The plan [B, n] that the first search begins at: no action at all."""
        return {"plan": torch.zeros(batch_size, self.plan_size)}

    def act(
        self, state: dict[str, Tensor], obs: Tensor, rng: np.random.Generator | None = None
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """Decide for B environments.

        Args:
            state: `plan` [B, n], where the search begins.
            obs: [B, O]; the simulator's state is looked at in its place.
            rng: Draws the candidates anew.

        Returns:
            The plans' first actions [B, A], and the next state.

        Raises:
            ValueError: No environment was given to `begin`, or one has no state that can be copied.
        """
        if not self._envs:
            raise ValueError(
                "simulator_planner plans in the environment itself, and knows none here; use parsec evaluate, or "
                "parsecrl.algorithms.simulator_planner.planner with begin()"
            )
        s, noise = self.settings, self._noise
        if rng is not None:
            noise = torch.from_numpy(rng.standard_normal(tuple(noise.shape), dtype=np.float32))
        rows, A = len(obs), self.sizes[1]
        states = {row: env.simulator_state() for row, env in self._envs.items()}
        solution = cem(
            lambda plans: self._costs(plans, states),
            state["plan"],
            torch.full_like(state["plan"], s["init_std"]),
            num_samples=s["num_samples"],
            num_elites=s["num_elites"],
            num_iterations=s["num_iterations"],
            bounds=(-1.0, 1.0),
            noise=noise,
        )
        for row, env in self._envs.items():
            env.restore_simulator(states[row])
        plan = solution.mean.view(rows, -1, A)  # [B, H, A]
        later = torch.cat([plan[:, 1:], plan[:, -1:]], 1)
        return plan[:, 0].numpy().astype(np.float32), {"plan": later.reshape(rows, -1)}

    def _costs(self, plans: Tensor, states: Mapping[int, Any]) -> Tensor:
        """Minus the rewards [B, N] of plans [B, N, n]; 0 in rows without an environment."""
        costs = torch.zeros(plans.shape[:2])
        for row, env in self._envs.items():
            for number, plan in enumerate(plans[row].view(plans.shape[1], -1, self.sizes[1]).numpy()):
                env.restore_simulator(states[row])
                costs[row, number] = -_return(env, plan)
        return costs


def _return(env: Any, plan: NDArray[Any]) -> float:
    """The rewards of a plan [H, A], up to the episode's end."""
    total = 0.0
    for action in plan:
        _, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        if terminated or truncated:
            break
    return total
