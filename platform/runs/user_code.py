"""Code of users that runs outside of trials: in evaluation, videos and analyses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError
from parsecrl.platform.storage import Location, write_atomically


@contextmanager
def causes_told(what: str, file: Location | None = None) -> Iterator[None]:
    """Within it, what code raises becomes RunFailed: what stopped, the cause in a sentence, where its traceback lies.

    Args:
        what: Stopped, for the message.
        file: Gets the traceback; None: it is kept nowhere.

    Yields:
        Nothing.

    Raises:
        RunFailed: Something was raised inside. What a disk, a store or a network raises passes through.
    """
    try:
        yield
    except (UserError, RunFailed, StorageUnreachable):
        raise
    except Exception as error:
        from ray.exceptions import RayError

        from parsecrl.algorithms.training.user_errors import Failure

        failure = Failure.of(error)
        passing = isinstance(error, OSError) and error.errno is not None  # without a number it is code's own
        if passing and not isinstance(error, RayError) and not failure.lasting:
            raise
        where = f"; the traceback is in {file}" if file else ""
        if file:
            write_atomically(file, failure.traceback)
        raise RunFailed(f"{what} stopped: {failure.sentence}{where}; the same command continues") from error
