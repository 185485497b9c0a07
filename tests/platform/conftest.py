"""Object stores in processes of their own, on the loopback interface: moto's S3, and an emulator of Google's."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from parsecrl.platform.submission import packing

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
    from parsecrl.platform.storage import object_store

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    object_store._client.cache_clear()
    yield f"s3://bucket/{tmp_path.name}"
    object_store._client.cache_clear()


# The emulator serves Google's JSON API; of the XML API, which obstore speaks, only plain GET and PUT. The rest is here,
# over the emulator's own storage, as https://cloud.google.com/storage/docs/xml-api/overview has it.
GS_SERVER = r"""
import email.utils, http.server, re, sys, threading, time, uuid
from datetime import datetime
from http import HTTPStatus
from xml.sax.saxutils import escape
from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

parts = {}  # of uploads that are not complete
writing = threading.Lock()

def refuse(response, status, code):
    response.status = status
    response.write_file(f"<Error><Code>{code}</Code></Error>", "application/xml")

def headers(response, obj):
    response["ETag"], response["x-goog-generation"] = f'"{obj["etag"]}"', obj["generation"]
    response["Last-Modified"] = email.utils.format_datetime(datetime.fromisoformat(obj["updated"][:-1]))[:-5] + "GMT"

def found(request, response, storage):
    bucket, key = request.params["bucket_name"], request.params["object_id"]
    if bucket not in storage.buckets:
        return refuse(response, HTTPStatus.NOT_FOUND, "NoSuchBucket")
    try:
        return storage.get_file_obj(bucket, key)
    except NotFound:
        refuse(response, HTTPStatus.NOT_FOUND, "NoSuchKey")

def get(request, response, storage):
    if obj := found(request, response, storage):
        objects.download(request, response, storage)
        headers(response, obj)

def store(request, response, storage, data):
    bucket, key = request.params["bucket_name"], request.params["object_id"]
    if bucket not in storage.buckets:
        return refuse(response, HTTPStatus.NOT_FOUND, "NoSuchBucket")
    now = storage.objects.get(bucket, {}).get(key, {"generation": "0"})["generation"]
    if request.get_header("x-goog-if-generation-match", now) != now:
        return refuse(response, HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
    obj = objects._make_object_resource(request.base_url, bucket, key, "application/octet-stream", str(len(data)))
    storage.create_file(bucket, key, data, objects._checksums(data, obj))
    headers(response, obj)

def put(request, response, storage):
    data, query = request.data or b"", request.query
    if "partNumber" in query:
        parts[query["upload_id" if "upload_id" in query else "uploadId"][0]][int(query["partNumber"][0])] = data
        response["ETag"] = '"part"'
        return
    if source := request.get_header("x-goog-copy-source"):
        bucket, _, key = server.unquote(source).strip("/").partition("/")
        try:
            data = storage.get_file(bucket, key)
        except NotFound:
            return refuse(response, HTTPStatus.NOT_FOUND, "NoSuchKey")
    store(request, response, storage, data)

def post(request, response, storage):
    if "uploadId" in request.query:
        sent = parts.pop(request.query["uploadId"][0])
        store(request, response, storage, b"".join(sent[number] for number in sorted(sent)))
        answer = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
    else:
        parts[name := uuid.uuid4().hex] = {}
        answer = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
    response.write_file(answer, "application/xml")

def delete(request, response, storage):
    if "uploadId" in request.query:
        parts.pop(request.query["uploadId"][0], None)
    elif found(request, response, storage):
        storage.delete_file(request.params["bucket_name"], request.params["object_id"])

def ls(request, response, storage):
    prefix, delimiter = (request.query.get(name, [None])[0] for name in ("prefix", "delimiter"))
    if request.params["bucket_name"] not in storage.buckets:
        return refuse(response, HTTPStatus.NOT_FOUND, "NoSuchBucket")
    files, folders = storage.get_file_list(request.params["bucket_name"], prefix, delimiter)
    entries = [
        f"<Contents><Key>{escape(obj['name'])}</Key><LastModified>{obj['updated']}</LastModified>"
        f"<ETag>{escape(obj['etag'])}</ETag><Size>{obj['size']}</Size></Contents>"
        for obj in files
    ]
    entries += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders]
    response.write_file(f"<ListBucketResult>{''.join(entries)}</ListBucketResult>", "application/xml")

def close(response, whole=server.Response.close):
    if response._handler.command == "HEAD":
        length, response._content = len(response._content), ""
        send, response._handler.send_header = response._handler.send_header, lambda name, value: send(
            name, str(length) if name == "Content-Length" and response.status == 200 else value
        )
    whole(response)

server.Response.close = close
server.RequestHandler.do_HEAD = lambda handler: server.Router(handler).handle("HEAD")
one = {"GET": get, "HEAD": get, "PUT": put, "POST": post, "DELETE": delete}
key = r"^/(?P<bucket_name>[^/]+)/(?P<object_id>.+)$"
server.HANDLERS = ((r"^/(?P<bucket_name>[^/]+)/?$", {"GET": ls}), (key, one))
# Files are sent by the dozen and answered one by one, and by default five connections may wait.
http.server.HTTPServer.request_queue_size = 128
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
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
    from parsecrl.platform.storage import object_store

    monkeypatch.setenv(object_store.GCS_EMULATOR, gs_server.endpoint)
    object_store._client.cache_clear()
    yield f"gs://bucket/{tmp_path.name}"
    object_store._client.cache_clear()


@pytest.fixture(params=["s3", "gs"])
def store(request):
    """An address in either kind of store."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The package as pip would install it."""
    folder = tmp_path_factory.mktemp("site")
    wheel = packing.build_wheel(folder, packing.package_files())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of three phases, small."""
    from tests.platform.finished_run import write_run

    return write_run(tmp_path_factory.mktemp("storage") / "cheetah_tiny")


@pytest.fixture(scope="module")
def report(run_dir):
    from parsecrl.platform.reports import build_report

    return build_report(run_dir)
