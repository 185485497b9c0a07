"""What results tell of rewards and actions."""

import numpy as np
import pytest

from parsecrl.algorithms.training.experience import Experience


def test_extremes_last_and_actions_are_those_since_the_last_result():
    seen = Experience()
    assert seen.take() == {}
    seen.add([1.0, -2.0], np.array([[1.0, 0.0], [-0.995, 0.5]]))
    seen.add([], np.empty((0, 2)))
    assert seen.take() == {"reward_low": -2.0, "reward_high": 1.0, "actions_at_bounds": 0.5}
    seen.add(np.array([0.5]))
    assert seen.take() == {"reward_low": -2.0, "reward_high": 1.0}
    seen.add([3.0], np.array([[0.2, 0.99]]))
    assert seen.take()["actions_at_bounds"] == pytest.approx(0.0)


def test_what_is_achieved_is_counted_over_the_horizon_from_each_decision():
    seen = Experience()
    seen.end([1.0, 2.0, 3.0], terminated=False, horizon=2)  # 1 + 2 and 2 + 3; what follows the 3 is not known
    assert seen.take()["achieved_reward"] == pytest.approx((3 + 5) / 2 / 2)
    seen.end([1.0, 2.0, 3.0], terminated=True, horizon=2)  # nothing follows the 3
    assert seen.take()["achieved_reward"] == pytest.approx((3 + 5 + 3) / 3 / 2)
    seen.end([1.0], terminated=False, horizon=2)
    assert "achieved_reward" not in seen.take()
