"""Putting the model before back by hand: what is asked for, and whether it can be done.

``argosy-edge rollback`` asks the running agent by a file in the home, which names both models, so
that doing it twice is doing it once; without an agent it does it itself, under the home's lock.
"""

from __future__ import annotations

from pydantic import ValidationError

from edge_client.errors import EdgeError, NothingBeforeError, RollbackError, UsageError
from edge_client.events import RollbackWanted
from edge_client.files import read_limited, write_atomic
from edge_client.loading import load_slot
from edge_client.settings import Home
from edge_client.slots import Pointer, Pointers, Slot, require_pointers
from edge_client.states import (
    Accepted,
    Activating,
    Downloading,
    Idle,
    Reverting,
    Shadowing,
    Staged,
    State,
    Verified,
)
from edge_client.store import Store
from schemas.base import Wire
from schemas.ids import Name

EARLY = (Accepted, Downloading, Verified, Staged, Shadowing)
_LIMIT = 16 * 1024


class Asked(Wire):
    """``rollback.json``: serve ``fallback`` instead of ``slot``.

    id: drawn at random, repeated in the answer. give_up: also an update that is under way.
    """

    id: str
    slot: Slot
    fallback: Slot
    give_up: bool = False


class Answered(Wire):
    """``rollback.answer.json``. error: why it was not done; hint: what to do then."""

    id: str
    error: str | None = None
    hint: str | None = None


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
    try:
        return Asked.model_validate_json(read_limited(home.rollback, _LIMIT))
    except FileNotFoundError:
        return None
    except (UsageError, ValidationError):
        home.rollback.unlink(missing_ok=True)
        return None


def answer(home: Home, answered: Answered) -> None:
    """Answer, then forget the request: after a crash in between it is answered again.

    Raises:
        OSError: it could not be written; do it again.
    """
    write_atomic(home.rolled_back, answered.model_dump_json().encode(), durable=False)
    home.rollback.unlink(missing_ok=True)


def read_answer(home: Home, id_: str) -> Answered | None:
    """The answer to a request; None while there is none."""
    try:
        found = Answered.model_validate_json(read_limited(home.rolled_back, _LIMIT))
    except (OSError, UsageError, ValidationError):
        return None
    return found if found.id == id_ else None
