"""Steps of the state machine while the pointer is untouched: idle, up to staged, and ended.

Giving up in any of these states leaves the device as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_client.actions import Begin, Collect, PutBack, Repeat, Report
from edge_client.events import (
    Booted,
    Broke,
    CancelRequested,
    Compared,
    Fetched,
    ManifestAccepted,
    Offered,
    Proceeded,
    Progressed,
    Refused,
    RollbackWanted,
    ShadowDue,
    TrialPassed,
)
from edge_client.probation import Failed, Passed
from edge_client.shadowing import compare
from edge_client.states import (
    REPORTED_AS,
    Accepted,
    Activating,
    Downloading,
    Ended,
    Idle,
    Reverting,
    Shadowing,
    Staged,
    Verified,
    hold_of,
)
from edge_client.steps import BY_HAND, Step, accept, cancelled_report, end, is_newer, superseded_by
from edge_client.steps_waiting import after_shadow, waits_report
from schemas.errors import DeviceCause
from schemas.rollout import ExecState

PROGRESS_SECONDS = 1.0
"""The least time between two reports of progress."""


def offer_idle(_state: Idle, event: Offered, _now: float) -> Step:
    """The first offer."""
    return accept(event.offer, event.active)


def offer_ended(state: Ended, event: Offered, _now: float) -> Step:
    """Another offer, or the same one again from a server that missed its end."""
    if event.offer.key == state.offer.key:
        return state, (Repeat(key=event.offer.key),)
    return accept(event.offer, event.active)


def cancel_idle(state: Idle, event: CancelRequested, _now: float) -> Step:
    """Cancelled before it was offered."""
    return state, (cancelled_report(event.key),)


def cancel_ended(state: Ended, event: CancelRequested, _now: float) -> Step:
    """Cancelled after its end, which is repeated, or before it was offered."""
    over = event.key == state.offer.key
    return state, (Repeat(key=event.key) if over else cancelled_report(event.key),)


def offer_early(state: Any, event: Offered, _now: float) -> Step:
    """A newer offer replaces one that has changed nothing yet."""
    if not is_newer(state, event.offer):
        return state, ()
    old = Report(
        key=state.offer.key,
        state=ExecState.FAILED,
        cause=DeviceCause.SUPERSEDED,
        detail=superseded_by(event.offer),
    )
    new, actions = accept(event.offer, event.active)
    return new, (old, *actions)


def cancel_early(state: Any, event: CancelRequested, _now: float) -> Step:
    """Give up."""
    if event.key != state.offer.key:
        return state, (cancelled_report(event.key),)
    ended = Ended(offer=state.offer, outcome=ExecState.FAILED)
    return ended, (cancelled_report(event.key), Collect())


def manifest_accepted(state: Accepted, event: ManifestAccepted, now: float) -> Step:
    """The manifest says what to fetch."""
    new = Downloading(
        offer=state.offer,
        slot=event.slot,
        total=event.total,
        reported_at=now,
        timing=state.timing,
    )
    return new, (_progress(new), Begin())


def progressed(state: Downloading, event: Progressed, now: float) -> Step:
    """Bytes arrived; the server hears of them every ``PROGRESS_SECONDS``."""
    if (event.done, event.fetched) == (state.done, state.fetched):
        return state, ()
    new = replace(state, done=min(event.done, state.total), fetched=event.fetched)
    if 0 <= now - state.reported_at < PROGRESS_SECONDS:
        return new, ()
    new = replace(new, reported_at=now)
    return new, (_progress(new),)


def _progress(state: Downloading) -> Report:
    return Report(
        key=state.offer.key,
        state=ExecState.DOWNLOADING,
        done=state.done,
        total=state.total,
        fetched=state.fetched,
    )


def fetched(state: Downloading, event: Fetched, _now: float) -> Step:
    """All files are there: try to load them."""
    report = Report(
        key=event.key,
        state=ExecState.VERIFIED,
        done=state.total,
        total=state.total,
        fetched=event.fetched,
    )
    new = Verified(offer=state.offer, slot=state.slot, timing=state.timing)
    return new, (report, Begin())


def trial_passed(state: Verified, event: TrialPassed, _now: float) -> Step:
    """The model is runnable here."""
    report = Report(key=event.key, state=ExecState.STAGED)
    new = Staged(offer=state.offer, slot=state.slot, timing=state.timing)
    return new, (report, Begin())


def shadow_due(state: Staged, event: ShadowDue, _now: float) -> Step:
    """Run it beside what serves, before it may serve itself."""
    new = Shadowing(
        offer=state.offer, slot=state.slot, before_mb=event.before_mb, timing=state.timing
    )
    return new, (Report(key=event.key, state=ExecState.SHADOWING), Begin())


def compared(state: Shadowing, event: Compared, _now: float) -> Step:
    """Judge the shadow; its figures are said either way."""
    rules = state.offer.assignment.shadow
    verdict = (
        Passed("no comparison is asked for") if rules is None else compare(rules, event.beside)
    )
    match verdict:
        case Failed(cause, detail):
            return end(state, ExecState.FAILED, cause=cause, detail=detail)
        case Passed(detail) if event.hold is not None:
            held = after_shadow(state, event.hold)
            return held, (_also(waits_report(held, event.hold), detail),)
        case Passed(detail):
            swap = Activating(
                offer=state.offer,
                slot=state.slot,
                fallback=event.fallback,
                older=event.older,
                before_mb=state.before_mb,
            )
            report = Report(key=event.key, state=ExecState.ACTIVATING, detail=detail)
            return swap, (report, Begin())
    return replace(state, elapsed=max(state.elapsed, event.beside.elapsed)), ()


def _also(report: Report, detail: str) -> Report:
    return replace(report, detail=f"{report.detail}; {detail}")


def proceeded(state: Staged | Shadowing, event: Proceeded, _now: float) -> Step:
    """Swap; what serves now becomes the fallback."""
    new = Activating(
        offer=state.offer,
        slot=state.slot,
        fallback=event.fallback,
        older=event.older,
        before_mb=event.before_mb,
    )
    return new, (Report(key=event.key, state=ExecState.ACTIVATING), Begin())


def refused(state: Any, event: Refused, _now: float) -> Step:
    """A check of trust failed: nothing is left to do."""
    return end(state, ExecState.REJECTED, cause=event.cause, detail=event.detail)


def broke_early(state: Any, event: Broke, _now: float) -> Step:
    """The work failed; nothing has been changed."""
    return end(
        state,
        ExecState.FAILED,
        cause=event.cause,
        detail=event.detail,
        retryable=event.retryable,
    )


def booted_early(state: Any, _event: Booted, _now: float) -> Step:
    """Begin the state's work again."""
    again = Report(key=state.offer.key, state=REPORTED_AS[type(state)])
    hold = hold_of(state)
    if isinstance(state, Downloading):
        again = _progress(state)
    elif hold is not None:
        again = waits_report(state, hold)
    return state, (again, Begin())


def booted_shadowing(state: Shadowing, event: Booted, _now: float) -> Step:
    """Count the start: what ends the agent beside another model must not do so for ever."""
    if event.hung is not None:
        return end(state, ExecState.FAILED, cause=DeviceCause.HUNG, detail=event.hung)
    boots, most = state.boots + 1, state.offer.assignment.probation.max_boots
    if boots > most:
        detail = f"the agent started {boots} times while it ran as a shadow (at most {most})"
        return end(state, ExecState.FAILED, cause=DeviceCause.BOOT_LOOP, detail=detail)
    counted = replace(state, boots=boots)
    return counted, (Report(key=state.offer.key, state=ExecState.SHADOWING), Begin())


def rollback_idle(state: Idle, event: RollbackWanted, _now: float) -> Step:
    """No update is concerned: what this journal knew of it is lost, or was another identity's."""
    return state, (PutBack(fallback=event.fallback),)


def rollback_ended(state: Ended, event: RollbackWanted, _now: float) -> Step:
    """Take back what the last update brought, and say so; or what an earlier one brought."""
    if state.outcome is not ExecState.SUCCEEDED or not state.offer.names(event.slot):
        return state, (PutBack(fallback=event.fallback),)
    new = Reverting(
        offer=state.offer,
        slot=event.slot,
        fallback=event.fallback,
        cause=DeviceCause.OPERATOR,
        detail=BY_HAND,
        after_success=True,
    )
    return new, (Begin(),)


def rollback_early(state: Any, event: RollbackWanted, _now: float) -> Step:
    """What is under way is given up first, if that was said."""
    if event.slot.model != state.offer.assignment.model:
        return state, (PutBack(fallback=event.fallback),)
    if not event.give_up:
        return state, ()
    detail = "given up by hand, at the device"
    new, actions = end(state, ExecState.FAILED, cause=DeviceCause.OPERATOR, detail=detail)
    return new, (*actions, PutBack(fallback=event.fallback))
