"""A run in an object store, read as a local one: what a report needs of it is copied here first, the page sent back."""

from __future__ import annotations

import fnmatch
import tempfile
from pathlib import Path

from parsecrl.platform.storage import RemotePath, download, in_parallel, upload

# Of a run folder. Not the replay buffer, weights or RLlib's own files, which make up nearly all of it.
WANTED = (
    *("made_by.json", "spec.yaml", "state.json", "pooled.json", "summary.json", "evaluation.csv"),
    *("videos/*.mp4", "analysis/*/*.csv"),
    *("*/*/params.json", "*/*/result.json", "*/*/error.txt"),
    *("*/*/checkpoint_*/agent.json", "*/*/checkpoint_*/metrics.json"),
)


class LocalCopy:
    """A run's light files on this machine, for as long as this object lives.

    Args:
        origin: The run folder in a store.
    """

    def __init__(self, origin: RemotePath):
        self.origin = origin
        self._temporary = tempfile.TemporaryDirectory(prefix="parsec-report-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name).resolve() / origin.name
        self.folder.mkdir()
        files = {str(file.relative_to(origin)): file for file in origin.files()}
        wanted = {name: file for name, file in files.items() if any(_matches(name, pattern) for pattern in WANTED)}
        in_parallel(lambda name: download(wanted[name], self.folder / name), list(wanted))

    def address_of(self, path: Path) -> RemotePath:
        """Where a file or folder of the copy comes from."""
        return self.origin / path.relative_to(self.folder).as_posix() if path != self.folder else self.origin

    def send_back(self, folder: Path) -> None:
        """Upload a folder of the copy, its page last."""
        files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.name == "index.html")
        in_parallel(lambda file: upload(file, self.address_of(file)), files[:-1])
        for file in files[-1:]:
            upload(file, self.address_of(file))


def _matches(name: str, pattern: str) -> bool:
    """As pathlib's match of a whole path: * stays within a folder's name."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
