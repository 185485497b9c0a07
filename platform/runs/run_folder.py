"""The folder of a run: who may write into it, what it was started with, how far it is.

    spec.yaml  state.json  made_by.json  <phase>/ (Tune's experiment)  evaluation.csv  summary.json  videos/  report/
    own_code.json  own_code/ (wheels), where code came by --code

It lies on disk or in an object store. Every file of ours is written whole or not at all, so that a kill -9 at any
moment leaves a folder that the same command continues.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from parsecrl.algorithms.registry.messages import short
from parsecrl.platform.errors import StorageUnreachable, UserError
from parsecrl.platform.runs import code_record, trust
from parsecrl.platform.runs.stored_checkpoints import METRICS
from parsecrl.platform.specs import Phase, Spec, differences, dump, parse_spec
from parsecrl.platform.specs.spec import NAME
from parsecrl.platform.storage import Location, lock_of, read_json, writable_storage, write_atomically

STATE_FILE = "state.json"
CHAINS_FILE = "chains.json"  # of a run with seeds or variants: which chains there are, in the folder CHAINS
POOLED_FILE = "pooled.json"  # in a folder of tables from several runs, made by `parsec report`
RUNNING, FINISHED, FAILED = "running", "finished", "failed"  # the status of a phase
CHANGEABLE = re.compile(  # when continuing
    r"(phases\.[^.]+\.(stop|checkpoint_every)|evaluate|loggers|runtime|resources|seeds|variants)(\.|$)"
)


class RunFolder:
    """An open run folder, held by one process at a time.

    Args:
        path: On disk or in an object store.
        spec: Of the run.
        trust: Continue a run whoever made it.
        new_code: Continue a run with other code than before.
    """

    def __init__(self, path: Location, spec: Spec, trust: bool = False, new_code: bool = False):
        self.path = path
        self.spec = spec
        self.trust = trust  # continue it whoever made it
        self.new_code = new_code  # continue it with other code than before
        self._lock = lock_of(path)

    @classmethod
    def choose(
        cls,
        spec: Spec,
        storage: str | Location,
        name: str | None = None,
        fresh: bool = False,
        trust: bool = False,
        new_code: bool = False,
    ) -> RunFolder:
        """The folder to run a spec in: new, or that of a run with the same spec. Makes nothing yet.

        Args:
            spec: Of the run.
            storage: A folder, or an address in an object store.
            name: Of the run in it; None: the spec's.
            fresh: Take a new folder (name-2, ...) where there is one of the name.
            trust: Continue a run whoever made it.
            new_code: Continue a run with other code than before.

        Returns:
            The folder, not open yet.

        Raises:
            UserError: The storage cannot be written, or the folder is another run's, maker's or process's.
        """
        name = name or spec.name
        check_name(name)
        root = writable_storage(storage)
        path = root / name
        if fresh and path.exists():
            path = next(p for p in (root / f"{name}-{n}" for n in itertools.count(2)) if not p.exists())
        folder = cls(path, spec, trust, new_code)
        folder._check()
        folder._lock.check()  # say now that another process has it, not after Ray has started
        return folder

    @property
    def is_new(self) -> bool:
        """Whether no run has begun in the folder."""
        return not (self.path / "spec.yaml").exists()

    @property
    def is_own(self) -> bool:
        """Whether it was made by this user, so that what its spec names may be run."""
        return trust.is_own(trust.record_in(self.path))

    @property
    def trusted_code(self) -> bool | set[str]:
        """The code that its checkpoints may name: any of one's own or a trusted run, else what the spec names."""
        return self.trust or self.is_own or set(_strings(self.spec.model_dump()))

    def _check(self) -> None:
        """Raise UserError unless the folder is free, or holds a run that this spec may continue."""
        if self.is_new:
            if self.path.exists() and (not self.path.is_dir() or any(map(_is_foreign, self.path.iterdir()))):
                raise UserError(f"{self.path} exists and is no run folder; give another --name or --storage")
            return
        trust.check_layout(self.path)
        if (self.path / POOLED_FILE).exists():
            raise UserError(
                f"{self.path} holds tables of several runs, and is no run to go on with; give another --name"
            )
        try:
            old = yaml.safe_load((self.path / "spec.yaml").read_text(encoding="utf-8"))
            # Read as a spec again, so that a key that came later has its default instead of being a difference.
            old = yaml.safe_load(dump(parse_spec(old, str(self.path / "spec.yaml"))))
            changed = differences(old, yaml.safe_load(dump(self.spec)))
        except StorageUnreachable:
            raise
        except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
            raise UserError(
                f"{self.path}/spec.yaml cannot be read as a spec; give another --name, or --fresh for a new folder"
            ) from None
        kept = [
            f"{path} was {short(before)}, is {short(now)}"
            for path, before, now in changed
            if not CHANGEABLE.match(path) and path != "name" and not self._is_ahead(path)
        ]
        if kept:
            raise UserError(
                f"{self.path} was started with another spec ({'; '.join(kept)}); "
                f"give the same values, another --name, or --fresh for a new folder"
            )
        if not self.new_code:
            code_record.check_unchanged(self.path)
        self._check_maker()

    def _check_maker(self) -> None:
        """Raise UserError where continuing would unpickle what somebody else stored."""
        begun = [
            phase for phase in self.spec.phases if not self.is_finished(phase) and (self.path / phase.name).exists()
        ]
        if begun and not self.trust and not self.is_own:
            record = trust.record_in(self.path)
            unsigned = "was begun without a key" if trust.is_unsigned(record) else "was not made here"
            raise UserError(
                f"{self.path} {unsigned} (it says: by {trust.maker(record)}), and continuing its phase "
                f"{begun[0].name} would unpickle files in it, which can run any code; give --trust if you trust all "
                f"who could write it, or "
                f"--fresh for a new folder"
            )

    def _is_ahead(self, path: str) -> bool:
        """Whether a dotted path of the spec concerns a phase that has not begun, which may still be planned anew."""
        keys = path.split(".")
        return len(keys) > 2 and keys[0] == "phases" and not self.state(keys[1])

    def open(self) -> None:
        """Make the folder, lock it for this process, and store the spec."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the run folder {self.path} cannot be written ({error.strerror or error}); give another --storage"
            ) from None
        self._lock.take()
        try:
            self._write_spec()
        except BaseException:
            self._lock.release()
            raise

    def _write_spec(self) -> None:
        self._check()  # again: it may have changed before the lock was ours
        if (self.is_new or self.trust) and not self.is_own:
            write_atomically(self.path / trust.RECORD, json.dumps(trust.new_record(), indent=1))
        code_record.write(self.path)
        text = dump(self.spec)
        file = self.path / "spec.yaml"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_atomically(file, text)

    def check_lock(self) -> None:
        """Raise RunFailed when another process has taken the folder over, as it may in an object store."""
        self._lock.still_held()

    def close(self) -> None:
        """Let other processes have the folder."""
        self._lock.release()

    def state(self, phase: str) -> dict[str, Any]:
        """What is recorded of a phase.

        Args:
            phase: Its name.

        Returns:
            status (running, finished, failed), stop, start_from (the checkpoint that its trials began with, where it
            has one), and once it ended its outcome; empty before it began.
        """
        return self.states().get(phase, {})

    def is_finished(self, phase: Phase) -> bool:
        """Whether the phase ended under the stop conditions that the spec has now, and still has its checkpoint."""
        state = self.state(phase.name)
        if state.get("status") != FINISHED or state.get("stop") != phase.stop.conditions:
            return False
        return (self.path / state["checkpoint"] / METRICS).exists()

    def record(self, phase: str, state: dict[str, Any]) -> None:
        """Write down the state of a phase, or of what was made of it. Raises RunFailed once another has the folder."""
        self._lock.confirm()
        write_atomically(self.path / STATE_FILE, json.dumps({**self.states(), phase: state}, indent=1))

    def states(self) -> dict[str, dict[str, Any]]:
        """All that is recorded, by the name of a phase or of what was made of it."""
        return read_json(self.path / STATE_FILE)


def check_name(name: str) -> None:
    """See that a run can have a name, which its folder and its job get.

    Args:
        name: Of the run.

    Raises:
        UserError: It is too long, or has other characters than letters, digits, -, _ and dots.
    """
    if not re.fullmatch(NAME, name):
        raise UserError(
            f"--name must be 1 to 100 letters, digits, -, _ and ., the first a letter or a digit, got {short(name)} of "
            f"{len(name)} characters; give another one"
        )


def _is_foreign(entry: Location) -> bool:
    """Whether a file is none that a run writes before its spec: locks, the record, and what a kill left of them."""
    return entry.name not in {trust.RECORD, code_record.FILE, code_record.FOLDER} and not entry.name.startswith(".")


def _strings(data: Any) -> Iterator[str]:
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _strings(value)
    elif isinstance(data, str):
        yield data
