"""From an exception to a cause that its reader can act on."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

from schemas.job import JobCause
from workers import memory, missing
from workers.errors import ApiError, ClusterError, JobFailed, WorkerError

_OURS = str(Path(__file__).parent)
_RECIPES = str(Path(__file__).parent / "recipes")
_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib", "stdlib"))

_BROKEN_LINK = ("gloo", "nccl", "connection closed by peer", "connection reset", "socket")
"""Words in what a collective says when another worker is gone."""

_TIMED_OUT = ("timed out waiting", "collective operation timeout", "watchdog caught collective")
"""Words in what a collective says that waited for too long."""

_ELSEWHERE = "Original Traceback"
"""In the text of what was raised in a process that loads data."""


class Origin(Enum):
    """Whose code a file is."""

    USER = auto()
    OURS = auto()
    LIBRARY = auto()


def origin_of(filename: str) -> Origin:
    """Whose code a frame's file is; a recipe counts as its user's."""
    if filename.startswith(_OURS):
        return Origin.USER if filename.startswith(_RECIPES) else Origin.OURS
    # A job's own environment lies beside the one it extends: the folder's name tells both.
    packaged = "site-packages" in filename or "dist-packages" in filename
    library = packaged or filename.startswith((*_INSTALLED, "<"))
    return Origin.LIBRARY if library else Origin.USER


@contextmanager
def user_code() -> Iterator[None]:
    """Run a user's code: what it raises becomes a ``JobFailed`` with file and line.

    A collective that lost another worker is not the user's doing and passes unchanged.
    """
    try:
        yield
    except (WorkerError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a task does not end its process
        if is_broken_link(error):
            raise  # the exchange of gradients runs inside the user's forward and backward
        raise blame(error) from error


def blame(error: BaseException) -> JobFailed:
    """Say of whose making an exception is, as precisely as its traceback allows."""
    if isinstance(error, JobFailed):
        return error
    if isinstance(error, (ApiError, ClusterError)):
        return JobFailed(JobCause.DRIVER_DIED, str(error))
    if isinstance(error, WorkerError):
        return JobFailed(JobCause.USER_CODE, str(error))
    if is_collective_timeout(error):
        detail = f"a worker waited too long for the others: {_first_line(error)}"
        return JobFailed(JobCause.HUNG, detail)
    frame, summary = _told(error)
    advice = memory.ran_out(error)
    if advice is not None:
        where = f"{frame}: " if frame else ""
        return JobFailed(JobCause.OUT_OF_MEMORY, f"{where}out of memory: {summary}; {advice}")
    if frame is None:
        return JobFailed(JobCause.INTERNAL, f"{summary} (in {_last_frame(error)})")
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        detail = f"{frame}: {_first_line(error)}; {missing.advice(error.name, Path.cwd())}"
        return JobFailed(JobCause.USER_CODE, detail)
    return JobFailed(JobCause.USER_CODE, f"{frame}: {summary}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a GPU."""
    return memory.ran_out(error) is not None


def is_broken_link(error: BaseException) -> bool:
    """Whether a collective failed because another worker is gone: not the user's doing."""
    if type(error).__name__ in {"DistBackendError", "DistNetworkError"}:
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _BROKEN_LINK)


def is_collective_timeout(error: BaseException) -> bool:
    """Whether a collective gave up waiting for workers that are still there."""
    text = str(error).lower()
    return is_broken_link(error) and any(word in text for word in _TIMED_OUT)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:1000] if text else "no message"


def _told(error: BaseException) -> tuple[str | None, str]:
    """Where in the user's code, and what: as raised here, or in a process that loads data."""
    text = str(error)
    if _ELSEWHERE in text:
        lines = [line for line in text.splitlines() if line.strip()]
        named = re.findall(r'File "([^"]+)", line (\d+)', text)
        places = [f"{place(f)}:{n}" for f, n in named if origin_of(f) is Origin.USER]
        if places:
            return places[-1], lines[-1].strip()[:1000]
    return _user_frame(error), f"{type(error).__name__}: {_first_line(error)}"


def place(filename: str) -> str:
    """A file as its writer knows it: relative to the job's folder, where it is below that."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return filename


def _user_frame(error: BaseException) -> str | None:
    """``file:line`` of the innermost frame that is neither ours nor a library's."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{place(error.filename)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if origin_of(frame.filename) is Origin.USER:
            return f"{place(frame.filename)}:{frame.lineno}"
    return None


def _last_frame(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def job_failure(error: BaseException) -> JobFailed | None:
    """The ``JobFailed`` that lies under an exception: what a retry would only repeat."""
    # A task of Ray raises an heir of the failure's class, without what the failure says.
    found = (e for e in _under(error) if isinstance(e, JobFailed))
    return next((e for e in found if isinstance(e.cause, JobCause)), None)


def _under(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it wraps, in whichever of Ray's ways."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        waiting += [getattr(one, n, None) for n in ("cause", "controller_failure", "_base_exc")]
        waiting += list(getattr(one, "worker_failures", {}).values())
