"""A trial of the simulator planner: nothing learns, an episode is a result, a checkpoint says what plans."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.tune import Trainable

from parsecrl.algorithms.checkpoints.agent import FILES
from parsecrl.algorithms.controllers.acting import describe_space
from parsecrl.algorithms.simulator_planner.planner import KIND, SimulatorPlanner
from parsecrl.algorithms.training.episodes import play_episode
from parsecrl.algorithms.training.measurements import PlanTime, summary
from parsecrl.algorithms.training.rllib_phase import ENVIRONMENT, env_arguments
from parsecrl.algorithms.training.rllib_settings import RECENT_EPISODES
from parsecrl.algorithms.training.seeding import derive_seed

STATE_FILE = "planner.json"


class SimulatorPlanning(Trainable):
    """Episodes of the planner, on seeds of training.

    config: `SimulatorPlannerSettings`, env as the spec has it, and run_seed.

    Results: episodes; env_steps, simulator steps that were executed; simulated_steps, those of the candidates;
    episode_return_mean and score, of the last 10 episodes; planning_ms, a decision.
    """

    plans: list[PlanTime] = []  # noqa: RUF012 (replaced, never changed) of the last step

    def setup(self, config: dict[str, Any]) -> None:
        """Make the task and the planner."""
        self.task = gymnasium.make(ENVIRONMENT, **env_arguments(config["env"]))
        sizes = tuple(int(np.prod(s.shape or (0,))) for s in (self.task.observation_space, self.task.action_space))
        self.settings = dict(config["controller"])
        # Of two numbers, which mypy does not count.
        self.planner = SimulatorPlanner(self.settings, sizes, config["run_seed"])  # type: ignore[arg-type]
        self.planner.begin({0: self.task})
        self.counts = {"episodes": 0, "env_steps": 0, "trajectories": 0}
        self.last_returns: deque[float] = deque(maxlen=RECENT_EPISODES)

    def step(self) -> dict[str, Any]:
        """One episode."""
        state, self.plans = self.planner.initial_state(1), []

        def act(obs: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
            nonlocal state
            began = time.perf_counter()
            action, state = self.planner.act(state, torch.from_numpy(obs)[None])
            self.plans.append(PlanTime(time.perf_counter() - began, 1))
            return action[0]

        seed = derive_seed(self.config["run_seed"], "episode", self.counts["episodes"])
        played = play_episode(self.task, seed, act)
        self.counts["env_steps"] += sum(int(info["env_steps"]) for info in played.infos[1:])
        self.counts["episodes"] += 1
        self.counts["trajectories"] += len(self.plans) * self.settings["num_samples"] * self.settings["num_iterations"]
        self.last_returns.append(sum(played.rewards))
        mean = float(np.mean(self.last_returns))
        timed = summary(self.plans)
        return {
            **self.phase_results(),
            "episode_return_mean": mean,
            "score": mean,
            "planning_ms": 1e3 * timed["mean"],
            "measured": {"planning_seconds": timed},
        }

    def phase_results(self) -> dict[str, Any]:
        """What was counted in this phase."""
        return dict(self.counts)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """What plans, and how far the trial is."""
        spaces = {
            kind: describe_space(self.task.get_wrapper_attr(f"task_{kind}_space")) for kind in ("observation", "action")
        }
        description = {
            "algorithm": "simulator_planner",
            "env": {key: value for key, value in self.config["env"].items() if value is not None},
            "spaces": spaces,
            "controller": {"kind": KIND, **self.settings},
            "sizes": list(self.planner.sizes),
            "env_steps": self.counts["env_steps"],
            "seed": self.config["run_seed"],
        }
        # Nothing is trained: the one tensor is there because every agent has a file of tensors.
        FILES.write(checkpoint_dir, description, {"trained": torch.zeros((), dtype=torch.bool)})
        state = {**self.counts, "last_returns": list(self.last_returns)}
        (Path(checkpoint_dir) / STATE_FILE).write_text(json.dumps(state))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on where `save_checkpoint` wrote."""
        state = json.loads((Path(checkpoint) / STATE_FILE).read_text())
        self.last_returns.extend(state.pop("last_returns"))
        self.counts.update(state)

    def cleanup(self) -> None:
        """Close the task."""
        self.task.close()
