"""Evaluation while a trial trains: when, on which seeds, and that it changes nothing of the training."""

import math

import numpy as np
import pytest
import torch

from parsecrl.algorithms.controllers.acting import PlanningPolicy
from parsecrl.algorithms.latent_sac.latent_sac import LatentSAC
from parsecrl.algorithms.registry.algorithm import EVALUATED_RETURN, EVALUATED_UPDATES, EVALUATION
from parsecrl.algorithms.training.evaluation import Evaluation, play_anew
from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.lockstep import episode_seed
from parsecrl.platform.specs import parse_spec
from tests.latent_sac import small as latent
from tests.planet.small import small_config


def test_an_evaluation_is_due_each_time_a_multiple_is_passed_and_never_before_an_update():
    evaluation, played = Evaluation(100, 3, seed=0), []

    def results(counted, updates):
        found = evaluation.results(counted, updates, -5.0, lambda seeds: played.append(seeds) or [1.0, 2.0, 6.0])
        return found["score"], found[EVALUATION], found[EVALUATED_RETURN], found[EVALUATED_UPDATES]

    assert results(120, 0) == pytest.approx((-5.0, math.nan, math.nan, -1), nan_ok=True)
    assert results(150, 4) == (3.0, 3.0, 3.0, 4)  # 100 was passed, and not evaluated
    assert results(199, 5) == pytest.approx((3.0, math.nan, 3.0, 4), nan_ok=True)
    assert results(450, 9) == (3.0, 3.0, 3.0, 9)
    assert len(played) == 2
    assert played[0] == played[1] == evaluation.seeds


def test_without_evaluations_the_training_return_is_the_score():
    assert Evaluation(None, 3, seed=0).results(10**9, 5, -5.0, lambda seeds: [0.0]) == {"score": -5.0}


def test_a_trial_that_goes_on_is_evaluated_where_it_would_have_been():
    evaluation, other = Evaluation(100, 1, seed=0), Evaluation(100, 1, seed=0)
    evaluation.results(100, 1, 0.0, lambda seeds: [7.0])
    other.set_state(evaluation.state())
    found = other.results(180, 2, 0.0, lambda seeds: [8.0])
    assert (found["score"], found[EVALUATED_UPDATES]) == (7.0, 1)
    assert other.results(200, 3, 0.0, lambda seeds: [8.0])["score"] == 8.0


def test_its_seeds_are_neither_training_s_nor_the_final_evaluation_s():
    seeds = set(Evaluation(1, 50, seed=3).seeds)
    assert len(seeds) == 50
    assert not seeds & {episode_seed(3, number) for number in range(1000)}
    assert not seeds & {derive_seed(3, "rollout", number) for number in range(1000)}


@pytest.mark.parametrize(("every", "limit"), [(101, 100), (2000, 1000)])
def test_an_evaluation_that_would_never_come_is_refused(every, limit):
    phase = {"name": "planet", "algorithm": "planet", "stop": {"env_steps": limit}, "evaluation_every": every}
    with pytest.raises(UserError, match=rf"evaluation_every must not exceed stop\.env_steps={limit}, got {every}"):
        parse_spec({"name": "x", "env": {"id": "Pendulum-v1"}, "phases": [phase]}, "a test")


@pytest.mark.ray
@pytest.mark.parametrize("resources", [{}, {"num_env_runners": 2, "num_envs_per_env_runner": 2}])
def test_planet_evaluates_its_agent_and_trains_on_as_without(ray_runtime, resources, tmp_path):
    def build(**keys):
        config = small_config(resources=resources, **keys)
        config.decisions_per_iteration = 10
        return config.build_algo()

    algorithm = build(evaluation_every=200, evaluation_episodes=3)
    try:
        results = [algorithm.train() for _ in range(4)]
        found = results[-1]
        assert found["score"] == found[EVALUATION] != found["episode_return_mean"]
        assert found[EVALUATED_UPDATES] == found["num_updates"] > 0
        assert min(found["evaluation_return_std"], found["evaluation_s"]) > 0
        agent, config = algorithm.current_agent(), algorithm.config
        policy = PlanningPolicy(agent, derive_seed(0, "evaluation"))
        again = play_anew(policy, config.env, config.env_config, algorithm.evaluation.seeds, "cpu", 100.0)
        assert found[EVALUATION] == pytest.approx(np.mean(again), rel=1e-5)
        saved = algorithm.save_to_path(str(tmp_path / "checkpoint"))
        state = algorithm.evaluation.state()
        if not resources:
            plain = build()
            for _ in range(4):
                plain.train()
            mine, other = agent.state_dict(), plain.current_agent().state_dict()
            plain.stop()
            assert all(torch.equal(mine[name], other[name]) for name in mine)
    finally:
        algorithm.stop()
    goes_on = build(evaluation_every=200, evaluation_episodes=3)
    try:
        goes_on.restore_from_path(saved)
        assert goes_on.evaluation.state() == state
    finally:
        goes_on.stop()


@pytest.mark.ray
def test_latent_sac_evaluates_its_most_probable_actions_and_trains_on_as_without(ray_runtime):
    def results(**keys):
        algorithm = LatentSAC(latent.config(episodes_per_step=2, **keys))
        try:
            found = [algorithm.train() for _ in range(3)]
            return found, algorithm.weights()
        finally:
            algorithm.stop()

    found, weights = results(evaluation_every=10, evaluation_episodes=2)
    plain, others = results()
    assert found[-1]["score"] == found[-1][EVALUATION]
    assert [r["episode_return_mean"] for r in found] == [r["episode_return_mean"] for r in plain]
    assert all(torch.equal(weights[name], others[name]) for name in weights)
