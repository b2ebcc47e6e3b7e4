"""The life of an update on the device, as one table.

``step(state, event, now) -> (state, actions)``. The state is journalled before any of
the actions is done, and what a state calls for (``Begin``) is begun again after a
restart; so a crash at any instant costs a repeat. Work answers with events that carry
the key of their execution, and those of an execution given up meanwhile do nothing.

The form (one visible table, a reboot in every state) follows Mender's client state
machine; the names are those of ``schemas.rollout.ExecState``.
"""

from __future__ import annotations

from typing import Any, get_args

from edge_client import steps_before_swap as before
from edge_client import steps_from_swap as swapping
from edge_client import steps_waiting as waiting
from edge_client.events import (
    Booted,
    Broke,
    CancelRequested,
    Compared,
    Dated,
    Event,
    Fetched,
    Held,
    ManifestAccepted,
    Observed,
    Offered,
    Proceeded,
    ProceedWanted,
    Progressed,
    PutOffWanted,
    Refused,
    Released,
    Restored,
    RollbackWanted,
    ShadowDue,
    Stranded,
    Swapped,
    TrialPassed,
)
from edge_client.states import (
    Accepted,
    Activating,
    Deferred,
    Downloading,
    Ended,
    Idle,
    OnProbation,
    Reverting,
    Shadowing,
    Staged,
    State,
    Verified,
)
from edge_client.steps import Handler, Step


def _mine(handler: Handler) -> Handler:
    """Ignore the answers of work done for another execution."""

    def guarded(state: Any, event: Any, now: float) -> Step:
        if event.key != state.offer.key:
            return state, ()
        return handler(state, event, now)

    return guarded


_EARLY: dict[type[Any], Handler] = {
    Offered: before.offer_early,
    CancelRequested: before.cancel_early,
    Refused: before.refused,
    Broke: before.broke_early,
    Booted: before.booted_early,
    RollbackWanted: before.rollback_early,
    Dated: waiting.dated,
    PutOffWanted: waiting.put_off,
    ProceedWanted: waiting.proceed,
}
"""Before the pointer is touched: giving up leaves the device as it was."""

_ROWS: dict[type[Any], dict[type[Any], Handler]] = {
    Idle: {
        Offered: before.offer_idle,
        CancelRequested: before.cancel_idle,
        RollbackWanted: before.rollback_idle,
    },
    Accepted: _EARLY | {ManifestAccepted: before.manifest_accepted, Held: waiting.held_download},
    Deferred: _EARLY | {Held: waiting.held_download, Released: waiting.released},
    Downloading: _EARLY
    | {
        Progressed: before.progressed,
        Fetched: before.fetched,
        Held: waiting.held_download,
    },
    Verified: _EARLY | {TrialPassed: before.trial_passed},
    Staged: _EARLY
    | {
        Proceeded: before.proceeded,
        ShadowDue: before.shadow_due,
        Held: waiting.held_staged,
    },
    Shadowing: _EARLY
    | {
        Proceeded: before.proceeded,
        Compared: before.compared,
        Held: waiting.held_shadowing,
        Booted: before.booted_shadowing,
    },
    Activating: {
        Offered: swapping.offer_later,
        CancelRequested: swapping.cancel_late,
        Broke: swapping.broke_late,
        Swapped: swapping.swapped,
        RollbackWanted: swapping.rollback_other,
        Booted: swapping.booted_late,
    },
    OnProbation: {
        Offered: swapping.offer_probation,
        CancelRequested: swapping.cancel_late,
        Broke: swapping.broke_late,
        Observed: swapping.observed,
        RollbackWanted: swapping.rollback_probation,
        Booted: swapping.booted_late,
    },
    Reverting: {
        Offered: swapping.offer_later,
        CancelRequested: swapping.cancel_late,
        Booted: swapping.booted_reverting,
        Restored: swapping.restored,
        RollbackWanted: swapping.rollback_other,
        Stranded: swapping.stranded,
    },
    Ended: {
        Offered: before.offer_ended,
        CancelRequested: before.cancel_ended,
        RollbackWanted: before.rollback_ended,
        ProceedWanted: waiting.proceed_ended,
    },
}

STATES: tuple[type[Any], ...] = get_args(State)
EVENTS: tuple[type[Any], ...] = get_args(Event)
_UNKEYED = frozenset({Offered, CancelRequested, Booted, RollbackWanted})

TABLE: dict[tuple[type[Any], type[Any]], Handler] = {
    (state, event): handler if event in _UNKEYED else _mine(handler)
    for state in STATES
    for event in EVENTS
    for handler in (_ROWS[state].get(event),)
    if handler is not None
}
"""Every transition. A pair that is not here does nothing, whatever the values."""


def step(state: State, event: Event, now: float) -> Step:
    """Decide.

    Args:
        state: where the update stands.
        event: what happened.
        now: seconds since 1970; only the spacing of progress reports depends on it.

    Returns:
        The new state, to be journalled first, and the actions, to be done then.
    """
    handler = TABLE.get((type(state), type(event)))
    return (state, ()) if handler is None else handler(state, event, now)
