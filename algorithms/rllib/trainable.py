"""A trial of a baseline: RLlib's algorithm, with results and checkpoints as the other phases have them."""

from __future__ import annotations

import json
import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core import COMPONENT_LEARNER as LEARNER
from ray.rllib.core import COMPONENT_RL_MODULE as RL_MODULE
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS
from ray.tune import Trainable

from parsecrl.algorithms.checkpoints.agent import FILES
from parsecrl.algorithms.controllers.acting import describe_space
from parsecrl.algorithms.registry.algorithm import UNTRAINED
from parsecrl.algorithms.rllib.acting import RLModulePolicy
from parsecrl.algorithms.rllib.config import module_of, trial_config
from parsecrl.algorithms.rllib.episode_counts import AT_BOUNDS, DECISIONS, ENTRIES, HIGH, LOW, RETURNS, STEPS
from parsecrl.algorithms.training.evaluation import ROLE, Evaluation, play_anew
from parsecrl.algorithms.training.rllib_phase import runners_told
from parsecrl.algorithms.training.rllib_private import algorithm_inside
from parsecrl.algorithms.training.rllib_settings import RECENT_EPISODES, learner_terms
from parsecrl.algorithms.training.seeding import derive_seed

STATE_FILE, REST_FILE, RLLIB = "baseline.json", "baseline.pkl", "rllib"
ALPHA = "curr_log_alpha"  # SAC's, which RLlib leaves out of its checkpoints, as the replay


class RLlibBaseline(Trainable):
    """One of RLlib's algorithms.

    config: `RLlibSettings`, env and resources as the spec has them, and run_seed.

    Results: env_steps, simulator steps; num_updates, calls of the learners; episode_return_mean and score, of the last
    10 episodes; losses, the learner's numbers; reward_low, reward_high, actions_at_bounds as of planet.
    """

    plans = ()

    def setup(self, config: dict[str, Any]) -> None:
        """Build RLlib's algorithm, which writes no files of its own."""
        made = trial_config(config, config["env"], config["resources"], config["run_seed"])
        self.counts = {"env_steps": 0, "decisions": 0, "updates": 0}
        self.last_returns: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.reward_range = [np.inf, -np.inf]
        self.evaluation = Evaluation(config.get("evaluation_every"), config["evaluation_episodes"], config["run_seed"])
        with runners_told(made):
            self.algorithm = algorithm_inside(self, made)
        self.spaces = self._spaces()

    def _spaces(self) -> dict[str, Any]:
        """The task's own spaces, as agent.json holds them."""
        c = self.algorithm.config
        task = gymnasium.make(c.env, **c.env_config)
        try:
            return {
                kind: describe_space(task.get_wrapper_attr(f"task_{kind}_space")) for kind in ("observation", "action")
            }
        finally:
            task.close()

    def step(self) -> dict[str, Any]:
        """An iteration of RLlib."""
        found = self.algorithm.train()
        runners = found.get(ENV_RUNNER_RESULTS, {})
        if not runners.get(DECISIONS):
            raise RuntimeError(
                f"no runner returned a step within resources.sample_timeout_s="
                f"{self.algorithm.config.sample_timeout_s:g} s; see the runners' logs, or raise the timeout"
            )
        self.counts["env_steps"] += int(runners[STEPS])
        self.counts["decisions"] += int(runners[DECISIONS])
        self.last_returns.extend(float(value) for value in np.ravel(runners.get(RETURNS, [])))
        terms = {name: value for name, value in learner_terms(found).items() if np.isfinite(value)}
        self.counts["updates"] = self._updates(found)
        result: dict[str, Any] = {
            **self.phase_results(),
            "episode_return_mean": float(np.mean(self.last_returns)) if self.last_returns else float("nan"),
            "losses": terms,
            "measured": {"losses": {name: value for name, value in terms.items() if name.endswith("loss")}},
        }
        if not self.counts["updates"]:
            result[UNTRAINED] = (
                f"RLlib's {self.config['class']} made no update of {self.counts['env_steps']:,} simulator steps; "
                f"prolong the phase, or see config for what it waits for"
            )
        result |= self.evaluation.results(
            result["env_steps"], result["num_updates"], result["episode_return_mean"], self._returns_of
        )
        low, high = self.reward_range
        self.reward_range = [min(low, float(runners[LOW])), max(high, float(runners[HIGH]))]
        result["reward_low"], result["reward_high"] = self.reward_range
        result["actions_at_bounds"] = float(runners[AT_BOUNDS]) / float(runners[ENTRIES])
        return result

    def _updates(self, found: Mapping[str, Any]) -> int:
        """How often the learners updated, as they number their weights."""
        number = found.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {}).get("weights_seq_no")
        return self.counts["updates"] if number is None else int(number)

    def _returns_of(self, seeds: Sequence[int]) -> list[float]:
        """An episode of each seed, with the most probable actions, played here: such networks are small."""
        c = self.algorithm.config
        task = gymnasium.make(c.env, **c.env_config)
        seen, action = task.observation_space, task.action_space
        task.close()
        module = module_of(self.config, seen, action)
        module.load_state_dict(self._weights())
        obs_size, action_size = (int(np.prod(space.shape or (0,))) for space in (seen, action))
        seed = derive_seed(self.config["run_seed"], ROLE)
        policy = RLModulePolicy(module, self.config["class"], obs_size, action_size, seed)
        return play_anew(policy, c.env, c.env_config, seeds, "cpu", c.sample_timeout_s)

    def _weights(self) -> dict[str, torch.Tensor]:
        """Of the module, as far as it acts, on the CPU."""
        state = self.algorithm.learner_group.get_state(components=f"{LEARNER}/{RL_MODULE}", inference_only=True)
        module = state[LEARNER][RL_MODULE][DEFAULT_MODULE_ID]
        return {name: torch.as_tensor(value) for name, value in module.items()}

    def phase_results(self) -> dict[str, Any]:
        """What was counted in this phase."""
        counted = {"env_steps": self.counts["env_steps"], "num_updates": self.counts["updates"]}
        replay = getattr(self.algorithm, "local_replay_buffer", None)
        return {**counted, **({} if replay is None else {"replay_decisions": replay.get_num_timesteps()})}

    def agent_description(self) -> dict[str, Any]:
        """agent.json."""
        c = self.config
        own = {key: c[key] for key in ("config", "model") if c.get(key)}
        env = {key: value for key, value in c["env"].items() if value is not None}
        return {
            "algorithm": "rllib",
            "env": env,
            "spaces": self.spaces,
            "controller": {"kind": c["class"]},
            "rllib": own,
            "env_steps": self.counts["env_steps"],
            "seed": c["run_seed"],
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """RLlib's checkpoint, what it leaves out, and the agent's two files without pickles."""
        folder = Path(checkpoint_dir).absolute()
        FILES.write(folder, self.agent_description(), self._weights())
        self.algorithm.save_to_path(str(folder / RLLIB))
        counted = {**self.counts, "last_returns": list(self.last_returns), "reward_range": self.reward_range}
        counted["evaluation"] = self.evaluation.state()
        (folder / STATE_FILE).write_text(json.dumps(counted))
        replay = getattr(self.algorithm, "local_replay_buffer", None)
        rest = {
            "replay": None if replay is None else replay.get_state(),
            "alpha": [result.get() for result in self.algorithm.learner_group.foreach_learner(_alpha)],
        }
        with (folder / REST_FILE).open("wb") as stream:
            pickle.dump(rest, stream)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on where `save_checkpoint` wrote."""
        folder = Path(checkpoint).absolute()
        self.algorithm.restore_from_path(str(folder / RLLIB))
        state = json.loads((folder / STATE_FILE).read_text())
        self.last_returns.extend(state.pop("last_returns"))
        self.reward_range = state.pop("reward_range")
        self.evaluation.set_state(state.pop("evaluation"))
        self.counts.update(state)
        rest = pickle.loads((folder / REST_FILE).read_bytes())
        if rest["replay"] is not None:
            self.algorithm.local_replay_buffer.set_state(rest["replay"])
        if alpha := next(iter(rest["alpha"]), None):
            self.algorithm.learner_group.foreach_learner(partial(_set_alpha, stored=alpha))

    def cleanup(self) -> None:
        """End RLlib's processes."""
        if hasattr(self, "algorithm"):
            self.algorithm.stop()


def _alpha(learner: Any, **kwargs: Any) -> dict[str, float]:
    return {name: float(value) for name, value in getattr(learner, ALPHA, {}).items()}


def _set_alpha(learner: Any, stored: Mapping[str, float], **kwargs: Any) -> None:
    for name, value in stored.items():
        getattr(learner, ALPHA)[name].data.fill_(value)
