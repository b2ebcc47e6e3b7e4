"""Steps of the state machine from the swap of the pointer on: either proven or put back.

There is no giving up here: what leaves these states early goes through ``Reverting``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_client.actions import Action, Begin, Collect, PutBack, Repeat, Report
from edge_client.events import (
    Booted,
    Broke,
    CancelRequested,
    Observed,
    Offered,
    Restored,
    RollbackWanted,
    Stranded,
    Swapped,
)
from edge_client.probation import Failed, Passed, Waiting, judge
from edge_client.slots import Slot
from edge_client.states import (
    REPORTED_AS,
    Activating,
    Ended,
    Idle,
    Offer,
    OnProbation,
    Reverting,
    State,
)
from edge_client.steps import BY_HAND, Step, accept, cancelled_report, end, is_newer, superseded_by
from schemas.errors import DeviceCause
from schemas.rollout import ExecState


def offer_later(state: Activating | OnProbation | Reverting, event: Offered, _now: float) -> Step:
    """A newer offer waits until this execution is over."""
    last = state.pending or state.offer
    if event.offer.key in {state.offer.key, last.key} or event.offer.sequence <= last.sequence:
        return state, ()
    dropped = _drop(state.pending, DeviceCause.SUPERSEDED, superseded_by(event.offer))
    return replace(state, pending=event.offer), dropped


def offer_probation(state: OnProbation, event: Offered, _now: float) -> Step:
    """A version that is not proven must not become the fallback: go back first.

    An offer of another model has nothing to do with it, and waits.
    """
    if _other(event.offer, state):
        return offer_later(state, event, _now)
    newest = state.pending or state.offer
    if not is_newer(state, event.offer) or event.offer.sequence <= newest.sequence:
        return state, ()
    cause, detail = DeviceCause.SUPERSEDED, superseded_by(event.offer)
    dropped = _drop(state.pending, cause, detail)
    return replace(_revert(state, cause, detail), pending=event.offer), (*dropped, Begin())


def cancel_late(state: Any, event: CancelRequested, _now: float) -> Step:
    """Too late, unless it is the offer that waits."""
    if event.key != state.offer.key:
        pending = getattr(state, "pending", None)
        if pending is not None and pending.key == event.key:
            return replace(state, pending=None), (cancelled_report(event.key),)
        return state, (cancelled_report(event.key),)
    if getattr(state, "after_success", False):
        return state, (Repeat(key=event.key),)
    current = REPORTED_AS[type(state)]
    late = Report(key=event.key, state=current, cause=DeviceCause.CANCEL_TOO_LATE)
    return state, (late,)


def swapped(state: Activating, event: Swapped, _now: float) -> Step:
    """The new model serves: watch it, or go back at once when an offer waits."""
    report = Report(key=event.key, state=ExecState.PROBATION)
    new = OnProbation(
        offer=state.offer,
        slot=state.slot,
        fallback=state.fallback,
        older=state.older,
        boots=state.boots,
        before_mb=state.before_mb,
    )
    if state.pending is None or _other(state.pending, state):
        return replace(new, pending=state.pending), (report, Begin())
    back = _revert(new, DeviceCause.SUPERSEDED, superseded_by(state.pending))
    return replace(back, pending=state.pending), (report, Begin())


def observed(state: OnProbation, event: Observed, _now: float) -> Step:
    """Judge the new model: as soon as it cannot pass any more, or once it has served."""
    seen = event.figures
    verdict = judge(state.offer.assignment.probation, seen)
    match verdict:
        case Failed(cause, detail):
            return _revert(state, cause, detail), (Begin(),)
        case Passed(detail):
            ended, actions = end(state, ExecState.SUCCEEDED, detail=detail)
            if state.pending is None:
                return ended, actions
            new, more = accept(state.pending, None)
            return new, (*actions, *more)
    due = verdict is Waiting.GOLDEN
    elapsed = max(state.elapsed, seen.elapsed)
    new = replace(state, n=seen.n, errors=seen.errors, elapsed=elapsed, golden_due=due)
    return new, ()


def broke_late(state: Any, event: Broke, _now: float) -> Step:
    """Go back to the fallback."""
    return _revert(state, event.cause, event.detail), (Begin(),)


def rollback_other(state: Any, event: RollbackWanted, _now: float) -> Step:
    """Of another model only; a swap of this one is over soon."""
    if event.slot.model == state.slot.model:
        return state, ()
    return state, (PutBack(fallback=event.fallback),)


def rollback_probation(state: OnProbation, event: RollbackWanted, _now: float) -> Step:
    """Go back: somebody at the device knows better than the figures."""
    if event.slot.model != state.slot.model:
        return state, (PutBack(fallback=event.fallback),)
    return _revert(state, DeviceCause.OPERATOR, BY_HAND), (Begin(),)


def booted_late(state: Any, event: Booted, _now: float) -> Step:
    """Count the start; a model that brings the agent down must not stay."""
    if event.hung is not None:
        return _revert(state, DeviceCause.HUNG, event.hung), (Begin(),)
    boots, most = state.boots + 1, state.offer.assignment.probation.max_boots
    if boots > most:
        detail = f"the agent started {boots} times before the model was proven (at most {most})"
        return _revert(state, DeviceCause.BOOT_LOOP, detail), (Begin(),)
    counted = replace(state, boots=boots)
    if isinstance(counted, OnProbation):
        counted = replace(counted, n=0, errors=0, golden_due=False)
    return counted, (Report(key=state.offer.key, state=REPORTED_AS[type(state)]), Begin())


def booted_reverting(state: Reverting, _event: Booted, _now: float) -> Step:
    """Go on going back."""
    return state, (Begin(),)


def restored(state: Reverting, event: Restored, _now: float) -> Step:
    """The fallback serves again; take up the offer that waits, if any."""
    report = Report(
        key=event.key,
        state=ExecState.ROLLED_BACK,
        cause=state.cause,
        detail=state.detail,
        retryable=state.cause is DeviceCause.SUPERSEDED,
    )
    return _over(state, ExecState.ROLLED_BACK, report, event.serving)


def stranded(state: Reverting, event: Stranded, _now: float) -> Step:
    """There is nothing to go back to: a model that was verified is better than none."""
    if state.after_success:
        if state.pending is not None:
            return accept(state.pending, None)
        return Ended(offer=state.offer, outcome=ExecState.SUCCEEDED), ()
    report = Report(
        key=event.key,
        state=ExecState.FAILED,
        cause=state.cause,
        detail=f"{state.detail}; it serves on, as the one before cannot: {event.detail}",
    )
    return _over(state, ExecState.FAILED, report, state.slot)


def _over(state: Reverting, outcome: ExecState, report: Report, serving: Slot | None) -> Step:
    """The execution has ended; take up the offer that waits, if any."""
    done: tuple[Action, ...] = (report, Collect())
    if state.pending is None:
        return Ended(offer=state.offer, outcome=outcome), done
    new, actions = accept(state.pending, serving)
    return new, (*done, *actions)


def _revert(state: Any, cause: DeviceCause, detail: str) -> Reverting:
    return Reverting(
        offer=state.offer,
        slot=state.slot,
        fallback=state.fallback,
        cause=cause,
        detail=detail,
        older=state.older,
        pending=getattr(state, "pending", None),
    )


def disown(state: State, device: str) -> State:
    """The state that ``device`` goes on with, which may have been enrolled anew.

    An older identity's update does not go on: a swap is taken back, the rest dropped.
    """
    if isinstance(state, Idle | Ended) or state.offer.assignment.device == device:
        return state
    if isinstance(state, Activating | OnProbation):
        back = _revert(state, DeviceCause.SUPERSEDED, "the device was enrolled anew")
        return replace(back, pending=None)
    return state if isinstance(state, Reverting) else Idle()


def _other(offer: Offer, state: Any) -> bool:
    """Whether an offer is of another model than the execution's."""
    return bool(offer.assignment.model != state.offer.assignment.model)


def _drop(pending: Offer | None, cause: DeviceCause, detail: str) -> tuple[Report, ...]:
    if pending is None:
        return ()
    return (Report(key=pending.key, state=ExecState.FAILED, cause=cause, detail=detail),)
