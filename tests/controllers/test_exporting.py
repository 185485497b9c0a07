"""An agent's decision as a program of torch.export does what the agent does."""

import numpy as np
import pytest
import torch

import parsecrl
from parsecrl.algorithms.controllers.exporting import TOLERANCE, export_policy
from tests.test_python_door import EMBEDDED, FULL, REACH, save


@pytest.mark.parametrize("controller", [{**FULL, "warm_start": True}, {**EMBEDDED, "warm_start": True}, EMBEDDED])
def test_a_program_decides_as_the_agent(tmp_path, controller):
    agent = parsecrl.load_agent(save(tmp_path / "agent", controller, REACH))
    assert export_policy(agent, tmp_path / "agent.pt2") <= TOLERANCE
    run = torch.export.load(tmp_path / "agent.pt2").module()
    noise = agent.policy._noise.expand(-1, 1, -1, -1).contiguous()
    state, agents_state = agent.policy.initial_state(1), agent.initial_state()
    for seed in range(3):
        agent.observation_space.seed(seed)
        obs = agent.observation_space.sample()
        vector = torch.from_numpy(agent.vector(obs))[None]
        action, *after = run(*(state[name] for name in ("h", "s", "action", "plan")), vector, noise)
        state = dict(zip(("h", "s", "action", "plan"), after, strict=True))
        expected, agents_state = agent.act(obs, agents_state)
        low, high = agent.action_space.low, agent.action_space.high
        assert np.allclose(low + (action[0].numpy() + 1) / 2 * (high - low), expected, atol=1e-3)
