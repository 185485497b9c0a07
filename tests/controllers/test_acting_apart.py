"""Environments that share nothing but the agent get, planned in one batch, the actions of acting alone."""

import numpy as np
import pytest

import parsecrl
from tests.test_python_door import FULL, REACH, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("apart") / "agent", {**FULL, "warm_start": True}, REACH)


@pytest.mark.parametrize("seeds", [[0, 1, 2, 3], [5, 5, 5, 5]])
def test_a_batch_decides_as_each_alone(folder, seeds):
    together = parsecrl.load_agent(folder)
    alone = [parsecrl.load_agent(folder, seed=seed) for seed in seeds]
    states = [together.initial_state() for _ in seeds]
    own = list(states)
    together.observation_space.seed(0)
    for _ in range(3):
        seen = [together.observation_space.sample() for _ in seeds]
        decisions = together.act_apart(seen, states, seeds)
        states = [decision.state for decision in decisions]
        for row, agent in enumerate(alone):
            action, own[row] = agent.act(seen[row], own[row])
            assert np.allclose(action, decisions[row].action, atol=1e-4)
            assert all(np.allclose(own[row][name], states[row][name], atol=1e-4) for name in own[row])
    if len(set(seeds)) > 1:
        obs = seen[0]
        apart = together.act_apart([obs, obs], [own[0], own[0]], seeds[:2])
        assert not np.array_equal(apart[0].action, apart[1].action)  # each seed has noise of its own


def test_a_batchs_state_is_refused(folder):
    agent = parsecrl.load_agent(folder)
    with pytest.raises(ValueError, match="each state must be of one environment"):
        agent.act_apart([agent.observation_space.sample()], [agent.initial_state(1)], [0])
