"""The whole algorithm of phases 1 and 2 on a small task; needs Ray for the learner group and the runners."""

import numpy as np
import pytest
import torch
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.planet.replay import beginnings, load_replay, save_replay
from tests.planet.small import EMBEDDED, FULL, VALUE, same, small_config, stopped_at_the_end, train, weights

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]


@pytest.fixture
def build():
    with stopped_at_the_end() as build_from:

        def make(**kwargs):
            config = small_config(**kwargs)
            config.decisions_per_iteration = 10
            config.updates_per_iteration = 3
            return build_from(config)

        yield make


def replayed(algorithm) -> np.ndarray:
    return np.concatenate([np.asarray(e.get_observations()) for e in algorithm.local_replay_buffer.episodes])


def test_counts_and_results(build):
    algorithm = build()
    results = [algorithm.train() for _ in range(4)]
    result = results[-1]
    assert result["env_steps"] == algorithm.counts["decisions"] * 20 == result["replay_decisions"] * 20
    assert result["env_steps"] >= 4 * 10 * 20
    # Two seed episodes of 10 decisions owe 4 updates; each later step owes a hundredth.
    seed_steps = algorithm.counts["seed_steps"]
    assert seed_steps >= 2 * 10 * 20
    assert result["num_updates"] == int(0.01 * (result["env_steps"] - seed_steps) + min(100, 0.01 * seed_steps))
    assert result["planning_ms"] > 0
    returns = [sum(e.get_rewards()) for e in algorithm.local_replay_buffer.episodes if e.is_done]
    assert result["episode_return_mean"] == pytest.approx(np.mean(returns[-10:]), rel=1e-5)
    assert result["score"] == result["episode_return_mean"]
    assert {"observation", "reward", "kl", "model_loss", "decoder_loss"} <= result["losses"].keys()
    rewards = np.concatenate([e.get_rewards() for e in algorithm.local_replay_buffer.episodes])
    assert (result["reward_low"], result["reward_high"]) == (rewards.min(), rewards.max())
    assert 0.0 <= result["actions_at_bounds"] < 0.5
    explained = [r["losses"].get("reward_explained_variance", np.nan) for r in results]
    assert -1.0 <= np.nanmin(explained) <= np.nanmax(explained) <= 1.0  # of some update, in this little training
    random = returns[: result["random_episodes"]]  # those of the seed episodes, by which nothing had been learnt
    assert result["random_episodes"] >= 2
    assert result["random_return_mean"] == pytest.approx(np.mean(random), rel=1e-5)
    assert result["random_return_std"] == pytest.approx(np.std(random, ddof=1), rel=1e-5)
    assert result["measured"]["gradient_norms"].keys() == {"model", "decoder"}
    assert result["measured"]["losses"]["kl"] == result["losses"]["kl"]


@pytest.mark.parametrize("resources", [{}, {"num_env_runners": 1, "num_envs_per_env_runner": 2}])
def test_measurements(build, resources):
    algorithm = build(resources=resources)
    results = [algorithm.train() for _ in range(5)]
    first, last = results[0]["measured"], results[-1]["measured"]
    for measured in (first, last):
        for shares in measured["time_shares"].values():
            assert sum(shares.values()) == pytest.approx(1)
            assert min(shares.values()) >= 0
        assert measured["time_shares"].keys() == {"main", "runner"}
        assert measured["time_shares"]["runner"].keys() == {"planning", "stepping", "waiting"}
    # Random actions are no plans.
    assert "planning_seconds" not in first
    assert results[0]["trajectories"] == 0
    # 8 candidates, 2 iterations; the weights are between those of 2 elites alone and of all candidates.
    planned = sum(plan.decisions for plan in algorithm.plans)
    assert results[-1]["trajectories"] - results[-2]["trajectories"] == planned * 16
    assert planned >= (results[-1]["env_steps"] - results[-2]["env_steps"]) / 20
    assert 0 < last["planning_seconds"]["p50"] <= last["planning_seconds"]["p95"]
    assert np.log(2) < last["soft_top_k_entropy"] <= np.log(8)
    assert last["time_shares"]["main"]["learning"] > 0


def test_two_runs_with_one_seed_are_the_same(build):
    first, second = build(), build()
    a, b = train(first), train(second)
    assert same(weights(first), weights(second))
    assert a["losses"]["model_loss"] == b["losses"]["model_loss"]
    assert (replayed(first) == replayed(second)).all()
    third = build(seed=1)
    train(third)
    assert not (replayed(first)[:20] == replayed(third)[:20]).all()


@pytest.mark.parametrize("parts", [{}, {"controller": {**EMBEDDED, "warm_start": True}, "value": VALUE}])
def test_a_checkpoint_keeps_everything(build, tmp_path, parts):
    first = build(**parts)
    train(first)
    first.save_to_path(str(tmp_path / "checkpoint"))
    second = build(seed=9, **parts)
    second.restore_from_path(str(tmp_path / "checkpoint"))
    assert second.counts == first.counts
    assert second.iteration == first.iteration
    assert second.phase_results() == first.phase_results()
    assert same(weights(second), weights(first))
    assert (replayed(second) == replayed(first)).all()
    optimizers = [a.learner_group._learner._named_optimizers for a in (first, second)]
    for name, optimizer in optimizers[0].items():
        a, b = optimizer.state_dict()["state"], optimizers[1][name].state_dict()["state"]
        assert all(torch.equal(a[i]["exp_avg"], b[i]["exp_avg"]) for i in a)
    agent, description = load_agent(tmp_path / "checkpoint")
    assert same(agent.state_dict(), weights(first))
    assert description["algorithm"] == "planet"
    assert description["env_steps"] == first.counts["decisions"] * 20
    # The next update of both draws the same sequences and the same noise.
    second.config._is_frozen = False
    second.config.seed = first.config.seed
    train(second, 1)
    assert second.counts["updates"] > first.counts["updates"]


@pytest.mark.parametrize("keep_model", [True, False])
@pytest.mark.parametrize("keep_replay", [True, False])
def test_phase_2_begins_with_what_it_keeps(build, tmp_path, keep_model, keep_replay):
    first = build(controller=FULL, value=VALUE)
    train(first)
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    second = build(start_from=path, keep_model=keep_model, keep_replay=keep_replay, value=VALUE)
    kept, fresh = weights(first), weights(second)
    for part in ("model.", "actor_critic."):
        equal = all(torch.equal(kept[name], fresh[name]) for name in kept if name.startswith(part))
        assert equal is keep_model
    assert any(name.startswith("controller.decoder.") for name in fresh)
    assert second.local_replay_buffer.get_num_timesteps() == (first.counts["decisions"] if keep_replay else 0)
    assert second.counts["decisions"] == 0
    result = train(second, 1)
    assert (result["num_updates"] > 0) is keep_replay  # without data, the seed episodes come first


def test_offline_trains_the_decoder_and_nothing_else(build, tmp_path):
    first = build(controller=FULL)
    train(first)
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    second = build(start_from=path, decoder_training="offline")
    before = weights(second)
    result = train(second, 1)
    after = weights(second)
    assert result["env_steps"] == 0
    assert result["num_updates"] == second.config.updates_per_iteration
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("model."))
    assert any(not torch.equal(before[name], after[name]) for name in before if "decoder" in name)


def test_the_decoder_warms_up_before_the_first_rollout(build, tmp_path):
    first = build(controller=FULL)
    train(first)
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    second = build(start_from=path, decoder_warmup_updates=5)
    before = weights(second)
    second.training_step()
    second.training_step()
    assert second.counts["decoder_only_updates"] == second.counts["updates"] == 5
    assert second.counts["decisions"] == 0
    assert all(torch.equal(before[name], weights(second)[name]) for name in before if name.startswith("model."))
    train(second, 1)
    assert second.counts["decisions"] > 0
    assert second.counts["decoder_only_updates"] == 5


def test_after_planning_learns_from_the_beliefs_in_their_order(build):
    algorithm = build(decoder_training="after_planning")
    algorithm._recent_beliefs = [np.arange(16 * 3, dtype=np.float32).reshape(3, 16), np.full((3, 16), 99, np.float32)]
    h, s = algorithm._next_beliefs(4)
    assert h.shape == (4, 12)
    assert s.shape == (4, 4)
    assert (h[1] == np.arange(16, 28)).all()
    assert (s[2] == np.arange(44, 48)).all()
    assert (h[3] == 99).all()
    h, _ = algorithm._next_beliefs(4)
    assert (h == 99).all()
    algorithm._recent_beliefs = []
    assert train(algorithm)["num_updates"] > 0


def test_remote_runners_gather_while_the_learner_learns(build):
    algorithm = build(resources={"num_env_runners": 1, "num_envs_per_env_runner": 2, "num_cpus_for_main_process": 0.5})
    result = train(algorithm)
    assert result["num_updates"] > 0
    trained = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: bool(runner.module.agent.trained), local_env_runner=False
    )
    assert trained == [True]


def test_no_rollout_in_time_is_an_error(build):
    algorithm = build(
        resources={"num_env_runners": 1, "num_cpus_for_main_process": 0.5, "sample_timeout_s": 0.2},
        rollout_fragment_length=1_000,  # a second of work
    )
    with pytest.raises(TimeoutError, match=r"no rollout arrived within sample_timeout_s=.* healthy of 1 runners"):
        algorithm.training_step()


def test_replay_survives_as_plain_arrays(build, tmp_path):
    algorithm = build()
    train(algorithm, 2)
    before = algorithm.local_replay_buffer
    save_replay(before, tmp_path)
    after = EpisodeReplayBuffer(capacity=10_000, batch_size_B=4, batch_length_T=6)
    after.add(load_replay(tmp_path))
    assert after.get_num_timesteps() == before.get_num_timesteps()
    for a, b in zip(before.episodes, after.episodes, strict=True):
        assert np.array_equal(a.get_observations(), b.get_observations())
        assert np.array_equal(a.get_actions(), b.get_actions())
        assert np.array_equal(a.get_rewards(), b.get_rewards())
        assert (a.is_terminated, a.is_truncated) == (b.is_terminated, b.is_truncated)
    first = {tuple(e.get_observations(0)) for e in after.episodes}
    obs, actions = beginnings(after, 7, 12, np.random.default_rng(0))
    assert all(tuple(row) in first for row in obs)
    by_start = {tuple(e.get_observations(0)): np.asarray(e.get_actions()) for e in after.episodes}
    for row, taken in zip(obs, actions, strict=True):
        known = by_start[tuple(row)]
        assert np.array_equal(taken[: len(known)], known[:12])
        assert np.isnan(taken[len(known) :]).all()
    with pytest.raises(ValueError, match=r"holds no replay\.npz; set keep_replay: false"):
        load_replay(tmp_path / "nowhere")
