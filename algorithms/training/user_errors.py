"""What code raised, in one sentence with its place, and whether it would be raised again."""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

LONGEST = 400  # characters of a message
ROOT = Path(__file__).parents[2]
OWN = tuple(str(ROOT / room) + "/" for room in ("algorithms", "envs", "platform"))
LIBRARY = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib")} | {"<"})  # <frozen ...>, <string>
INSTALLED = re.compile(r".*/(?:site|dist)-packages/")
FRAME = re.compile(r'\s*File "(.+?)", line (\d+)')
LOST_PEER = "/gloo/"  # in torch's words on a learner whose peer is gone
CREATION = "raised in its creation task"  # in Ray's words on an actor whose constructor failed

# The machine's faults and not the code's: another try may go well. Of OSError all but OF_CODE.
PASSING = (OSError, MemoryError, EOFError)
OF_CODE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)

Place = tuple[str, int]  # file, line


class Failed(RuntimeError):
    """What code raised and would raise again, in one sentence. Its cause holds the traceback."""


class FailedForNow(ConnectionError):
    """What was raised in another process and may not be raised again, in one sentence."""


FAILED, FAILED_FOR_NOW = (f"{kind.__module__}.{kind.__qualname__}" for kind in (Failed, FailedForNow))


class OtherTraceback(Exception):
    """The text of a traceback from another process, as an exception's cause."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0].rstrip()}\n"""'


class Failure(NamedTuple):
    """What was raised in another process, as plain data: an exception of a user's class may not survive the way."""

    sentence: str
    traceback: str
    lasting: bool

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception of this process."""
        return cls(sentence_of(error), "".join(traceback.format_exception(error)), is_lasting(error))

    def reraise(self) -> NoReturn:
        """Raise it here.

        Raises:
            Failed: It is lasting.
            FailedForNow: It is not.
        """
        raise (Failed if self.lasting else FailedForNow)(self.sentence) from OtherTraceback(self.traceback)


@contextmanager
def causes_kept() -> Iterator[None]:
    """Within it, an exception that would be raised again becomes `Failed`, with its traceback's text as the cause.

    An exception of a user's class may not survive a copy, which Tune makes of a trial's error and of its causes, nor
    the way to another process; `Failed` and its cause do.

    Yields:
        Nothing.

    Raises:
        Failed: Such an exception was raised.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, Failed) or not is_lasting(error):
            raise
        Failure.of(error).reraise()


def is_lasting(error: BaseException) -> bool:
    """Say whether the same step would fail the same way.

    Args:
        error: Of this process, or what Ray raises for one of another.

    Returns:
        False for lost processes and nodes, lack of memory, and faults of a store or a network.
    """
    from ray.exceptions import RayError, RayTaskError, UnserializableException  # here: a report is made without Ray

    error = _said(error)
    if isinstance(error, RayTaskError) and type(error.cause) is not RayError:
        return is_lasting(error.cause)
    if isinstance(error, RayTaskError | UnserializableException) or CREATION in str(error):  # only the text arrived
        name, message, _ = _parsed(str(error))
        return _is_lasting(_exception_named(name), message)
    return _is_lasting(type(error), str(error))


def _is_lasting(kind: type[BaseException], message: str) -> bool:
    import torch
    from ray.exceptions import RayError
    from ray.tune import TuneError

    named = ((torch, "OutOfMemoryError"), (torch, "AcceleratorError"), (torch.distributed, "DistError"))
    of_torch = [getattr(*each) for each in named if hasattr(*each)]  # not all are in each build and version
    passing = issubclass(kind, (*PASSING, RayError, TuneError, *of_torch)) or LOST_PEER in message
    return issubclass(kind, OF_CODE) or not passing


def _exception_named(name: str) -> type[BaseException]:
    """The class of this name, Exception where this process does not know it."""
    module, _, own = name.rstrip(":").rpartition(".")
    found = getattr(sys.modules.get(module or "builtins"), own, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else Exception


def sentence_of(error: BaseException) -> str:
    """Say what was raised: type, first line of the message, and the place in the user's code.

    Args:
        error: Of this process, or what Ray raises for one of another.

    Returns:
        `Type: message (file:line)`. The place is the innermost frame that lies in no installed package, nor in the
        standard library, nor here; where there is none, the innermost.
    """
    error = _said(error)
    if any(kind.__module__ == "ray.exceptions" for kind in type(error).__mro__):
        return sentence_in(str(error))
    if isinstance(error, Failed | FailedForNow):
        return str(error)
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    places = [_places(link) for link in chain]
    return _sentence(type(error).__name__, str(error), places)


def sentence_in(text: str) -> str:
    """As `sentence_of`, of the last exception in a text of tracebacks.

    Args:
        text: As Ray formats what was raised in another process.

    Returns:
        One sentence.
    """
    kind, message, places = _parsed(text)
    return message if kind in (FAILED, FAILED_FOR_NOW) else _sentence(kind.rpartition(".")[2], message, [places])


def _said(error: BaseException) -> BaseException:
    """The error, or the cause of one without a word, in which RLlib packs what an environment's step raises."""
    while not error.args and error.__cause__ is not None:
        error = error.__cause__
    return error


def _places(error: BaseException) -> list[Place]:
    """The frames of a traceback, the innermost last."""
    found = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        found.append((error.filename, error.lineno or 0))
    return found


def _parsed(text: str) -> tuple[str, str, list[Place]]:
    """Class and message of the last exception in a text, and all frames before them, the innermost last."""
    lines = text.strip().splitlines() or [""]
    last = max((i for i, line in enumerate(lines) if FRAME.match(line)), default=-1)
    end = next((i for i in range(last + 1, len(lines)) if lines[i][:1].strip()), len(lines) - 1)
    frames = [(found[1], int(found[2])) for line in lines[:end] if (found := FRAME.match(line))]
    kind, _, message = lines[end].partition(": ")
    return (kind, message, frames) if re.fullmatch(r"[\w.]+:?", kind) else ("", lines[end], frames)


def _sentence(kind: str, message: str, chain: list[list[Place]]) -> str:
    """chain: the frames of the exception, then those of its causes."""
    first = next((line.strip() for line in message.splitlines() if line.strip()), "")[:LONGEST].rstrip(".")
    said = ": ".join(part for part in (kind.rstrip(":"), first) if part)
    own = [place for places in chain for place in reversed(places) if _is_users(place[0])]
    innermost = own or [place for places in chain for place in places[-1:]]
    place = f"({_short(innermost[0][0])}:{innermost[0][1]})" if innermost else ""
    return said if place in said else f"{said} {place}"  # a message that wraps a cause may say where that was


def _is_users(file: str) -> bool:
    return not (INSTALLED.match(file) or file.startswith((*OWN, *LIBRARY)))


def _short(file: str) -> str:
    """A file of an installed package, or of this one, from the package on."""
    if file.startswith(OWN):
        return f"parsecrl/{Path(file).relative_to(ROOT)}"
    return INSTALLED.sub("", file)
