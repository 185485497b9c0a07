"""A running job as people watch it: in Debian's Prometheus, and in the Ray dashboard with headless Chromium."""

import contextlib
import html
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from parsecrl.platform.metrics import dashboards, table
from tests.platform import chromium
from tests.platform.tiny import PLANET

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
TRIAL = "trial_00000_train_ratio=0.002"
CANDIDATES = 8 * 2  # of a decision: num_samples * num_iterations
SPEC = (
    """
name: watched
env: {id: dm_control/cheetah-run-v0, action_repeat: 10}
resources: {num_env_runners: 0, num_envs_per_env_runner: 2}
phases:
"""
    + PLANET
    + """    search: {train_ratio: {grid: [0.002]}}
    decisions_per_iteration: 3000  # ten seconds or so: longer than Ray keeps a gauge that is not set again
    evaluation_every: 10000  # simulator steps: an evaluation at each result after the first update
    evaluation_episodes: 1
    stop: {env_steps: 100000000}
"""
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (PROMETHEUS or chromium.PROGRAM), reason="neither Prometheus nor Chromium found"),
]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [str(s.getsockname()[1]) for s in sockets]


def wait_for(condition, what, seconds=600):
    """Long, as an iteration can be where other tests share slow cores: it is to end a wait for what never comes."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.5)
    return found


@contextlib.contextmanager
def process(command, log, **environment):
    """A process of ours, which is asked to end, with what it started, in the end."""
    with log.open("w") as stream:
        started = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **environment})
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(timeout=60)
        except subprocess.TimeoutExpired:
            started.kill()
            raise


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A Ray head on loopback with its dashboard: (address of the dashboard, Ray's temporary folder)."""
    gcs, dashboard, client = free_ports(3)
    temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray makes sockets below it
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", f"--port={gcs}", "--dashboard-host=127.0.0.1"]
    command += [
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
        "--dashboard-agent-listen-port=0",
    ]
    command += ["--num-cpus=1", f"--object-store-memory={256 * 1024**2}", f"--temp-dir={temp}"]
    log = tmp_path_factory.mktemp("head") / "log.txt"
    address = f"http://127.0.0.1:{dashboard}"
    try:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the job's processes are to find this python
        with process(command, log, RAY_metrics_report_interval_ms="1000", PATH=path) as ray_start:

            def answers():
                assert ray_start.poll() is None, log.read_text()[-2000:]
                with contextlib.suppress(OSError):
                    return get(f"{address}/api/version") and list(temp.glob("prom_metrics_service_discovery.json"))

            wait_for(answers, "dashboard")
            yield address, temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def job(head, tmp_path_factory):
    """A job that runs until it is stopped: (its client, its submission id, its trial's results)."""
    from ray.job_submission import JobSubmissionClient

    folder = tmp_path_factory.mktemp("job")
    (folder / "watched.yaml").write_text(SPEC)
    command = [sys.executable, "-m", "parsecrl", "submit", str(folder / "watched.yaml")]
    done = subprocess.run([*command, "--address", head[0], "--storage", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    client, submission = JobSubmissionClient(head[0]), "watched-1"

    def has_results():
        status = client.get_job_status(submission)
        assert not status.is_terminal(), client.get_job_logs(submission)[-2000:]
        return len(rows(folder)) >= 2

    wait_for(has_results, "result")
    yield client, submission, folder
    client.stop_job(submission)
    wait_for(lambda: client.get_job_status(submission).is_terminal(), "end of the job")


def rows(folder):
    found = []
    for file in folder.glob("watched/planet/*/result.json"):
        with contextlib.suppress(json.JSONDecodeError):  # a line that is being written
            found += [json.loads(line) for line in file.read_text().splitlines()]
    return found


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def prometheus(head, tmp_path_factory):
    """Prometheus on loopback with the project's own configuration, but for the path and the pace: its API's address."""
    if PROMETHEUS is None:
        pytest.skip("Prometheus not found (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
    assert discovery["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    discovery["files"] = [str(head[1] / "prom_metrics_service_discovery.json")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with process([*command, f"--web.listen-address=127.0.0.1:{port}"], folder / "log.txt"):
        api = f"http://127.0.0.1:{port}/api/v1"

        def answers():
            with contextlib.suppress(OSError):
                return query(api, "vector(1)")

        wait_for(answers, "answer of Prometheus")
        yield api


def query(api, expression):
    answer = get(f"{api}/query?" + urllib.parse.urlencode({"query": expression}))
    assert answer["status"] == "success"
    return answer["data"]["result"]


def expected(metric, labels, results):
    """What a series may show: the values that the results have had there."""
    for row in results:
        place = row["metrics"].get(metric.name)
        for label in metric.labels:
            place = (place or {}).get(labels[label])
        if place is not None:
            yield place


@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus not found (Debian: prometheus)")
def test_prometheus_has_every_metric_with_the_results_values(job, prometheus):
    _, _, folder = job
    trial = {"run": "watched", "phase": "planet", "trial": TRIAL}
    for metric in table.METRICS:
        suffix = "_count" if metric.kind == "histogram" else ""
        wait_for(lambda name=metric.prometheus_name + suffix: query(prometheus, name), metric.name)
    for metric in table.METRICS:
        if metric.kind == "histogram":
            continue
        for series in query(prometheus, metric.prometheus_name):
            assert {label: series["metric"][label] for label in trial} == trial
            value = float(series["value"][1])

            def is_a_result(metric=metric, labels=series["metric"], value=value):
                found = expected(metric, labels, rows(folder))
                return any(math.isclose(value, one, rel_tol=1e-6) for one in found)

            wait_for(is_a_result, f"result with {metric.name} = {value}")

    def plans_are_a_results():
        """A scrape may fall among an iteration's plans, counted one by one: then the next one has them all."""
        (count,) = query(prometheus, "ray_parsecrl_planning_seconds_count")
        return float(count["value"][1]) * CANDIDATES in {row["trajectories"] for row in rows(folder)}

    wait_for(plans_are_a_results, "result with as many plans as the histogram counts")
    last = rows(folder)[-1]["metrics"]
    assert last["soft_top_k_entropy"] == pytest.approx(math.log(2))  # of a hard choice of two
    assert {process: sum(shares.values()) for process, shares in last["time_share"].items()} == pytest.approx(
        {"main": 1.0, "runner": 1.0}
    )


@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus not found (Debian: prometheus)")
def test_gauges_stay_while_an_iteration_lasts(job, prometheus):
    """Set once they would be gone after two report intervals, here 2 s."""

    def stayed():
        for series in query(prometheus, "ray_parsecrl_replay_decisions[30s]"):
            values = [value for _, value in series["values"]]
            return max(map(values.count, values)) >= 5

    wait_for(stayed, "gauge that stays")


@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus not found (Debian: prometheus)")
def test_the_dashboards_queries_answer(job, prometheus):
    board = json.loads((ROOT / dashboards.DASHBOARD).read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "30s")
            expression = re.sub(r"\$(run|phase|trial)", ".*", expression)
            found = wait_for(lambda e=expression: query(prometheus, e), expression)
            assert all(f"{{{{{label}}}}}" in target["legendFormat"] for label in ("phase", "trial"))
            assert all(series["metric"]["trial"] == TRIAL for series in found)
    for variable in board["templating"]["list"]:
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        match = urllib.parse.urlencode({"match[]": re.sub(r"\$(run|phase)", ".*", series)})
        known = {"run": "watched", "phase": "planet", "trial": TRIAL}
        assert get(f"{prometheus}/label/{label}/values?{match}")["data"] == [known[label]]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool not found (Debian: prometheus)")
def test_promtool_accepts_the_configuration():
    done = subprocess.run([PROMTOOL, "check", "config", str(ROOT / "docker/prometheus.yml")], capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
def test_the_ray_dashboard_shows_the_job_and_its_metadata(head, job, tmp_path):
    client, submission, _ = job
    listed = page_text(f"{head[0]}/#/jobs", tmp_path / "list.png")
    assert re.search(rf"{submission} .*parsecrl.* RUNNING", listed)
    job_id = client.get_job_info(submission).job_id
    shown = page_text(f"{head[0]}/#/jobs/{job_id}", tmp_path / "job.png")
    assert re.search(rf"Status RUNNING .*Job ID {job_id} Submission ID {submission}", shown)
    (metadata,) = re.findall(r"User-provided metadata (\{.*?\})", shown)
    of_the_spec = {"project": "parsecrl", "name": "watched", "spec": "watched"}
    assert {key: json.loads(metadata).get(key) for key in of_the_spec} == of_the_spec


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
def test_the_ray_dashboard_names_the_trial_among_the_actors(head, job, tmp_path):
    client, submission, _ = job
    shown = page_text(f"{head[0]}/#/jobs/{client.get_job_info(submission).job_id}", tmp_path / "job.png")
    shown += page_text(f"{head[0]}/#/actors", tmp_path / "actors.png")
    assert f"watched/planet/{TRIAL}" in shown


def test_the_status_of_the_job_names_its_trial(head, job):
    _, submission, _ = job
    command = [sys.executable, "-m", "parsecrl", "status", submission, "--address", head[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{submission} .*RUNNING", done.stdout, re.MULTILINE)
    assert re.search(r"^planet +running +0 of 1", done.stdout, re.MULTILINE)
    assert re.search(r"^trial_00000_train_ratio=0\.002 +running", done.stdout, re.MULTILINE)


def page_text(url, picture):
    """The text of a page after its scripts have run, in headless Chromium; also saves a picture of it."""
    done = chromium.load(url, picture, 1280, 1000, "--virtual-time-budget=10000", "--dump-dom")
    text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", done.stdout, flags=re.DOTALL)
    return " ".join(html.unescape(text).replace("\xa0", " ").split())
