"""Settings, seeds, results and checkpoints of the dcem_ppo algorithm."""

import os
import signal
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.controllers.acting import PlanningPolicy
from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPO, collect_episodes
from parsecrl.algorithms.dcem_ppo.dcem_ppo_rl_module import NOISE_INDEX, H
from parsecrl.algorithms.training.evaluation import play_anew
from parsecrl.algorithms.training.owed import raise_errors
from parsecrl.algorithms.training.seeding import derive_seed

LONG = "parsecrl-tests/LongTarget-v0"
TWO_LENGTHS, ENDLESS = (f"tests.envs.case_worlds:{name}-v0" for name in ("TwoLengths", "PointWithoutEnd"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fine_tune": []}, "fine_tune must have at least 1 item"),
        ({"fine_tune": ["critic"]}, "'reward', 'transition' or 'decoder', got 'critic'"),
        ({"start_from": None}, "start_from=None"),
        ({"start_from": "/nowhere"}, "/nowhere holds no readable agent.json"),
        ({"passes": 0}, "passes must be greater than or equal to 1, got 0"),
        ({"no_such_key": 1}, "no_such_key is not a known key"),
    ],
)
def test_wrong_settings_are_refused(make_config, settings, message):
    with pytest.raises(ValueError, match=message):
        make_config(**settings).validate()


def test_one_learner_only(make_config):
    config = make_config().learners(num_learners=2)
    with pytest.raises(ValueError, match="num_learners=2"):
        config.validate()


def test_full_space_agents_are_refused(make_config, write_agent, tmp_path):
    with pytest.raises(ValueError, match="kind='full'"):
        make_config(start_from=write_agent(tmp_path, kind="full")).validate()


def test_hard_selection_passes_no_gradient_to_the_model(make_config, write_agent, tmp_path):
    folder = write_agent(tmp_path, temperature=0.0)
    make_config(start_from=folder, fine_tune=["decoder"]).validate()
    with pytest.raises(ValueError, match="temperature 0"):
        make_config(start_from=folder, fine_tune=["reward", "decoder"]).validate()


def test_code_that_the_agent_names_runs_only_when_trusted(make_config, write_agent, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "their_cost.py").write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
        "def cost(observations, rewards, actions):\n    return -rewards.sum(-1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = write_agent(tmp_path, objective="their_cost:cost")
    ran.unlink()
    sys.modules.pop("their_cost")
    config = make_config(start_from=folder)
    with pytest.raises(ValueError, match=r"code their_cost:cost.*\(config\.trust_start_from\(\) in Python"):
        config.validate()
    spec = config.get_default_rl_module_spec()
    spec.observation_space = spec.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    spec.model_config = config._model_config_auto_includes
    with pytest.raises(ValueError, match="their_cost:cost"):
        spec.build()
    assert not ran.exists()
    config.trust_start_from().validate()
    SingleAgentEnvRunner(config=config, worker_index=0)
    assert ran.exists()


def test_another_environments_shape_is_refused(make_config):
    config = make_config("Pendulum-v1")
    config.validate()
    with pytest.raises(ValueError, match=r"size \(1, 1\), this environment \(3, 1\)"):
        SingleAgentEnvRunner(config=config, worker_index=0)


def test_a_search_may_change_any_setting_later(make_config):
    config = make_config()
    config.discount, config.gae_lambda = 0.5, 0.25
    config.validate()
    assert (config.gamma, config.lambda_) == (0.5, 0.25)


def play(config: Any, numbers: Any, step: int = 0) -> dict[str, Any]:
    """Episodes of a PPO step by their numbers, as a runner with the config's environments plays them."""
    config.validate()
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    rollout = collect_episodes(runner, runner.module.get_state(), config.seed, step, numbers, patience_s=60.0)
    (rollout,) = raise_errors([rollout])
    assert rollout.times.num_decisions == sum(map(len, rollout.episodes))  # none is planned for nothing
    return {episode.id_: episode for episode in rollout.episodes}


@pytest.mark.parametrize("environments", [1, 3, 4, 64])
def test_a_step_plays_a_fixed_set_of_episodes_of_any_length(make_config, write_agent, tmp_path, environments):
    """Half of the episodes last 2 steps, half 40. Those that end first are not preferred."""
    folder = write_agent(tmp_path, sizes=(2, 1), num_iterations=1)
    episodes = play(make_config(TWO_LENGTHS, start_from=folder, environments=environments), range(32))
    lengths = [len(episodes[str(number)]) for number in range(32)]
    assert lengths == [40 if kind > 0 else 2 for kind in first_observations(32)]
    assert set(lengths) == {2, 40}


def first_observations(count: int) -> list[float]:
    """What episodes of PPO step 0 of seed 0 begin with, in the bare task."""
    task = gymnasium.make(TWO_LENGTHS)
    return [task.reset(seed=derive_seed(0, "ppo_episode", 0, number))[0][0] for number in range(count)]


def test_an_episode_is_the_same_whoever_plays_it_among_others(make_config):
    alone = play(make_config(LONG, environments=1), [2, 5])
    among = play(make_config(LONG, environments=3), range(7))
    other = play(make_config(LONG, environments=3), range(7), step=1)
    for number, episode in alone.items():
        for name in (Columns.ACTIONS, NOISE_INDEX, Columns.ACTION_LOGP, H):
            one, many, next_step = (column(found, name) for found in (episode, among[number], other[number]))
            np.testing.assert_allclose(one, many, atol=1e-4)
            assert not np.allclose(one, next_step, atol=1e-4)
    assert len({tuple(episode.get_actions()[:, 0]) for episode in among.values()}) == 7


def column(episode: Any, name: str) -> np.ndarray:
    return episode.get_actions() if name == Columns.ACTIONS else episode.get_extra_model_outputs(name)


def test_an_episode_without_end_is_an_error_that_says_so(make_config, write_agent, tmp_path):
    config = make_config(ENDLESS, start_from=write_agent(tmp_path, sizes=(2, 1)))
    config.validate()
    runner = SingleAgentEnvRunner(config=config, worker_index=0)
    with pytest.raises(RuntimeError, match=r"did not end within sample_timeout_s=0\.2 s.*env\.max_episode_steps"):
        collect_episodes(runner, runner.module.get_state(), 0, 0, range(4), patience_s=0.2)


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {
        name: result[name] for name in ("env_steps", "ppo_steps", "episode_return_mean", "ratio_deviation", "losses")
    }


@pytest.mark.ray
def test_same_seed_same_numbers_also_across_a_checkpoint(ray_runtime, make_config, tmp_path):
    settings = {"env_id": "parsecrl-tests/LongTarget-v0", "action_repeat": 2, "passes": 2}
    algorithm = make_config(**settings).build_algo()
    first = without_times(algorithm.train())
    checkpoint = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    second = algorithm.train()
    agent = algorithm.current_agent()
    algorithm.stop()

    assert (first["env_steps"], first["ppo_steps"]) == (
        4 * 5,
        1,
    )  # three decisions of two steps, of which the last is cut
    assert (second["env_steps"], second["ppo_steps"]) == (2 * 4 * 5, 2)
    assert second["planning_ms"] > 0
    assert second["ratio_deviation"] <= 1e-4
    assert {"policy_loss", "value_loss", "entropy"} <= set(second["losses"])
    measured, controller = second["measured"], algorithm.config.controller
    assert measured["losses"].keys() == {"policy_loss", "value_loss", "entropy"}
    assert measured["gradient_norms"].keys() == {"fine_tuned"}
    assert measured["time_shares"].keys() == {"main", "runner"}
    assert second["trajectories"] >= 2 * 4 * 3 * controller["num_samples"] * controller["num_iterations"]
    assert np.log(controller["num_elites"]) < measured["soft_top_k_entropy"] <= np.log(controller["num_samples"])

    saved, description = load_agent(checkpoint)
    assert description["algorithm"] == "dcem_ppo"
    assert description["env_steps"] == first["env_steps"]
    assert description["env"] == {"id": settings["env_id"], "action_repeat": 2}

    restored = DCEMPPO.from_checkpoint(checkpoint)
    for name, value in restored.current_agent().state_dict().items():
        np.testing.assert_array_equal(value, saved.state_dict()[name])
    assert without_times(restored.train()) == without_times(second)
    for name, value in restored.current_agent().state_dict().items():
        np.testing.assert_array_equal(value, agent.state_dict()[name])
    restored.stop()

    twin = make_config(**settings).build_algo()
    assert without_times(twin.train()) == first
    twin.stop()


def kill_runners(algorithm: Any, count: int) -> None:
    """As a node that is lost would take them."""
    pids = algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    for pid in pids[:count]:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.ray
def test_what_a_lost_runner_owes_the_others_play(ray_runtime, make_config, write_agent, tmp_path):
    agent = write_agent(tmp_path, sizes=(3, 1), num_iterations=1)
    settings = {"start_from": agent, "action_repeat": 20, "episodes_per_step": 5, "environments": 2}
    alone = make_config("Pendulum-v1", **settings).build_algo()
    expected = alone.train()
    alone.stop()
    algorithm = make_config("Pendulum-v1", **settings, runners=2).build_algo()
    kill_runners(algorithm, 1)
    result = algorithm.train()
    algorithm.stop()
    assert result["env_steps"] == expected["env_steps"] == 5 * 200
    assert result["episode_return_mean"] == pytest.approx(expected["episode_return_mean"], rel=1e-3)
    assert result["num_updates"] == expected["num_updates"] == 32


@pytest.mark.ray
def test_no_samples_are_an_error(ray_runtime, make_config, write_agent, tmp_path):
    config = (
        make_config("Pendulum-v1", start_from=write_agent(tmp_path, sizes=(3, 1)), runners=1)
        .env_runners(sample_timeout_s=1.0)
        .fault_tolerance(restart_failed_env_runners=False, ignore_env_runner_failures=True)
    )
    algorithm = config.build_algo()
    kill_runners(algorithm, 1)
    with pytest.raises(TimeoutError, match="PPO step 1 gathered no episode"):
        algorithm.train()
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("id", "repeat", "decisions", "sizes", "runners"), [(LONG, 1, 5, (1, 1), 0), ("Pendulum-v1", 20, 10, (3, 1), 2)]
)
def test_its_agent_is_evaluated_without_exploration(
    ray_runtime, make_config, write_agent, tmp_path, id, repeat, decisions, sizes, runners
):
    agent = write_agent(tmp_path, sizes=sizes)
    rules = {"evaluation_every": 20, "evaluation_episodes": 3}
    config = make_config(id, action_repeat=repeat, start_from=agent, runners=runners, **rules)
    algorithm = config.build_algo()
    try:
        found = algorithm.train()
        policy = PlanningPolicy(algorithm.current_agent(), derive_seed(0, "evaluation"))
        env, arguments = algorithm.config.env, algorithm.config.env_config
        again = play_anew(policy, env, arguments, algorithm.evaluation.seeds, "cpu", 60.0)
        assert found["score"] == found["evaluation_return_mean"] == pytest.approx(np.mean(again), rel=1e-5)
        assert found["evaluated_updates"] == found["num_updates"] > 0
        assert {"predicted_reward", "achieved_reward"} <= found.keys()
        assert found["achieved_reward"] == pytest.approx(found["episode_return_mean"] / decisions, rel=0.3)
    finally:
        algorithm.stop()
