"""How often a trial starts again, and what ends a run that waits in vain."""

import json
import os
import pickle
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from parsecrl.platform.cluster.nodes import check_resources, resources
from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.running import fault_rules
from parsecrl.platform.running.analysis import in_ray_tasks
from parsecrl.platform.running.fault_rules import FaultRules
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import load_spec
from parsecrl.platform.terminal import StatusLine
from tests.platform.tiny import PLANET

SPEC = (
    """
name: tiny
env: {id: dm_control/cheetah-run-v0, action_repeat: 10}
resources: {num_env_runners: 0, num_envs_per_env_runner: 1, no_progress_timeout_s: 4}
phases:
"""
    + PLANET
    + """    stop: {env_steps: 2500}
    checkpoint_every: 100
evaluate: {episodes: 1, random: false, videos: false}
"""
)


class Nodes:
    """A cluster's description without a cluster."""

    def look(self):
        pass

    def describe(self):
        return "the cluster has 2 CPU on 1 node"


def trial(status="RUNNING"):
    asked = SimpleNamespace(
        bundles=[{"CPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}], required_resources={"CPU": 3.0, "GPU": 1.0}
    )
    metadata = SimpleNamespace(num_failures=2)
    return SimpleNamespace(
        trial_id="a", status=status, placement_group_factory=asked, run_metadata=metadata, max_failures=0
    )


def rules_at(seconds, patience_s, monkeypatch):
    """Rules whose clock gives these seconds, one a step."""
    rules = FaultRules("planet", 3, patience_s)
    rules._cluster = Nodes()
    moments = iter(seconds)
    monkeypatch.setattr(fault_rules.time, "monotonic", lambda: next(moments))
    return rules


def test_failures_count_since_the_last_checkpoint():
    rules, one = pickle.loads(pickle.dumps(FaultRules("planet", 3, 60.0))), trial()
    rules.on_step_begin(0, [one])
    assert (one.max_failures, one.run_metadata.num_failures) == (3, 0)  # a new driver counts anew
    one.run_metadata.num_failures = 2
    rules.on_step_begin(1, [one])
    rules.on_trial_start(1, [one], one)
    assert one.run_metadata.num_failures == 2  # the same driver does not, when the trial starts again
    rules.on_checkpoint(2, [one], one, checkpoint=None)
    assert one.run_metadata.num_failures == 0


def test_waiting_in_vain_ends_with_what_was_asked_for_and_what_there_is(monkeypatch):
    rules = rules_at([0.0, 5.0, 10.0, 15.0], 12.0, monkeypatch)
    trials = [trial("PENDING"), trial("PENDING")]
    for step in range(3):
        rules.on_step_end(step, trials)
    with pytest.raises(RunFailed) as told:
        rules.on_step_end(3, trials)
    message = str(told.value)
    assert "phase planet got no result for resources.no_progress_timeout_s=12 s" in message
    assert "2 trials wait for 3 CPU, 1 GPU, each (1 CPU) + (2 CPU, 1 GPU) on one node" in message
    assert "the cluster has 2 CPU on 1 node" in message


def test_a_result_ends_the_waiting_and_a_long_step_is_not_waiting(monkeypatch):
    rules = rules_at([0.0, 8.0, 16.0, 1000.0, 1001.0, 1004.0], 12.0, monkeypatch)
    rules.on_step_end(0, [trial()])
    rules.on_step_end(1, [trial()])
    rules.on_trial_result(2, [trial()], trial(), {})
    rules.on_step_end(2, [trial()])
    assert rules.waited_s == 8.0
    rules.on_trial_result(3, [trial()], trial(), {})
    rules.on_step_end(3, [trial()])  # the driver itself was held up, as by a store
    rules.on_step_end(4, [trial()])
    assert rules.waited_s == 11.0
    with pytest.raises(RunFailed, match="1 trial runs and told nothing"):
        rules.on_step_end(5, [trial()])


def test_resources_in_words():
    has = {
        "CPU": 2.0,
        "memory": 1e9,
        "object_store_memory": 1e8,
        "node:10.0.0.1": 1.0,
        "CPU_group_0_ab": 1.0,
        "GPU": 0.5,
    }
    assert resources(has) == "2 CPU, 0.5 GPU"
    assert resources({}) == "nothing"


def test_the_rules_may_change_while_a_run_goes_on(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    folder = RunFolder.choose(load_spec(tmp_path / "tiny.yaml"), tmp_path)
    folder.open()
    folder.close()
    changes = [f"resources.{key}=7" for key in ("max_failures", "no_progress_timeout_s", "max_checkpoint_age_s")]
    assert RunFolder.choose(load_spec(tmp_path / "tiny.yaml", changes), tmp_path).path == folder.path


# The command twice in a cluster of two CPUs, of which another program has both the first time.
DRIVER = """
import logging, shutil, sys
import ray
from parsecrl.platform.cluster.connection import quiet_ray
quiet_ray()
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
         object_store_memory=256 * 1024**2)

@ray.remote(num_cpus=2)
class Other:
    def ping(self):
        pass

other = Other.remote()
ray.get(other.ping.remote())
from parsecrl.platform.cli import main
print("code", main(["run", "tiny.yaml"]), file=sys.stderr, flush=True)
shutil.copy("runs/tiny/state.json", "state_between.json")
ray.kill(other)
sys.exit(main(["run", "tiny.yaml", "--set", "resources.no_progress_timeout_s=600"]))
"""


@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_run_whose_resources_are_never_granted_says_so_and_can_be_continued(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    message, code = done.stderr.partition("\ncode ")[0].splitlines()[-1], re.findall(r"^code (\d)$", done.stderr, re.M)
    assert code == ["1"], done.stderr[-3000:]
    assert "phase planet got no result for resources.no_progress_timeout_s=4 s" in message
    assert "1 trial waits for 1 CPU" in message
    assert "the cluster has 2 CPU on 1 node, free of it: nothing" in message
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "state_between.json").read_text())["planet"]["status"] == "running"
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "runs" / "tiny" / "state.json").read_text())["planet"]["env_steps"] == 2500
    assert len(list((tmp_path / "runs" / "tiny").glob("planet/trial_*"))) == 1
    assert yaml.safe_load((tmp_path / "runs" / "tiny" / "spec.yaml").read_text())["resources"]["max_failures"] == 3


def test_what_no_single_node_has_is_refused():
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}]
    check_resources([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}, {"GPU": 1.0}], "a trial", nodes)
    with pytest.raises(
        UserError, match="a trial needs 1 CPU, 2 GPU on one node and no node of the Ray cluster has that"
    ):
        check_resources([{"CPU": 1.0, "GPU": 2.0}], "a trial", nodes)
    with pytest.raises(UserError, match="a trial needs 1 CPU, 1 GPU on one node"):
        check_resources([{"CPU": 1.0, "GPU": 1.0}], "a trial", [{"CPU": 4.0}, {"GPU": 2.0}])
    with pytest.raises(UserError, match="a trial needs 13 CPU and the Ray cluster has 12"):
        check_resources([{"CPU": 1.0}] * 13, "a trial", nodes)
    with pytest.raises(UserError, match="a trial needs 1 GPU and the Ray cluster has 0"):
        check_resources([{"CPU": 1.0, "GPU": 1.0}], "a trial", [{"CPU": 2.0}])


LOST_NODE = """
import time
from parsecrl.platform.cluster.connection import _stay_on_loopback, quiet_ray
quiet_ray()
_stay_on_loopback()
import ray
from ray.cluster_utils import Cluster as Machines
from parsecrl.platform.running.fault_rules import Cluster
machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
node = machines.add_node(num_cpus=2)
ray.init(address=machines.address, log_to_driver=False)
cluster = Cluster()
cluster.look()
print(cluster.describe())
machines.remove_node(node, allow_graceful=False)
deadline = time.monotonic() + 300
while not cluster.lost() and time.monotonic() < deadline:
    time.sleep(0.5)
print(cluster.describe())
ray.shutdown()
machines.shutdown()
"""


@pytest.mark.ray
def test_a_node_that_is_lost_is_named_with_rays_reason():
    done = subprocess.run([sys.executable, "-c", LOST_NODE], capture_output=True, text=True, check=True)
    before, after = [line for line in done.stdout.splitlines() if line.startswith("the cluster has")]
    assert before == "the cluster has 3 CPU on 2 nodes, free of it: 3 CPU"
    assert after.startswith("the cluster has 1 CPU on 1 node, free of it: 1 CPU (it had 3 CPU), having lost node 127.")
    assert re.search(r"having lost node 127\.0\.0\.1 \([^()]{10,}\)$", after)  # Ray's words differ with how it died


@pytest.mark.ray
def test_a_cluster_that_may_grow_is_not_judged(ray_runtime):
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

    key = b"__autoscaling_status"  # where Ray's autoscaler reports
    before = _internal_kv_get(key)
    try:
        _internal_kv_put(key, json.dumps({"autoscaler_report": {"node_type_mapping": {"10.0.0.1": "node_10.0.0.1"}}}))
        with pytest.raises(UserError, match="needs 9 CPU and the Ray cluster has 2"):
            check_resources([{"CPU": 9.0}], "a trial")
        _internal_kv_put(key, json.dumps({"autoscaler_report": {"node_type_mapping": {"10.0.0.1": "workers"}}}))
        check_resources([{"CPU": 9.0}], "a trial")
    finally:
        _internal_kv_del(key) if before is None else _internal_kv_put(key, before)


def _double_after(seconds: float) -> float:
    time.sleep(seconds)
    return 2 * seconds


@pytest.mark.ray
def test_an_analysis_whose_tasks_do_not_end_stops_and_says_what_there_is(ray_runtime):
    assert list(in_ray_tasks(_double_after, [0.2, 0.0, 0.1], patience_s=60.0)) == [0.4, 0.0, 0.2]
    with pytest.raises(
        RunFailed, match=r"the analysis got no result for resources\.no_progress_timeout_s=1 s: 1 tasks"
    ):
        list(in_ray_tasks(_double_after, [8.0], patience_s=1.0))


def raised_in_a_trial(error):
    """As Ray hands over what a trial raised."""
    text = f'ray::A.train()\n  File "/home/me/worlds.py", line 3, in step\n{type(error).__name__}: {error}'
    return RayTaskError("train", text, error, "ray::A.train()", 1, "127.0.0.1")


def test_what_code_raises_is_not_tried_again_and_a_lost_process_is(tmp_path, capsys, monkeypatch):
    rules = FaultRules("planet", 3, 60.0)
    rules.line = StatusLine()
    counts = Trial.handle_error
    monkeypatch.setattr(Trial, "local_path", "")  # no file for the text: that needs a Ray session
    storage = StorageContext(str(tmp_path), "planet", trial_dir_name="trial_00000")
    trials = [Trial("train", stub=True, storage=storage) for _ in range(2)]
    with rules.judged():
        for one in trials:
            one.max_failures = 3
        trials[0].handle_error(raised_in_a_trial(KeyError("obs")))
        trials[1].handle_error(raised_in_a_trial(ConnectionResetError("gone")))
        trials[1].handle_error(ActorDiedError())
    assert Trial.handle_error is counts
    assert [one.should_recover() for one in trials] == [False, True]
    assert trials[1].run_metadata.num_failures == 2
    rules.on_trial_error(0, trials, trials[0])
    assert "failed: KeyError: 'obs' (/home/me/worlds.py:3)" in capsys.readouterr().err
    with rules.judged():  # what an actor's constructor raised arrives as text alone
        trials[1].handle_error(ActorDiedError(raised_in_a_trial(FileNotFoundError("robot.urdf"))))
    assert not trials[1].should_recover()
