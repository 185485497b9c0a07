"""What the world model predicts along an episode: which numbers, the figure and the film."""

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from parsecrl.algorithms.checkpoints.agent import save_agent
from parsecrl.algorithms.controllers.acting import planning_noise
from parsecrl.algorithms.reporting.figures import render
from parsecrl.envs import make_env
from parsecrl.platform.cli import main
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import evaluate
from parsecrl.platform.evaluation.lockstep import episode_seed
from parsecrl.platform.evaluation.prediction_figures import prediction_plot, write_film
from parsecrl.platform.evaluation.predictions import Predictions, predict_episode
from tests.platform.test_evaluation import small_agent

PENDULUM = {"id": "Pendulum-v1", "action_repeat": 10}
H = 3


@pytest.fixture(scope="module")
def found():
    return predict_episode(small_agent("full", 3, 1), PENDULUM, seed=4, episode=2)


def test_the_episode_is_that_of_evaluation(found):
    row = evaluate(small_agent("full", 3, 1), PENDULUM, episodes=[2], seed=4, batch_size=1).iloc[0]
    assert (found.seed, found.rewards.sum()) == (row["seed"], pytest.approx(row["episode_return"]))
    assert found.is_whole
    assert (found.obs.shape, found.rewards.shape) == ((21, 3), (20,))


def test_predictions_follow_the_actions_that_were_taken(found):
    agent = small_agent("full", 3, 1).eval()
    noise, state, beliefs, actions = planning_noise(agent, 4), agent.initial_state(1), [], []
    task = make_env(**PENDULUM)
    obs, _ = task.reset(seed=episode_seed(4, 2))
    with torch.no_grad():
        for _ in range(6):
            beliefs.append(agent.update_belief(state, torch.as_tensor(obs)[None]))
            action, state = agent.act(state, torch.as_tensor(obs)[None], noise=noise)
            actions.append(action)
            obs, *_ = task.step(action[0].numpy())
        taken = torch.stack(actions[2 : 2 + H], 1)[:, None]  # [1, 1, H, A]
        seen, rewards = agent.model.predict(beliefs[2], taken)
    assert found.predicted_rewards[2] == pytest.approx(rewards[0, 0].numpy(), rel=1e-4)
    assert found.predicted_obs[2] == pytest.approx(seen[0, 0].numpy(), rel=1e-4, abs=1e-5)


def test_what_lies_beyond_the_end_is_not_predicted(found):
    known = np.isfinite(found.predicted_rewards)
    assert (known == (np.arange(20)[:, None] + np.arange(H) < 20)).all()
    assert (np.isfinite(found.predicted_obs).all(-1) == known).all()


def made(error=0.0, T=30):
    rng = np.random.default_rng(0)
    obs, rewards = rng.normal(size=(T + 1, 2)), rng.normal(size=T)
    ahead = np.arange(T)[:, None] + np.arange(H)
    inside = np.minimum(ahead, T - 1)
    predicted = [np.where(ahead < T, rewards[inside], np.nan), obs[1 + inside]]
    predicted[1][ahead >= T] = np.nan
    return Predictions(obs, rewards, predicted[1] + error, predicted[0] + error, np.full(T, 2.0), 5, True)


def test_shares_of_the_variance():
    for share in made().explained:
        assert share == pytest.approx(np.ones(H))
    exact, off = made(), made(error=1.0)
    for ahead in range(H):
        expected = 1 - 1 / exact.rewards[ahead:].var()
        assert off.explained[0][ahead] == pytest.approx(expected)


def test_what_is_achieved_over_the_horizon_of_each_plan():
    one = made()
    brute = [one.rewards[t : t + H].sum() if t + H <= 30 else np.nan for t in range(30)]
    assert one.achieved == pytest.approx(np.array(brute), nan_ok=True)


def test_figure_and_film(found, tmp_path):
    plot = prediction_plot(found, "a test")
    image = render(plot, tmp_path, "figure")
    assert imageio.imread(image.light).std() > 5
    assert f"seed {found.seed}, return {found.rewards.sum():.1f}" in plot.caption
    frames = [np.full((30, 40, 3), 8 * t, np.uint8) for t in range(21)]
    write_film(found, frames, tmp_path / "film.mp4", fps=5.0)
    with imageio.get_reader(tmp_path / "film.mp4") as reader:
        shown = np.stack([*reader.iter_data()])
    assert len(shown) == 20
    assert abs(int(shown[10, 100, 100, 0]) - 80) < 8  # the task, on the left
    assert np.abs(shown[3, :, 700:].astype(int) - shown[15, :, 700:]).max() > 60  # the predictions move


def test_the_command_writes_a_figure_and_refuses_other_files(tmp_path, capsys):
    agent = small_agent("full", 3, 1)
    settings = {"deterministic_size": 12, "stochastic_size": 4, "hidden_size": 16}
    controller = {"kind": "full", "horizon": H, "num_samples": 12, "num_elites": 4, "num_iterations": 2}
    described = {"algorithm": "planet", "env": PENDULUM, "world_model": settings, "env_steps": 1, "decoder": {}}
    (tmp_path / "agent").mkdir()
    save_agent(tmp_path / "agent", agent, {**described, "controller": {**controller, "warm_start": True}})
    command = ["evaluate", str(tmp_path / "agent"), "--episodes", "2", "--predictions"]
    assert main([*command, str(tmp_path / "a.png")]) == 0
    assert "predictions: " in capsys.readouterr().out
    assert imageio.imread(tmp_path / "a.png").std() > 5
    assert main([*command, str(tmp_path / "a.gif")]) == 2
    assert "--predictions must name an .mp4 or .png file" in capsys.readouterr().err


def test_an_episode_of_one_decision_has_nothing_to_predict():
    with pytest.raises(UserError, match="two decisions or more, got 1"):
        predict_episode(small_agent("full", 3, 1), {**PENDULUM, "max_episode_steps": 10}, seed=0)


def test_the_random_policy_predicts_nothing():
    assert predict_episode("random", PENDULUM, seed=0) is None
