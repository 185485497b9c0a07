"""A phase that reaches its end without an update fails with the reason."""

import pytest

from parsecrl.algorithms.registry.algorithm import ENV_STEPS, TIME_S, UNTRAINED, StopCondition
from parsecrl.platform.errors import RunFailed
from parsecrl.platform.running.pipeline import run_spec
from parsecrl.platform.running.progress import StopWhenReached
from parsecrl.platform.runs.results import FAILURE
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import load_spec
from tests.platform.tiny import PLANET

SPEC = f"""
name: tiny
env: {{id: "tests.envs.case_worlds:Point-v0", action_repeat: 1}}
resources: {{num_env_runners: 0, num_envs_per_env_runner: 2}}
phases:
{PLANET}    rollout_fragment_length: 30
    decisions_per_iteration: 60
    stop: {{env_steps: 300}}
evaluate: {{episodes: 1, random: false, videos: false}}
"""


@pytest.mark.parametrize("steps", [60, 299, 300, 400])
def test_only_the_end_of_a_phase_makes_it_a_failure(steps):
    stop = StopWhenReached({"env_steps": 300}, {"env_steps": ENV_STEPS})
    waiting = {"env_steps": steps, UNTRAINED: "2 of 90 seed_episodes ended; prolong the phase"}
    assert stop("trial", waiting) == (steps >= 300)
    assert waiting.get(FAILURE, "") == (
        "it ended without an update: 2 of 90 seed_episodes ended; prolong the phase" if steps >= 300 else ""
    )
    trained = {"env_steps": steps}
    stop("trial", trained)
    assert FAILURE not in trained


def test_a_trial_whose_results_never_count_a_goal_ends_with_the_reason():
    steps = {"steps": StopCondition("steps", "steps"), "time_s": TIME_S}
    result = {"step": 1, "time_total_s": 2.0}
    assert StopWhenReached({"steps": 3}, steps)("trial", result)
    assert result[FAILURE] == "its results hold no 'steps', which stop.steps counts; report it in step()"
    timed = {"step": 1, "time_total_s": 2.0}
    assert not StopWhenReached({"steps": 3, "time_s": 9}, steps)("trial", timed)
    assert FAILURE not in timed


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_phase_without_an_update_fails_and_goes_on_when_prolonged(ray_runtime, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(SPEC)
    few = ["phases.planet.seed_episodes=90", "phases.planet.train_ratio=0.1"]
    with pytest.raises(RunFailed, match=r"phase planet stopped: it ended without an update: \d+ of 90 seed_episodes"):
        run_spec(load_spec(file, few), tmp_path)
    folder = RunFolder.choose(load_spec(file, few), tmp_path)
    assert folder.state("planet")["status"] == "failed"
    assert run_spec(load_spec(file, [*few, "phases.planet.stop.env_steps=3600"]), tmp_path) == folder.path
    assert folder.state("planet")["checkpoint_metrics"]["num_updates"] > 0
