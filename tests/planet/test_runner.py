"""Rollouts in batches: what RLlib's own loop plays, step for step."""

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from parsecrl.algorithms.planet.planet import PlanetConfig
from parsecrl.algorithms.planet.runner import BatchedEnvRunner

SEARCH = {"kind": "full", "horizon": 2, "num_samples": 8, "num_elites": 2, "num_iterations": 1}


class Walk(gym.Env):
    """Adds up actions; an episode ends after 2 to 9 steps by its seed, of itself or by a limit."""

    observation_space = gym.spaces.Box(-20, 20, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.ends = int(self.np_random.integers(2, 10)), bool(self.np_random.integers(2))
        self.at = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.at.copy(), {}

    def step(self, action):
        self.left -= 1
        self.at[:2] += action
        over = self.left == 0
        return self.at.copy(), float(self.at.sum()), over and self.ends, over and not self.ends, {"env_steps": 1}


gym.register("parsecrl-tests/Walk-v0", entry_point=Walk)


def runner_of(kind, num_envs=3, trained=True, **settings):
    config = PlanetConfig().environment("parsecrl-tests/Walk-v0").env_runners(num_envs_per_env_runner=num_envs)
    config = config.training(**{"controller": SEARCH, **settings}).debugging(seed=4)
    runner = kind(config=config, worker_index=0)
    runner.module.agent.trained.fill_(trained)
    return runner


def by_content(episodes):
    """In an order that does not depend on names; what RLlib gives to an environment is scaled, and so rounded."""
    return sorted(episodes, key=lambda e: (len(e), e.t_started, *np.round(e.get_observations(0), 3), e.get_return()))


def assert_equal(own, theirs):
    for a, b in zip(by_content(own), by_content(theirs), strict=True):
        assert (len(a), a.t_started, a.is_terminated, a.is_truncated) == (
            *(len(b), b.t_started),
            *(b.is_terminated, b.is_truncated),
        )
        for part in ("get_observations", "get_actions", "get_rewards"):
            np.testing.assert_allclose(getattr(a, part)(), getattr(b, part)(), atol=1e-5)
        assert a.get_infos() == b.get_infos()


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_the_episodes_and_metrics_are_those_of_rllib(explore: bool, trained: bool):
    played, told = [], []
    for kind in (SingleAgentEnvRunner, BatchedEnvRunner):
        runner = runner_of(kind, trained=trained)
        runner.module.seed(0)
        played.append([runner.sample(num_timesteps=steps, explore=explore) for steps in (12, 30, 7)])
        metrics = runner.get_metrics()
        names = ("num_env_steps_sampled", "num_episodes", "episode_return_mean", "episode_len_mean")
        told.append([metrics[name].peek() for name in names])
    for theirs, own in zip(*played, strict=True):
        assert sum(map(len, own)) == sum(map(len, theirs)) > 0
        assert_equal(own, theirs)
    np.testing.assert_allclose(told[1], told[0], rtol=1e-5)


def test_an_episode_keeps_its_name_from_one_fragment_to_the_next():
    runner = runner_of(BatchedEnvRunner, num_envs=1)
    chunks = [chunk for _ in range(6) for chunk in runner.sample(num_timesteps=3)]
    names = dict.fromkeys(chunk.id_ for chunk in chunks)
    assert 1 < len(names) < len(chunks)
    for name in names:
        own = [chunk for chunk in chunks if chunk.id_ == name]
        assert [chunk.t_started for chunk in own] == [sum(map(len, own[:i])) for i in range(len(own))]
        assert [chunk.is_done for chunk in own[:-1]] == [False] * (len(own) - 1)


def test_beliefs_are_brought_back_where_a_learner_reads_them():
    assert not runner_of(BatchedEnvRunner).sample(num_timesteps=9)[0].extra_model_outputs
    settings = {"controller": {**SEARCH, "kind": "embedded", "latent_size": 2}, "decoder_training": "after_planning"}
    played = []
    for kind in (SingleAgentEnvRunner, BatchedEnvRunner):
        runner = runner_of(kind, **settings)
        runner.module.seed(0)
        played.append(by_content(runner.sample(num_timesteps=30)))
    for theirs, own in zip(*played, strict=True):
        for name in ("h", "s"):
            states = [episode.get_extra_model_outputs(Columns.STATE_OUT)[name] for episode in (own, theirs)]
            np.testing.assert_allclose(*states, atol=1e-5)


class Heard(RLlibCallback):
    ended = 0

    def on_episode_end(self, **kwargs):
        Heard.ended += 1


def test_callbacks_of_episodes_are_called():
    config = PlanetConfig().environment("parsecrl-tests/Walk-v0").training(controller=SEARCH).callbacks(Heard)
    runner = BatchedEnvRunner(config=config, worker_index=0)
    assert not runner.plays
    episodes = runner.sample(num_timesteps=40)
    assert Heard.ended == sum(episode.is_done for episode in episodes) > 0


def test_whole_episodes_and_fragments_follow_each_other():
    runner = runner_of(BatchedEnvRunner)
    for _ in range(2):
        assert all(episode.is_done for episode in runner.sample(num_episodes=4))
        assert all(episode.t_started == 0 for episode in runner.sample(num_timesteps=20))
