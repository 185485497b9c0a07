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
