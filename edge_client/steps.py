"""Steps of the state machine that several states share.

Pure: a state and an event in, the new state and the actions out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from edge_client.actions import Action, Begin, Collect, Report
from edge_client.slots import Slot
from edge_client.states import Accepted, Ended, Key, Offer, State
from schemas.errors import DeviceCause
from schemas.rollout import ExecState

Step: TypeAlias = tuple[State, tuple[Action, ...]]
"""The new state, and what is to be done once it is in the journal."""

BY_HAND = "put back by hand, at the device"

Handler: TypeAlias = Callable[[Any, Any, float], Step]
"""(state, event, now) to a step; ``now`` in seconds since 1970."""


def accept(offer: Offer, active: Slot | None) -> Step:
    """Take up an offer; what serves already has nothing left to do."""
    if offer.names(active):
        detail = "this version was serving already"
        done = Report(key=offer.key, state=ExecState.SUCCEEDED, detail=detail)
        return Ended(offer=offer, outcome=ExecState.SUCCEEDED), (done,)
    return Accepted(offer=offer), (Report(key=offer.key, state=ExecState.ACCEPTED), Begin())


def is_newer(state: Any, offer: Offer) -> bool:
    """Whether an offer replaces the one that a state belongs to."""
    return bool(offer.key != state.offer.key and offer.sequence > state.offer.sequence)


def superseded_by(by: Offer) -> str:
    """The detail of a report on an execution that another one replaced."""
    return f"superseded by {by.assignment.execution}"


def cancelled_report(key: Key) -> Report:
    """The report on an execution given up as the server asked."""
    detail = "cancelled by the server"
    return Report(key=key, state=ExecState.FAILED, cause=DeviceCause.CANCELLED, detail=detail)


def end(
    state: Any,
    outcome: ExecState,
    *,
    cause: DeviceCause | None = None,
    detail: str | None = None,
    retryable: bool = False,
) -> Step:
    """The execution is over; what it left behind can be collected."""
    report = Report(
        key=state.offer.key, state=outcome, cause=cause, detail=detail, retryable=retryable
    )
    return Ended(offer=state.offer, outcome=outcome), (report, Collect())
