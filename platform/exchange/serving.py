"""`parsec serve`: an agent behind HTTP on this machine's loopback interface, until it is interrupted."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from pathlib import Path

from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.exchange.limits import Limits
from parsecrl.platform.runs.trust import key_file
from parsecrl.platform.storage import location_of
from parsecrl.platform.submission.tokens import read_token

HOST = "127.0.0.1"
TOKEN_FILE = "serve_token"


def serve_agent(
    checkpoint: str, port: int = 8000, token_file: str | None = None, limits: Limits | None = None, trust: bool = False
) -> None:
    """Serve until this process is interrupted or terminated.

    Args:
        checkpoint: As `load_agent` takes it.
        port: Of 127.0.0.1; 0 takes a free one.
        token_file: Holds the token; made where there is none. None: serve_token beside this user's key.
        limits: None: the defaults of `Limits`.
        trust: As `load_agent` has it.

    Raises:
        UserError: There is no agent, the port is taken, or packages are missing.
    """
    stop = threading.Event()
    with Service(checkpoint, port, token_file, limits, trust) as service:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())  # after Ray's own
        print(f"serving {checkpoint} at {service.url}; the token is in {service.token_file}; Ctrl-C ends", flush=True)
        stop.wait()


class Service:
    """A service that runs while the context lasts. Starts Ray on this machine, where none is connected.

    Args:
        checkpoint: As `serve_agent`.
        port: As `serve_agent`.
        token_file: As `serve_agent`.
        limits: As `serve_agent`.
        trust: As `serve_agent`.
    """

    def __init__(
        self,
        checkpoint: str,
        port: int = 8000,
        token_file: str | None = None,
        limits: Limits | None = None,
        trust: bool = False,
    ):
        self.limits = limits or Limits()
        self.limits.check()
        self.port = _free_port(port)
        self.url = f"http://{HOST}:{self.port}"
        self.checkpoint, self.trust = _checked(checkpoint, trust), trust
        self.token_file = _token_file(token_file)
        self.token = read_token(self.token_file) or ""

    def __enter__(self) -> Service:
        from parsecrl.platform.cluster.connection import connect, quiet_ray

        quiet_ray()
        try:
            import fastapi  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise UserError(f"parsec serve needs {error.name}; pip install 'parsec-rl[serve]'") from None
        import ray

        self._started = not ray.is_initialized()
        connect()
        from ray import serve

        from parsecrl.platform.exchange.service import AgentService

        for name in ("ray.serve", "ray.serve._private"):
            logging.getLogger(name).setLevel(logging.WARNING)
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": self.port}, logging_config=quiet)
        beyond = self.limits.max_waiting + self.limits.max_batch_size  # to be told so, or about their session
        deployment = serve.deployment(
            max_ongoing_requests=2 * beyond, max_queued_requests=beyond, ray_actor_options={"num_cpus": 1}
        )(serve.ingress()(AgentService))
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        bound = deployment.bind(self.checkpoint, self.token, self.limits, self.trust, threads)
        serve.run(bound, name="parsec", logging_config=quiet)
        return self

    def __exit__(self, *error: object) -> None:
        import ray
        from ray import serve

        serve.shutdown()
        if self._started:
            ray.shutdown()


def _checked(checkpoint: str, trust: bool) -> str:
    """The agent's place in full. Raises UserError where there is no agent."""
    place = location_of(checkpoint)
    place = place.absolute() if isinstance(place, Path) else place
    try:
        load_agent(place, trust=trust)  # here, where the error is seen
    except ValueError as error:
        raise UserError(str(error)) from None
    return str(place)


def _free_port(port: int) -> int:
    if not 0 <= port < 2**16:
        raise UserError(f"--port must lie in 0 to {2**16 - 1}, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))  # Serve would share the port of another Serve
        except OSError as error:
            raise UserError(f"port {port} of {HOST} cannot be had ({error.strerror}); give another --port") from None
        return probe.getsockname()[1]


def _token_file(given: str | None) -> Path:
    file = Path(given).expanduser() if given else key_file().with_name(TOKEN_FILE)
    if file.exists():
        return file
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
    except OSError as error:
        raise UserError(f"the token file {file} cannot be written ({error.strerror}); give --token-file") from None
    return file
