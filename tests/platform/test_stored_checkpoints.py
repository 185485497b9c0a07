"""Which checkpoints of a trial count, which is best, and which are kept."""

import json
import os
import time

from parsecrl.algorithms.registry.algorithm import ENV_STEPS, TIME_S
from parsecrl.platform.runs import stored_checkpoints

STOPS = {"env_steps": ENV_STEPS, "time_s": TIME_S}


def store(trial, number, score, age=0.0, **metrics):
    folder = trial / f"checkpoint_{number:06d}"
    folder.mkdir(parents=True)
    (folder / "agent.json").write_text(json.dumps({"env_steps": number}))
    stored_checkpoints.mark_whole(folder, {"score": score, "env_steps": number, **metrics})
    written = time.time() - age
    os.utime(folder / "metrics.json", (written, written))
    return folder


def test_the_best_and_what_a_restart_needs_are_kept(tmp_path):
    trial = tmp_path / "trial_00000"
    scores = [float("nan"), 5.0, 9.0, 7.0, 8.0, 1.0, 2.0, 3.0, 2.5]
    for number, score in enumerate(scores):
        store(trial, number, score, age=300 - 40 * number)
    stored_checkpoints.prune(tmp_path, "trial_00000", protected={str(trial / "checkpoint_000000")})
    left = {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)}
    # Best: 2, 3, 4. Younger than a minute: 7, 8; and the last before those: 6. Protected: 0.
    assert left == {0, 2, 3, 4, 6, 7, 8}
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 2


def test_a_mount_whose_clock_is_behind_loses_nothing(tmp_path):
    trial = tmp_path / "trial_00000"
    for number in range(6):
        store(trial, number, score=-number, age=3600 + 10 * (5 - number))
    stored_checkpoints.prune(tmp_path, "trial_00000")
    assert {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)} == set(range(6))


def test_a_checkpoint_without_a_score_is_worse_than_any_other(tmp_path):
    for number, metrics in enumerate([{"episode_return_mean": 7.0}, {"score": 5.0, "episode_return_mean": 9.0}]):
        folder = tmp_path / "trial_00000" / f"checkpoint_{number:06d}"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    assert [c.score for c in stored_checkpoints.stored_checkpoints(tmp_path)] == [-float("inf"), 5.0]
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 1


def test_half_a_checkpoint_does_not_count(tmp_path):
    trial = tmp_path / "trial_00000"
    store(trial, 1, 5.0)
    (store(trial, 2, 9.0) / "metrics.json").unlink()
    (store(trial, 3, 9.0) / "agent.json").write_text(json.dumps({"env_steps": 77}))
    assert [c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)] == [1]
    stored_checkpoints.forget_after(trial, 1)
    assert [f.name for f in trial.iterdir()] == ["checkpoint_000001"]


def test_of_equal_checkpoints_the_later_is_best(tmp_path):
    store(tmp_path / "trial_00000", 1, 5.0)
    store(tmp_path / "trial_00000", 2, 5.0)
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 2


def test_the_random_policys_score_makes_no_untrained_agent_the_best(tmp_path):
    """A task in which the agent is worse than the seed episodes, for now."""
    trial = tmp_path / "trial_00000"
    for number, score in enumerate([-118.0, -117.0, -116.0, -3000.0, -3130.0]):
        store(trial, number, score, age=600 - 100 * number, num_updates=max(0, 20 * (number - 2)))
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 3
    stored_checkpoints.prune(tmp_path, "trial_00000")
    assert {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)} >= {2, 3, 4}


def test_of_a_trial_that_is_evaluated_the_best_is_one_that_was(tmp_path):
    """A score stands until the next evaluation, but is of the weights that were evaluated."""
    trial = tmp_path / "trial_00000"
    scores = [(-90.0, -1), (50.0, 10), (50.0, 10), (40.0, 30), (40.0, 30)]
    for number, (score, evaluated) in enumerate(scores):
        store(trial, number, score, age=600 - 100 * number, num_updates=10 * number, evaluated_updates=evaluated)
    assert stored_checkpoints.best_checkpoint(tmp_path).number == 1
    stored_checkpoints.prune(tmp_path, "trial_00000")
    assert {c.number for c in stored_checkpoints.stored_checkpoints(tmp_path)} >= {1, 3, 4}
