"""What an update can be: the states, with the data that each carries.

All of them are plain values that can be journalled. What can happen is in
``edge_client.events``, what is then to be done in ``edge_client.actions``, and the
transitions are in ``edge_client.state_machine``.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from edge_client.slots import Slot
from edge_client.waiting import UNTIMED, Hold, Timing
from schemas.errors import DeviceCause
from schemas.rollout import Assignment, ExecState

Key = tuple[str, int]
"""(execution, attempt)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A verified desired document: what to run, at which sequence.

    length: of the manifest, in bytes. expires: until when what signed it stands; nothing
    is installed from it later. None in a journal that is older than this rule.
    """

    assignment: Assignment
    sequence: int
    length: int
    expires: dt.datetime | None = None

    @property
    def key(self) -> Key:
        """(execution, attempt)."""
        return (self.assignment.execution, self.assignment.attempt)

    def names(self, slot: Slot | None) -> bool:
        """Whether ``slot`` is what is offered."""
        wanted = self.assignment
        return slot is not None and (
            (slot.model, slot.version, slot.variant, slot.manifest_sha256)
            == (wanted.model, wanted.version, wanted.variant, wanted.manifest_sha256)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Nothing was ever offered."""

    kind: Literal["idle"] = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The manifest is being asked for. timing: as in all states before the swap."""

    offer: Offer
    timing: Timing = UNTIMED
    kind: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """Its download waits, at its beginning or in the middle."""

    offer: Offer
    hold: Hold
    timing: Timing = UNTIMED
    kind: Literal["deferred"] = "deferred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloading:
    """Files are being fetched. Bytes: there, wanted, come over the network."""

    offer: Offer
    slot: Slot
    total: int
    done: int = 0
    fetched: int = 0
    reported_at: float = 0.0
    timing: Timing = UNTIMED
    kind: Literal["downloading"] = "downloading"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """All files are whole; a trial load is running."""

    offer: Offer
    slot: Slot
    timing: Timing = UNTIMED
    kind: Literal["verified"] = "verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The model loads here and gives its golden outputs.

    hold: why it waits; None while it does not, or nobody has looked. shadowed: it has run as a
    shadow already; before_mb: as in ``Activating``, from before that.
    """

    offer: Offer
    slot: Slot
    timing: Timing = UNTIMED
    hold: Hold | None = None
    shadowed: bool = False
    before_mb: float | None = None
    kind: Literal["staged"] = "staged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowing:
    """The model runs beside the one that serves; its answers are compared.

    elapsed: seconds of it, over all boots, of which it was begun again so often. before_mb: as in
    ``Activating``.
    """

    offer: Offer
    slot: Slot
    boots: int = 0
    elapsed: float = 0.0
    before_mb: float | None = None
    timing: Timing = UNTIMED
    kind: Literal["shadowing"] = "shadowing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activating:
    """The pointer is being swapped. fallback: what served before.

    older: what was the fallback then, and is again if this comes to nothing. before_mb: the
    agent's memory (RSS) then, in MiB; None where nobody knows.
    """

    offer: Offer
    slot: Slot
    fallback: Slot | None
    older: Slot | None = None
    boots: int = 0
    before_mb: float | None = None
    pending: Offer | None = None
    kind: Literal["activating"] = "activating"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnProbation:
    """The new model serves and is watched.

    n, errors: inferences since this boot. elapsed: seconds on probation, over all boots.
    older, before_mb: as in ``Activating``. golden_due: whether the golden vectors are to decide.
    pending: an offer of another model, which waits.
    """

    offer: Offer
    slot: Slot
    fallback: Slot | None
    older: Slot | None = None
    boots: int = 0
    n: int = 0
    errors: int = 0
    elapsed: float = 0.0
    before_mb: float | None = None
    golden_due: bool = False
    pending: Offer | None = None
    kind: Literal["probation"] = "probation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverting:
    """The pointer is being put back; ends as ROLLED_BACK.

    older: as in ``Activating``. pending: what comes next. after_success: the update was over, and
    an operator at the device takes it back.
    """

    offer: Offer
    slot: Slot
    fallback: Slot | None
    cause: DeviceCause
    detail: str
    older: Slot | None = None
    pending: Offer | None = None
    after_success: bool = False
    kind: Literal["reverting"] = "reverting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The execution is over."""

    offer: Offer
    outcome: ExecState
    kind: Literal["ended"] = "ended"


State: TypeAlias = (
    Idle
    | Accepted
    | Deferred
    | Downloading
    | Verified
    | Staged
    | Shadowing
    | Activating
    | OnProbation
    | Reverting
    | Ended
)
JournalledState = Annotated[State, Field(discriminator="kind")]

REPORTED_AS: dict[type[Any], ExecState] = {
    Accepted: ExecState.ACCEPTED,
    Deferred: ExecState.DEFERRED,
    Downloading: ExecState.DOWNLOADING,
    Verified: ExecState.VERIFIED,
    Staged: ExecState.STAGED,
    Shadowing: ExecState.SHADOWING,
    Activating: ExecState.ACTIVATING,
    OnProbation: ExecState.PROBATION,
    Reverting: ExecState.PROBATION,
}


def exec_state(state: State) -> ExecState | None:
    """The state as it is reported; None when there is no execution."""
    if isinstance(state, Reverting) and state.after_success:
        return ExecState.SUCCEEDED
    return state.outcome if isinstance(state, Ended) else REPORTED_AS.get(type(state))


def hold_of(state: State) -> Hold | None:
    """Why a state waits; None where it does not."""
    return state.hold if isinstance(state, Deferred | Staged) else None


def key_of(state: State) -> Key | None:
    """The execution a state belongs to."""
    return None if isinstance(state, Idle) else state.offer.key
