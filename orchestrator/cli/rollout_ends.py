"""How a rollout ended, in words: who came to serve its version and what became of the others."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.cli import console
from schemas.rollout import ExecState
from schemas.rollout_view import NOT_OFFERED, RolloutView

_SERVES = (ExecState.SUCCEEDED.value, ExecState.ALREADY_INSTALLED.value)
_WORDS = {
    ExecState.ROLLED_BACK.value: "rolled back",
    ExecState.FAILED.value: "failed",
    ExecState.REJECTED.value: "rejected it",
    ExecState.TIMED_OUT.value: "timed out",
    ExecState.CANCELLED.value: "given up",
    ExecState.SUPERSEDED.value: "superseded",
    ExecState.REMOVED.value: "left it",
    ExecState.NO_VARIANT.value: "had no variant that fits",
    NOT_OFFERED: "never offered it",
}


def served(view: RolloutView) -> tuple[int, int]:
    """How many devices of an ended rollout came to serve its version, and of how many."""
    return sum(view.outcome.get(state, 0) for state in _SERVES), sum(view.outcome.values())


def outcome_text(view: RolloutView) -> str | None:
    """As in ``38 of 77 came to serve it, 39 rolled back``; None where it is not known."""
    if not view.outcome:
        return None
    good, of = served(view)
    others = {state: n for state, n in view.outcome.items() if state not in _SERVES}
    known = [(state, others.pop(state)) for state in _WORDS if state in others]
    told = [f"{n} {_WORDS[state]}" for state, n in known]
    told += [f"{n} {console.clean(state).lower()}" for state, n in others.items()]
    first = f"{of} came to serve it" if good == of else f"{good} of {of} came to serve it"
    return ", ".join([first, *told])


def absent_text(view: RolloutView) -> str | None:
    """As in ``waits for 1 device that is not there, until tomorrow 03:50``; None for nobody."""
    if view.absent is None:
        return None
    many = view.absent.devices
    who = "1 device that is not there" if many == 1 else f"{many} devices that are not there"
    return f"waits for {who}, until {console.local_time(view.absent.until)}"


def took(view: RolloutView) -> float:
    """Seconds since it began, or since it was planned if it never did; until it ended."""
    since = view.started_at or view.created_at
    return ((view.ended_at or datetime.now(UTC)) - since).total_seconds()
