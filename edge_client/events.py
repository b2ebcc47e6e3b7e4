"""What can happen to an update.

Work answers with events that carry the key of their execution, so that the answers of
one that was given up meanwhile can be told apart.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TypeAlias

from edge_client.probation import Figures
from edge_client.shadowing import Beside
from edge_client.slots import Slot
from edge_client.states import Key, Offer
from edge_client.waiting import Hold
from schemas.errors import DeviceCause


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A desired document passed all checks. active: what serves now."""

    offer: Offer
    active: Slot | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """The server asks to give up."""

    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestAccepted:
    """The manifest is genuine and fits. total: bytes of all files."""

    key: Key
    slot: Slot
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A check of trust failed: this must not be run."""

    key: Key
    cause: DeviceCause
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """Bytes arrived."""

    key: Key
    done: int
    fetched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Every file is complete and has the manifest's hash."""

    key: Key
    fetched: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPassed:
    """The trial load and the golden vectors passed."""

    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Broke:
    """The work of a state failed."""

    key: Key
    cause: DeviceCause
    detail: str
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """It is not time to go on yet, or is no more."""

    key: Key
    hold: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What held a download is over."""

    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """The server's time is known. at: that time."""

    key: Key
    at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOffWanted:
    """An operator at the device does not want it before ``until``, which was seen to be allowed."""

    key: Key
    until: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProceedWanted:
    """The server, or an operator at the device, wants it to go on whatever holds it."""

    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceeded:
    """Now is a good time to activate.

    fallback: what serves now. older: what was its fallback. before_mb: the agent's memory (RSS)
    now, in MiB.
    """

    key: Key
    fallback: Slot | None
    older: Slot | None = None
    before_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowDue:
    """An older version of the model serves, so that the new one is to run beside it first.

    before_mb: as in ``Proceeded``.
    """

    key: Key
    before_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a shadow did so far. fallback, older: as in ``Proceeded``.

    hold: why it may not serve yet if it has passed.
    """

    key: Key
    beside: Beside
    fallback: Slot | None
    older: Slot | None = None
    hold: Hold | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """The pointer names the new model and it is loaded."""

    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the new model did so far."""

    key: Key
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """The agent started. hung: how the model on trial brought it to an end, if it did."""

    hung: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The pointer names what served before. serving: that; None where nothing did."""

    key: Key
    serving: Slot | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """The fallback cannot be loaded any more, so that the new model serves on."""

    key: Key
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackWanted:
    """An operator at the device wants ``fallback`` to serve instead of ``slot``.

    give_up: also an update that is under way.
    """

    slot: Slot
    fallback: Slot
    give_up: bool


Event: TypeAlias = (
    Offered
    | CancelRequested
    | ManifestAccepted
    | Refused
    | Progressed
    | Fetched
    | TrialPassed
    | Broke
    | Held
    | Released
    | Dated
    | PutOffWanted
    | ProceedWanted
    | Proceeded
    | ShadowDue
    | Compared
    | Swapped
    | Observed
    | Booted
    | Restored
    | Stranded
    | RollbackWanted
)
