"""What is to be done after a transition, once its state is in the journal.

Each may be done twice: a crash between the journal and the action costs a repeat.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TypeAlias

from edge_client.slots import Slot
from edge_client.states import Key
from schemas.errors import DeviceCause
from schemas.rollout import DEVICE_TERMINAL, ExecState


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tell the server.

    cause, detail: why it ended, or could not be done.
    retryable: whether the same offer may work another time.
    done, total, fetched: bytes, of a download: there, wanted, come over the network.
    waits_until: of what waits, the server's time at which it goes on by itself.
    keep: store it, when it ends its execution, to be repeated on request.
    """

    key: Key
    state: ExecState
    cause: DeviceCause | None = None
    retryable: bool = False
    detail: str | None = None
    done: int | None = None
    total: int | None = None
    fetched: int | None = None
    waits_until: dt.datetime | None = None
    keep: bool = True

    @property
    def terminal(self) -> bool:
        """Whether it ends its execution."""
        return self.state in DEVICE_TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Send the stored last report of an execution that is over once more."""

    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Begin, or begin again, the work that the new state calls for.

    Asked for on entering a state, and again in it after a restart.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Remove models that nothing refers to any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """Serve the fallback instead of what is active, where no update is concerned by it.

    Whoever asked for it asks again until the pointer says so.
    """

    fallback: Slot


Action: TypeAlias = Report | Repeat | Begin | Collect | PutBack
