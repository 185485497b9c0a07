"""Evaluation: closed forms with the random policy, and episodes that do not notice each other."""

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch

from parsecrl.algorithms.checkpoints.agent import save_agent
from parsecrl.algorithms.controllers import PlanningAgent
from parsecrl.algorithms.controllers.acting import planning_noise
from parsecrl.envs import make_env
from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.evaluation.episodes import COLUMNS, _batches, default_batch_size, evaluate
from parsecrl.platform.evaluation.lockstep import ACTION_ROLE, episode_seed

CHEETAH = {"id": "dm_control/cheetah-run-v0", "action_repeat": 40}  # 25 decisions an episode
UNEQUAL = {"id": "parsecrl_tests/Unequal-v0", "action_repeat": 1}


class Unequal(gymnasium.Env):
    """Lasts 1 + seed % 5 steps, each worth 10."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.left = 1 + seed % 5
        return np.full(3, 0.1, np.float32), {}

    def step(self, action):
        assert self.left > 0, "stepped past the end"
        self.left -= 1
        return np.full(3, 0.1, np.float32), 10.0, self.left == 0, False, {}


gymnasium.register(UNEQUAL["id"], entry_point=Unequal)


def small_agent(kind, obs_size=17, action_size=6, seed=0):
    torch.manual_seed(seed)
    sizes = {"deterministic_size": 12, "stochastic_size": 4, "hidden_size": 16}
    controller = {
        "kind": kind,
        "horizon": 3,
        "num_samples": 12,
        "num_elites": 4,
        "num_iterations": 2,
        "warm_start": True,
    }
    if kind == "embedded":
        controller["latent_size"] = 3
    return PlanningAgent(obs_size, action_size, sizes, controller, {"hidden_size": 16})


def without_time(table):
    return table.drop(columns="planning_ms")


def test_seeds_are_distinct_fixed_and_never_those_of_training():
    seeds = [episode_seed(s, e) for s in range(5) for e in range(1000)]
    assert len(set(seeds)) == 5000
    assert min(seeds) >= 2**31
    assert max(seeds) < 2**32
    assert episode_seed(7, 3) == episode_seed(7, 2) + 1


def test_random_policy_against_a_plain_loop():
    table = evaluate("random", {"id": "Pendulum-v1", "action_repeat": 3}, episodes=2, seed=11)
    assert list(table.columns) == COLUMNS
    assert table[["phase", "controller"]].drop_duplicates().to_numpy().tolist() == [["random", "random"]]
    assert table.episode.tolist() == [0, 1]
    assert table.env_steps.tolist() == [200, 200]
    assert (table.planning_ms == 0).all()
    env, rng, total, over = make_env("Pendulum-v1", 3), np.random.default_rng([11, ACTION_ROLE, 1]), 0.0, False
    env.reset(seed=int(table.seed[1]))
    while not over:
        _, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 1).astype(np.float32))
        total, over = total + reward, terminated or truncated
    assert table.episode_return[1] == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("kind", ["random", "full", "embedded"])
def test_batch_composition_does_not_change_an_episode(kind):
    controller = kind if kind == "random" else small_agent(kind)
    together = evaluate(controller, CHEETAH, episodes=7, seed=3, batch_size=3)
    alone = pd.concat([evaluate(controller, CHEETAH, episodes=[e], seed=3, batch_size=3) for e in (1, 5, 6)])
    pd.testing.assert_frame_equal(
        without_time(together.iloc[[1, 5, 6]].reset_index(drop=True)), without_time(alone.reset_index(drop=True))
    )
    assert together.episode_return.nunique() == 7
    assert (together.controller == kind).all()
    assert ((together.planning_ms > 0) == (kind != "random")).all()


@pytest.mark.parametrize("controller", ["random", small_agent("embedded", 3, 2)])
def test_rows_that_end_early_wait_for_the_others(controller):
    table = evaluate(controller, UNEQUAL, episodes=8, batch_size=4)
    steps = [1 + s % 5 for s in table.seed]
    assert len(set(steps)) > 1
    assert table.env_steps.tolist() == steps
    assert table.episode_return.tolist() == [10.0 * n for n in steps]


ENDLESS = {"id": "tests.envs.case_worlds:PointWithoutEnd-v0", "action_repeat": 1}


@pytest.mark.parametrize("controller", ["random", small_agent("embedded", 2, 1)])
def test_an_episode_without_end_is_given_up(controller):
    with pytest.raises(
        RunFailed, match=r"no_progress_timeout_s=0\.3 s, after [1-9]\d* decisions; limit episodes by env\."
    ):
        evaluate(controller, ENDLESS, episodes=2, patience_s=0.3)


def test_episodes_in_decisions_of_seven_have_the_steps_that_they_have():
    table = evaluate("random", {"id": "tests.envs.case_worlds:Point-v0", "action_repeat": 7}, episodes=2)
    assert table.env_steps.tolist() == [30, 30]


def test_the_spec_seed_matters_and_global_state_does_not():
    agent = small_agent("full").train()
    weights = {k: v.clone() for k, v in agent.state_dict().items()}
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    first = evaluate(agent, CHEETAH, episodes=1, seed=0, phase="planet")
    torch.manual_seed(2)
    pd.testing.assert_frame_equal(
        without_time(first), without_time(evaluate(agent, CHEETAH, episodes=1, seed=0, phase="planet"))
    )
    assert first.episode_return[0] != evaluate(agent, CHEETAH, episodes=1, seed=1).episode_return[0]
    assert first.phase[0] == "planet"
    assert agent.training
    assert torch.get_num_threads() == threads
    assert all(torch.equal(v, weights[k]) for k, v in agent.state_dict().items())


def test_noise_is_standard_normal_and_shared_by_rows():
    agent = small_agent("embedded")
    agent.controller.num_samples = 4000
    noise = planning_noise(agent, 0)
    assert noise.shape == (2, 1, 4000, 3)
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert torch.equal(noise, planning_noise(agent, 0))
    assert not torch.equal(noise, planning_noise(agent, 1))


def test_a_checkpoint_folder_brings_its_environment(tmp_path):
    agent = small_agent("full", 3, 2)
    groups = {"world_model": {"deterministic_size": 12, "stochastic_size": 4, "hidden_size": 16}, "decoder": {}}
    controller = {
        "kind": "full",
        "horizon": 3,
        "num_samples": 12,
        "num_elites": 4,
        "num_iterations": 2,
        "warm_start": True,
    }
    save_agent(
        tmp_path, agent, {"algorithm": "planet", "env": UNEQUAL, "env_steps": 5, "controller": controller, **groups}
    )
    loaded = evaluate(tmp_path, episodes=3)
    pd.testing.assert_frame_equal(without_time(loaded), without_time(evaluate(agent, UNEQUAL, episodes=3)))
    with pytest.raises(UserError, match="3 observations and 2 actions for dm_control/cheetah-run-v0 with 17 and 6"):
        evaluate(tmp_path, CHEETAH, episodes=1)


def test_progress_counts_episodes():
    seen = []
    evaluate("random", UNEQUAL, episodes=5, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_batches_keep_rows_and_fit():
    assert _batches(range(5), 2) == [[0, 1], [2, 3], [4, None]]
    assert _batches([5, 2, 8], 3) == [[None, None, 2], [None, None, 5], [None, None, 8]]
    assert [default_batch_size(n, w) for n, w in [(100, 2), (20, 2), (1, 4), (7, 1), (16, 8), (13, 2)]] == [
        5,
        5,
        1,
        7,
        2,
        1,
    ]


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("random", CHEETAH), {"episodes": 0}, ["episodes", "evaluate.episodes"]),
        (("random", CHEETAH), {"episodes": [1, 1]}, ["each number once"]),
        (("random", CHEETAH), {"episodes": 1, "seed": -1}, ["seed", "-1"]),
        (("random", CHEETAH), {"episodes": 1, "batch_size": 0}, ["batch_size", "0"]),
        (("random", {"id": "dm_control/cheeta-run-v0"}), {"episodes": 1}, ["did you mean", "cheetah-run"]),
        (("random",), {"episodes": 1}, ["environment must be given"]),
        (("/no/such/folder",), {"episodes": 1}, ["/no/such/folder", "agent.json"]),
    ],
)
def test_bad_input_is_a_user_error(arguments, options, words):
    with pytest.raises(UserError) as caught:
        evaluate(*arguments, **options)
    for word in words:
        assert word in str(caught.value)


def test_workers_without_a_ray_runtime(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="num_workers=2 needs a Ray runtime"):
        evaluate("random", UNEQUAL, episodes=2, num_workers=2)


@pytest.mark.ray
def test_ray_workers_give_the_same_episodes(ray_runtime):
    agent = small_agent("embedded")
    here = evaluate(agent, CHEETAH, episodes=5, seed=2, batch_size=2)
    there = evaluate(agent, CHEETAH, episodes=5, seed=2, batch_size=2, num_workers=2)
    pd.testing.assert_frame_equal(without_time(here), without_time(there))
