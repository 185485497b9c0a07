"""Evaluation and videos of a run's agents, whichever are missing."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from parsecrl.platform.running.configs import env_of
from parsecrl.platform.running.summary import evaluated_episodes, write_summary
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.runs.user_code import causes_told
from parsecrl.platform.specs import Spec
from parsecrl.platform.storage import Location, write_atomically
from parsecrl.platform.terminal import StatusLine

VIDEO_SECONDS = 10.0


def wanted(spec: Spec) -> list[str]:
    """What the spec asks to be evaluated.

    Args:
        spec: Of one chain.

    Returns:
        "random", where it is asked for, and the names of phases.
    """
    return ["random"] * spec.evaluate.random + list(spec.evaluate.phases or [])


def evaluated_phases(folder: RunFolder) -> list[str]:
    """Of the wanted ones, those whose episodes are all in evaluation.csv, from the checkpoint that is now the best.

    Args:
        folder: Of the run.

    Returns:
        Names, in the order of `wanted`.
    """
    table = evaluated_episodes(folder)
    done = []
    for name in wanted(folder.spec):
        mark = folder.state(f"evaluation of {name}")
        current = {"checkpoint": checkpoint_of(folder, name), "episodes": folder.spec.evaluate.episodes}
        if mark == current and int((table["phase"] == name).sum()) == current["episodes"]:
            done.append(name)
    return done


def checkpoint_of(folder: RunFolder, name: str) -> str | None:
    """The checkpoint that is evaluated.

    Args:
        folder: Of the run.
        name: Of a phase, or "random".

    Returns:
        Its path in the run folder; None for "random", and for a phase without one.
    """
    return None if name == "random" else folder.state(name).get("checkpoint")


def _trial_folder(folder: RunFolder, checkpoint: str | None) -> Location:
    return folder.path if checkpoint is None else (folder.path / checkpoint).parent


def evaluate_agents(folder: RunFolder, line: StatusLine) -> None:
    """Evaluate what is not evaluated yet, into evaluation.csv and summary.json.

    Args:
        folder: Of the run; open.
        line: Says how far it is.

    Raises:
        RunFailed: An evaluation stopped.
    """
    from parsecrl.platform.evaluation.episodes import evaluate

    spec = folder.spec
    done = evaluated_phases(folder)
    waiting = [name for name in wanted(spec) if name not in done]
    for name in waiting:
        stored = checkpoint_of(folder, name)
        with causes_told(f"evaluation of {name}", _trial_folder(folder, stored) / "evaluation_error.txt"):
            rows = evaluate(
                "random" if stored is None else folder.path / stored,
                env_of(spec),
                episodes=spec.evaluate.episodes,
                seed=spec.seed,
                phase=name,
                num_workers=spec.resources.num_env_runners,
                num_gpus_per_worker=spec.resources.num_gpus_per_env_runner,
                progress=_show_progress(line, name),
                patience_s=spec.resources.no_progress_timeout_s,
                trust=folder.trusted_code,
            )
        line.show(f"evaluation of {name}: {len(rows)} episodes, median {rows.episode_return.median():.1f}", final=True)
        others = evaluated_episodes(folder)
        table = pd.concat([others[others["phase"] != name], rows]) if len(others) else rows
        if set(table["phase"]) <= set(wanted(spec)):
            table = table.sort_values("phase", key=lambda p: p.map(wanted(spec).index), kind="stable")
        write_atomically(folder.path / "evaluation.csv", table.to_csv(index=False))
        folder.record(f"evaluation of {name}", {"checkpoint": stored, "episodes": len(rows)})
        write_summary(folder)


def _show_progress(line: StatusLine, name: str) -> Callable[[int, int], None]:
    line.show(f"evaluation of {name}: starting")
    return lambda done, total: line.show(f"evaluation of {name}: {done} of {total} episodes")


def record_videos(folder: RunFolder, line: StatusLine) -> None:
    """Record the videos that the spec asks for and that are not there yet, each of a typical episode.

    Args:
        folder: Of the run; open.
        line: Says how far it is, and where this machine cannot draw.

    Raises:
        RunFailed: A video stopped.
    """
    if not folder.spec.evaluate.videos:
        return
    from parsecrl.platform.evaluation.episodes import default_batch_size
    from parsecrl.platform.evaluation.videos import record_video, typical_episode

    spec, table = folder.spec, evaluated_episodes(folder)
    batch_size = default_batch_size(spec.evaluate.episodes, max(spec.resources.num_env_runners, 1))
    for name in spec.evaluate.phases or []:
        stored, file = checkpoint_of(folder, name), folder.path / "videos" / f"{name}.mp4"
        rows, before = table[table["phase"] == name], folder.state(f"video of {name}")
        episode = typical_episode(rows) if len(rows) else 0
        if stored is None or (file.exists() and (before.get("checkpoint"), before.get("episode")) == (stored, episode)):
            continue
        line.show(f"video of {name}")
        trust, patience_s = folder.trusted_code, spec.resources.no_progress_timeout_s
        with causes_told(f"video of {name}", _trial_folder(folder, stored) / "video_error.txt"):
            made = record_video(
                folder.path / stored,
                env_of(spec),
                spec.seed,
                file,
                episode=episode,
                batch_size=batch_size,
                max_seconds=VIDEO_SECONDS,
                trust=trust,
                patience_s=patience_s,
            )
        if made is None:
            line.note("videos: none, because this machine cannot draw (see `parsec doctor`)")
            return
        known = rows.loc[rows["episode"] == episode, "episode_return"]
        returned = float(known.iloc[0]) if len(known) else made.episode_return  # the film may be cut short
        shown = {"episode": episode, "seed": made.seed, "episode_return": returned, "of": len(rows)}
        folder.record(f"video of {name}", {"checkpoint": stored, **shown})
