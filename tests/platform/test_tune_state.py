"""Tune's own files: stored whole, in an order that a kill cannot make wrong."""

import subprocess
import sys
import time

import pytest
from pyarrow import fs
from ray.tune.search.basic_variant import BasicVariantGenerator

from parsecrl.platform.running import tune_state
from parsecrl.platform.storage import for_tune, location_of


def test_half_a_state_of_tunes_does_not_count(tmp_path):
    state = tmp_path / "experiment_state-2026-01-01_00-00-00.json"
    (tmp_path / "tuner.pkl").write_bytes(b"\x80\x04N.")
    state.write_text('{"trial_data": []}')
    assert tune_state.repair(tmp_path)

    written = tmp_path / "trial_00000" / ".result.json.4711.tmp"
    written.parent.mkdir()
    written.write_text("{")
    assert tune_state.repair(tmp_path)
    assert not written.exists()

    later = tmp_path / "experiment_state-2026-01-02_00-00-00.json"
    later.write_text("")
    assert tune_state.repair(tmp_path)
    assert not later.exists()
    assert state.exists()

    (tmp_path / "tuner.pkl").write_bytes(b"\x80\x04")
    assert not tune_state.repair(tmp_path)


def test_a_searchs_state_is_whole_or_does_not_count(tmp_path):
    """Tune pickles it, into a .json: half of it is told by its end."""
    search = BasicVariantGenerator(random_state=0)
    search.save_to_dir(str(tmp_path), "1")
    (file,) = tmp_path.glob("basic-variant-state-*")
    whole = file.read_bytes()
    (tmp_path / "experiment_state-1.json").write_text('{"trial_data": [], "runner_data": {}, "stats": {"start": 1.0}}')
    (tmp_path / "tuner.pkl").write_bytes(b"\x80\x04N.")
    assert tune_state.repair(tmp_path)
    assert file.read_bytes() == whole
    file.write_bytes(whole[:-1])
    assert tune_state.repair(tmp_path)
    assert not file.exists()


@pytest.mark.parametrize("stored", ["disk", "store"])
def test_what_tunes_driver_writes_is_stored_whole_and_once(tmp_path, stored, s3):
    staging, place = tmp_path / "staging", f"{s3}/run" if stored == "store" else str(tmp_path / "run")
    target = location_of(place)
    trial = staging / "trial_00000"
    trial.mkdir(parents=True)
    (staging / "experiment_state-1.json").write_text("{}")
    (trial / "result.json").write_text("1\n")
    path, filesystem = for_tune(target)
    store = tune_state.Store()
    if stored == "disk":
        target.mkdir()
    for rows in ("1\n", "1\n2\n"):
        (trial / "result.json").write_text(rows)
        store(str(staging), path, filesystem or fs.LocalFileSystem())
        assert (target / "trial_00000/result.json").read_text() == rows
    assert (target / "experiment_state-1.json").read_text() == "{}"
    # What has not changed is not stored again.
    (target / "trial_00000/result.json").unlink()
    store(str(staging), path, filesystem or fs.LocalFileSystem())
    assert not (target / "trial_00000/result.json").exists()


def test_a_driver_that_is_killed_while_it_stores_leaves_whole_files(tmp_path):
    staging, target = tmp_path / "staging", tmp_path / "run"
    for number in range(20):
        (staging / f"trial_{number:05d}").mkdir(parents=True)
    (target).mkdir()
    code = f"""
from pathlib import Path
from pyarrow import fs
from parsecrl.platform.running.tune_state import Store
staging, store = Path({str(staging)!r}), Store()
for round in range(1000000):
    for file in [staging / "experiment_state-1.json", *(f / "result.json" for f in staging.iterdir() if f.is_dir())]:
        file.write_text(f"{{round:07d}}" * 10000)
    store(str(staging), {str(target)!r}, fs.LocalFileSystem())
    print(round, flush=True)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        driver.stdout.readline()
    time.sleep(0.02)
    driver.kill()
    driver.wait()
    files = list(target.glob("*.json")) + list(target.glob("*/result.json"))
    assert len(files) == 21
    rounds = {}
    for file in files:
        text = file.read_text()
        assert text == text[:7] * 10000
        rounds[file.name] = min(rounds.get(file.name, 10**7), int(text[:7]))
    assert rounds["result.json"] >= rounds["experiment_state-1.json"] >= 2
