"""What an agent says of itself: to the server at birth, to ``status``, to the service manager."""

from __future__ import annotations

from edge_client import notify
from edge_client.parts import Parts
from edge_client.slots import Slot
from edge_client.states import Shadowing, exec_state, hold_of, key_of
from edge_client.status import Live
from edge_client.waiting import in_words
from schemas.device import Birth


def birth_of(parts: Parts, session: int) -> Birth:
    """The birth message of a connection; made on whichever thread sends it."""
    return Birth(
        boot=parts.boot.id,
        session=session,
        uptime=parts.boot.uptime(),
        hardware=parts.hardware,
        active=tuple(slot.as_active() for slot in parts.runtime.slots()),
        execution=parts.updater.seen,
        rolled_back=parts.updater.rolled_back,
    )


def live_of(parts: Parts, problem: str | None) -> Live:
    """``agent.json``. problem: of the connection, or of what was last tried."""
    state, renewer = parts.updater.state, parts.standing.renewer
    key, hold = key_of(state), hold_of(state)
    return Live(
        boot=parts.boot.id,
        connected=parts.uplink.connected,
        uptime=round(parts.boot.uptime(), 1),
        serving=tuple(slot.as_active() for slot in parts.runtime.slots()),
        execution=None if key is None else key[0],
        state=exec_state(state),
        waits=None if hold is None else in_words(hold),
        waits_until=None if hold is None else hold.until,
        shadow_idle=isinstance(state, Shadowing) and not _compared(parts),
        windows_waiting=len(parts.buffer),
        refused=parts.standing.refusal,
        next_renewal=renewer.due,
        renewal_problem=renewer.problem,
        read_only=parts.read_only,
        last_error=problem or parts.device.problems.last,
    )


def _compared(parts: Parts) -> int:
    shadow = parts.runtime.shadowing
    return 0 if shadow is None else shadow.seen().compared


def status_line(live: Live, slots: tuple[Slot, ...]) -> str:
    """For ``systemctl status``."""
    where = "connected" if live.connected else "not connected"
    doing = "" if live.execution is None else f"; {live.execution} {live.state}"
    return notify.status(f"serving {names_of(slots)}, {where}{doing}")


def names_of(slots: tuple[Slot, ...]) -> str:
    """Models, for the log."""
    named = ", ".join(f"{slot.model} v{slot.version} ({slot.variant})" for slot in slots)
    return named or "no model yet"
