"""Rollouts in whole batches: environments step together, and a decision is one forward pass with no connector.

Axes: n environments, T steps of a fragment, O observation, A action.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from parsecrl.algorithms.training.rllib_private import OwnFragments, forward

State = dict[str, torch.Tensor]  # of the module, [n, ...]


@dataclass
class _Fragment:
    """What happened since the last `sample`, step by step; lists of T arrays [n, ...]."""

    obs: list[np.ndarray]  # [T + 1], the first from before the first step
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[np.ndarray] = field(default_factory=list)
    terminated: list[np.ndarray] = field(default_factory=list)
    truncated: list[np.ndarray] = field(default_factory=list)
    is_reset: list[np.ndarray] = field(default_factory=list)  # where the step began an episode, and took no action
    infos: list[Any] = field(default_factory=list)  # [T + 1]
    states: list[dict[str, np.ndarray]] = field(default_factory=list)


class BatchedEnvRunner(OwnFragments, SingleAgentEnvRunner):
    """An EnvRunner for modules with a state, whose actions in [-1, 1] the environments take as they are.

    RLlib's own loop runs its connectors once a step and environment.

    Args:
        **kwargs: RLlib's.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._state: State = {}
        self._obs: np.ndarray = np.empty(0)
        self._infos: Any = None
        self._over = np.zeros(self.num_envs, bool)  # the next step of an environment resets it
        self._ids: list[str] = []
        self._ages: np.ndarray = np.zeros(0, np.int64)  # steps of each episode under way

    @property
    def plays(self) -> bool:
        """As of `OwnFragments`; environments take the module's actions as they are where their bounds are -1 and 1."""
        space = self.env.single_action_space
        return super().plays and bool(np.all(space.low == -1) and np.all(space.high == 1))

    def play(self, num_timesteps: int, explore: bool, anew: bool) -> list[SingleAgentEpisode]:
        """As of `OwnFragments`."""
        if anew:
            self._begin(explore)
        fragment, steps = _Fragment([self._obs], infos=[self._infos]), 0
        while steps < num_timesteps:
            if not self._step(fragment, explore):
                self._begin(explore)
                fragment, steps = _Fragment([self._obs], infos=[self._infos]), 0
                continue
            steps += int((~fragment.is_reset[-1]).sum())
        episodes = self._episodes(fragment)
        self.count_fragment(episodes)
        return episodes

    def _begin(self, explore: bool) -> None:
        """Reset all environments."""
        obs, self._infos = self.reset_all(explore)
        self._obs = np.stack(obs)
        self._ids, self._ages = [uuid.uuid4().hex for _ in obs], np.zeros(len(obs), np.int64)
        self._over = np.zeros(len(obs), bool)
        self._state = self._initial_state()
        self.module.eval()

    def _initial_state(self) -> State:
        device = next(self.module.parameters()).device
        initial = self.module.get_initial_state()
        return {name: value.to(device).expand(self.num_envs, *value.shape) for name, value in initial.items()}

    def _step(self, fragment: _Fragment, explore: bool) -> bool:
        """One decision for each environment; False where the environments failed and were made anew."""
        device = next(iter(self._state.values())).device
        batch = {Columns.OBS: torch.from_numpy(self._obs)[:, None].to(device), Columns.STATE_IN: self._state}
        out = forward(self.module, batch, explore)
        actions = out[Columns.ACTIONS][:, 0].cpu().numpy()
        results = self.step_all(actions)
        if results is None:  # RLlib has made the environments anew
            return False
        obs, rewards, terminated, truncated, infos = results
        state, is_reset = out[Columns.STATE_OUT], self._over
        if self.config.decoder_training == "after_planning":  # a learner reads them
            fragment.states.append({name: value.cpu().numpy() for name, value in state.items()})
        if is_reset.any():
            rows = torch.from_numpy(is_reset).to(device)
            initial = self._initial_state()
            wide = {name: rows.view(-1, *[1] * (value.dim() - 1)) for name, value in state.items()}
            state = {name: torch.where(wide[name], initial[name], value) for name, value in state.items()}
        for column, value in (
            *((fragment.obs, obs), (fragment.actions, actions), (fragment.rewards, rewards)),
            *((fragment.terminated, terminated), (fragment.truncated, truncated)),
            *((fragment.is_reset, is_reset), (fragment.infos, infos)),
        ):
            column.append(value)
        self._state, self._obs, self._infos, self._over = state, obs, infos, terminated | truncated
        return True

    def _episodes(self, fragment: _Fragment) -> list[SingleAgentEpisode]:
        """What each environment has played, those that ended first; an environment's episode goes on in the next."""
        ended: list[SingleAgentEpisode] = []
        going: list[SingleAgentEpisode] = []
        T = len(fragment.actions)
        columns = (fragment.obs, fragment.actions, fragment.rewards, fragment.terminated, fragment.truncated)
        by_env = [np.stack(column).swapaxes(0, 1) for column in (*columns, fragment.is_reset)]
        for i, (obs, actions, rewards, terminated, truncated, is_reset) in enumerate(zip(*by_env, strict=True)):
            resets = np.flatnonzero(is_reset)
            for first, end in zip([0, *(resets + 1)], [*resets, T], strict=True):
                if first > 0:
                    self._ids[i], self._ages[i] = uuid.uuid4().hex, 0
                if first == end:  # the fragment ends with a reset, or an episode had ended with the last one
                    continue
                episode = SingleAgentEpisode(
                    id_=self._ids[i],
                    observation_space=self.env.single_observation_space,
                    action_space=self.env.single_action_space,
                    observations=list(obs[first : end + 1]),
                    actions=list(actions[first:end]),
                    rewards=rewards[first:end].tolist(),
                    infos=[infos[i] for infos in fragment.infos[first : end + 1]],
                    extra_model_outputs=_outputs(fragment.states[first:end], i),
                    terminated=bool(terminated[end - 1]),
                    truncated=bool(truncated[end - 1]),
                    t_started=int(self._ages[i]),
                    len_lookback_buffer=0,
                )
                self._ages[i] += end - first
                (ended if episode.is_done else going).append(episode)
        return [episode.to_numpy() for episode in (*ended, *going)] if self.episodes_to_numpy else [*ended, *going]


def _outputs(states: list[dict[str, np.ndarray]], i: int) -> dict[str, list[Any]]:
    rows = [{name: value[i] for name, value in state.items()} for state in states]
    return {Columns.STATE_OUT: rows} if rows else {}
