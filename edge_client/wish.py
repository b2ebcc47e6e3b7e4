"""What an operator of the device wishes for an update that is under way: later, or now.

``argosy-edge defer`` and ``proceed`` ask the running agent (``edge_client.errand``).
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import Field

from edge_client.errand import Asked
from edge_client.errors import WishError
from edge_client.events import ProceedWanted, PutOffWanted
from edge_client.states import Activating, Ended, Idle, Offer, OnProbation, Reverting, State
from edge_client.waiting import date, put_off_to
from schemas.ids import Name


class Wish(Asked):
    """``wish.json``. model: None means whichever it is. seconds: how long to put it off."""

    kind: Literal["defer", "proceed"]
    model: Name | None = None
    seconds: Annotated[float, Field(gt=0, le=90 * 86400)] = 3600.0


def decide(wish: Wish, state: State, now: dt.datetime | None) -> PutOffWanted | ProceedWanted:
    """What follows from a wish.

    Args:
        wish: what was asked for.
        state: where the update stands.
        now: the server's time; None while it is not known.

    Raises:
        WishError: it cannot be fulfilled, and why.
    """
    offer, what = _offer(wish, state), "proceed" if wish.kind == "proceed" else "put off"
    if offer is None or isinstance(state, Idle | Ended):
        whose = "" if wish.model is None else f" of {wish.model}"
        msg = f"there is nothing to {what}: no update{whose} is under way"
        raise WishError(msg, hint="see `argosy-edge status`")
    if isinstance(state, Activating | OnProbation | Reverting):
        msg = f"it is too late to {what}: the update serves already, or is being taken back"
        raise WishError(msg, hint="`argosy-edge rollback` puts the version before back")
    if wish.kind == "proceed":
        return ProceedWanted(key=offer.key)
    if now is None:
        msg = "this device does not know the server's time yet, by which it would wait"
        raise WishError(msg, hint="connect it, then ask again")
    until = put_off_to(offer.assignment, state.timing, wish.seconds, now)
    if isinstance(until, str):
        raise WishError(until, hint="its rollout says how urgent it is: ask who began it")
    return PutOffWanted(key=offer.key, until=until)


def in_words(event: PutOffWanted | ProceedWanted, wish: Wish, now: dt.datetime | None) -> str:
    """What was done, for the operator."""
    if isinstance(event, ProceedWanted):
        return f"{event.key[0]} goes on"
    short = now is not None and (event.until - now).total_seconds() < wish.seconds - 1
    most = ", the latest that its rollout allows" if short else ""
    return f"{event.key[0]} is put off until {date(event.until)}{most}"


def _offer(wish: Wish, state: State) -> Offer | None:
    if isinstance(state, Idle) or wish.model not in {None, state.offer.assignment.model}:
        return None
    return state.offer
