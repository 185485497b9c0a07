"""Code of a user's own that goes with a run: `--code FOLDER|WHEEL`.

Each becomes a wheel. Here it is unpacked into a folder of its own on the path; Ray has pip install it on every node.
Either way its mark lies on the path, by which each process of the run finds what was brought along.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import packages_distributions, requires
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from parsecrl.platform.errors import UserError, text_line
from parsecrl.platform.shipping.secrets import line_of_secret, names_secret
from parsecrl.platform.shipping.wheels import ANY_PYTHON, check_size, digest_of, write_wheel

MARK = "parsec_code.json"  # in the wheel's .dist-info
LEFT_OUT = {"RECORD", "RECORD.jws", "RECORD.p7s", "WHEEL"}  # of a wheel's .dist-info: made anew
NO_CODE = ("pyvenv.cfg", "made_by.json")  # a folder with one of them is a virtual environment, or a run's
RULE = (
    "a folder with an __init__.py is a package of that name; any other folder holds modules and packages, "
    "as a folder of PYTHONPATH does"
)


@dataclass(frozen=True)
class OwnCode:
    """Files as they lie on the path, by name, and the names that their wheel has."""

    name: str  # of the folder, or the distribution
    contents: Mapping[str, bytes]
    distribution: str
    release: str = "0"
    tag: str = ANY_PYTHON

    @cached_property
    def hashes(self) -> dict[str, str]:
        """File -> hash, in 16 hexadecimal digits."""
        return {name: hashlib.sha256(data).hexdigest()[:16] for name, data in sorted(self.contents.items())}

    @cached_property
    def digest(self) -> str:
        """A hash of all names and contents: 16 hexadecimal digits, which the wheel's name has too."""
        return digest_of(self.contents)[:16]

    @property
    def modules(self) -> set[str]:
        """What can be imported, but for folders without an __init__.py, which hide nothing."""
        paths = [PurePosixPath(name).parts for name in self.contents]
        packages = {parts[0] for parts in paths if len(parts) == 2 and parts[1] == "__init__.py"}
        return packages | {PurePosixPath(parts[0]).stem for parts in paths if len(parts) == 1 and _is_module(parts[0])}

    def wheel(self, folder: Path) -> Path:
        """Write the wheel into `folder`."""
        mark = {"name": self.name, "tag": self.tag, "files": sorted(self.contents)}
        more = {f"{self.distribution}-{self.release}.dist-info/{MARK}": json.dumps(mark).encode()}
        return write_wheel(folder, self.distribution, self.release, self.contents, more, self.tag)


def put_on_path(places: Sequence[str], spec: str | None = None) -> None:
    """Make code importable here and in processes that are started from here.

    The code is copied: later changes to a folder do not reach a run that goes on.

    Args:
        places: Folders and wheels.
        spec: A file that is no code wherever it lies: it may be changed when a run is continued.

    Raises:
        UserError: One of them cannot be used. Nothing has been done then.
    """
    codes = [read(place, spec) for place in places]
    held: dict[str, str] = {}
    for code in codes:
        for module in sorted(code.modules):
            if module in held:
                raise UserError(
                    f"--code {held[module]} and --code {code.name} both hold {module}; rename one of the two"
                )
            held[module] = code.name
    for code in reversed(codes):
        target = tempfile.mkdtemp(prefix="parsec-code-")
        atexit.register(shutil.rmtree, target, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="parsec-code-") as scratch:
            zipfile.ZipFile(code.wheel(Path(scratch))).extractall(target)
        sys.path.insert(0, target)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (target, os.environ.get("PYTHONPATH"))))
    importlib.invalidate_caches()


def on_path() -> list[OwnCode]:
    """The code that this process was given by --code, wherever the process runs."""
    found: dict[str, OwnCode] = {}
    for folder in map(Path, sys.path):
        for file in sorted(folder.glob(f"*.dist-info/{MARK}")):
            mark = json.loads(file.read_text(encoding="utf-8"))
            contents = {name: (folder / name).read_bytes() for name in mark["files"]}
            distribution, _, release = file.parent.name.removesuffix(".dist-info").partition("-")
            code = OwnCode(mark["name"], contents, distribution, release, mark["tag"])
            found.setdefault(code.digest, code)
    return list(found.values())


def described(codes: Sequence[OwnCode]) -> str:
    """Code for a message.

    Args:
        codes: In their order.

    Returns:
        Each name, and the hash's beginning.
    """
    return ", ".join(f"{code.name} ({code.digest[:8]})" for code in codes)


# --- reading --------------------------------------------------------------------------------------------------------


def read(place: str, spec: str | None = None) -> OwnCode:
    """The code of a folder or a wheel.

    Args:
        place: The folder or wheel.
        spec: A file that is left out, where it lies in the folder.

    Returns:
        The code.

    Raises:
        UserError: It is neither, too large, holds a secret, or would hide other modules.
    """
    path = Path(place).expanduser()
    try:
        if path.is_dir():
            code = _of_folder(path.resolve(), Path(spec or "").resolve())
        elif path.is_file():
            code = _of_wheel(path)
        else:
            raise UserError(f"--code {place}: there is no such folder or wheel; give one that exists")
    except OSError as error:
        raise UserError(f"--code {place} cannot be read ({text_line(error)}); give files that you may read") from None
    taken = {**dict.fromkeys(sys.stdlib_module_names - {"test"}, "Python's own"), **_modules_needed()}
    hidden = sorted(module for module in code.modules if module in taken)
    if hidden:
        raise UserError(
            f"--code {place} holds a module {hidden[0]}, which would hide {taken[hidden[0]]}; rename or move it"
        )
    for name, data in code.contents.items():
        _check_secret(place, name, data)
    return code


@cache
def _modules_needed() -> dict[str, str]:
    """Module -> whose it is, of parsecrl and of the packages that it asks for."""
    asked = [Requirement(line) for line in requires("parsec-rl") or ()]
    names = {canonicalize_name(one.name) for one in asked if one.marker is None}  # a marker is an extra
    found = {
        module: f"that of {owners[0]}"
        for module, owners in packages_distributions().items()
        if names & set(map(canonicalize_name, owners))
    }
    return {**found, "parsecrl": "parsecrl's own"}


def _check_secret(place: str, name: str, data: bytes) -> None:
    """Raise UserError where a file looks as if it held a secret, by its contents or its name."""
    path = PurePosixPath(name)
    is_python = path.suffix in {".py", ".pyi"}
    text = "" if b"\0" in data[:8192] else data.decode("utf-8", errors="replace")
    line = line_of_secret(text, is_python)
    if path.suffix in {".pem", ".key"} or (names_secret(path.stem) and path.suffix in {"", ".txt", ".json", ".env"}):
        line = line or 1
    if line:
        raise UserError(
            f"--code {place}: line {line} of {name} looks like a secret, which the cluster and the run folder would "
            f"hold; take it out, and set it in the environment of the cluster's nodes"
        )


def _of_folder(folder: Path, spec: Path) -> OwnCode:
    is_package = (folder / "__init__.py").is_file()
    if is_package and not folder.name.isidentifier():
        raise UserError(f"--code {folder} is a package, whose name Python cannot import; rename the folder")
    files = {
        f"{folder.name}/{name}" if is_package else name: file for name, file in files_below(folder) if file != spec
    }
    source = folder / "src"
    beside = {"setup.py", "conftest.py", "noxfile.py"}  # what lies beside a source folder, and is not what is meant
    if {name for name in files if _is_module(name) and "/" not in name} <= beside and any(source.glob("*/__init__.py")):
        raise UserError(f"--code {folder} holds its packages in src, which Python would not find; give --code {source}")
    if not any(map(_is_module, files)):
        raise UserError(f"--code {folder} holds no Python module; {RULE}")
    check_size({name: file.stat().st_size for name, file in files.items()}, f"the code of {folder}")
    if odd := [name for name in files if not name.isprintable()]:
        raise UserError(f"--code {folder} holds a file named {odd[0]!a}; use letters that can be printed")
    distribution = re.sub(r"[^a-z0-9]+", "_", f"parsec_code_{folder.name}".lower()).strip("_")
    return OwnCode(folder.name, {name: file.read_bytes() for name, file in files.items()}, distribution)


def files_below(root: Path) -> Iterator[tuple[str, Path]]:
    """The files of a folder that are code or go with it.

    Caches, hidden files, links, virtual environments and run folders stay behind.

    Args:
        root: The folder.

    Yields:
        Name below the folder, and file, in order.
    """
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") or entry.name == "__pycache__" or entry.suffix == ".pyc" or entry.is_symlink():
            continue
        if entry.is_file():
            yield entry.name, entry
        elif entry.is_dir() and not any((entry / name).exists() for name in NO_CODE):
            yield from ((f"{entry.name}/{name}", file) for name, file in files_below(entry))


def _is_module(name: str) -> bool:
    return name.endswith((".py", ".so"))


def _of_wheel(file: Path) -> OwnCode:
    try:
        _, _, _, tags = parse_wheel_filename(file.name)
        archive = zipfile.ZipFile(file)
    except (InvalidWheelFilename, zipfile.BadZipFile):
        raise UserError(f"--code {file} is no wheel; give a folder, or a wheel as `pip wheel` makes it") from None
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    other = f"--code {file} is for another Python or machine than Python {running} here; build it for this one"
    if tags.isdisjoint(sys_tags()):
        raise UserError(other)
    with archive:
        check_size({entry.filename: entry.file_size for entry in archive.infolist()}, f"the code of {file}")
        try:
            raw = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
            (info,) = {name.partition("/")[0] for name in raw if ".dist-info/" in name}
            metadata = raw[f"{info}/METADATA"].decode()
            contents = {place: data for name, data in raw.items() if (place := _place_of(name))}
            mark = json.loads(contents.pop(f"{info}/{MARK}", b"{}"))  # of a copy that a run keeps
            kept = {name: contents[name] for name in mark.get("files", ())}
        except (ValueError, KeyError, zipfile.BadZipFile):
            raise UserError(f"--code {file} is damaged, or no wheel; build it again with `pip wheel`") from None
    if not _takes_this_python(metadata):
        raise UserError(other)
    distribution, _, release = info.removesuffix(".dist-info").partition("-")
    if not kept:
        kept = {name: data for name, data in contents.items() if name not in {f"{info}/{out}" for out in LEFT_OUT}}
        kept[f"{info}/METADATA"] = re.sub(r"(?m)^(Requires-Dist|Provides-Extra):.*\n", "", metadata).encode()
    if not any(map(_is_module, kept)):
        raise UserError(f"--code {file} holds no Python module; build it from the folder of your package")
    return OwnCode(mark.get("name", distribution), kept, distribution, release, "-".join(file.stem.split("-")[-3:]))


def _takes_this_python(metadata: str) -> bool:
    wanted = re.search(r"(?m)^Requires-Python:(.*)$", metadata)
    try:
        return wanted is None or SpecifierSet(wanted[1].strip()).contains(".".join(map(str, sys.version_info[:3])))
    except InvalidSpecifier:
        return True


def _place_of(name: str) -> str:
    """Where pip would put a wheel's file below the path, "" for what goes elsewhere, such as scripts."""
    data = re.match(r"[^/]+\.data/([^/]+)/(.+)", name)
    if data:
        return data[2] if data[1] in {"purelib", "platlib"} else ""
    parts = PurePosixPath(name).parts
    return "" if name.startswith("/") or ".." in parts else name
