"""An agent behind HTTP: sessions, batches, refusals, and what a client does to others."""

import http.client
import json
import socket
import threading
import time

import numpy as np
import pytest

import parsecrl
from parsecrl.platform.cli import main
from parsecrl.platform.exchange.limits import Limits
from parsecrl.platform.exchange.sessions import SessionBusy, SessionGone, Sessions, SessionsFull
from tests.test_python_door import FULL, REACH, save

pytest.importorskip("fastapi")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


# Sessions.


def test_a_silent_session_is_forgotten(clock):
    sessions = Sessions(2, 10.0, clock)
    old = sessions.begin({}, 0)
    clock.now = 6.0
    new = sessions.begin({}, 1)
    assert len(sessions) == 2
    with pytest.raises(SessionsFull, match="all 2 sessions are in use"):
        sessions.begin({}, 2)
    clock.now = 11.0
    assert len(sessions) == 1
    with pytest.raises(SessionGone, match="10 s passed without a decision"), sessions.taken(old):
        pass
    with sessions.taken(new) as session:
        assert session.seed == 1
    clock.now = 20.0  # 9 s after the last decision
    with sessions.taken(new):
        pass


def test_a_session_makes_one_decision_at_a_time_and_is_not_forgotten_meanwhile(clock):
    sessions = Sessions(1, 10.0, clock)
    name = sessions.begin({}, 0)
    with sessions.taken(name):
        clock.now = 100.0
        assert len(sessions) == 1
        with pytest.raises(SessionBusy), sessions.taken(name):
            pass
    sessions.end(name)
    with pytest.raises(SessionGone):
        sessions.end(name)


def test_names_of_sessions_cannot_be_guessed(clock):
    sessions = Sessions(50, 10.0, clock)
    names = {sessions.begin({}, 0) for _ in range(50)}
    assert len(names) == 50
    assert min(map(len, names)) >= 22  # 128 bits


# Refusals of the command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("served") / "agent", {**FULL, "warm_start": True}, REACH)


def test_mistakes_of_the_command_line(folder, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        (tmp_path / "empty").write_text("\n")
        for arguments, words in [
            ([str(tmp_path)], "holds no agent.json"),
            ([str(folder), "--port", port], f"port {port} of 127.0.0.1 cannot be had"),
            ([str(folder), "--port", "70000"], "--port must lie in 0 to 65535, got 70000"),
            ([str(folder), "--max-waiting", "0"], "--max-waiting must be above 0, got 0"),
            ([str(folder), "--port", "0", "--token-file", str(tmp_path / "empty")], "must hold one token"),
        ]:
            assert main(["serve", *arguments]) == 2
            assert words in capsys.readouterr().err


# The service.


class Client:
    """Requests to a service."""

    def __init__(self, service):
        self.service = service

    def __call__(self, method, path, body=None, token=None, raw=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=60)
        shown = self.service.token if token is None else token
        headers = {"Authorization": f"Bearer {shown}", "Content-Type": "application/json"}
        connection.request(method, path, raw if raw is not None else body and json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        try:
            return answer.status, json.loads(text or b"null")
        except ValueError:
            return answer.status, text.decode()

    def begin(self, seed=0):
        status, answer = self("POST", "/sessions", {"seed": seed})
        assert status == 201
        return f"/sessions/{answer['session']}"


@pytest.fixture(scope="module")
def client(ray_runtime, folder, tmp_path_factory):
    from parsecrl.platform.exchange.serving import Service

    token_file = tmp_path_factory.mktemp("token") / "token"
    limits = Limits(max_batch_size=4, max_waiting=6, max_sessions=24)
    with Service(str(folder), 0, str(token_file), limits) as service:
        assert token_file.stat().st_mode & 0o777 == 0o600
        yield Client(service)


def seen(agent, count, seed=0):
    agent.observation_space.seed(seed)
    return [agent.observation_space.sample() for _ in range(count)]


def plain(obs):
    return {key: np.asarray(value).tolist() for key, value in obs.items()} if isinstance(obs, dict) else obs.tolist()


@pytest.mark.ray
def test_concurrent_clients_get_the_actions_of_acting_alone(client, folder):
    found = {}

    def play(seed):
        session, actions = client.begin(seed), []
        for obs in seen(parsecrl.load_agent(folder), 4, seed):
            while (answer := client("POST", f"{session}/act", {"observation": plain(obs)}))[0] == 503:
                time.sleep(0.05)
            assert answer[0] == 200
            actions.append(answer[1]["action"])
        found[seed] = actions

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(8):
        agent = parsecrl.load_agent(folder, seed=seed)
        state = agent.initial_state()
        for obs, action in zip(seen(agent, 4, seed), found[seed], strict=True):
            expected, state = agent.act(obs, state)
            assert np.allclose(action, expected, atol=1e-4)
    _, text = client("GET", "/metrics")
    assert 'parsec_serve_requests_total{status="200"} 32.0' in text
    assert "parsec_serve_batch_size_count" in text


@pytest.mark.ray
def test_first_forgets_the_episode_before(client, folder):
    agent, session = parsecrl.load_agent(folder), client.begin()
    obs = [plain(one) for one in seen(agent, 2)]
    answers = [
        client("POST", f"{session}/act", {"observation": one, "first": first})[1]
        for one, first in [(obs[0], False), (obs[1], False), (obs[0], True)]
    ]
    assert answers[0]["action"] == pytest.approx(answers[2]["action"], abs=1e-4)
    assert [answer["decision"] for answer in answers] == [0, 1, 2]


@pytest.mark.ray
def test_a_bad_request_is_told_in_a_sentence_and_changes_nothing(client, folder):
    agent, session = parsecrl.load_agent(folder), client.begin()
    for body, words in [
        ({"observation": 1}, "obs"),
        ({"first": True}, "observation: Field required"),
        ({"x": 1}, "observation"),
    ]:
        status, answer = client("POST", f"{session}/act", body)
        assert (status, answer.keys()) == (400, {"error"})
        assert answer["error"].startswith(words)
        assert "\n" not in answer["error"]
    assert client("POST", f"{session}/act", raw=b"{nope")[0] == 400
    assert client("POST", "/sessions", {"seed": -1})[0] == 400
    obs = seen(agent, 1)[0]
    status, answer = client("POST", f"{session}/act", {"observation": plain(obs)})
    assert (status, answer["decision"]) == (200, 0)
    assert np.allclose(answer["action"], agent.act(obs, agent.initial_state())[0], atol=1e-4)


@pytest.mark.ray
def test_who_may_and_what_is_there(client):
    assert client("GET", "/health", token="none") == (200, {"status": "ok"})
    for method, path in [("GET", "/agent"), ("GET", "/metrics"), ("POST", "/sessions"), ("POST", "/sessions/x/act")]:
        assert client(method, path, token="none")[0] == 401
    status, answer = client("GET", "/agent")
    assert (status, answer["env"]["id"]) == (200, REACH)
    assert client("POST", "/sessions/x/act", {"observation": 0})[0] == 404
    assert client("GET", "/nowhere")[0] == 404
    _, schema = client("GET", "/openapi.json")
    assert "/sessions/{session}/act" in schema["paths"]
    session = client.begin()
    assert client("DELETE", session)[0] == 204
    assert client("DELETE", session)[0] == 404


@pytest.mark.ray
def test_beyond_capacity_requests_are_refused_and_all_others_served(client, folder):
    obs = plain(seen(parsecrl.load_agent(folder), 1)[0])
    sessions = [client.begin() for _ in range(12)]
    statuses = []

    def ask(session):
        for _ in range(4):
            statuses.append(client("POST", f"{session}/act", {"observation": obs})[0])

    threads = [threading.Thread(target=ask, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 4
    for session in sessions:
        assert client("DELETE", session)[0] == 204


@pytest.mark.ray
def test_there_are_only_so_many_sessions(client):
    begun = []
    while (answer := client("POST", "/sessions", {}))[0] == 201:
        begun.append(answer[1]["session"])
    assert answer[0] == 503
    assert answer[1]["error"].startswith("all 24 sessions are in use")
    for name in begun:
        client("DELETE", f"/sessions/{name}")


@pytest.mark.ray
def test_a_client_that_goes_away_leaves_its_belief_and_the_others_alone(client, folder):
    agent, session = parsecrl.load_agent(folder), client.begin()
    obs = seen(agent, 1)[0]
    body = json.dumps({"observation": plain(obs)}).encode()
    head = (
        f"POST {session}/act HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.service.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", client.service.port)) as gone:
        gone.sendall(head + body[:5])  # and never the rest
    deadline = time.monotonic() + 30
    while (answer := client("POST", f"{session}/act", {"observation": plain(obs)}))[0] == 409:
        assert time.monotonic() < deadline
    assert (answer[0], answer[1]["decision"]) == (200, 0)
    assert np.allclose(answer[1]["action"], agent.act(obs, agent.initial_state())[0], atol=1e-4)
