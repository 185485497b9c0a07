"""What is used of Tune without a public name, with the reason beside each, as in `ray_private`.

It may change with any version of Ray: after an update look here first. Import it after `quiet_ray`, as Ray itself.
"""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from ray import cloudpickle, tune
from ray.train._internal.storage import StorageContext, _FilesystemSyncer, get_fs_and_path
from ray.tune.experiment import Trial
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders
from ray.tune.utils.serialization import TuneFunctionEncoder

SETTINGS = "_Trial__unresolved_config"  # in a stored trial


def storage_path(trainable: tune.Trainable) -> PurePosixPath | None:
    """Where Tune stores a trial. `tune.get_context` knows it in function trainables alone.

    Args:
        trainable: Of the trial.

    Returns:
        A path on Tune's file system; None outside of Tune.
    """
    storage = trainable._storage
    return None if storage is None else PurePosixPath(storage.trial_fs_path)


def restore_tuner(
    path: str, reopened: bool, stop: Any, callbacks: list[tune.Callback], search: Any, scheduler: Any, **options: Any
) -> tune.Tuner:
    """The tuner of a sweep, of which what failed and what did not end goes on; if it is reopened, what ended too.

    The public arguments of `Tuner.restore` cannot continue trials that ended, and keep the old rule to stop and the old
    callbacks, which hold objects of the process before.

    Args:
        path: Of the experiment, as Tune takes it.
        reopened: Whether trials that ended go on too.
        stop: The rule to stop, in place of the old one.
        callbacks: In place of the old ones.
        search: The search algorithm, in place of the old one.
        scheduler: In place of the old one.
        options: Others of `Tuner.restore`.

    Returns:
        The tuner.
    """
    kinds: Any = tune.ResumeConfig.ResumeType  # Ray annotates the fields as str
    finished = kinds.RESUME if reopened else kinds.SKIP
    how = tune.ResumeConfig(unfinished=kinds.RESUME, errored=kinds.RESUME, finished=finished)
    tuner = tune.Tuner.restore(path, _resume_config=how, **options)
    restored = tuner._local_tuner.get_run_config()  # type: ignore[union-attr]  # Ray client mode has none
    restored.stop, restored.callbacks = stop, callbacks
    configured = tuner._local_tuner._tune_config  # type: ignore[union-attr]  # as above
    configured.search_alg, configured.scheduler = search, scheduler
    return tuner


def save_now(controller: Any) -> None:
    """Save a sweep's state at once. Tune saves every few seconds, and has no call for schedulers to ask for it.

    Args:
        controller: As Tune gives it to a scheduler.
    """
    getattr(controller, "_tune_controller", controller).checkpoint(force=True, wait=True)


@contextmanager
def stored_by(store: Callable[[str, str, Any], None]) -> Iterator[None]:
    """Within it, Tune's driver stores its files by another function. Tune writes over the stored ones in place.

    Args:
        store: Takes the driver's folder, the experiment's path and the file system; called in a thread.

    Yields:
        Nothing.
    """
    before = _FilesystemSyncer._sync_up_command

    def command(syncer: Any, local_path: str, uri: str, exclude: Any = None) -> tuple[Any, dict[str, Any]]:
        return store, {"source": local_path, "path": uri, "filesystem": syncer.storage_filesystem}

    _FilesystemSyncer._sync_up_command = command  # type: ignore[method-assign]  # Tune makes its syncer itself
    try:
        yield
    finally:
        _FilesystemSyncer._sync_up_command = before  # type: ignore[method-assign]  # likewise


@contextmanager
def staged_apart() -> Iterator[None]:
    """Within it, each experiment of Tune's stages its files in a folder of its own.

    Tune names that folder by the second and the experiment. Two chains of a run, or two jobs on a cluster, can begin in
    the same second: each would store the other's trials too, and one state in place of the other.

    Yields:
        Nothing.
    """
    before = StorageContext.__init__

    def made(storage: Any, *arguments: Any, **options: Any) -> None:
        before(storage, *arguments, **options)
        storage._timestamp += f"-{secrets.token_hex(8)}"

    StorageContext.__init__ = made  # type: ignore[method-assign]  # Tune makes its contexts itself
    try:
        yield
    finally:
        StorageContext.__init__ = before  # type: ignore[method-assign]  # likewise


def keep_searched(trial: Trial, searched: Iterable[str]) -> None:
    """Have a trial's changed settings saved. Tune saves those that the trial began with.

    Args:
        trial: Whose config was changed.
        searched: Dotted keys.
    """
    for key in searched:
        *groups, last = key.split(".")
        _at(getattr(trial, SETTINGS), groups)[last] = _at(trial.config, groups)[last]
    trial.invalidate_json_state()


@contextmanager
def failures_judged(is_lasting: Callable[[Trial, Exception | None], bool]) -> Iterator[None]:
    """Within it, a trial does not start again after an error that lasts, however often it may fail.

    Tune's callbacks hear of an error after Tune has decided, and its only rule counts failures.

    Args:
        is_lasting: Whether a trial's error would come again; the error may be None.

    Yields:
        Nothing.
    """
    counted = Trial.handle_error

    def judged(trial: Trial, error: Exception | None = None) -> None:
        counted(trial, error)
        if is_lasting(trial, error):
            trial.run_metadata.num_failures = max(trial.run_metadata.num_failures, trial.max_failures + 1)

    Trial.handle_error = judged  # type: ignore[method-assign, assignment]  # Tune makes its trials itself
    try:
        yield
    finally:
        Trial.handle_error = counted  # type: ignore[method-assign]  # likewise


def updated_state(state: str, space: dict[str, Any], searched: Iterable[str]) -> str:
    """Tune's state of an experiment, whose trials go on with the settings of this process.

    Tune would restore the settings that trials began with, and the rule to stop that they had. Where the trials are
    stored it corrects itself.

    Args:
        state: The text of an experiment_state-*.json.
        space: The param_space of the restored tuner.
        searched: The keys of its search, dotted: what trials have there, they keep.

    Returns:
        The text of the file.
    """
    stored = json.loads(state)
    stored["runner_data"].pop("_stopper", None)  # the restored tuner brings its own
    for row in stored["trial_data"]:
        trial = json.loads(row[0])
        settings = _settings(space, searched, trial[SETTINGS])
        trial[SETTINGS] = json.loads(json.dumps(settings, cls=TuneFunctionEncoder))
        row[0] = json.dumps(trial)
    return json.dumps(stored)


def updated_search(
    state: bytes, space: dict[str, Any], searched: Iterable[str], path: str, filesystem: Any = None
) -> bytes:
    """The same of the pickled state of a search by variants, from which come the trials that have not begun.

    Args:
        state: The bytes of a basic-variant-state-*.json.
        space: The param_space of the restored tuner.
        searched: The keys of its search, dotted: what variants have there, they keep.
        path: Where the experiments are stored now, as `RunConfig` takes it.
        filesystem: As `RunConfig` takes it.

    Returns:
        The bytes of the file.
    """
    search = cloudpickle.loads(state)
    place = get_fs_and_path(path, filesystem)
    for iterator in search["_iterators"]:
        made = list(iterator.variants.iterable) if iterator.variants else []
        for experiment in (iterator.unresolved_spec, *(variant for _, variant in made)):
            kept = () if experiment is iterator.unresolved_spec else searched
            experiment["config"] = _settings(space, kept, experiment["config"])
            storage = experiment["storage"] = copy.copy(experiment["storage"])
            storage.storage_filesystem, storage.storage_fs_path = place
    return cloudpickle.dumps(search)


def updated_generator(state: bytes, space: dict[str, Any], path: str, filesystem: Any = None) -> bytes:
    """The same of the pickled state of a search that draws each trial when its turn comes.

    Args:
        state: The bytes of a search_gen_state-*.json.
        space: The param_space of the restored tuner.
        path: As `updated_search` takes it.
        filesystem: As `updated_search` takes it.

    Returns:
        The bytes of the file.
    """
    search = cloudpickle.loads(state)
    spec = search["experiment"].spec
    spec["config"] = _settings(space, (), {})
    storage = spec["storage"] = copy.copy(spec["storage"])
    storage.storage_filesystem, storage.storage_fs_path = get_fs_and_path(path, filesystem)
    return cloudpickle.dumps(search)


def _settings(space: dict[str, Any], kept: Iterable[str], before: dict[str, Any]) -> dict[str, Any]:
    """The space as Tune stores it: with placeholders for all that is no plain value, by the place where it is."""
    settings = _copied(space)
    for key in kept:
        *groups, last = key.split(".")
        _at(settings, groups)[last] = _at(before, groups)[last]
    return inject_placeholders(settings, create_resolvers_map())


def _at(tree: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def _copied(space: Any) -> Any:
    """A copy in which the dicts, and the lists of a grid, are copied too."""
    if isinstance(space, dict):
        return {key: _copied(value) for key, value in space.items()}
    return list(space) if isinstance(space, list) else space
