"""A run on two Ray nodes, an S3 server and a user, each in a network namespace of its own: python two_nodes.py FOLDER

The namespaces hang on a bridge in a fifth one, so that the machine's own network is neither used nor changed, and
nothing outside can be reached. The quick spec, shortened, is submitted from the user's and followed to its report in
the store; the nodes ask for a token. In the end everything is ended and removed.

FOLDER gets follow.txt (the log as the user saw it), report.txt (`parsec report`, from the user's namespace),
index.html, and outcome.json: exit status, the nodes as Ray has them, and what was seen to work on each. Exit code 77
where no namespaces can be made.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SKIPPED = 77
HEAD, WORKER, STORE, USER = "head", "worker", "store", "user"
HOSTS = {HEAD: "10.77.0.1", WORKER: "10.77.0.2", STORE: "10.77.0.3", USER: "10.77.0.4"}
CPUS = {HEAD: 1, WORKER: 1}  # a trial asks for two: neither node is enough
TOKEN = "0f5b2c7e9d3a4c1b8e6f7a2d5c9b1e3f"
SECONDS = 900
SETTINGS = (
    *("resources.num_env_runners=1", "resources.num_envs_per_env_runner=1"),
    *("resources.num_cpus_per_env_runner=1", "resources.num_cpus_for_main_process=1", "env.action_repeat=10"),
    *("phases.planet.controller.num_samples=20", "phases.planet.controller.num_elites=4"),
    *("phases.planet.stop.env_steps=7500", "phases.planet.seed_episodes=2", "phases.planet.train_ratio=0.002"),
    *("phases.embed.stop.env_steps=2500", "phases.embed.decoder_warmup_updates=5", "phases.embed.train_ratio=0.002"),
    *("phases.finetune.stop.ppo_steps=1", "phases.finetune.episodes_per_step=2"),
    *("evaluate.episodes=2", "evaluate.videos=false"),
)
# A machine's own temporary folder: otherwise each node would unpack the job's files over those of the other.
OWN_FOLDER = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$1" && shift && exec "$@"', "sh")
BUCKET = "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='PUT'), timeout=10)"
NODES = """
import json, sys, requests
answer = requests.get(sys.argv[1], headers={"Authorization": "Bearer " + open(sys.argv[2]).read().strip()}, timeout=20)
answer.raise_for_status()
nodes = answer.json()["data"]["result"]["result"]
print(json.dumps({node["node_ip"]: node["state"] for node in nodes}))
"""
FETCH = """
import sys
from parsecrl.platform.storage import location_of
sys.stdout.buffer.write(location_of(sys.argv[1]).read_bytes())
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """Namespaces, by host, with one address each on a common bridge."""

    def __init__(self):
        self.prefix = f"parsec{os.getpid()}"
        self.made = []

    def name(self, host):
        return f"{self.prefix}-{host}"

    def make(self):
        self._namespace("switch")
        switch = self.name("switch")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host, address in HOSTS.items():
            self._namespace(host)
            ip("-n", self.name(host), "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", switch)
            ip("-n", switch, "link", "set", host, "master", "bridge", "up")
            ip("-n", self.name(host), "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", self.name(host), "link", "set", "eth0", "up")

    def _namespace(self, host):
        ip("netns", "add", self.name(host))
        self.made.append(host)
        ip("-n", self.name(host), "link", "set", "lo", "up")

    def command(self, host, words):
        return ["ip", "netns", "exec", self.name(host), *map(str, words)]

    def remove(self):
        for host in self.made:
            subprocess.run(["ip", "netns", "delete", self.name(host)], check=False, capture_output=True)


class Site:
    """What runs in the namespaces."""

    def __init__(self, folder, network):
        self.folder, self.network, self.processes = folder, network, {}
        self.scratch = tempfile.mkdtemp(prefix="parsec-", dir="/tmp")  # Ray's sockets need a short path
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
        self.user = {
            **kept,
            "AWS_ENDPOINT_URL": f"http://{HOSTS[STORE]}:9000",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.node = {**self.user, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.url = f"http://{HOSTS[HEAD]}:8265"
        self.token = token

    def start(self, host, words, environment):
        with (self.folder / f"{host}.txt").open("a") as log:
            self.processes[host] = subprocess.Popen(
                self.network.command(host, words),
                env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        return self.processes[host]

    def start_node(self, host, *options):
        ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
        ray += [f"--node-ip-address={HOSTS[host]}", f"--num-cpus={CPUS[host]}", "--object-store-memory=134217728"]
        self.start(host, [*OWN_FOLDER, self.scratch, *ray, *options, "--disable-usage-stats"], self.node)

    def ask(self, host, code, *arguments):
        """The output of a Python program in a namespace, or None while it fails."""
        words = self.network.command(host, [sys.executable, "-c", code, *arguments])
        done = subprocess.run(words, env=self.user, capture_output=True, cwd=self.folder, check=False)
        return done.stdout if done.returncode == 0 else None

    def wait_for(self, condition, what):
        deadline = time.monotonic() + SECONDS
        while not (found := condition()):
            for host, process in self.processes.items():
                if host != USER and process.poll() is not None:
                    raise RuntimeError(f"{host} ended: {(self.folder / f'{host}.txt').read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited for {what} in vain")
            time.sleep(1.0)
        return found

    def nodes(self):
        found = self.ask(USER, NODES, f"{self.url}/api/v0/nodes?detail=1&timeout=15", self.token)
        return json.loads(found) if found else {}

    def at_work(self, host):
        """The titles that Ray gives to the processes of a node's trials, without the call that they are in."""
        found = set()
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.processes[host].pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    title = " ".join(process.cmdline())
                    if title.startswith("ray::"):
                        found.add(title.removeprefix("ray::").split(".")[0].split("(")[0].split()[0])
        return found

    def stop(self):
        for process in self.processes.values():
            with contextlib.suppress(psutil.Error):
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                for member in family:
                    with contextlib.suppress(psutil.Error):
                        member.kill()
            process.wait()
        self.token.unlink()
        shutil.rmtree(self.scratch, ignore_errors=True)


def run(site):
    say("an S3 server, a head and a worker node")
    site.start(STORE, [sys.executable, "-m", "moto.server", "-H", HOSTS[STORE], "-p", 9000], site.user)
    site.wait_for(lambda: site.ask(USER, BUCKET, f"http://{HOSTS[STORE]}:9000/runs") is not None, "the store")
    head = ["--head", "--port=6379", f"--dashboard-host={HOSTS[HEAD]}", f"--temp-dir={site.scratch}"]
    site.start_node(HEAD, *head)
    site.wait_for(lambda: site.nodes().get(HOSTS[HEAD]) == "ALIVE", "the head")
    site.start_node(WORKER, f"--address={HOSTS[HEAD]}:6379")
    nodes = site.wait_for(lambda: len(alive := site.nodes()) == 2 and alive, "the worker node")

    say(f"nodes {nodes}; parsec submit from {HOSTS[USER]}")
    words = [Path(sys.executable).with_name("parsec"), "submit", "cheetah_run_quick", "--address", site.url]
    words += ["--token-file", site.token, "--storage", "s3://runs/lab", "--name", "quick", "--follow"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    user = site.start(USER, words, site.user)
    seen = {HEAD: set(), WORKER: set()}

    def ended():
        for host, titles in seen.items():
            titles |= site.at_work(host)
        return user.poll() is not None

    site.wait_for(ended, "the run")
    say(f"it ended with {user.returncode}; parsec report from {HOSTS[USER]}")
    os.replace(site.folder / f"{USER}.txt", site.folder / "follow.txt")
    outcome = {
        "pid": os.getpid(),
        "exit_code": user.returncode,
        "nodes": nodes,
        "worked": {host: sorted(seen[host]) for host in seen},
    }
    (site.folder / "outcome.json").write_text(json.dumps(outcome, indent=1))
    if user.returncode == 0:
        report = [Path(sys.executable).with_name("parsec"), "report", "s3://runs/lab/quick"]
        told = subprocess.run(
            site.network.command(USER, report), env=site.user, capture_output=True, cwd=site.folder, check=True
        )
        (site.folder / "report.txt").write_bytes(told.stdout)
        page = site.ask(USER, FETCH, "s3://runs/lab/quick/report/index.html")
        (site.folder / "index.html").write_bytes(page or b"")
    return user.returncode


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(folder):
    network = Network()
    try:
        network.make()
        with tempfile.TemporaryDirectory() as scratch:
            subprocess.run([*OWN_FOLDER, scratch, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        network.remove()
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())
        print(f"no namespaces can be made here ({reason}): this needs root and Debian's iproute2")
        return SKIPPED
    site = Site(folder, network)
    try:
        return run(site)
    finally:
        site.stop()
        network.remove()


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "two_nodes").absolute()
    target.mkdir(parents=True, exist_ok=True)
    sys.exit(main(target))
