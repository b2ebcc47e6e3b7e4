"""The life of an update on the device, as one table.

``step(state, event, now) -> (state, actions)``. The state is journalled before any of
the actions is done, and what a state calls for (``Begin``) is begun again after a
restart; so a crash at any instant costs a repeat. Work answers with events that carry
the key of their execution, and those of an execution given up meanwhile do nothing.

The form (one visible table, a reboot in every state) follows Mender's client state
machine; the names are those of ``schemas.rollout.ExecState``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias, get_args

from edge_client.actions import Action, Begin, Collect, Repeat, Report
from edge_client.events import (
    Booted,
    Broke,
    CancelRequested,
    Event,
    Fetched,
    ManifestAccepted,
    Observed,
    Offered,
    Proceeded,
    Progressed,
    Refused,
    Restored,
    Swapped,
    TrialPassed,
)
from edge_client.slots import Slot
from edge_client.states import (
    REPORTED_AS,
    Accepted,
    Activating,
    Downloading,
    Ended,
    Idle,
    Key,
    Offer,
    OnProbation,
    Reverting,
    Staged,
    State,
    Verified,
)
from schemas.errors import DeviceCause
from schemas.rollout import ExecState

PROGRESS_SECONDS = 1.0
"""The least time between two reports of progress."""

Step: TypeAlias = tuple[State, tuple[Action, ...]]
Handler: TypeAlias = Callable[[Any, Any, float], Step]


def _accept(offer: Offer, active: Slot | None) -> Step:
    """Take up an offer; what serves already has nothing left to do."""
    if offer.names(active):
        detail = "this version was serving already"
        done = Report(key=offer.key, state=ExecState.SUCCEEDED, detail=detail)
        return Ended(offer=offer, outcome=ExecState.SUCCEEDED), (done,)
    return Accepted(offer=offer), (Report(key=offer.key, state=ExecState.ACCEPTED), Begin())


def _offer_idle(_state: Idle, event: Offered, _now: float) -> Step:
    return _accept(event.offer, event.active)


def _offer_ended(state: Ended, event: Offered, _now: float) -> Step:
    if event.offer.key == state.offer.key:
        return state, (Repeat(key=event.offer.key),)
    return _accept(event.offer, event.active)


def _newer(state: Any, offer: Offer) -> bool:
    return bool(offer.key != state.offer.key and offer.sequence > state.offer.sequence)


def _superseded(by: Offer) -> str:
    return f"superseded by {by.assignment.execution}"


def _offer_early(state: Any, event: Offered, _now: float) -> Step:
    if not _newer(state, event.offer):
        return state, ()
    old = Report(
        key=state.offer.key,
        state=ExecState.FAILED,
        cause=DeviceCause.SUPERSEDED,
        detail=_superseded(event.offer),
    )
    new, actions = _accept(event.offer, event.active)
    return new, (old, *actions)


def _offer_later(state: Activating | Reverting, event: Offered, _now: float) -> Step:
    last = state.pending or state.offer
    if event.offer.key in {state.offer.key, last.key} or event.offer.sequence <= last.sequence:
        return state, ()
    dropped = _drop(state.pending, DeviceCause.SUPERSEDED, _superseded(event.offer))
    return replace(state, pending=event.offer), dropped


def _offer_probation(state: OnProbation, event: Offered, _now: float) -> Step:
    """A model that is not proven must not become the fallback: go back first."""
    if not _newer(state, event.offer):
        return state, ()
    cause, detail = DeviceCause.SUPERSEDED, _superseded(event.offer)
    return replace(_revert(state, cause, detail), pending=event.offer), (Begin(),)


def _drop(pending: Offer | None, cause: DeviceCause, detail: str) -> tuple[Report, ...]:
    if pending is None:
        return ()
    return (Report(key=pending.key, state=ExecState.FAILED, cause=cause, detail=detail),)


def _cancelled(key: Key) -> Report:
    detail = "cancelled by the server"
    return Report(key=key, state=ExecState.FAILED, cause=DeviceCause.CANCELLED, detail=detail)


def _cancel_idle(state: Idle, event: CancelRequested, _now: float) -> Step:
    return state, (_cancelled(event.key),)


def _cancel_ended(state: Ended, event: CancelRequested, _now: float) -> Step:
    over = event.key == state.offer.key
    return state, (Repeat(key=event.key) if over else _cancelled(event.key),)


def _cancel_early(state: Any, event: CancelRequested, _now: float) -> Step:
    if event.key != state.offer.key:
        return state, (_cancelled(event.key),)
    ended = Ended(offer=state.offer, outcome=ExecState.FAILED)
    return ended, (_cancelled(event.key), Collect())


def _cancel_late(state: Any, event: CancelRequested, _now: float) -> Step:
    if event.key != state.offer.key:
        pending = getattr(state, "pending", None)
        if pending is not None and pending.key == event.key:
            return replace(state, pending=None), (_cancelled(event.key),)
        return state, (_cancelled(event.key),)
    current = REPORTED_AS[type(state)]
    late = Report(key=event.key, state=current, cause=DeviceCause.CANCEL_TOO_LATE)
    return state, (late,)


def _mine(handler: Handler) -> Handler:
    """Ignore the answers of work done for another execution."""

    def guarded(state: Any, event: Any, now: float) -> Step:
        if event.key != state.offer.key:
            return state, ()
        return handler(state, event, now)

    return guarded


def _end(
    state: Any,
    outcome: ExecState,
    *,
    cause: DeviceCause | None = None,
    detail: str | None = None,
    retryable: bool = False,
) -> Step:
    report = Report(
        key=state.offer.key, state=outcome, cause=cause, detail=detail, retryable=retryable
    )
    return Ended(offer=state.offer, outcome=outcome), (report, Collect())


def _manifest(state: Accepted, event: ManifestAccepted, now: float) -> Step:
    new = Downloading(offer=state.offer, slot=event.slot, total=event.total, reported_at=now)
    return new, (_progress(new), Begin())


def _progress(state: Downloading) -> Report:
    return Report(
        key=state.offer.key,
        state=ExecState.DOWNLOADING,
        done=state.done,
        total=state.total,
        fetched=state.fetched,
    )


def _progressed(state: Downloading, event: Progressed, now: float) -> Step:
    if (event.done, event.fetched) == (state.done, state.fetched):
        return state, ()
    new = replace(state, done=min(event.done, state.total), fetched=event.fetched)
    if 0 <= now - state.reported_at < PROGRESS_SECONDS:
        return new, ()
    new = replace(new, reported_at=now)
    return new, (_progress(new),)


def _fetched(state: Downloading, event: Fetched, _now: float) -> Step:
    report = Report(
        key=event.key,
        state=ExecState.VERIFIED,
        done=state.total,
        total=state.total,
        fetched=event.fetched,
    )
    return Verified(offer=state.offer, slot=state.slot), (report, Begin())


def _trial_passed(state: Verified, event: TrialPassed, _now: float) -> Step:
    report = Report(key=event.key, state=ExecState.STAGED)
    return Staged(offer=state.offer, slot=state.slot), (report, Begin())


def _refused(state: Any, event: Refused, _now: float) -> Step:
    return _end(state, ExecState.REJECTED, cause=event.cause, detail=event.detail)


def _broke_early(state: Any, event: Broke, _now: float) -> Step:
    return _end(
        state,
        ExecState.FAILED,
        cause=event.cause,
        detail=event.detail,
        retryable=event.retryable,
    )


def _proceed(state: Staged, event: Proceeded, _now: float) -> Step:
    new = Activating(offer=state.offer, slot=state.slot, fallback=event.fallback)
    return new, (Report(key=event.key, state=ExecState.ACTIVATING), Begin())


def _revert(state: Any, cause: DeviceCause, detail: str) -> Reverting:
    return Reverting(
        offer=state.offer,
        slot=state.slot,
        fallback=state.fallback,
        cause=cause,
        detail=detail,
        pending=getattr(state, "pending", None),
    )


def _broke_late(state: Any, event: Broke, _now: float) -> Step:
    return _revert(state, event.cause, event.detail), (Begin(),)


def _swapped(state: Activating, event: Swapped, _now: float) -> Step:
    report = Report(key=event.key, state=ExecState.PROBATION)
    new = OnProbation(
        offer=state.offer, slot=state.slot, fallback=state.fallback, boots=state.boots
    )
    if state.pending is None:
        return new, (report, Begin())
    back = _revert(new, DeviceCause.SUPERSEDED, _superseded(state.pending))
    return replace(back, pending=state.pending), (report, Begin())


def _observed(state: OnProbation, event: Observed, _now: float) -> Step:
    """Judge the new model: as soon as it cannot pass any more, or once it has served."""
    rules = state.offer.assignment.probation
    n, errors = event.n, event.errors
    if errors > rules.max_error_rate * max(n, rules.min_inferences):
        detail = f"{errors} of {n} inferences failed (at most {rules.max_error_rate:.1%} may)"
        return _revert(state, DeviceCause.PROBATION_FAILED, detail), (Begin(),)
    if n >= rules.min_inferences:
        detail = f"{n} inferences served, {errors} failed"
        return _end(state, ExecState.SUCCEEDED, detail=detail)
    return replace(state, n=n, errors=errors), ()


def _booted_early(state: Any, _event: Booted, _now: float) -> Step:
    again = Report(key=state.offer.key, state=REPORTED_AS[type(state)])
    if isinstance(state, Downloading):
        again = _progress(state)
    return state, (again, Begin())


def _booted_late(state: Any, _event: Booted, _now: float) -> Step:
    """Count the start; a model that brings the agent down must not stay."""
    boots, most = state.boots + 1, state.offer.assignment.probation.max_boots
    if boots > most:
        detail = f"the agent started {boots} times before the model was proven (at most {most})"
        return _revert(state, DeviceCause.BOOT_LOOP, detail), (Begin(),)
    counted = replace(state, boots=boots)
    if isinstance(counted, OnProbation):
        counted = replace(counted, n=0, errors=0)
    return counted, (Report(key=state.offer.key, state=REPORTED_AS[type(state)]), Begin())


def _booted_reverting(state: Reverting, _event: Booted, _now: float) -> Step:
    return state, (Begin(),)


def _restored(state: Reverting, event: Restored, _now: float) -> Step:
    report = Report(
        key=event.key,
        state=ExecState.ROLLED_BACK,
        cause=state.cause,
        detail=state.detail,
        retryable=state.cause is DeviceCause.SUPERSEDED,
    )
    if state.pending is None:
        return Ended(offer=state.offer, outcome=ExecState.ROLLED_BACK), (report, Collect())
    new, actions = _accept(state.pending, state.fallback)
    return new, (report, Collect(), *actions)


_EARLY: dict[type[Any], Handler] = {
    Offered: _offer_early,
    CancelRequested: _cancel_early,
    Refused: _refused,
    Broke: _broke_early,
    Booted: _booted_early,
}
"""Before the pointer is touched: giving up leaves the device as it was."""

_ROWS: dict[type[Any], dict[type[Any], Handler]] = {
    Idle: {Offered: _offer_idle, CancelRequested: _cancel_idle},
    Accepted: _EARLY | {ManifestAccepted: _manifest},
    Downloading: _EARLY | {Progressed: _progressed, Fetched: _fetched},
    Verified: _EARLY | {TrialPassed: _trial_passed},
    Staged: _EARLY | {Proceeded: _proceed},
    Activating: {
        Offered: _offer_later,
        CancelRequested: _cancel_late,
        Broke: _broke_late,
        Swapped: _swapped,
        Booted: _booted_late,
    },
    OnProbation: {
        Offered: _offer_probation,
        CancelRequested: _cancel_late,
        Broke: _broke_late,
        Observed: _observed,
        Booted: _booted_late,
    },
    Reverting: {
        Offered: _offer_later,
        CancelRequested: _cancel_late,
        Booted: _booted_reverting,
        Restored: _restored,
    },
    Ended: {Offered: _offer_ended, CancelRequested: _cancel_ended},
}

STATES: tuple[type[Any], ...] = get_args(State)
EVENTS: tuple[type[Any], ...] = get_args(Event)
_UNKEYED = frozenset({Offered, CancelRequested, Booted})

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
