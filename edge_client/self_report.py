"""What an agent says of itself: to the server at birth, to ``status``, to the service manager."""

from __future__ import annotations

from edge_client import notify
from edge_client.parts import Parts
from edge_client.slots import Slot
from edge_client.states import exec_state, key_of
from edge_client.status import Live
from schemas.device import Birth


def birth_of(parts: Parts, session: int) -> Birth:
    """The birth message of a connection; made on whichever thread sends it."""
    slot = parts.runtime.slot
    return Birth(
        boot=parts.boot.id,
        session=session,
        uptime=parts.boot.uptime(),
        hardware=parts.hardware,
        active=None if slot is None else slot.as_active(),
        execution=parts.updater.seen,
        rolled_back=parts.updater.rolled_back,
    )


def live_of(parts: Parts, problem: str | None) -> Live:
    """``agent.json``. problem: of the connection, or of what was last tried."""
    state, renewer = parts.updater.state, parts.standing.renewer
    key, slot = key_of(state), parts.runtime.slot
    return Live(
        boot=parts.boot.id,
        connected=parts.uplink.connected,
        uptime=round(parts.boot.uptime(), 1),
        serving=None if slot is None else slot.as_active(),
        execution=None if key is None else key[0],
        state=exec_state(state),
        windows_waiting=len(parts.buffer),
        refused=parts.standing.refusal,
        next_renewal=renewer.due,
        renewal_problem=renewer.problem,
        read_only=parts.read_only,
        last_error=problem or parts.device.problems.last,
    )


def status_line(live: Live, slot: Slot | None) -> str:
    """For ``systemctl status``."""
    where = "connected" if live.connected else "not connected"
    doing = "" if live.execution is None else f"; {live.execution} {live.state}"
    return notify.status(f"serving {name_of(slot)}, {where}{doing}")


def name_of(slot: Slot | None) -> str:
    """A model, for the log."""
    return "no model yet" if slot is None else f"{slot.model} v{slot.version} ({slot.variant})"
