"""A small latent_sac, its batches and a learner by itself; no Ray runtime."""

from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, Space
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from parsecrl.algorithms.latent_sac.latent_sac import LatentSACConfig
from parsecrl.algorithms.latent_sac.latent_sac_rl_module import LatentSACRLModule
from parsecrl.algorithms.latent_sac.policy_losses import UPDATE

O, A = 3, 5  # noqa: E741  sizes of observations and actions below
SETTINGS: dict[str, Any] = {
    "world": {"id": "parsecrl/Gridworld-v0", "size": 3, "start": [0, 0], "goal": [2, 2], "episode_steps": 12},
    "model": {"kind": "parsimonious", "latent_size": 4, "code_size": 5, "hidden_size": 16},
    "policy": {"hidden_size": 16, "num_layers": 2},
    "batch_size": 20,
}


def config(**changes: Any) -> LatentSACConfig:
    return LatentSACConfig.from_settings({**SETTINGS, **changes})


def module(**changes: Any) -> LatentSACRLModule:
    return LatentSACRLModule(
        observation_space=Box(-10, 10, (O,)),
        action_space=Discrete(A),
        model_config=config(**changes)._model_config_auto_includes,
    )


def transitions(B: int = 20, states: int = 6, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    table = torch.randn(states, O, generator=rng)
    return {
        Columns.OBS: table[torch.randint(states, (B,), generator=rng)],
        Columns.NEXT_OBS: table[torch.randint(states, (B,), generator=rng)],
        Columns.ACTIONS: torch.randint(A, (B,), generator=rng),
        Columns.REWARDS: torch.randn(B, generator=rng),
        Columns.TERMINATEDS: torch.rand(B, generator=rng) < 0.3,
        UPDATE: torch.zeros(B, dtype=torch.int64),
    }


def slices(B: int = 20, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        Columns.OBS: torch.randn(B, 2, O, generator=rng),
        Columns.ACTIONS: torch.randint(A, (B, 1), generator=rng),
        UPDATE: torch.zeros(B, dtype=torch.int64),
    }


class Learning:
    """A learner by itself, in a world with observations [O]."""

    def __init__(self, spaces: tuple[Space, Space] = (Box(-10, 10, (O,)), Discrete(A)), **changes: Any):
        made, spaces_ = config(**changes), spaces
        self.learner = made.build_learner(spaces={"__env__": spaces_, DEFAULT_MODULE_ID: spaces_})
        self.module: LatentSACRLModule = self.learner.module[DEFAULT_MODULE_ID].unwrapped()

    def update(self, batch: dict[str, Tensor], **options: Any) -> Any:
        return self.learner.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=20),
            timesteps={"num_env_steps_sampled_lifetime": 0},
            **options,
        )

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.module.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """The parts of the module of which a weight has changed."""
    names = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return {"encoder" if name.startswith("model.encoder") else name.split(".")[0] for name in names}


DESCRIPTION: dict[str, Any] = {
    "world": SETTINGS["world"],
    "layout_seed": 0,
    "spaces": {"observation": {"shape": [O]}, "action": {"n": A}},
    "model": SETTINGS["model"],
    "policy": SETTINGS["policy"],
}
