"""What the broker must be told of who is shut out, and when; no IO."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

CANARY = "argosy-canary"
"""The name in the certificates with which the gate is tried; who bears it may do nothing."""

REWRITE_EVERY = timedelta(hours=1)
"""A reload makes mosquitto forget the keys of TLS session tickets. By a ticket, who has an
expired certificate would get in without showing it."""

PROBE_EVERY = timedelta(minutes=5)
PROBE_PAUSE = timedelta(seconds=0.1)
TELL_AGAIN = timedelta(seconds=5)
"""After so long without a proof the broker is told again; then after twice as long, and so on."""

START_GRACE = timedelta(seconds=15)
"""For so long after the start a proof that is awaited is no trouble, unless someone was revoked."""


class Verdict(StrEnum):
    """What a trial with canaries showed."""

    HOLDS = "holds"
    OPEN = "open"
    SHUT = "shut"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of knocking: with a revoked certificate and with a good one.

    None: it could not be told. why: what stood in the way.
    """

    bad: bool | None
    good: bool | None
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        """The gate holds only if both were told, and one was let in and the other not."""
        if self.bad:
            return Verdict.OPEN
        if self.bad is None or self.good is None:
            return Verdict.UNKNOWN
        return Verdict.HOLDS if self.good else Verdict.SHUT


@dataclass(frozen=True, slots=True)
class Wanted:
    """Who must not get in.

    serials: of certificates. shut: devices that may do nothing even where they are connected.
    roots: SHA-256 of the roots that are trusted.
    """

    serials: frozenset[str]
    shut: frozenset[str]
    roots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What the broker was told, and what is known of it since.

    wanted: what it was told last, at ``at``; to be told again at ``until`` at the latest.
    proven_at: when canaries last showed that it holds. tried_at: when they last flew. failed:
    how often it was told the same in vain.
    """

    wanted: Wanted | None = None
    at: datetime | None = None
    until: datetime | None = None
    proven_at: datetime | None = None
    tried_at: datetime | None = None
    failed: int = 0
    verdict: Verdict = Verdict.UNKNOWN
    why: str = ""


class Step(StrEnum):
    """What to do next."""

    TELL = "tell"
    TRY = "try"
    REST = "rest"


def next_step(wanted: Wanted, told: Told, now: datetime) -> Step:
    """What brings the broker nearer to ``wanted``."""
    if told.wanted != wanted or told.at is None or told.until is None:
        return Step.TELL
    # Told later than now: the clock was ahead, and is right again.
    if not told.at <= now < told.until:
        return Step.TELL
    if told.proven_at is None:
        if now - told.at >= min(TELL_AGAIN * 2 ** min(told.failed, 10), PROBE_EVERY):
            return Step.TELL
        pause = PROBE_PAUSE if now - told.at < TELL_AGAIN else TELL_AGAIN
        if told.tried_at is None or not told.tried_at <= now < told.tried_at + pause:
            return Step.TRY
        return Step.REST
    fresh = told.proven_at <= now < told.proven_at + PROBE_EVERY
    return Step.REST if fresh else Step.TRY


def was_told(told: Told, wanted: Wanted, now: datetime, until: datetime) -> Told:
    """The broker was told: what was proven counts no more."""
    in_vain = told.wanted == wanted and told.proven_at is None
    return replace(
        told,
        failed=told.failed + 1 if in_vain else 0,
        wanted=wanted,
        at=now,
        until=min(until, now + REWRITE_EVERY),
        proven_at=None,
        tried_at=None,
    )


def was_tried(told: Told, trial: Trial, now: datetime) -> Told:
    """Canaries flew."""
    holds = trial.verdict is Verdict.HOLDS
    return replace(
        told,
        tried_at=now,
        proven_at=now if holds else None,
        verdict=trial.verdict,
        why="" if holds else trial.why,
    )


def trouble(told: Told, *, waiting: int, started: datetime, now: datetime) -> str | None:
    """Why it is not assured that who is revoked stays out; None when it is.

    Args:
        told: what is known.
        waiting: how many revoked certificates are not dealt with yet.
        started: when this began.
        now: the time.
    """
    if told.proven_at is not None and not waiting:
        late = told.until is not None and now >= told.until + START_GRACE
        return "the broker could not be told again in time" if late else None
    if told.verdict is Verdict.OPEN:
        return "the broker lets revoked certificates in; it is told again"
    if told.verdict is Verdict.SHUT:
        return "the broker refuses good certificates too; it is told again"
    if waiting:
        return f"{waiting} revoked certificates are not known to be shut out yet{_because(told)}"
    if now - started < START_GRACE:
        return None
    return f"it is not proven that the broker refuses revoked certificates{_because(told)}"


def _because(told: Told) -> str:
    return f": {told.why}" if told.why else ""
