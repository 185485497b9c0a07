"""A tiny embedded agent on disk, an environment with a known optimum, and PPO around them without a Ray runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from parsecrl.algorithms.checkpoints.agent import save_agent
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPOConfig
from parsecrl.algorithms.dcem_ppo.settings import DCEMPPOSettings

ENV_ID = "parsecrl-tests/Target-v0"
WORLD_MODEL = {"deterministic_size": 8, "stochastic_size": 4, "hidden_size": 16}
CONTROLLER = {
    "kind": "embedded",
    "latent_size": 2,
    "horizon": 2,
    "num_samples": 20,
    "num_elites": 4,
    "num_iterations": 3,
    "warm_start": True,
}


class Target(gymnasium.Env):
    """Shows a side, -1 or 1, for `length` steps; the reward is -(a - 0.6 side)^2, so that a = 0.6 side earns 0."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, length: int = 1, truncates: bool = False):
        self.length, self.truncates = length, truncates

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.side, self.t = self.np_random.choice([-1.0, 1.0]), 0
        return np.array([self.side], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        over = self.t == self.length
        reward = -float((action[0] - 0.6 * self.side) ** 2)
        return np.array([self.side], np.float32), reward, over and not self.truncates, over and self.truncates, {}


gymnasium.register(ENV_ID, entry_point=Target)
gymnasium.register("parsecrl-tests/LongTarget-v0", entry_point=lambda: Target(5, truncates=True))


@pytest.fixture(scope="session")
def agent_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def write_agent() -> Callable[..., Path]:
    return _write_agent


def _write_agent(
    folder: Path, sizes: tuple[int, int] = (1, 1), value: dict[str, Any] | None = None, **controller: Any
) -> Path:
    """An untrained agent whose belief depends strongly on what it sees. sizes: of observations and actions."""
    settings = {**CONTROLLER, **controller}
    if settings["kind"] == "full":
        settings.pop("latent_size")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        agent = PlanningAgent(*sizes, WORLD_MODEL, settings, {"hidden_size": 16}, value)
    with torch.no_grad():
        for net in () if agent.actor_critic is None else (agent.actor_critic.critic, agent.actor_critic.actor):
            net[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
        for parameter in [*agent.model.posterior_net.parameters(), agent.model.gru.weight_ih]:
            parameter.mul_(3.0)
    description = {
        "algorithm": "planet",
        "env": {"id": ENV_ID, "action_repeat": 1},
        "world_model": WORLD_MODEL,
        "controller": settings,
        "decoder": {"hidden_size": 16},
        "value": value,
        "env_steps": 123,
    }
    save_agent(folder, agent, description)
    return folder


MakeConfig = Callable[..., DCEMPPOConfig]


@pytest.fixture
def make_config(agent_checkpoint: Path) -> MakeConfig:
    def make(
        env_id: str = ENV_ID,
        action_repeat: int = 1,
        runners: int = 0,
        environments: int = 4,
        start_from: Any = agent_checkpoint,
        seed: int = 0,
        **phase: Any,
    ) -> DCEMPPOConfig:
        phase = {"episodes_per_step": 4, "noise_bank_size": 4, "start_from": str(start_from), **phase}
        return DCEMPPOConfig.from_phase(
            DCEMPPOSettings.checked(phase),
            {"id": env_id, "action_repeat": action_repeat},
            {"num_env_runners": runners, "num_envs_per_env_runner": environments},
            seed,
            str(start_from) if start_from else None,
        )

    return make
