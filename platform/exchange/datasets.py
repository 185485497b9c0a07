"""`parsec export`: a run's episodes as a dataset, or an agent as a program of torch.export."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from parsecrl.algorithms.checkpoints.agent import DESCRIPTION, read_description
from parsecrl.algorithms.offline_data.episodes import DatasetError, OfflineEpisode
from parsecrl.algorithms.offline_data.minari_files import minari, write_minari
from parsecrl.algorithms.offline_data.parquet_files import write_parquet
from parsecrl.algorithms.registry.lookup import algorithm_named, registered
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.command import PATIENCE_S, description_of, find_checkpoint, made_here
from parsecrl.platform.evaluation.loading import load_agent
from parsecrl.platform.evaluation.policies import reader_of
from parsecrl.platform.runs.run_folder import STATE_FILE
from parsecrl.platform.runs.stored_checkpoints import best_checkpoint, stored_checkpoints
from parsecrl.platform.runs.trust import check_layout
from parsecrl.platform.specs.phases import parse_phase
from parsecrl.platform.storage import Location, location_of, read_json

PARQUET, PROGRAM = ".parquet", ".pt2"
SPLITS = ("train", "held_out")


def export(
    source: str, to: str, phase: str | None = None, episodes: int | None = None, seed: int = 0, trust: bool = False
) -> str:
    """Export what a run gathered, episodes of its agent, or the agent itself.

    Args:
        source: A run folder, the folder of its phase, or a checkpoint.
        to: FILE.parquet: RLlib's columns; FILE.pt2: the agent by torch.export; else a new folder: a Minari dataset.
        phase: Of a run folder; None: the last that has checkpoints.
        episodes: Play so many of the agent, as `parsec evaluate` does; None: the replay.
        seed: Of the episodes, at least 0.
        trust: As `load_agent` has it.

    Returns:
        A sentence of what was written.

    Raises:
        UserError: There is nothing to export, or the target is there already or cannot be written.
    """
    target = Path(to).expanduser()
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"--to {to} exists; give another name, or delete it")
    if not target.absolute().parent.is_dir():
        raise UserError(f"--to {to} must lie in a folder that exists; make {target.absolute().parent} first")
    folder = location_of(source)
    if (folder / STATE_FILE).is_file():
        check_layout(folder)
        folder = folder / _phase(folder, phase)
        if pixels := _pixel_data(folder):
            return _copy_pixels(pixels, target, episodes)
    if target.suffix == PROGRAM:
        return _export_program(folder, target, trust)
    if target.suffix != PARQUET:
        try:
            minari()
        except DatasetError as error:
            raise UserError(str(error)) from None
    found, about = _dataset(folder, episodes, seed, trust)
    about |= {
        "content": "replay" if episodes is None else f"episodes of the agent, seed {seed}",
        "version": version("parsec-rl"),
    }
    if target.suffix == PARQUET:
        write_parquet(target, found, about)
    else:
        task = about.get("env") or about.get("world") or {}
        task = str(task.get("id") or "task").rpartition("/")[2].rpartition("-v")[0] or "task"
        write_minari(target, f"parsecrl/{task}-v0", found, about)
    decisions = sum(len(episode.reward) for episode in found)
    return f"{target}: {len(found)} episodes, {decisions:,} decisions"


def _phase(run: Location, asked: str | None) -> str:
    spec = yaml.safe_load((run / "spec.yaml").read_text(encoding="utf-8"))
    names = [phase["name"] for phase in spec["phases"]]
    if asked is not None and asked not in names:
        raise UserError(f"--phase must be one of {', '.join(names)}, got {asked}")
    begun = [name for name in names if name in read_json(run / STATE_FILE)]
    if not begun:
        raise UserError(f"{run} holds no phase that has begun; run it first")
    return asked or begun[-1]


def _dataset(
    folder: Location, episodes: int | None, seed: int, trust: bool
) -> tuple[Sequence[OfflineEpisode], dict[str, Any]]:
    """Episodes, and what they are of."""
    if episodes is not None:
        from parsecrl.platform.evaluation.recording import record_episodes, reset_seeds

        checkpoint = folder if reader_of(folder) else find_checkpoint(folder)
        trusted = trust or made_here(checkpoint)
        if (checkpoint / DESCRIPTION).is_file():
            return record_episodes(checkpoint, None, episodes, seed, PATIENCE_S, trusted), _about(checkpoint)
        wrote = _algorithm_of(folder, checkpoint, trust)
        try:
            found, about = algorithm_named(wrote).played(checkpoint, reset_seeds(episodes, seed), trusted)
        except ValueError as error:
            raise UserError(str(error)) from None
        return found, {"algorithm": wrote, **about}
    checkpoint = folder
    if not ((folder / DESCRIPTION).is_file() or reader_of(folder)):
        best = best_checkpoint(folder)
        if best is None:
            raise UserError(f"{folder} holds no checkpoint; give a run folder, its phase, or a checkpoint")
        checkpoint = stored_checkpoints(folder, best.trial)[-1].path  # whose replay has all
    wrote = _algorithm_of(folder, checkpoint, trust)
    instead = "; give --episodes N to play the agent instead" if algorithm_named(wrote).acts else ""
    try:
        found, about = algorithm_named(wrote).gathered(checkpoint)
    except ValueError as error:
        raise UserError(f"{str(error).partition(';')[0]}{instead}") from None
    if not found:
        raise UserError(f"the replay of {checkpoint} is empty{instead}")
    return found, {**(_about(checkpoint) if (checkpoint / DESCRIPTION).is_file() else {"algorithm": wrote}), **about}


def _about(checkpoint: Location) -> dict[str, Any]:
    description = read_description(checkpoint)
    return {key: description.get(key) for key in ("algorithm", "env", "controller", "env_steps")}


def _algorithm_of(folder: Location, checkpoint: Location, trust: bool) -> str:
    """The algorithm of a checkpoint: its own word, or that of the run's spec on a phase without agents."""
    if (reader := reader_of(checkpoint)) is not None:
        return reader.name
    if not (checkpoint / DESCRIPTION).is_file() and (stated := _keys_of(folder).get("algorithm")) in registered():
        return str(stated)  # module:NAME of a run that may be a stranger's is not imported
    return str(description_of(checkpoint, trust or made_here(checkpoint)).get("algorithm"))


def _keys_of(phase: Location) -> dict[str, Any]:
    """What the run's spec says of the phase in a folder."""
    if not (phase.parent / "spec.yaml").is_file():
        return {}
    spec: Any = yaml.safe_load((phase.parent / "spec.yaml").read_text(encoding="utf-8"))
    return next(found for found in spec["phases"] if found["name"] == phase.name)


def _export_program(folder: Location, target: Path, trust: bool) -> str:
    from parsecrl.algorithms.controllers.exporting import export_policy

    try:
        agent = load_agent(folder, trust=trust)
        difference = export_policy(agent, target)
    except ValueError as error:
        raise UserError(str(error)) from None
    return f"{target}: one decision as a program of torch.export; largest difference from the agent {difference:.2g}"


def _pixel_data(phase: Location) -> Path | None:
    """The folder of the episodes of pictures that the trials of a phase are trained on."""
    if not isinstance(phase, Path):
        return None
    keys = _keys_of(phase)
    if keys.get("algorithm") not in registered():  # module:NAME of a run that may be a stranger's is not imported
        return None
    stated = parse_phase(keys)
    collected = stated.entry.episodes(stated.entry.resolve(stated, f"{phase}_data"))
    return Path(collected.folder) if collected else None


def _copy_pixels(source: Path, target: Path, episodes: int | None) -> str:
    """Pictures lie in Minari's format already."""
    if target.suffix in {PARQUET, PROGRAM} or episodes is not None:
        raise UserError(f"episodes of pictures export to Minari alone, got --to {target}; give a folder, no --episodes")
    splits = [split for split in SPLITS if (source / split).is_dir()]
    if not splits:
        raise UserError(f"{source} holds no episodes; run the phase first")
    for split in splits:
        shutil.copytree(source / split, target / split)
    return f"{target}: {' and '.join(splits)}, each a Minari dataset"
