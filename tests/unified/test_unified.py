"""The whole of unified on a small task; needs Ray for the learner group."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.planet.planet import Planet
from parsecrl.algorithms.unified.unified import Unified
from tests.planet.small import same, stopped_at_the_end, train, weights
from tests.planet.small import small_config as planet_config
from tests.unified.small import small_config

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]


@pytest.fixture
def build():
    with stopped_at_the_end() as build_from:

        def make(config):
            config.decisions_per_iteration = 10
            return build_from(config)

        yield make


def test_one_run_takes_all_losses_and_a_checkpoint_keeps_everything(build, tmp_path):
    first = build(small_config())
    assert type(first) is Unified
    result = train(first)
    assert result["num_updates"] > 0
    terms = {"model_loss", "critic_loss", "actor_loss", "decoder_loss", "policy_loss"}
    assert terms <= result["measured"]["losses"].keys()
    assert result["measured"]["gradient_norms"].keys() == {"model", "decoder", "critic", "actor"}
    assert np.isfinite(result["losses"]["policy_value"])
    path = first.save_to_path(str(tmp_path / "checkpoint"))

    second = build(small_config(seed=9))
    second.restore_from_path(path)
    assert second.counts == first.counts
    assert second.phase_results() == first.phase_results()
    assert same(weights(second), weights(first))
    optimizers = [a.learner_group._learner._named_optimizers for a in (first, second)]
    for name, optimizer in optimizers[0].items():
        a, b = optimizer.state_dict()["state"], optimizers[1][name].state_dict()["state"]
        assert a.keys() == b.keys()
        assert all(torch.equal(a[i]["exp_avg"], b[i]["exp_avg"]) for i in a)
    assert train(second, 1)["num_updates"] > result["num_updates"]

    agent, description = load_agent(path)
    assert same(agent.state_dict(), weights(first))
    assert description["algorithm"] == "unified"
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import numpy as np, parsecrl\n"
        f"agent = parsecrl.load_agent({path!r})\n"
        "action, state = agent.act(np.zeros(3, np.float32), agent.initial_state())\n"
        "assert action.shape == (1,) and abs(action[0]) <= 2, action\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_two_runs_with_one_seed_are_the_same(build):
    first, second = build(small_config()), build(small_config())
    train(first)
    train(second)
    assert same(weights(first), weights(second))


def test_a_run_starts_from_a_planet_phase_and_may_leave_its_model_alone(build, tmp_path):
    first = build(planet_config(value=small_config().value))
    assert type(first) is Planet
    train(first)
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    parts = {"beliefs": 3, "parts": ["decoder"]}
    second = build(small_config(start_from=path, losses=["value", "value_gradient"], value_gradient=parts))
    before = weights(second)
    assert same(before, weights(first))
    assert train(second, 1)["num_updates"] > 0
    after = weights(second)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("model.")} <= still
    assert not any(name.startswith("controller.decoder.") for name in still)
