"""What Tune wrote of a run's trials."""

import json
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def last_metrics(run: Path, phase: str) -> list[dict]:
    """`metrics` of each trial's last result."""
    files = sorted(run.glob(f"{phase}/*/result.json"))
    assert files
    return [json.loads(file.read_text().splitlines()[-1])["metrics"] for file in files]


def tensorboard_scalars(trial: Path) -> dict[str, float]:
    """The last value of each scalar in a trial's event files.

    A record: its length (8 bytes, little-endian), a checksum of it (4), the event, and a checksum of that (4).
    """
    scalars: dict[str, float] = {}
    for file in sorted(trial.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            scalars |= {value.tag: value.simple_value for value in event.summary.value}
            data = data[16 + length :]
    return scalars


def write_trial(folder: Path, settings: dict, rows: list[dict]) -> None:
    """A trial's folder as Tune leaves it: its config, and its results, numbered."""
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(settings))
    lines = [json.dumps({**row, "training_iteration": n, "done": n == len(rows)}) for n, row in enumerate(rows, 1)]
    (folder / "result.json").write_text("".join(f"{line}\n" for line in lines))
