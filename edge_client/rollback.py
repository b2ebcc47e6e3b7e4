"""Putting the model before back by hand: what is asked for, and whether it can be done.

``argosy-edge rollback`` asks the running agent by a file in the home, which names both models, so
that doing it twice is doing it once; without an agent it does it itself, under the home's lock.
"""

from __future__ import annotations

from edge_client import errand
from edge_client.errand import Answered
from edge_client.errors import EdgeError, NothingBeforeError, RollbackError
from edge_client.events import RollbackWanted
from edge_client.loading import load_slot
from edge_client.settings import Home
from edge_client.slots import Pointer, Pointers, Slot, require_pointers
from edge_client.states import (
    Accepted,
    Activating,
    Deferred,
    Downloading,
    Idle,
    Reverting,
    Shadowing,
    Staged,
    State,
    Verified,
)
from edge_client.store import Store
from schemas.ids import Name

EARLY = (Accepted, Deferred, Downloading, Verified, Staged, Shadowing)


class Asked(errand.Asked):
    """``rollback.json``: serve ``fallback`` instead of ``slot``.

    give_up: also an update that is under way.
    """

    slot: Slot
    fallback: Slot
    give_up: bool = False


def wanted(home: Home, *, id_: str, give_up: bool, model: Name | None = None) -> Asked:
    """What to ask for, by the pointer. model: None means the only one.

    Raises:
        NothingBeforeError: no model is kept from before the active one.
        UsageError: there are several models, and none was named.
    """
    pointers = require_pointers(home.pointer)
    name = pointers.one(model, "to go back with: argosy-edge rollback MODEL")
    pointer = Pointer() if name is None else pointers.of(name)
    if pointer.active is None:
        what = "no model" if model is None else f"no model {model}"
        msg = f"nothing to roll back: {what} is active on this device"
        raise NothingBeforeError(msg, hint="see `argosy-edge status`")
    if pointer.fallback is None:
        msg = f"nothing to roll back to: no model from before {in_words(pointer.active)} is kept"
        raise NothingBeforeError(msg, hint="roll out the version that should serve")
    return Asked(id=id_, slot=pointer.active, fallback=pointer.fallback, give_up=give_up)


def in_words(slot: Slot) -> str:
    """A model, as it is shown."""
    return f"{slot.model} v{slot.version} ({slot.variant})"


def is_done(asked: Asked, pointers: Pointers) -> bool:
    """Whether the pointer says what was asked for."""
    return pointers.of(asked.slot.model).active == asked.fallback


def decide(asked: Asked, state: State, pointers: Pointers) -> RollbackWanted | None:
    """What follows from a request.

    Returns:
        The event to apply; None while a swap is under way, which is over soon.

    Raises:
        RollbackError: it cannot be done as things are.
    """
    model = asked.slot.model
    mine = not isinstance(state, Idle) and state.offer.assignment.model == model
    if mine and isinstance(state, Activating | Reverting):
        return None
    pointer = pointers.of(model)
    if (pointer.active, pointer.fallback) != (asked.slot, asked.fallback):
        serving = "no model" if pointer.active is None else in_words(pointer.active)
        msg = f"{serving} is active by now, not {in_words(asked.slot)}"
        raise RollbackError(msg, hint="look at `argosy-edge status`, then ask again")
    if mine and isinstance(state, EARLY) and not asked.give_up:
        msg = f"an update is under way ({state.offer.assignment.execution}, {state.kind})"
        raise RollbackError(msg, hint="wait for its end, or give it up with --to-fallback")
    return RollbackWanted(slot=asked.slot, fallback=asked.fallback, give_up=asked.give_up)


def require_loadable(store: Store, fallback: Slot) -> None:
    """See that there is something to go back to.

    Raises:
        RollbackError: the model before is missing, damaged or not loadable.
    """
    try:
        load_slot(store, fallback)
    except (EdgeError, OSError) as error:
        msg = f"{in_words(fallback)} cannot be loaded, so the active model stays: {error}"
        raise RollbackError(msg, hint="roll out the version that should serve") from error


def read_asked(home: Home) -> Asked | None:
    """The request; None when there is none. One that cannot be read is removed."""
    return errand.read_asked(home.rollback, Asked)


def answer(home: Home, answered: Answered) -> None:
    """Answer the request.

    Raises:
        OSError: it could not be written; do it again.
    """
    errand.answer(home.rollback, home.rolled_back, answered)
