"""Steps of the state machine that wait: before the download, and before the swap.

Why an update waits is decided in ``edge_client.waiting``; each wait is a state in the journal, in
which giving up is as before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_client.actions import Begin, Repeat, Report
from edge_client.events import Dated, Held, ProceedWanted, PutOffWanted, Released
from edge_client.states import (
    REPORTED_AS,
    Accepted,
    Deferred,
    Downloading,
    Ended,
    Shadowing,
    Staged,
)
from edge_client.steps import Step
from edge_client.waiting import Hold, in_words


def waits_report(state: Deferred | Staged, hold: Hold) -> Report:
    """Tells the server why and until when it waits."""
    return Report(
        key=state.offer.key,
        state=REPORTED_AS[type(state)],
        detail=in_words(hold),
        waits_until=hold.until,
    )


def held_download(state: Accepted | Deferred | Downloading, event: Held, _now: float) -> Step:
    """Wait; what was fetched stays."""
    if isinstance(state, Deferred) and state.hold == event.hold:
        return state, ()
    new = Deferred(offer=state.offer, timing=state.timing, hold=event.hold)
    return new, (waits_report(new, event.hold),)


def released(state: Deferred, _event: Released, _now: float) -> Step:
    """Nothing holds it any more: ask for the manifest, and go on at the byte."""
    new = Accepted(offer=state.offer, timing=state.timing)
    return new, (Report(key=state.offer.key, state=REPORTED_AS[Accepted]), Begin())


def held_staged(state: Staged, event: Held, _now: float) -> Step:
    """Wait with the model staged."""
    if state.hold == event.hold:
        return state, ()
    new = replace(state, hold=event.hold)
    return new, (waits_report(new, event.hold),)


def held_shadowing(state: Shadowing, event: Held, _now: float) -> Step:
    """There is nothing to compare with, and it may not serve yet."""
    new = after_shadow(state, event.hold)
    return new, (waits_report(new, event.hold),)


def after_shadow(state: Shadowing, hold: Hold) -> Staged:
    """Staged again: the shadow is not run twice."""
    return Staged(
        offer=state.offer,
        slot=state.slot,
        timing=state.timing,
        hold=hold,
        shadowed=True,
        before_mb=state.before_mb,
    )


def dated(state: Any, event: Dated, _now: float) -> Step:
    """The server's time is known: count from here, if nothing did before."""
    if state.timing.accepted_at is not None:
        return state, ()
    return replace(state, timing=replace(state.timing, accepted_at=event.at)), ()


def put_off(state: Any, event: PutOffWanted, _now: float) -> Step:
    """Note it; what is under way goes on to where it would wait."""
    timing = replace(state.timing, put_off_until=event.until, proceed=False)
    return replace(state, timing=timing), ()


def proceed(state: Any, event: ProceedWanted, _now: float) -> Step:
    """Go on, now and wherever it would wait later."""
    if state.timing.proceed:
        return state, ()
    told = replace(state, timing=replace(state.timing, put_off_until=None, proceed=True))
    if isinstance(told, Deferred):
        new = Accepted(offer=told.offer, timing=told.timing)
        return new, (Report(key=event.key, state=REPORTED_AS[Accepted]), Begin())
    if isinstance(told, Staged):
        return replace(told, hold=None), (Begin(),)
    return told, ()


def proceed_ended(state: Ended, _event: ProceedWanted, _now: float) -> Step:
    """Whoever says so has missed its end."""
    return state, (Repeat(key=state.offer.key),)
