"""The quick spec, shortened, on two nodes with addresses of their own, from a third one to its report in a store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_nodes.py")
HEAD, WORKER = "10.77.0.1", "10.77.0.2"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_run_on_two_nodes_is_submitted_from_a_third_machine(tmp_path):
    with (tmp_path / "said.txt").open("w") as said:
        code = subprocess.run([sys.executable, SCRIPT, tmp_path], stdout=said, stderr=said).returncode
    if code == 77:
        pytest.skip((tmp_path / "said.txt").read_text().strip())
    log = (tmp_path / "follow.txt").read_text() if (tmp_path / "follow.txt").exists() else ""
    assert code == 0, (tmp_path / "said.txt").read_text()[-3000:] + log[-3000:]
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["nodes"] == {HEAD: "ALIVE", WORKER: "ALIVE"}
    # A trial needs more than either node has: both of them worked for it.
    on_head, on_worker = (set(outcome["worked"][node]) for node in ("head", "worker"))
    assert {"planet", "dcem_ppo", "BatchedEnvRunner"} <= on_head | on_worker
    assert on_head & {"planet", "BatchedEnvRunner"}
    assert on_worker & {"planet", "BatchedEnvRunner"}
    # The user saw the run, and finds its report where it was written.
    assert all(word in log for word in ("quick-1", "run folder: s3://runs/lab/quick", "planet:", "finetune"))
    assert "report: s3://runs/lab/quick/report/index.html" in log
    told = (tmp_path / "report.txt").read_text()
    assert all(phase in told for phase in ("random", "planet", "embed", "finetune"))
    page = (tmp_path / "index.html").read_text()
    assert "parsec report &#34;$RUNS&#34;/quick" in page  # a page names no place
    assert "could not be computed" not in page
    # Neither the token nor the key to the store is in anything that was told or written.
    secrets = ("0f5b2c7e9d3a4c1b8e6f7a2d5c9b1e3f", "the-secret-of-the-tests")
    assert not [text for text in (log, told, page) if any(secret in text for secret in secrets)]
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    said = (tmp_path / "said.txt").read_text()
    assert "parsec submit from" in said
    assert not [line for line in names.splitlines() if line.startswith(f"parsec{outcome['pid']}-")]
