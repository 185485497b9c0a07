"""Each rule on synthetic results: it speaks where it must, and noise does not trip it."""

import numpy as np
import pytest

from parsecrl.algorithms.reporting.diagnostics import (
    ACHIEVED,
    AT_BOUNDS,
    EXPLAINED,
    PREDICTED,
    RANDOM_EPISODES,
    RANDOM_MEAN,
    RANDOM_STD,
    REWARD_HIGH,
    REWARD_LOW,
    UPDATES,
    Returns,
    actions_at_bounds,
    compared,
    diagnose,
    evaluated,
    falling,
    no_reward,
    overrated_plans,
    unexplained_reward,
    worse_than_random,
)

RANDOM = Returns(-118.0, 20.0, 8)


def returns(values, **others):
    values = np.asarray(values, float)
    series = {"episode_return_mean": values, UPDATES: np.arange(1.0, len(values) + 1)}
    return series | {key: np.broadcast_to(np.asarray(v, float), values.shape) for key, v in others.items()}


def test_worse_than_random_is_said_with_both_numbers():
    found = worse_than_random(returns(np.linspace(-200, -3130, 30)), RANDOM)
    assert found.rule == "worse_than_random"
    assert "(-2,675 against -118)" in found.text
    assert "parsec doctor --env" in found.sentence


def test_a_bad_beginning_is_forgotten():
    values = np.concatenate([np.full(20, -3000.0), np.full(10, -50.0)])
    assert worse_than_random(returns(values), RANDOM) is None


def test_results_before_the_first_update_do_not_count():
    series = returns(np.full(12, -3000.0))
    series[UPDATES] = np.zeros(12)
    assert worse_than_random(series, RANDOM) is None


def test_nothing_is_said_without_the_random_policy():
    assert worse_than_random(returns(np.full(12, -3000.0)), None) is None


def test_the_random_policy_comes_from_the_results_themselves():
    own = {RANDOM_MEAN: -118.0, RANDOM_STD: 20.0, RANDOM_EPISODES: 8}
    bad = np.linspace(-3000, -2990, 12)
    assert [f.rule for f in diagnose(returns(bad, **own))] == ["worse_than_random"]
    assert diagnose(returns(bad, **(own | {RANDOM_EPISODES: 1}))) == []


def test_the_random_policy_itself_is_seldom_worse_than_itself():
    rng = np.random.default_rng(0)
    tripped = 0
    for _ in range(1000):
        random = Returns.of(rng.normal(-118, 20, 8))
        tripped += worse_than_random(returns(rng.normal(-118, 20, 30)), random) is not None
    assert tripped <= 15


@pytest.mark.parametrize(
    ("own", "rule"),
    [
        (Returns(0.9, 2.8, 10), "no_better_than_random"),
        (Returns(1.9, 2.8, 10), "no_better_than_random"),
        (Returns(4.0, 2.8, 10), None),
        (Returns(-9.0, 2.8, 10), "worse_than_random"),
        (Returns(1.0, 0.0, 10), "no_better_than_random"),
    ],
)
def test_evaluated_returns_beside_the_random_policys(own, rule):
    found = evaluated(own, Returns(1.0, 3.2, 10))
    assert (found and found.rule) == rule
    assert found is None or f"({own.mean:g} against 1)" in found.text


def test_evaluated_episodes_are_compared():
    rng = np.random.default_rng(0)
    random, bad = Returns.of(rng.normal(0, 1, 100)), Returns.of(rng.normal(-1, 1, 100))
    assert compared(bad, random, "evaluated returns").text.startswith("evaluated returns are worse than the random")
    assert compared(random, random) is None
    assert compared(random, bad) is None


def test_equal_returns_of_both_are_not_worse():
    assert compared(Returns(0.0, 0.0, 10), Returns(0.0, 0.0, 10)) is None


LOW = Returns(0.0, 10.0, 8)


def test_a_fall_is_said_with_the_best_window():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.linspace(0, 100, 30), np.linspace(100, 10, 15), np.full(15, 10.0)])
    found = falling(returns(values + rng.normal(0, 5, 60)), LOW)
    assert found.rule == "falling"
    assert "in the best" in found.text
    assert falling(returns(values), None) is None  # nothing to measure the fall by


@pytest.mark.parametrize("size", [12, 30, 120])
@pytest.mark.parametrize("mean", [0.0, 30.0, 300.0])
def test_noise_alone_hardly_ever_falls(mean, size):
    """Single episodes as scattered as the random policy's, and means of the last ten of them."""
    rng = np.random.default_rng(1)
    for window in (1, 10):
        share = np.full(window, 1 / window)
        draws = [np.convolve(rng.normal(mean, 10, size + window - 1), share, "valid") for _ in range(500)]
        tripped = sum(falling(returns(values), LOW) is not None for values in draws)
        assert tripped <= 10, (window, tripped)


def test_a_rise_with_noise_does_not_fall():
    rng = np.random.default_rng(2)
    curves = (100 * (1 - np.exp(-np.arange(60) / 15)) + rng.normal(0, 20, 60) for _ in range(500))
    assert sum(falling(returns(curve), LOW) is not None for curve in curves) == 0


def test_a_small_dip_after_a_large_gain_is_no_fall():
    values = np.concatenate([np.linspace(0, 100, 40), np.full(20, 85.0)])
    assert falling(returns(values), LOW) is None


def test_a_dip_that_has_passed_is_no_fall():
    values = np.concatenate([np.full(40, 100.0), np.full(10, 0.0), np.full(10, 100.0)])
    assert falling(returns(values), LOW) is None


def test_too_few_results_do_not_fall():
    assert falling(returns([100.0] * 6 + [0.0] * 5), LOW) is None


def test_rewards_that_are_all_0_are_no_signal():
    found = no_reward(returns(np.zeros(3), **{REWARD_LOW: 0.0, REWARD_HIGH: 0.0}))
    assert "every reward so far is 0" in found.text
    assert no_reward(returns(np.zeros(2), **{REWARD_LOW: 0.0, REWARD_HIGH: 0.0})) is None


def test_one_reward_is_a_signal():
    high = np.array([0.0, 0.0, 0.0, 1.0])
    assert no_reward(returns(np.zeros(4), **{REWARD_LOW: 0.0, REWARD_HIGH: high})) is None


def test_a_reward_of_1_for_each_step_is_a_signal_where_episodes_end_early():
    constant = {REWARD_LOW: 1.0, REWARD_HIGH: 1.0}
    assert no_reward(returns([3.0, 5.0, 4.0], **constant)) is None
    assert no_reward(returns([30.0, 30.0, 30.0], **constant)) is not None


def test_equal_returns_stand_for_rewards_that_no_result_tells():
    assert no_reward({"task_score": np.zeros(10)}) is not None
    assert no_reward({"task_score": np.zeros(9)}) is None
    assert no_reward({"task_score": np.eye(10)[3]}) is None


def test_a_reward_head_that_explains_nothing():
    series = returns(np.arange(9.0), **{REWARD_LOW: 0.0, REWARD_HIGH: 1.0, EXPLAINED: -0.5})
    assert unexplained_reward(series) is None  # nine updates
    series[UPDATES] = np.arange(9) * 100.0
    assert "explain 0% of the rewards' variance" in unexplained_reward(series).text
    series[EXPLAINED] = np.array([-0.5] * 6 + [0.6] * 3)
    assert unexplained_reward(series) is None


def test_no_variance_is_said_as_no_reward_signal_alone():
    series = returns(np.zeros(9), **{REWARD_LOW: 0.0, REWARD_HIGH: 0.0, EXPLAINED: 0.0})
    series[UPDATES] = np.arange(9) * 100.0
    assert [found.rule for found in diagnose(series)] == ["no_reward"]


def test_actions_at_their_bounds():
    series = returns(np.arange(9.0), **{AT_BOUNDS: np.array([0.5] * 6 + [0.97] * 3)})
    assert "97% of all actions" in actions_at_bounds(series).text
    assert actions_at_bounds(returns(np.arange(9.0), **{AT_BOUNDS: 0.89})) is None


def test_a_good_run_has_no_findings():
    rng = np.random.default_rng(3)
    values = 100 * (1 - np.exp(-np.arange(60) / 15)) + rng.normal(0, 3, 60)
    good = {REWARD_LOW: 0.0, REWARD_HIGH: 1.0, EXPLAINED: 0.8, AT_BOUNDS: 0.3}
    assert diagnose(returns(values, **good), Returns(0.0, 3.0, 8)) == []


def test_results_without_returns_have_no_findings():
    assert diagnose({"loss": np.arange(20.0)}) == []
    assert diagnose({}) == []


def promising(predicted, achieved, low=0.0, high=1.0, n=9):
    return {
        PREDICTED: np.full(n, predicted),
        ACHIEVED: np.full(n, achieved),
        UPDATES: np.linspace(10, 900, n),
        REWARD_LOW: np.full(n, low),
        REWARD_HIGH: np.full(n, high),
    }


def test_plans_that_promise_too_much_are_told_by_how_much():
    found = overrated_plans(promising(0.42, 0.2))
    assert found.rule == "overrated_plans"
    assert "2.1 times the achieved one (0.42 against 0.2 a decision" in found.text
    assert "controller.pessimism" in found.remedy
    assert "far above" in overrated_plans(promising(-1.0, -4.0, low=-16.0, high=0.0)).text


@pytest.mark.parametrize(
    ("predicted", "achieved", "low", "high"),
    [
        (0.25, 0.2, 0.0, 1.0),  # not far
        (0.1, 0.4, 0.0, 1.0),  # too little is no promise
        (-3.0, -4.0, -16.0, 0.0),
        (0.003, 0.001, 0.0, 1.0),  # three times next to nothing
    ],
)
def test_plans_that_promise_about_what_they_achieve_are_not(predicted, achieved, low, high):
    assert overrated_plans(promising(predicted, achieved, low, high)) is None


def test_promises_of_an_early_model_do_not_count():
    series = promising(0.42, 0.2) | {UPDATES: np.linspace(1, 100, 9)}
    assert overrated_plans(series) is None


def test_a_fall_says_for_how_many_steps():
    values = np.concatenate([np.linspace(0, 100, 30), np.linspace(100, 10, 15), np.full(15, 10.0)])
    series = returns(values, env_steps=1000.0 * np.arange(1, 61))
    assert "have fallen for 30,000 steps (from 84" in falling(series, LOW).text
