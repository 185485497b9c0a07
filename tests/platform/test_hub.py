"""Agents as folders in the hub's layout: made from a run, fetched from a folder and over HTTP, and acted with."""

import http.server
import json
import threading

import pytest
import yaml

import parsecrl
from parsecrl.platform.cli import main
from parsecrl.platform.errors import UserError
from parsecrl.platform.exchange import hub
from parsecrl.platform.storage.pretrained import pretrained_folder, pretrained_names
from tests.test_python_door import FULL, REACH, save


@pytest.fixture
def run(tmp_path):
    """A run folder whose phase was evaluated."""
    folder = tmp_path / "run"
    save(folder / "planet" / "trial_00000" / "checkpoint_000001", FULL, REACH)
    scores = {"episodes": 4, "median": 2.0, "q25": 1.0, "q75": 3.0, "iqm": 2.0, "iqm_low": 1.5, "iqm_high": 2.5}
    phase = {
        **{"algorithm": "planet", "controller": "full", "wall_time_s": 90.0, "planning_ms": 3.0},
        **{"checkpoint": "planet/trial_00000/checkpoint_000001", "checkpoint_metrics": {"env_steps": 1000}},
    }
    summary = {
        "name": "reach",
        "env": {"id": REACH, "action_repeat": 1},
        "spec": {"name": "reach", "env": {"id": REACH}, "phases": [{"name": "planet", "algorithm": "planet"}]},
        "machine": {"versions": {"torch": "2"}},
        "phases": {"random": {"controller": "random", **scores}, "planet": {**phase, **scores}},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub on the loopback interface, with the folders below `tmp_path/hub` as its repositories."""
    seen = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            body = self.answer()
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def answer(self):
            parts = self.path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                folder = tmp_path / "hub" / parts[2] / parts[3]
                names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
                return json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode() if names else None
            file = tmp_path / "hub" / parts[0] / parts[1] / parts[4]
            return file.read_bytes() if file.is_file() else None

        def log_message(self, *arguments):
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    monkeypatch.setenv(hub.ENDPOINT, f"http://127.0.0.1:{service.server_port}")
    yield seen
    service.shutdown()
    service.server_close()


def test_a_run_becomes_a_folder_with_a_card(run, tmp_path):
    hub.push(str(run), str(tmp_path / "agent"))
    card = json.loads((tmp_path / "agent" / "card.json").read_text())
    assert card["score"]["iqm"] == 2.0
    assert card["random_policy"]["iqm_high"] == 2.5
    assert (card["env_steps"], card["licence"], card["task"]["id"]) == (1000, "Apache-2.0", REACH)
    _, front, body = (tmp_path / "agent" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["metrics"][0]["value"] == 2.0
    assert "| Return | 2.0 (1.5 to 2.5), 4 episodes |" in body
    (spec,) = [block for block in body.split("```") if block.startswith("yaml\n")]
    assert yaml.safe_load(spec.removeprefix("yaml\n")) == card["spec"]
    agent = parsecrl.load_agent(tmp_path / "agent")
    obs = agent.observation_space.sample()
    assert agent.action_space.contains(agent.act(obs, agent.initial_state())[0])


def test_pull_brings_what_push_made(run, tmp_path, server):
    hub.push(str(run), str(tmp_path / "agent"))
    (tmp_path / "hub" / "me").mkdir(parents=True)
    hub.push(str(run), str(tmp_path / "hub" / "me" / "reach"))
    hub.pull(str(tmp_path / "agent"), str(tmp_path / "from_folder"))
    hub.pull("hf://me/reach@v1", str(tmp_path / "from_hub"))
    for name in hub.FILES:
        made = (tmp_path / "agent" / name).read_bytes()
        assert made == (tmp_path / "from_folder" / name).read_bytes() == (tmp_path / "from_hub" / name).read_bytes()
    assert server[0][0] == "/api/models/me/reach/revision/v1"
    assert all(token is None for _, token in server)


def test_the_hub_is_shown_the_token(run, tmp_path, server, monkeypatch):
    monkeypatch.setenv(hub.TOKEN, "secret")
    (tmp_path / "hub" / "me").mkdir(parents=True)
    hub.push(str(run), str(tmp_path / "hub" / "me" / "reach"))
    hub.pull("hf://me/reach", str(tmp_path / "from_hub"))
    assert {token for _, token in server} == {"Bearer secret"}


def test_mistakes_are_told_and_nothing_is_written(run, tmp_path, server, capsys):
    before = sorted(tmp_path.iterdir())
    for arguments, words in [
        (["pull", "hf://me/none", str(tmp_path / "x")], "hf://me/none is not there, or not for you (status 404)"),
        (["pull", "hf://nonsense", str(tmp_path / "x")], "must be named hf://OWNER/NAME"),
        (["pull", str(run), str(tmp_path / "x")], "holds no agent"),
        (["pull", str(run), str(run)], "exists; give another folder"),
        (["pull", str(run), str(tmp_path / "no" / "x")], "must lie in a folder that exists"),
        (["push", str(run), str(tmp_path / "x"), "--phase", "embed"], "(there are: planet), got --phase embed"),
        (["push", str(tmp_path), str(tmp_path / "x")], "must hold an evaluated agent (there are: none)"),
    ]:
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_hub_that_does_not_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(hub.ENDPOINT, "http://127.0.0.1:1")
    assert main(["pull", "hf://me/reach", str(tmp_path / "x")]) == 1
    assert "the hub does not answer at http://127.0.0.1:1/api/models/me/reach" in capsys.readouterr().err


@pytest.mark.parametrize("name", pretrained_names())
def test_a_pretrained_agent_is_whole_and_small(name):
    agent = parsecrl.load_agent(f"pretrained:{name}")
    obs = agent.observation_space.sample()
    assert agent.action_space.contains(agent.act(obs, agent.initial_state())[0])
    folder = pretrained_folder(f"pretrained:{name}")
    card = json.loads((folder / "card.json").read_text())
    assert card["score"]["iqm_low"] > card["random_policy"]["iqm_high"]
    assert card["task"]["id"] == agent.description["env"]["id"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4e6


def test_an_unknown_pretrained_agent_is_told():
    with pytest.raises(ValueError, match=r"pretrained: must be followed by one of .*pendulum.*, got 'nothing'"):
        parsecrl.load_agent("pretrained:nothing")


def spec_with(tmp_path, **keys):
    phase = {"name": "more", "algorithm": "planet", "start_from": "pretrained:pendulum", "keep_replay": False, **keys}
    spec = {"name": "s", "env": {"id": "Pendulum-v1", "action_repeat": 4}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**spec, "phases": [{"stop": {"env_steps": 2000}, **phase}]}))
    return parsecrl.load_spec(str(tmp_path / "s.yaml"))


def test_a_phase_starts_from_a_pretrained_agent(tmp_path):
    (phase,) = spec_with(tmp_path).phases
    own = parsecrl.load_agent("pretrained:pendulum").description["world_model"]
    assert phase.world_model.model_dump().items() >= own.items()  # inherited


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"keep_replay": True}, "keep_replay must be false with start_from: pretrained:pendulum"),
        ({"start_from": "pretrained:nothing"}, "must be followed by one of"),
        ({"world_model": {"hidden_size": 7}}, "world_model must equal that of 'pretrained:pendulum'"),
    ],
)
def test_what_a_pretrained_start_cannot_be(tmp_path, keys, words):
    with pytest.raises(UserError, match=words):
        spec_with(tmp_path, **keys)
