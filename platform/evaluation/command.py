"""`parsec evaluate`: one checkpoint, judged before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parsecrl.algorithms.checkpoints.agent import DESCRIPTION, WEIGHTS, read_description
from parsecrl.algorithms.registry.lookup import RegistryError, algorithm_named, registered, usable
from parsecrl.algorithms.registry.messages import short
from parsecrl.algorithms.registry.user_functions import names_code
from parsecrl.algorithms.reporting.statistics import summarize
from parsecrl.platform.errors import UserError
from parsecrl.platform.evaluation.episodes import default_batch_size, evaluate
from parsecrl.platform.evaluation.videos import record_video, typical_episode
from parsecrl.platform.runs import trust
from parsecrl.platform.runs.user_code import causes_told
from parsecrl.platform.specs.spec import ResourcesSpec
from parsecrl.platform.storage import Location, location_of

PATIENCE_S = ResourcesSpec().no_progress_timeout_s


def evaluate_checkpoint(
    checkpoint: str | Location,
    episodes: int,
    controller: str | None,
    env_id: str | None,
    seed: int,
    video: str | None,
    trust: bool = False,
    predictions: str | None = None,
) -> None:
    """Print one line of statistics, as the table of a run has them, and record a video where one is asked for.

    Args:
        checkpoint: A checkpoint folder, or the folder of a run's phase, whose best checkpoint is taken.
        episodes: How many, at least 1.
        controller: The kind that the checkpoint must hold; None: any.
        env_id: Of another environment than the checkpoint's own.
        seed: Of episodes, planner and random numbers, at least 0.
        video: An .mp4 file in a folder that exists; None: no video.
        trust: Run code that the checkpoint names, though its run was made elsewhere.
        predictions: An .mp4 or .png file in a folder that exists, for what the world model predicts; None: none.

    Raises:
        UserError: Something cannot be evaluated.
        RunFailed: An episode did not end in time.
    """
    if episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {episodes}")
    for option, file, kinds in (("--video", video, (".mp4",)), ("--predictions", predictions, (".mp4", ".png"))):
        if file is not None and Path(file).suffix not in kinds:
            raise UserError(f"{option} must name an {' or '.join(kinds)} file, got {file}")
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise UserError(f"{option} must lie in a folder that exists, got {file}; make {Path(file).parent} first")
    folder = find_checkpoint(location_of(checkpoint))
    trusted = trust or made_here(folder)
    description = description_of(folder, trusted)
    controller_group = description.get("controller")
    kind = controller_group.get("kind", "full") if isinstance(controller_group, dict) else "full"
    if controller is not None and controller != kind:
        raise UserError(
            f"--controller {controller} asks for another controller than {folder} holds, which is {kind}; "
            f"leave --controller out, or give the checkpoint of a phase with controller.kind: {controller}"
        )
    env = description.get("env")
    if not isinstance(env, dict) or "id" not in env:
        raise UserError(
            f"{folder}/{DESCRIPTION} must name its environment as env: {{id, action_repeat}}, got {short(env)}; give a "
            f"whole checkpoint"
        )
    if env_id is not None:
        env = {key: value for key, value in env.items() if key in {"action_repeat", "max_episode_steps"}} | {
            "id": env_id
        }
    phase = folder.parent.parent.name or "checkpoint"
    with causes_told(f"evaluation of {folder}"):
        rows = evaluate(folder, env, episodes=episodes, seed=seed, phase=phase, trust=trusted, patience_s=PATIENCE_S)
    found = summarize(rows["episode_return"].to_numpy())
    print(
        f"{env['id']} | {kind} | {found.episodes} episodes"
        f" | median {found.median:.1f} [{found.q25:.1f}, {found.q75:.1f}]"
        f" | IQM {found.iqm:.1f} ({found.iqm_low:.1f} to {found.iqm_high:.1f})"
        f" | {rows['planning_ms'].median():.3g} ms a plan"
    )
    if video is not None:
        together = default_batch_size(episodes, 1)
        with causes_told(f"video of {folder}"):
            made = record_video(
                folder,
                env,
                seed,
                video,
                episode=typical_episode(rows),
                batch_size=together,
                trust=trusted,
                patience_s=PATIENCE_S,
            )
        told = "none, because this machine cannot draw (see `parsec doctor`)"
        if made is not None:
            total = f"return {made.episode_return:.1f}, seed {made.seed}"
            told = f"{made.file} (the episode nearest to the median: {total})"
        print(f"video: {told}")
    if predictions is not None:
        from parsecrl.platform.evaluation.prediction_command import show_predictions

        with causes_told(f"predictions of {folder}"):
            print(show_predictions(folder, env, seed, typical_episode(rows), Path(predictions), trusted, PATIENCE_S))


def made_here(checkpoint: Location) -> bool:
    """Whether this user made the run that a checkpoint lies in.

    Args:
        checkpoint: <run>/<phase>/<trial>/checkpoint_*.

    Returns:
        True where the record of the run has the mark of this user.
    """
    place = checkpoint.absolute() if isinstance(checkpoint, Path) else checkpoint
    return trust.is_own(trust.record_in(place.parent.parent.parent))


def find_checkpoint(path: Location) -> Location:
    """The checkpoint folder that is meant.

    Args:
        path: A checkpoint folder, or a phase's folder in a run.

    Returns:
        The folder itself, or the best one of the phase.

    Raises:
        UserError: There is none.
    """
    if (path / DESCRIPTION).is_file():
        return path
    if path.is_dir():
        from parsecrl.platform.runs.stored_checkpoints import best_checkpoint

        best = best_checkpoint(path)
        if best is not None:
            return best.path
        raise UserError(f"{path} holds no {DESCRIPTION}: give a checkpoint folder that parsec wrote")
    raise UserError(
        f"no checkpoint at {path}; give a folder with {DESCRIPTION}, such as a run's <phase>/<trial>/checkpoint_*"
    )


def description_of(folder: Location, trusted: bool) -> dict[str, Any]:
    """What a checkpoint says of its agent.

    Args:
        folder: Of the checkpoint.
        trusted: Whether code that it names may be imported.

    Returns:
        Its description.

    Raises:
        UserError: It is no checkpoint of an algorithm with agents, or names code that is not trusted.
    """
    try:
        description = read_description(folder)
    except (ValueError, OSError) as error:
        reason = f"{DESCRIPTION} is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{folder} cannot be read as a checkpoint: {reason}") from None
    algorithm = str(description.get("algorithm"))
    try:
        if names_code(algorithm) and not trusted:
            raise UserError(
                f"{folder} is a checkpoint of the algorithm {algorithm}, whose code would run on this machine; give "
                f"--trust if you trust who wrote the checkpoint"
            )
        if not (names_code(algorithm) or algorithm in registered()) or not algorithm_named(algorithm).acts:
            acting = ", ".join(entry.name for entry in usable() if entry.acts)
            raise UserError(
                f"{folder} is a checkpoint of the algorithm {algorithm!r}; parsec evaluate takes those of {acting}"
            )
    except RegistryError as error:
        raise UserError(f"the algorithm of {folder}: {error}") from None
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} holds no {WEIGHTS}; give a whole checkpoint")
    return description
