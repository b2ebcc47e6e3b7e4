"""What hung: written by the watchdog before it ends the agent, read at the next start."""

from __future__ import annotations

import contextlib
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from edge_client.errors import UsageError
from edge_client.files import read_limited, write_atomic
from edge_client.settings import Home
from schemas.base import Wire
from schemas.ids import Sha256

_LIMIT = 4096


class Hang(Wire):
    """``hung.json``. what: made no progress, for so many seconds. sha256: of the model file."""

    what: Annotated[str, StringConstraints(max_length=100)]
    seconds: Annotated[float, Field(ge=0)]
    sha256: Sha256 | None = None

    @property
    def why(self) -> str:
        """For how long."""
        return f"made no progress for {self.seconds:.0f} s"


def write_hang(home: Home, hang: Hang) -> None:
    """Leave the note.

    Raises:
        OSError: it could not be written.
    """
    write_atomic(home.hung, hang.model_dump_json().encode(), mode=0o600)


def read_hang(home: Home) -> Hang | None:
    """The note; None when there is none that can be read."""
    try:
        return Hang.model_validate_json(read_limited(home.hung, _LIMIT))
    except (OSError, UsageError, ValidationError):
        return None


def forget_hang(home: Home) -> None:
    """Remove the note, once what follows from it is in the journal."""
    with contextlib.suppress(OSError):
        home.hung.unlink(missing_ok=True)
