# %% [markdown]
# # From a laptop to a cluster
#
# The same spec runs on a laptop and on a cluster. Here the cluster is a Ray head on this machine.
# The steps are those for any cluster.
#
# ## A spec
#
# The spec says what each trial asks for. Ray places the processes wherever they fit.

# %%
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

Path("small.yaml").write_text("""
name: small
env: {id: Pendulum-v1, action_repeat: 4}
resources:
  {num_env_runners: 1, num_envs_per_env_runner: 2, num_cpus_per_env_runner: 0.5, num_cpus_for_main_process: 0.5}
phases:
  - name: planet
    algorithm: planet
    controller: {kind: full, horizon: 5, num_samples: 20, num_elites: 2, num_iterations: 2}
    world_model: {deterministic_size: 16, stochastic_size: 4, hidden_size: 16}
    seed_episodes: 1
    train_ratio: 0.02
    batch_size: 8
    batch_length: 10
    stop: {env_steps: 800}
evaluate: {episodes: 2, videos: false}
""")

# %% [markdown]
# ## What the spec costs there
#
# `parsec capacity` reckons hours, core-hours and the bottleneck for so many cores and GPUs.

# %%
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def parsec(*words):
    done = subprocess.run(
        [sys.executable, "-m", "parsecrl", *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return done.stdout


parsec("capacity", "small.yaml", "--cpus", 16)

# %% [markdown]
# ## A cluster
#
# A token keeps strangers out: whoever has the token may run anything. The head listens on
# loopback alone. On a cluster of yours the command is `ray start --head`, with
# `RAY_AUTH_MODE=token` on every node ([clusters](../clusters.md) has Compose, Kubernetes and
# Slurm).

# %%


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


token = Path("token").resolve()
token.write_text(secrets.token_hex(32))
token.chmod(0o600)
address = f"http://127.0.0.1:{(port := free_port())}"
options = [f"--port={free_port()}", f"--dashboard-port={port}", f"--dashboard-agent-listen-port={free_port()}"]
options += ["--dashboard-host=127.0.0.1", f"--ray-client-server-port={free_port()}", "--num-cpus=2"]
options += [f"--temp-dir={tempfile.mkdtemp(dir='/tmp')}", "--disable-usage-stats"]
head = subprocess.Popen(
    [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block", *options],
    env={
        **ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    },
    stdout=subprocess.DEVNULL,
    start_new_session=True,
)

# %% [markdown]
# ## Submit, look, get the report
#
# `parsec submit` sends the spec and this parsecrl as a wheel. `--storage` is a place that all nodes
# see: a shared folder, `s3://` or `gs://`.

# %%
try:
    for _ in range(120):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert head.poll() is None
            time.sleep(1)
    time.sleep(5)  # the dashboard listens before the dashboard takes jobs
    where = ("--address", address, "--token-file", token)
    parsec("submit", "small.yaml", *where, "--storage", Path("runs").resolve(), "--follow")
    jobs = parsec("jobs", *where)
finally:
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)

# %%
assert "small-1" in jobs
assert Path("runs/small/report/index.html").exists()

# %% [markdown]
# The run folder is whole. `parsec report`, `parsec evaluate` and `load_agent` read the run on the
# laptop. The same `submit` continues a run that was lost with its cluster.
#
# [Submitting jobs](../jobs.md) and [storage](../storage.md) have the details.
