"""Episodes shorter than batch_length and horizon, of one step, without an end; steps counted as the world took them."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from parsecrl.algorithms.planet.planet import Planet
from parsecrl.algorithms.planet.planet_learner import LOSSES
from parsecrl.algorithms.planet.replay import bare_episode, beginnings, load_replay, save_replay
from parsecrl.algorithms.planet.rollouts import collect
from parsecrl.algorithms.registry.algorithm import UNTRAINED
from parsecrl.algorithms.training.rllib_phase import simulator_steps
from tests.envs.case_worlds import Point
from tests.planet.small import EMBEDDED, FULL, small_config

POINT, TWO_LENGTHS, ENDLESS = (
    f"tests.envs.case_worlds:{name}-v0" for name in ("Point", "TwoLengths", "PointWithoutEnd")
)
ONE_STEP = "parsecrl-tests/OneStep-v0"
gymnasium.register(ONE_STEP, entry_point=Point, kwargs={"steps": 1})


def numbered_episode(number: int, length: int) -> SingleAgentEpisode:
    """obs is (number, t), the action and the reward that follows it t / 100."""
    steps = np.arange(length + 1, dtype=np.float32)
    return SingleAgentEpisode(
        observations=[np.array([number, t], np.float32) for t in steps],
        actions=[np.array([t / 100], np.float32) for t in steps[:-1]],
        rewards=list(steps[:-1] / 100),
        terminated=number % 2 == 0,
        truncated=number % 2 == 1,
        len_lookback_buffer=0,
    )


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [1, 2, 40], [3, 1, 7, 2]])
def test_rows_of_short_episodes(lengths, tmp_path):
    """Each piece of a row is of one episode, in order, and but for a row's first one begins at its beginning."""
    before = EpisodeReplayBuffer(capacity=1000)
    before.add([numbered_episode(number, length) for number, length in enumerate(lengths)])
    save_replay(before, tmp_path)
    buffer = EpisodeReplayBuffer(capacity=1000)
    buffer.add(load_replay(tmp_path))
    buffer.rng = np.random.default_rng(0)
    rows = buffer.sample(batch_size_B=20, batch_length_T=8)
    for b, t in itertools.product(range(20), range(8)):
        number, step = rows["obs"][b, t].astype(int)
        if rows["is_first"][b, t]:
            assert step == 0 or t == 0
        else:
            assert (rows["obs"][b, t - 1] == (number, step - 1)).all()
            assert rows["rewards"][b, t] == rows["actions"][b, t - 1, 0] == np.float32((step - 1) / 100)
        ends = step == lengths[number]
        assert rows["is_terminated"][b, t] == (ends and number % 2 == 0)
        if t < 7:
            assert rows["is_first"][b, t + 1] == ends
    obs, actions = beginnings(buffer, 50, 4, np.random.default_rng(0))
    for (number, step), row in zip(obs, actions[..., 0], strict=True):
        known = min(4, lengths[int(number)])
        assert step == 0
        np.testing.assert_array_equal(row[:known], (np.arange(known) / 100).astype(np.float32))
        assert np.isnan(row[known:]).all()


def test_simulator_steps_are_those_that_the_world_took():
    """Thirty steps in decisions of seven are 30, not 35, also where a fragment cuts the episode."""
    config = small_config(
        env={"id": POINT, "action_repeat": 7}, resources={"num_envs_per_env_runner": 2}, rollout_fragment_length=2
    )
    config.validate()
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    counted: dict[str, int] = {}
    done = set()
    for number in range(8):
        for episode in collect(runner, runner.module.get_state(), number).episodes:
            counted[episode.id_] = counted.get(episode.id_, 0) + simulator_steps(episode, 7)
            assert bare_episode(episode).get_infos() == [{}] * (len(episode) + 1)
            if episode.is_done:
                done.add(episode.id_)
    assert len(done) >= 4
    assert {counted[name] for name in done} == {30}


@pytest.fixture
def build(ray_runtime):
    algorithms = []

    def make(decisions: int = 20, **kwargs) -> Planet:
        settings = {"horizon": 4, "decoder_initial_beliefs": 0, "batch_length": 8, "train_ratio": 0.5, **kwargs}
        controller = {**settings.pop("controller", EMBEDDED), "horizon": settings.pop("horizon")}
        config = small_config(controller=controller, **settings)
        config.decisions_per_iteration = decisions
        algorithms.append(config.build_algo())
        return algorithms[-1]

    yield make
    for algorithm in algorithms:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.parametrize("decoder", [None, {"decoder_anchor": 1.0}, {"decoder_training": "after_planning"}])
@pytest.mark.parametrize("world", [ONE_STEP, TWO_LENGTHS])
def test_planet_learns_from_episodes_shorter_than_its_sequences(build, world, decoder):
    environments = {"num_envs_per_env_runner": 3}
    algorithm = build(
        env={"id": world, "action_repeat": 1},
        resources=environments,
        controller=FULL if decoder is None else EMBEDDED,
        **(decoder or {}),
    )
    result = [algorithm.train() for _ in range(3)][-1]
    assert result["num_updates"] > 0
    assert UNTRAINED not in result
    terms = {name: value for name, value in result["losses"].items() if name in LOSSES}
    assert {"model_loss", "observation", "reward", "kl"} <= terms.keys()
    assert [name for name, value in terms.items() if not np.isfinite(value)] == []
    assert result["env_steps"] == result["replay_decisions"]
    weights = algorithm.current_agent().state_dict().values()
    assert all(torch.isfinite(value).all() for value in weights)


@pytest.mark.ray
def test_counted_steps_survive_a_checkpoint_that_cuts_episodes(build, tmp_path):
    settings = {"env": {"id": POINT, "action_repeat": 7}, "rollout_fragment_length": 3}
    algorithm = build(**settings)
    for _ in range(2):
        result = algorithm.train()
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    restored = build(**settings)
    restored.restore_from_path(str(tmp_path / "checkpoint"))
    assert restored.phase_results() == algorithm.phase_results()
    assert result["env_steps"] == restored.counts["env_steps"]
    # Of five decisions four take seven steps, the last two.
    ended, begun = divmod(result["replay_decisions"], 5)
    assert result["env_steps"] == 30 * ended + 7 * begun
    assert algorithm.counts["seed_steps"] % 30 in {0, 7, 14, 21, 28}


@pytest.mark.ray
def test_what_the_first_update_waits_for_is_said(build):
    few = build(env={"id": POINT, "action_repeat": 1}, seed_episodes=90).train()
    assert few["num_updates"] == 0
    assert few[UNTRAINED].startswith(f"{few['env_steps'] // 30} of 90 seed_episodes ended in {few['env_steps']} sim")
    rare = build(env={"id": POINT, "action_repeat": 1}, seed_episodes=1, train_ratio=1e-6)
    while rare.counts["seed_steps"] < 0:
        result = rare.train()
    assert result[UNTRAINED].startswith("train_ratio=1e-06 makes no whole update")


@pytest.mark.ray
def test_seed_episodes_without_end_are_an_error(build):
    algorithm = build(10**6, env={"id": ENDLESS, "action_repeat": 1}, resources={"sample_timeout_s": 1.0})
    with pytest.raises(RuntimeError, match=r"no episode ended within sample_timeout_s=1 s.*env\.max_episode_steps"):
        algorithm.train()
