"""A baseline's RLModule as the policy of an evaluation, read without pickles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.utils.numpy import convert_to_numpy
from torch import Tensor

from parsecrl.algorithms.checkpoints.agent import FILES
from parsecrl.algorithms.checkpoints.files import Folder
from parsecrl.algorithms.controllers.acting import space_of
from parsecrl.algorithms.registry.user_functions import one_line
from parsecrl.algorithms.rllib.config import module_of
from parsecrl.algorithms.training.seeding import derive_seed


class RLModulePolicy:
    """The most probable actions of an RLModule, or drawn ones.

    Args:
        module: Of RLlib, in evaluation mode; one with a state is given a time axis of one step.
        kind: The algorithm's class, as the spec names it.
        observation_size: O.
        action_size: A.
        seed: Of what the module draws, at least 0.
    """

    def __init__(self, module: Any, kind: str, observation_size: int, action_size: int, seed: int = 0):
        self.module, self.kind, self.sizes, self.seed = module, kind, (observation_size, action_size), seed

    def to(self, device: str) -> RLModulePolicy:
        """The policy itself, which decides on this device from now on."""
        self.module = self.module.to(device)
        return self

    def begin(self, envs: Mapping[int, Any]) -> None:
        """Nothing: the observations are all that it looks at."""

    def initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """The module's own state [B, ...], flat by name; one without a state has the number of the decision."""
        state = {"decision": torch.zeros(batch_size, dtype=torch.int64)}
        if self.module.is_stateful():
            own = convert_to_numpy(self.module.get_initial_state())
            for name, value in own.items():
                row = torch.as_tensor(np.asarray(value))
                state[f"state.{name}"] = row.expand(batch_size, *row.shape).clone()
        return state

    @torch.no_grad()
    def act(
        self, state: dict[str, Tensor], obs: Tensor, rng: np.random.Generator | None = None
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """Decide for B environments.

        Args:
            state: Of the step before.
            obs: [B, O] in the environment's units.
            rng: Draws the actions; None: the most probable ones.

        Returns:
            Actions [B, A] in [-1, 1], and the next state.
        """
        # A module may draw whatever is asked for, as DreamerV3 does its latents.
        if rng is not None:
            return self._decide(state, obs, int(rng.integers(2**31)), most_probable=False)
        return self._decide(state, obs, self._seed_of(state, self.seed), most_probable=True)

    @torch.no_grad()
    def act_seeded(
        self, state: dict[str, Tensor], obs: Tensor, seeds: Sequence[int]
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        """As `Policy.act_seeded`, row by row: what a module draws, it draws for a whole batch."""
        rows = []
        for b, seed in enumerate(seeds):
            own = {name: value[b : b + 1] for name, value in state.items()}
            rows.append(self._decide(own, obs[b : b + 1], self._seed_of(own, seed), most_probable=True))
        states = [after for _, after in rows]
        after = {name: torch.cat([each[name] for each in states]) for name in states[0]}
        return np.concatenate([action for action, _ in rows]), after

    @staticmethod
    def _seed_of(state: dict[str, Tensor], seed: int) -> int:
        return derive_seed(seed, "decision", int(state["decision"][0]))

    def _decide(
        self, state: dict[str, Tensor], obs: Tensor, drawn: int, most_probable: bool
    ) -> tuple[NDArray[Any], dict[str, Tensor]]:
        batch: dict[str, Any] = {Columns.OBS: obs}
        own = {name.removeprefix("state."): value for name, value in state.items() if name.startswith("state.")}
        if own:
            first = (state["decision"] == 0).to(obs.dtype)
            batch = {Columns.OBS: obs[:, None], Columns.STATE_IN: {k: v.to(obs.device) for k, v in own.items()}}
            batch["is_first"] = first.to(obs.device)  # DreamerV3's
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(drawn)
            out = self.module.forward_inference(batch)
            actions = out.get(Columns.ACTIONS)
            if actions is None:
                distribution = self.module.get_inference_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
                actions = (distribution.to_deterministic() if most_probable else distribution).sample()
        after = {"decision": state["decision"] + 1}
        if own:
            actions = actions.reshape(len(obs), -1)
            after |= {f"state.{name}": value.cpu() for name, value in out[Columns.STATE_OUT].items()}
        return actions.clamp(-1.0, 1.0).cpu().numpy().astype(np.float32), after


def load_policy(folder: Folder, seed: int = 0) -> tuple[RLModulePolicy, dict[str, Any]]:
    """Read a baseline's agent.

    Args:
        folder: Of the checkpoint; its code must be trusted already.
        seed: Of what the module draws, at least 0.

    Returns:
        The policy, and the description.

    Raises:
        ValueError: The folder holds no such agent, or a damaged one.
    """
    description, weights = FILES.read_description(folder), FILES.read_tensors(folder)
    try:
        # The class is said once, where `check_trust` looks.
        settings = {**description["rllib"], "class": description["controller"]["kind"]}
        sizes = [
            int(np.prod(_flat(space_of(description["spaces"][k])).shape or (0,))) for k in ("observation", "action")
        ]
        seen = spaces.Box(-np.inf, np.inf, (sizes[0],), np.float32)
        module = module_of(settings, seen, spaces.Box(-1.0, 1.0, (sizes[1],), np.float32))
        module.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{folder} holds no whole agent of RLlib ({one_line(error)}); give an undamaged checkpoint folder"
        ) from error
    return RLModulePolicy(module, settings["class"], sizes[0], sizes[1], seed), description


def _flat(space: spaces.Space) -> spaces.Space:
    return spaces.utils.flatten_space(space)
