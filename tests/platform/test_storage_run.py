"""A whole run in an object store: killed in mid-phase, continued by the same command, to its report there."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from parsecrl.platform import cli
from parsecrl.platform.remote_path import in_parallel
from parsecrl.platform.storage import location_of
from tests.platform.tiny import DRIVER, TINY

# Short, but long enough in its second phase to be killed there.
SIZES = {"planet": {"env_steps": 5000}, "embed": {"env_steps": 12500}, "finetune": {"ppo_steps": 2}}


def spec():
    data = yaml.safe_load(TINY)
    for phase in data["phases"]:
        phase["stop"] = SIZES[phase["name"]]
    data["evaluate"]["episodes"] = 1
    return yaml.safe_dump(data)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_run_in_an_object_store_survives_a_kill(s3, s3_server, tmp_path, capsys, request):
    (tmp_path / "tiny.yaml").write_text(spec())
    run = location_of(s3) / "tiny"

    def start():
        with (tmp_path / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, "--storage", s3],
                cwd=tmp_path,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1"},
            )
        request.addfinalizer(process.kill)
        return process

    def rows():
        files = run.glob("embed/*/result.json")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def known():
        """Whether Tune's state in the store was written after a checkpoint, which it then knows."""
        saved = list(run.glob("embed/*/checkpoint_*/metrics.json"))
        state = list(run.glob("embed/experiment_state-*.json"))
        first = min((file.stat().st_mtime for file in saved), default=float("inf"))
        return rows() and state and state[0].stat().st_mtime >= first + 2

    process = start()
    deadline = time.monotonic() + 240
    while not known():
        assert process.poll() is None, (tmp_path / "log.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = rows()
    assert json.loads((run / "state.json").read_text())["planet"]["status"] == "finished"
    process = start()
    assert process.wait(timeout=500) == 0, (tmp_path / "log.txt").read_text()[-3000:]

    state = json.loads((run / "state.json").read_text())
    assert [state[phase]["status"] for phase in ("planet", "embed", "finetune")] == ["finished"] * 3
    assert state["embed"]["env_steps"] >= 12500
    found = rows()
    assert len({row["pid"] for row in found}) == 2  # it went on after the kill, from where it was,
    later = [row["env_steps"] for row in found if row["pid"] == found[-1]["pid"]]
    assert later[0] > before[0]["env_steps"]
    assert later == sorted(later)
    config = json.loads(next(run.glob("embed/*/params.json")).read_text())
    assert config["start_from"] == f"{run}/{state['planet']['checkpoint']}"  # having begun with the phase before
    summary = json.loads((run / "summary.json").read_text())
    assert summary["phases"]["finetune"]["checkpoint"] == f"{run}/{state['finetune']['checkpoint']}"
    page = (run / "report" / "index.html").read_text()
    assert str(run) in page
    assert "could not be computed" not in page
    assert f"report: {run}/report/index.html" in (tmp_path / "log.txt").read_text()

    # The other commands, from its address.
    assert cli.main(["report", str(run)]) == 0
    assert "finetune" in capsys.readouterr().out
    assert cli.main(["evaluate", f"{run}/embed", "--episodes", "1"]) == 0
    assert "embedded | 1 episodes" in capsys.readouterr().out

    # Whoever may read the run folder learns no secret, and the lease is gone.
    secret = s3_server.environment["AWS_SECRET_ACCESS_KEY"].encode()

    def holds_secret(file):
        return secret in file.read_bytes()

    files = run.files()
    assert len(files) > 50
    assert not [str(file) for file, bad in zip(files, in_parallel(holds_secret, files), strict=True) if bad]
    assert not (run / ".lease").exists()
