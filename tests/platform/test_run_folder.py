"""What a run folder may be continued with; no Ray."""

import json
from pathlib import Path

import pytest

from parsecrl.platform.cli import main
from parsecrl.platform.errors import UserError
from parsecrl.platform.running.pipeline import run_spec
from parsecrl.platform.runs import inner_paths, trust
from parsecrl.platform.runs.run_folder import RUNNING, RunFolder
from parsecrl.platform.specs import load_spec
from parsecrl.platform.storage import RemotePath

SPEC = "cheetah_run_quick"


@pytest.fixture
def begun(tmp_path):
    """A run whose first phase has begun."""
    folder = RunFolder.choose(load_spec(SPEC), tmp_path)
    folder.open()
    folder.record("planet", {"status": RUNNING})
    folder.close()
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        *("phases.planet.stop.env_steps=77", "phases.embed.train_ratio=0.07", "evaluate.episodes=3"),
        *("resources.num_env_runners=5", "resources.num_gpus_per_learner=0.5"),
    ],
)
def test_a_run_goes_on_with_other_ends_and_with_other_plans_for_what_has_not_begun(begun, change):
    folder = RunFolder.choose(load_spec(SPEC, [change]), begun)
    folder.open()
    folder.close()
    key, _, value = change.partition("=")
    assert f"{key.rpartition('.')[2]}: {value}" in (begun / SPEC / "spec.yaml").read_text()


def test_what_has_begun_stays_as_it_is(begun):
    before = (begun / SPEC / "spec.yaml").read_text()
    with pytest.raises(UserError, match=r"phases\.planet\.train_ratio was .*, is 0\.07.*--fresh"):
        RunFolder.choose(load_spec(SPEC, ["phases.planet.train_ratio=0.07"]), begun)
    assert (begun / SPEC / "spec.yaml").read_text() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda made: made.pop("layout"), "has the layout 1 of parsec-rl 0.0.9, this version reads layout 2"),
        (lambda made: made.update(layout=3), "has the layout 3 of parsec-rl 0.0.9"),
    ],
)
def test_a_run_of_another_layout_is_refused_by_every_command_that_reads_runs(begun, change, words, capsys):
    record = begun / SPEC / trust.RECORD
    made = json.loads(record.read_text()) | {"version": "0.0.9"}
    change(made)
    record.write_text(json.dumps(made))
    with pytest.raises(UserError, match=words):
        RunFolder.choose(load_spec(SPEC), begun)
    run, new = str(begun / SPEC), str(begun / "new")
    for command in (["report", run], ["status", run], ["export", run, "--to", new], ["push", run, new]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert words in said, command
        assert said.count("\n") == 1
    assert [path.name for path in begun.iterdir()] == [SPEC]


def test_a_damaged_state_is_said_in_a_sentence(begun, capsys):
    (begun / SPEC / "state.json").write_text('{"planet": {"sta')
    for command in (["run", SPEC, "--storage", str(begun)], ["status", str(begun / SPEC)]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "state.json is damaged (Unterminated string" in said
        assert said.count("\n") == 1


def test_a_spec_is_told_from_its_name(tmp_path):
    with pytest.raises(UserError, match=r"takes what load_spec returns, got 'cheetah_run_quick'; give load_spec\("):
        run_spec(SPEC, tmp_path)


@pytest.mark.parametrize("moved", [Path("/b/run"), RemotePath("s3://bucket/a/run")])
def test_paths_of_a_run_follow_the_folder(moved):
    begun = Path("/a/run")
    config = {
        "start_from": begun / "planet/trial_0",
        "data": {"folder": f"{begun}/loop_data", "size": 3},
        "other": "/a/runs",
    }
    stored = inner_paths.relative(config, begun)
    assert stored == {
        "start_from": "run-folder://planet/trial_0",
        "data": {"folder": "text:run-folder://loop_data", "size": 3},
        "other": "/a/runs",
    }
    assert inner_paths.absolute(stored, moved) == {
        "start_from": moved / "planet/trial_0",
        "data": {"folder": f"{moved}/loop_data", "size": 3},
        "other": "/a/runs",
    }
    assert inner_paths.absolute(stored, begun) == config
