"""`parsec push` and `parsec pull`: agents as folders in the layout of the Hugging Face hub.

    README.md            the card: its front matter is YAML, as the hub reads
    card.json            the same facts
    agent.json           what the agent is
    agent.safetensors    its weights

`pull` speaks the hub's HTTP: GET /api/models/REPO/revision/REVISION, and GET /REPO/resolve/REVISION/FILE.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import yaml

from parsecrl.algorithms.checkpoints.agent import DESCRIPTION, WEIGHTS, load_agent, read_description
from parsecrl.algorithms.checkpoints.files import local_file
from parsecrl.platform.errors import RunFailed, UserError
from parsecrl.platform.runs.trust import check_layout
from parsecrl.platform.storage import location_of, read_json

CARD, README = "card.json", "README.md"
FILES = (README, CARD, DESCRIPTION, WEIGHTS)
HUB, ENDPOINT, TOKEN = "hf://", "HF_ENDPOINT", "HF_TOKEN"
DEFAULT_ENDPOINT = "https://huggingface.co"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
TIMEOUT_S = 60


def push(run: str, folder: str, phase: str | None = None) -> Path:
    """Make an agent's folder of a finished run.

    Args:
        run: The run folder, with summary.json.
        folder: New or empty; its parent exists.
        phase: Whose best agent; None: the last one that was evaluated.

    Returns:
        The folder.

    Raises:
        UserError: The run has no evaluated agent, or the folder holds something.
    """
    place = location_of(run)
    check_layout(place)
    summary = read_json(place / "summary.json")
    scored = [name for name, found in summary.get("phases", {}).items() if found.get("controller") and "iqm" in found]
    scored = [name for name in scored if name != "random"]
    if not scored or phase not in {None, *scored}:
        known = ", ".join(scored) or "none"
        raise UserError(
            f"{run} must hold an evaluated agent (there are: {known}), got --phase {phase}; finish the run first"
        )
    name = phase or scored[-1]
    checkpoint = place / summary["phases"][name]["checkpoint"]
    try:
        card = _card(summary, name, read_description(checkpoint))
    except ValueError as error:
        raise UserError(str(error)) from None
    with _new_folder(folder) as target:
        for file in (DESCRIPTION, WEIGHTS):
            with local_file(checkpoint, file) as found:
                shutil.copyfile(found, target / file)
        (target / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        (target / README).write_text(_readme(card), encoding="utf-8")
    return Path(folder)


def pull(source: str, folder: str) -> Path:
    """Copy an agent's folder here, and see that it is whole. Code that it names does not run.

    Args:
        source: hf://OWNER/NAME, with @REVISION where not main, or a folder.
        folder: New or empty; its parent exists.

    Returns:
        The folder.

    Raises:
        UserError: The source holds no agent, or the folder holds something.
        RunFailed: The hub does not answer.
    """
    with _new_folder(folder) as target:
        if source.startswith(HUB):
            _download(source, target)
        else:
            place = location_of(source)
            for name in FILES:
                if (place / name).is_file():
                    with local_file(place, name) as found:
                        shutil.copyfile(found, target / name)
        try:
            load_agent(target, trust=False)
        except ValueError as error:
            if "--trust" not in str(error):  # an agent of own code is whole as far as can be seen
                raise UserError(f"{source} holds no agent: {str(error).replace(str(target), source)}") from None
    return Path(folder)


class _new_folder:  # a context, as a function
    """A folder that appears under its name once it is whole."""

    def __init__(self, name: str):
        self.target = Path(name).expanduser().absolute()

    def __enter__(self) -> Path:
        target = self.target
        if target.exists() and (target.is_file() or any(target.iterdir())):
            raise UserError(f"{target} exists; give another folder, or delete it")
        if not target.parent.is_dir():
            raise UserError(f"{target} must lie in a folder that exists; make {target.parent} first")
        self.partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".parsec-"))
        return self.partial

    def __exit__(self, kind: Any, *rest: object) -> None:
        if kind is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        self.partial.chmod(0o755)
        if self.target.exists():
            self.target.rmdir()
        self.partial.rename(self.target)


def _card(summary: dict[str, Any], phase: str, description: dict[str, Any]) -> dict[str, Any]:
    found, chance = summary["phases"][phase], summary["phases"].get("random", {})
    scores = ("episodes", "median", "q25", "q75", "iqm", "iqm_low", "iqm_high", "planning_ms")
    return {
        "name": summary["name"],
        "task": summary["env"],
        "algorithm": found["algorithm"],
        "controller": description["controller"],
        "env_steps": found["checkpoint_metrics"].get("env_steps"),
        "score": {key: found[key] for key in scores},
        "random_policy": {key: chance[key] for key in ("iqm", "iqm_low", "iqm_high") if key in chance},
        "wall_time_s": round(found["wall_time_s"]),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "versions": summary["machine"]["versions"],
        "licence": metadata("parsec-rl")["License-Expression"] or "Apache-2.0",
        "command": "parsec run spec.yaml",
        "spec": {**summary["spec"], "phases": summary["spec"]["phases"][: _number(summary, phase) + 1]},
    }


def _number(summary: dict[str, Any], phase: str) -> int:
    return [one["name"] for one in summary["spec"]["phases"]].index(phase)


def _interval(score: dict[str, float]) -> str:
    return f"{score['iqm']:.1f} ({score['iqm_low']:.1f} to {score['iqm_high']:.1f})"


def _readme(card: dict[str, Any]) -> str:
    score, task = card["score"], card["task"]
    front = {
        "library_name": "parsec-rl",
        "license": str(card["licence"]).lower(),
        "pipeline_tag": "reinforcement-learning",
        "tags": ["reinforcement-learning", "model-based", "planning", str(task["id"])],
        "model-index": [
            {
                "name": card["name"],
                "results": [
                    {
                        "task": {"type": "reinforcement-learning"},
                        "dataset": {"name": task["id"], "type": task["id"]},
                        "metrics": [{"type": "episode_return_iqm", "value": round(score["iqm"], 1)}],
                    }
                ],
            }
        ],
    }
    rows = {
        "Task": f"{task['id']}, action repeat {task.get('action_repeat', 1)}",
        "Return": f"{_interval(score)}, {score['episodes']} episodes",
        "Algorithm": f"{card['algorithm']}, {card['controller']['kind']} controller",
        "Simulator steps": f"{card['env_steps']:,}",
        "Trained in": f"{card['wall_time_s'] / 60:.0f} minutes",
        "A plan takes": f"{score['planning_ms']:.0f} ms",
        "Date": card["date"],
        "Versions": ", ".join(f"{name} {version}" for name, version in card["versions"].items()),
        "Licence": card["licence"],
        "Command": f"`{card['command']}`",
    }
    if chance := card["random_policy"]:
        rows = {**dict(list(rows.items())[:2]), "Random policy": _interval(chance), **rows}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {card["name"]}

An agent of parsec-rl that plans in a learned world model.
Returns are interquartile means with a 95% interval.

| what | value |
|---|---|
{table}

```python
import parsecrl

agent = parsecrl.load_agent("this-folder")
state = agent.initial_state()
action, state = agent.act(obs, state)
```

The whole spec, for `spec.yaml`:

```yaml
{yaml.safe_dump(card["spec"], sort_keys=False).strip()}
```
"""


def _download(source: str, target: Path) -> None:
    name = source.removeprefix(HUB)
    if not REPOSITORY.fullmatch(name):
        raise UserError(f"an agent on the hub must be named {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION, got {source}")
    repository, _, revision = name.partition("@")
    endpoint, revision = os.environ.get(ENDPOINT, DEFAULT_ENDPOINT).rstrip("/"), revision or "main"
    answer = _get(f"{endpoint}/api/models/{repository}/revision/{urllib.parse.quote(revision, safe='')}", source)
    try:
        there = {entry["rfilename"] for entry in json.loads(answer)["siblings"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{endpoint} does not answer as the Hugging Face hub does; see ${ENDPOINT}") from None
    for file in FILES:
        if file in there:
            quoted = urllib.parse.quote(revision, safe="")
            (target / file).write_bytes(_get(f"{endpoint}/{repository}/resolve/{quoted}/{file}", source))


def _get(url: str, source: str) -> bytes:
    token = os.environ.get(TOKEN)
    request = urllib.request.Request(url)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")  # not to where files are stored
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        if error.code in {401, 403, 404}:
            raise UserError(f"{source} is not there, or not for you (status {error.code}); see ${TOKEN}") from None
        raise RunFailed(f"the hub answers {url} with status {error.code}; try again later") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise RunFailed(f"the hub does not answer at {url} ({reason}); see ${ENDPOINT}") from None
