"""What becomes of a job, told from what its head answers: no Ray runs here."""

import asyncio
import contextlib
import threading
import time

import pytest
import ray
from aiohttp import web

from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.submission import head, watching


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [("SUCCEEDED", 0, 0), ("STOPPED", None, 130), ("FAILED", 1, 1), ("FAILED", 2, 2), ("FAILED", -9, 1)],
)
def test_following_ends_with_the_exit_status_of_the_job(status, driver, code):
    details = {"type": "SUBMISSION", "status": status, "entrypoint": "", "driver_exit_code": driver}
    assert watching._exit_status(head.JobDetails(submission_id="a-1", **details)) == code


def test_a_job_that_never_ran_says_why():
    details = {"type": "SUBMISSION", "status": "FAILED", "entrypoint": "", "message": "runtime_env setup failed"}
    with pytest.raises(RunFailed, match=r"a-1 failed: runtime_env setup failed"):
        watching._exit_status(head.JobDetails(submission_id="a-1", **details))


class Answers:
    """A client of a head that answers with these details and logs, one pair after the other; exceptions are raised."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def get_job_info(self, job):
        details, self.log = next(self.answers)
        return self._given(details)

    def get_job_logs(self, job):
        return self._given(self.log)

    @staticmethod
    def _given(answer):
        if isinstance(answer, Exception):
            raise answer
        return answer


def details_of(status, code=None, message=""):
    return head.JobDetails(
        type="SUBMISSION", entrypoint="", status=status, driver_exit_code=code, message=message, submission_id="a-1"
    )


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(details_of("PENDING"), RuntimeError("no log")), (details_of("RUNNING"), "Ray\nrun folder: /x\n")], 0),
        ([(UserError("the head stalls"), UserError("too")), (details_of("RUNNING"), "run folder: /x\n")], 0),
        ([(details_of("SUCCEEDED", 0), "")], 0),
        ([(details_of("STOPPED"), "")], 130),
        ([(details_of("FAILED", -9), "")], 1),
        ([(details_of("FAILED", 2), "parsec: no bucket\n")], (UserError, "^no bucket$")),
        ([(details_of("FAILED", 1), "parsec: the disk is full\n")], (RunFailed, "^the disk is full$")),
        ([(details_of("FAILED", None, "runtime_env setup failed"), "")], (RunFailed, "runtime_env setup failed")),
    ],
)
def test_what_becomes_of_a_job_that_is_submitted(answers, expected):
    client = Answers(*answers)
    if isinstance(expected, int):
        assert watching.await_begin(client, "a-1") == expected
        return
    kind, words = expected
    with pytest.raises(kind, match=words):
        watching.await_begin(client, "a-1")


def test_following_outlasts_broken_and_silent_connections(monkeypatch):
    """The log is printed once, whatever becomes of the connections; the server stands for a head with a bad network."""
    monkeypatch.setattr(watching, "LOST_S", 1.0)
    lines, connections = ["one\n", "two\n", "three\n", "four\n"], []

    async def tail(request):
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        connections.append(time.monotonic())
        for line in lines[: len(connections) + 1]:
            await stream.send_str(line)
        if len(connections) == 1:
            await asyncio.sleep(1.5)  # longer than a head may be lost
            request.transport.abort()
        elif len(connections) == 2:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stream.receive(), 20)
        return stream

    async def details(request):
        status = "SUCCEEDED" if len(connections) > 2 else "RUNNING"
        return web.json_response({"type": "SUBMISSION", "submission_id": "a-1", "status": status, "entrypoint": ""})

    async def version(request):
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": ""})

    app = web.Application()
    app.add_routes([web.get("/api/version", version), web.get("/api/jobs/a-1", details)])
    app.add_routes([web.get("/api/jobs/a-1/logs/tail", tail)])
    with serving(app) as url:
        printed = []
        assert watching.follow(head.connect(url), "a-1", printed.append) == 0
    assert "".join(printed) == "".join(lines)
    assert len(connections) == 3


@contextlib.contextmanager
def serving(app):
    loop, runner = asyncio.new_event_loop(), web.AppRunner(app, shutdown_timeout=1)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start():
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return site._server.sockets[0].getsockname()[1]

    try:
        yield f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(), loop).result(20)}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
