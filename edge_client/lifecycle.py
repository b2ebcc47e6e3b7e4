"""What an update can be, what can happen to it, and what is then to be done.

The transitions between them are in ``edge_client.state_machine``. States carry their
data; all of these are plain values, and the states can be journalled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from edge_client.slots import Slot
from schemas.errors import DeviceCause
from schemas.rollout import DEVICE_TERMINAL, Assignment, ExecState

Key = tuple[str, int]
"""(execution, attempt)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A verified desired document: what to run, at which sequence.

    length: of the manifest, in bytes.
    """

    assignment: Assignment
    sequence: int
    length: int

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


# --- states -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Nothing was ever offered."""

    kind: Literal["idle"] = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The manifest is being asked for."""

    offer: Offer
    kind: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloading:
    """Files are being fetched. Bytes: there, wanted, come over the network."""

    offer: Offer
    slot: Slot
    total: int
    done: int = 0
    fetched: int = 0
    reported_at: float = 0.0
    kind: Literal["downloading"] = "downloading"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """All files are whole; a trial load is running."""

    offer: Offer
    slot: Slot
    kind: Literal["verified"] = "verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The model loads here and gives its golden outputs."""

    offer: Offer
    slot: Slot
    kind: Literal["staged"] = "staged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activating:
    """The pointer is being swapped. fallback: what served before."""

    offer: Offer
    slot: Slot
    fallback: Slot | None
    boots: int = 0
    pending: Offer | None = None
    kind: Literal["activating"] = "activating"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnProbation:
    """The new model serves and is watched. n, errors: inferences since this boot."""

    offer: Offer
    slot: Slot
    fallback: Slot | None
    boots: int = 0
    n: int = 0
    errors: int = 0
    kind: Literal["probation"] = "probation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverting:
    """The pointer is being put back; ends as ROLLED_BACK. pending: what comes next."""

    offer: Offer
    slot: Slot
    fallback: Slot | None
    cause: DeviceCause
    detail: str
    pending: Offer | None = None
    kind: Literal["reverting"] = "reverting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The execution is over."""

    offer: Offer
    outcome: ExecState
    kind: Literal["ended"] = "ended"


State: TypeAlias = (
    Idle | Accepted | Downloading | Verified | Staged | Activating | OnProbation | Reverting | Ended
)
JournalledState = Annotated[State, Field(discriminator="kind")]

REPORTED_AS: dict[type[Any], ExecState] = {
    Accepted: ExecState.ACCEPTED,
    Downloading: ExecState.DOWNLOADING,
    Verified: ExecState.VERIFIED,
    Staged: ExecState.STAGED,
    Activating: ExecState.ACTIVATING,
    OnProbation: ExecState.PROBATION,
    Reverting: ExecState.PROBATION,
}


def exec_state(state: State) -> ExecState | None:
    """The state as it is reported; None when there is no execution."""
    return state.outcome if isinstance(state, Ended) else REPORTED_AS.get(type(state))


def key_of(state: State) -> Key | None:
    """The execution a state belongs to."""
    return None if isinstance(state, Idle) else state.offer.key


# --- events -------------------------------------------------------------------------


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
class Proceeded:
    """Now is a good time to activate. fallback: what serves now."""

    key: Key
    fallback: Slot | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """The pointer names the new model and it is loaded."""

    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the new model did since this boot: inferences, failed ones among them."""

    key: Key
    n: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """The agent started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The pointer names the fallback again."""

    key: Key


Event: TypeAlias = (
    Offered
    | CancelRequested
    | ManifestAccepted
    | Refused
    | Progressed
    | Fetched
    | TrialPassed
    | Broke
    | Proceeded
    | Swapped
    | Observed
    | Booted
    | Restored
)


# --- actions ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tell the server.

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
    """Begin, or begin again, the work that the new state calls for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """Remove models that nothing refers to any more."""


Action: TypeAlias = Report | Repeat | Begin | Collect
