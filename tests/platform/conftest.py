"""Object stores in processes of their own, on the loopback interface: moto's S3, and an emulator of Google's."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

SECRET = "the-secret-of-the-tests"


def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A program that listens at `port`; it keeps what it holds while it is stopped (SIGSTOP)."""

    def __init__(self, log: Path, *command: str):
        self.port = unused_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        command = (sys.executable, *command, str(self.port))
        with log.open("w") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, "http_proxy": ""})
        deadline = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def end(self):
        self.process.kill()
        self.process.wait()


class S3Server(Server):
    def __init__(self, log: Path):
        super().__init__(log, "-m", "moto.server", "-H", "127.0.0.1", "-p")

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def ask_for_authentication(self, wanted):
        """Whether the keys must be those of a user that the server knows; it knows none."""
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth",
            data=b"0" if wanted else b"inf",
            headers={"Content-Type": "text/plain"},
        )
        urllib.request.urlopen(request, timeout=30).close()

    def make_bucket(self, name):
        from pyarrow import fs

        endpoint = f"127.0.0.1:{self.port}"
        fs.S3FileSystem(
            access_key="tests",
            secret_key=SECRET,
            region="us-east-1",
            scheme="http",
            endpoint_override=endpoint,
            allow_bucket_creation=True,
        ).create_dir(name)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    server = S3Server(tmp_path_factory.mktemp("s3") / "log.txt")
    server.make_bucket("bucket")
    yield server
    server.end()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """An address of this test's own; this process's environment leads there."""
    from parsecrl.algorithms import object_store

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    object_store._client.cache_clear()
    yield f"s3://bucket/{tmp_path.name}"
    object_store._client.cache_clear()


GS_SERVER = """
import http.server, sys, time
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server

def incomplete(response, storage, upload_id, fallback_end=0):
    response.status = objects.GoogleHTTPStatus.RESUME_INCOMPLETE
    if received := storage.get_resumable_byte_count(upload_id):
        response["Range"] = f"bytes=0-{received - 1}"

# Before the first byte of an upload the emulator says that one has come, and a client whose first part was lost goes on
# from the second byte; Google names no range then.
objects._resumable_incomplete = incomplete
# Files are sent by the dozen and answered one by one, and by default five connections may wait.
http.server.HTTPServer.request_queue_size = 128
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
time.sleep(1e6)
"""


@pytest.fixture(scope="session")
def gs_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("gs") / "log.txt", "-c", GS_SERVER)
    yield server
    server.end()


@pytest.fixture
def gs(gs_server, monkeypatch, tmp_path):
    """As `s3`."""
    from parsecrl.algorithms import object_store

    monkeypatch.setenv(object_store.GCS_EMULATOR, gs_server.endpoint)
    object_store._client.cache_clear()
    yield f"gs://bucket/{tmp_path.name}"
    object_store._client.cache_clear()
