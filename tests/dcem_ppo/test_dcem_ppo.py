"""Settings, seeds, results and checkpoints of the dcem_ppo algorithm."""

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPO, collect_episodes


@pytest.mark.parametrize(
    ("resources", "environments"),
    [((0, 8, 10), 5), ((2, 8, 10), 5), ((2, 4, 10), 1), ((1, 10, 10), 10), ((0, 1, 3), 1)],
)
def test_as_many_environments_as_let_the_episodes_come_out_even(make_config, resources, environments):
    runners, granted, episodes = resources
    config = make_config(runners=runners, environments=granted, episodes_per_step=episodes)
    config.validate()
    assert config.num_envs_per_env_runner == environments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runners": 3, "episodes_per_step": 10}, "multiple of runners x environments, got 10 with 3 x"),
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


def test_every_round_and_runner_begins_in_other_states(make_config):
    config = make_config(seed=3)
    config.validate()
    starts: dict[Any, Any] = {}
    for worker in (1, 2):
        runner = SingleAgentEnvRunner(config=config, worker_index=worker)
        for round_ in (0, 1):
            rollout = collect_episodes(runner, runner.module.get_state(), 3, round_)
            starts[worker, round_] = np.concatenate([episode.get_actions() for episode in rollout.episodes])
        again = collect_episodes(runner, runner.module.get_state(), 3, 0)
        same = np.concatenate([episode.get_actions() for episode in again.episodes])
        np.testing.assert_array_equal(same, starts[worker, 0])
    keys = list(starts)
    assert all(not np.array_equal(starts[a], starts[b]) for i, a in enumerate(keys) for b in keys[:i])


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

    assert (first["env_steps"], first["ppo_steps"]) == (4 * 3 * 2, 1)  # five steps are three decisions of two
    assert (second["env_steps"], second["ppo_steps"]) == (4 * 3 * 2 * 2, 2)
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


@pytest.mark.ray
def test_no_samples_are_an_error(ray_runtime, make_config, monkeypatch):
    algorithm = make_config().env_runners(sample_timeout_s=0.1).build_algo()
    monkeypatch.setattr(algorithm.env_runner_group, "foreach_env_runner", lambda *args, **kwargs: [])
    with pytest.raises(RuntimeError, match="PPO step 1 gathered no episode"):
        algorithm.train()
    algorithm.stop()
