"""Vectors of executions: what devices report, and what the server makes of it."""

from __future__ import annotations

from typing import Any

Step = dict[str, Any]


def _expecting(event: Step, state: str, /, *, cancel: bool = False, **more: Any) -> Step:
    return {**event, "expect": {"state": state, **more}, "cancel": cancel}


def says(attempt: int, seq: int, reported: str, state: str, /, **more: Any) -> Step:
    """A report of the device, and the state in which the record then is."""
    told = {name: more.pop(name) for name in ("cause", "retryable") if name in more}
    report = {"attempt": attempt, "seq": seq, "state": reported, **told}
    return _expecting({"report": report}, state, **more)


def does(what: str, state: str, /, **more: Any) -> Step:
    """Something that the server does: offered, retried, vanished, or an end by its name."""
    return _expecting({"server": what}, state, **more)


def born(attempt: int, seq: int, stands: str, state: str, /, **more: Any) -> Step:
    """A birth that says where the device stands."""
    birth = {"attempt": attempt, "seq": seq, "state": stands}
    return _expecting({"birth": birth}, state, **more)


OFFERED = does("offered", "OFFERED", attempt=1, seq=-1)

CASES: dict[str, list[Step]] = {
    "straight through": [
        OFFERED,
        says(1, 0, "ACCEPTED", "ACCEPTED"),
        says(1, 1, "DOWNLOADING", "DOWNLOADING"),
        says(1, 2, "VERIFIED", "VERIFIED"),
        says(1, 3, "STAGED", "STAGED"),
        says(1, 4, "ACTIVATING", "ACTIVATING"),
        says(1, 5, "PROBATION", "PROBATION"),
        says(1, 6, "SUCCEEDED", "SUCCEEDED", seq=6),
    ],
    "repeats and what is older do nothing": [
        OFFERED,
        says(1, 4, "DOWNLOADING", "DOWNLOADING", seq=4),
        says(1, 4, "FAILED", "DOWNLOADING", seq=4),
        says(1, 2, "ACCEPTED", "DOWNLOADING", seq=4),
        says(1, 5, "VERIFIED", "VERIFIED", seq=5),
    ],
    "reports in between may be lost": [
        OFFERED,
        says(1, 9, "PROBATION", "PROBATION", seq=9),
        says(1, 12, "SUCCEEDED", "SUCCEEDED", seq=12),
    ],
    "before the swap a device may start over": [
        OFFERED,
        says(1, 1, "STAGED", "STAGED"),
        says(1, 2, "DOWNLOADING", "DOWNLOADING"),
        says(1, 3, "ACCEPTED", "ACCEPTED"),
    ],
    "a download that waits, in the middle too": [
        OFFERED,
        says(1, 0, "ACCEPTED", "ACCEPTED"),
        says(1, 1, "DEFERRED", "DEFERRED"),
        says(1, 2, "ACCEPTED", "ACCEPTED"),
        says(1, 3, "DOWNLOADING", "DOWNLOADING"),
        says(1, 4, "DEFERRED", "DEFERRED", seq=4),
        says(1, 5, "ACCEPTED", "ACCEPTED"),
        says(1, 6, "DOWNLOADING", "DOWNLOADING"),
    ],
    "what is staged waits, and after its shadow again": [
        OFFERED,
        says(1, 4, "STAGED", "STAGED"),
        says(1, 5, "SHADOWING", "SHADOWING"),
        says(1, 6, "STAGED", "STAGED", seq=6),
        says(1, 7, "ACTIVATING", "ACTIVATING"),
    ],
    "who waits is cancelled": [
        OFFERED,
        says(1, 1, "DEFERRED", "DEFERRED"),
        does("CANCELLED", "CANCELLED", cancel=True),
        says(1, 2, "FAILED", "CANCELLED", cause="cancelled"),
    ],
    "after the swap it may not": [
        OFFERED,
        says(1, 1, "PROBATION", "PROBATION"),
        says(1, 2, "DOWNLOADING", "PROBATION", seq=2),
        says(1, 3, "ROLLED_BACK", "ROLLED_BACK", cause="probation_failed"),
    ],
    "what was never offered is not moved": [
        says(1, 0, "SUCCEEDED", "SCHEDULED", seq=-1),
        OFFERED,
        says(2, 0, "SUCCEEDED", "OFFERED", attempt=1, seq=-1),
    ],
    "a failure that may pass is tried again, from number 0": [
        OFFERED,
        says(1, 3, "FAILED", "FAILED", cause="transfer_failed", retryable=True),
        does("retried", "SCHEDULED", attempt=2, seq=-1),
        does("offered", "OFFERED", attempt=2, seq=-1),
        says(1, 4, "FAILED", "OFFERED", attempt=2, seq=-1),
        says(2, 0, "ACCEPTED", "ACCEPTED", attempt=2, seq=0),
    ],
    "a failure that will not pass is not": [
        OFFERED,
        says(1, 3, "FAILED", "FAILED", cause="load_failed", retryable=False),
        does("retried", "FAILED", attempt=1, seq=3),
    ],
    "cancelled in time": [
        OFFERED,
        says(1, 1, "DOWNLOADING", "DOWNLOADING"),
        does("CANCELLED", "CANCELLED", cancel=True),
        says(1, 2, "FAILED", "CANCELLED", cause="cancelled"),
    ],
    "cancelled too late: the record returns to what the device does": [
        OFFERED,
        says(1, 1, "STAGED", "STAGED"),
        does("CANCELLED", "CANCELLED", cancel=True),
        says(1, 2, "ACTIVATING", "ACTIVATING", cause="cancel_too_late"),
        says(1, 3, "PROBATION", "PROBATION"),
        says(1, 4, "SUCCEEDED", "SUCCEEDED"),
    ],
    "who works on what was cancelled is told again": [
        OFFERED,
        does("CANCELLED", "CANCELLED", cancel=True),
        says(1, 1, "DOWNLOADING", "CANCELLED", cancel=True),
        says(1, 2, "FAILED", "CANCELLED", cause="cancelled"),
    ],
    "a late success is kept beside the end": [
        OFFERED,
        says(1, 1, "DOWNLOADING", "DOWNLOADING"),
        does("TIMED_OUT", "TIMED_OUT", cancel=True),
        says(1, 2, "SUCCEEDED", "TIMED_OUT", late="SUCCEEDED"),
        says(1, 3, "SUCCEEDED", "TIMED_OUT", late="SUCCEEDED"),
    ],
    "who vanished says at its birth where it stands": [
        OFFERED,
        says(1, 1, "DOWNLOADING", "DOWNLOADING"),
        does("vanished", "UNKNOWN"),
        born(1, 4, "PROBATION", "PROBATION"),
        says(1, 5, "SUCCEEDED", "SUCCEEDED"),
    ],
    "an end is taken from a report, never from a birth": [
        OFFERED,
        says(1, 1, "PROBATION", "PROBATION"),
        born(1, 2, "SUCCEEDED", "PROBATION"),
        says(1, 2, "SUCCEEDED", "SUCCEEDED"),
    ],
}


def vectors() -> dict[str, dict[str, Any]]:
    """Each file's content by its name."""
    cases = [{"name": name, "steps": steps} for name, steps in CASES.items()]
    return {"executions.json": {"cases": cases}}
