"""A request to the running agent, and its answer: two files in the home.

The agent looks for the request every second. Doing it twice is doing it once: it stays until it is
answered, also by an agent that was killed in between.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from edge_client.errors import NoAnswerError, UsageError
from edge_client.files import disk_errors, read_limited, write_atomic
from edge_client.lock import is_locked
from edge_client.settings import Home
from schemas.base import Wire

POLL_SECONDS, LOOK_SECONDS = 0.05, 1.0
_LIMIT = 16 * 1024


class Asked(Wire):
    """A request. id: drawn at random, repeated in the answer."""

    id: str


class Answered(Wire):
    """An answer. said: what was done. error: why it was not; hint: what to do then."""

    id: str
    said: str | None = None
    error: str | None = None
    hint: str | None = None


_A = TypeVar("_A", bound=Asked)


def read_asked(path: Path, kind: type[_A]) -> _A | None:
    """The request; None when there is none. One that cannot be read is removed."""
    try:
        return kind.model_validate_json(read_limited(path, _LIMIT))
    except FileNotFoundError:
        return None
    except (UsageError, ValidationError):
        path.unlink(missing_ok=True)
        return None


def answer(asked: Path, answered: Path, words: Answered) -> None:
    """Answer, then forget the request: after a crash in between it is answered again.

    Raises:
        OSError: it could not be written; do it again.
    """
    write_atomic(answered, words.model_dump_json().encode(), durable=False)
    asked.unlink(missing_ok=True)


def read_answer(path: Path, id_: str) -> Answered | None:
    """The answer to a request; None while there is none."""
    try:
        found = Answered.model_validate_json(read_limited(path, _LIMIT))
    except (OSError, UsageError, ValidationError):
        return None
    return found if found.id == id_ else None


def run(
    home: Home, asked: Path, answered: Path, request: Asked, *, deadline: float, late: str
) -> Answered | None:
    """Ask the agent, and wait.

    Args:
        home: of the device.
        asked: the file for the request.
        answered: the file for the answer.
        request: what to ask.
        deadline: of ``time.monotonic``.
        late: what to say once that has passed.

    Returns:
        The answer; None when there is no agent, or it has gone.

    Raises:
        NoAnswerError: it did not answer in time.
    """
    with disk_errors("the request to the agent"):
        write_atomic(asked, request.model_dump_json().encode())
    try:
        return _wait(home, lambda: read_answer(answered, request.id), deadline, late)
    finally:
        for path in (asked, answered):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _wait(
    home: Home, look: Callable[[], Answered | None], deadline: float, late: str
) -> Answered | None:
    look_at = time.monotonic() + LOOK_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(POLL_SECONDS)
        if time.monotonic() >= look_at:
            look_at += LOOK_SECONDS
            if not is_locked(home):
                return None
    raise NoAnswerError(late, hint="see `argosy-edge status`, and the agent's log")
