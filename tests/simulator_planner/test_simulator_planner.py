"""Planning in the true simulator: the state is put back to the bit, and the plans are better than chance."""

import numpy as np
import pytest
import torch

from parsecrl.algorithms.simulator_planner.planner import SimulatorPlanner
from parsecrl.algorithms.simulator_planner.trainable import SimulatorPlanning
from parsecrl.envs import make_env
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import evaluate
from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.running.preflight import check_environment
from parsecrl.platform.specs import parse_spec

SETTINGS = {"horizon": 4, "num_samples": 6, "num_elites": 2, "num_iterations": 1, "init_std": 0.5}
ENV = {"id": "dm_control/cheetah-run-v0", "action_repeat": 10, "max_episode_steps": 100}


def played(env, actions, between):
    """Observations, rewards and ends of an episode; `between` runs before each decision."""
    seen = [env.reset(seed=3)[0]]
    for action in actions:
        between(env)
        obs, reward, terminated, truncated, info = env.step(action)
        seen.append(np.array([*obs, reward, terminated, truncated, info["env_steps"]]))
        if terminated or truncated:
            break
    return seen


@pytest.mark.parametrize(
    "task", ["dm_control/cheetah-run-v0", "dm_control/reacher-hard-v0", "dm_control/finger-spin-v0", "Hopper-v5"]
)
def test_looking_ahead_leaves_no_trace(task):
    env = make_env(task, action_repeat=2, max_episode_steps=30)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (20, env.action_space.shape[0]))

    def look_ahead(env):
        state = env.simulator_state()
        for _ in range(2):
            env.restore_simulator(state)
            for _ in range(6):  # past the time limit of the last decisions
                if any(env.step(rng.uniform(-1.0, 1.0, env.action_space.shape[0]))[2:4]):
                    break
        env.restore_simulator(state)

    undisturbed, disturbed = played(env, actions, lambda env: None), played(env, actions, look_ahead)
    env.close()
    assert len(undisturbed) == len(disturbed) > 2
    for before, after in zip(undisturbed, disturbed, strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_same_actions_from_a_state_lead_to_the_same_rewards():
    env = make_env("dm_control/cheetah-run-v0", action_repeat=4)
    env.reset(seed=0)
    actions = np.random.default_rng(1).uniform(-1.0, 1.0, (8, 6))
    state = env.simulator_state()
    returns = []
    for _ in range(2):
        env.restore_simulator(state)
        returns.append([env.step(action)[1] for action in actions])
    env.close()
    assert returns[0] == returns[1]


def test_plans_cost_what_they_earn():
    """The cost of a candidate is minus the return of its actions, by hand."""
    env = make_env(**ENV)
    planner = SimulatorPlanner(SETTINGS, (17, 6))
    env.reset(seed=0)
    planner.begin({1: env})
    plans = torch.from_numpy(np.random.default_rng(0).uniform(-1.0, 1.0, (2, 3, 24)).astype(np.float32))
    state = env.simulator_state()
    costs = planner._costs(plans, {1: state})
    assert (costs[0] == 0).all()  # a row without an environment
    for number in range(3):
        env.restore_simulator(state)
        earned = sum(env.step(action)[1] for action in plans[1, number].view(4, 6).numpy())
        assert costs[1, number].item() == pytest.approx(-earned, rel=1e-6)
    env.close()


def test_a_trial_goes_on_from_its_checkpoint_and_is_evaluated(tmp_path):
    config = {"controller": SETTINGS, "env": ENV, "run_seed": 1}
    trial = SimulatorPlanning(config)
    first = trial.step()
    assert (first["episodes"], first["env_steps"]) == (1, 100)
    trial.save_checkpoint(str(tmp_path))
    second = trial.step()
    again = SimulatorPlanning(config)
    again.load_checkpoint(str(tmp_path))
    assert again.step()["episode_return_mean"] == second["episode_return_mean"]
    trial.cleanup()
    again.cleanup()

    rows, random = evaluate(tmp_path, episodes=2), evaluate("random", ENV, episodes=2)
    assert set(rows["controller"]) == {"simulator"}
    assert (rows["env_steps"] == 100).all()
    assert rows["episode_return"].mean() > 3 * random["episode_return"].mean()
    alone = evaluate(tmp_path, episodes=[1], batch_size=2)  # among others or alone, an episode is the same
    assert alone["episode_return"].item() == rows["episode_return"][1]

    agent = load_agent(tmp_path)
    with pytest.raises(ValueError, match="plans in the environment itself, and knows none here"):
        agent.act(agent.observation_space.sample(), agent.initial_state())


def test_a_task_without_a_state_to_copy_is_refused_in_one_sentence():
    phase = {"name": "bound", "algorithm": "simulator_planner"}
    spec = parse_spec({"name": "pendulum", "env": {"id": "Pendulum-v1"}, "phases": [phase]}, "a test")
    assert spec.phases[0].stop.conditions == {"episodes": 1}
    message = r"phases\.bound: simulator_planner plans in copies of MuJoCo's state, and 'Pendulum-v1' has none; choose"
    with pytest.raises(UserError, match=message):
        check_environment(spec)


def test_fewer_candidates_than_elites_are_refused():
    phase = {"name": "bound", "algorithm": "simulator_planner", "controller": {"num_samples": 4, "num_elites": 4}}
    with pytest.raises(UserError, match=r"num_elites must lie in \[1, num_samples\), got 4 with num_samples=4"):
        parse_spec({"name": "pendulum", "env": {"id": "Pendulum-v1"}, "phases": [phase]}, "a test")
