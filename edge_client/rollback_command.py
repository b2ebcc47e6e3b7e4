"""What ``argosy-edge rollback`` does: ask the running agent, or do it without one."""

from __future__ import annotations

import secrets
import time

from edge_client import errand, rollback
from edge_client.actions import PutBack, Report
from edge_client.errors import AgentRunningError, RollbackError
from edge_client.events import Restored
from edge_client.hang import forget_hang
from edge_client.journal import ROLLED_BACK, Journal, facts_of
from edge_client.lock import agent_lock
from edge_client.opening import usable_journal
from edge_client.rollback import Asked
from edge_client.serving import point, point_back
from edge_client.settings import Home
from edge_client.slots import Pointer, Slot, read_pointers
from edge_client.state_machine import step
from edge_client.states import Reverting
from edge_client.store import Store
from schemas.ids import Name

WAIT_SECONDS = 60.0


def roll_back(
    home: Home, model: Name | None = None, *, give_up: bool, wait: float = WAIT_SECONDS
) -> Slot:
    """Put the model before back, and wait until it serves or, without an agent, is the active one.

    Args:
        home: of the device.
        model: which one; None means the only one.
        give_up: also an update that is under way.
        wait: seconds for the agent to answer.

    Returns:
        What serves now.

    Raises:
        EdgeError: it was not done, and why.
    """
    asked = rollback.wanted(home, id_=secrets.token_hex(8), give_up=give_up, model=model)
    deadline = time.monotonic() + wait
    while True:
        try:
            with agent_lock(home):
                _alone(home, asked)
                return asked.fallback
        except AgentRunningError:
            if _by_agent(home, asked, deadline):
                return asked.fallback


def _by_agent(home: Home, asked: Asked, deadline: float) -> bool:
    """Have the agent do it; False when the agent has gone meanwhile."""
    late = "the agent has not put the model before back in time"
    found = errand.run(home, home.rollback, home.rolled_back, asked, deadline=deadline, late=late)
    if found is not None and found.error is not None:
        raise RollbackError(found.error, hint=found.hint)
    return found is not None


def _alone(home: Home, asked: Asked) -> None:
    """Without an agent: the same steps, journal first; the next start goes on where this ends."""
    journal = usable_journal(home, boot="0" * 32)
    try:
        state = journal.load()
        if isinstance(state, Reverting) and state.fallback == asked.fallback:
            rollback.require_loadable(Store(home, quota=0), asked.fallback)
            _finish(home, journal, state)
            return
        event = rollback.decide(asked, state, read_pointers(home.pointer))
        if event is None:
            msg = "an update was cut off in the middle of its swap"
            raise RollbackError(msg, hint="start the agent, which ends it; then ask again")
        rollback.require_loadable(Store(home, quota=0), asked.fallback)
        state, actions = step(state, event, time.time())
        reports = [action for action in actions if isinstance(action, Report)]
        journal.commit(state, reports, uptime=0.0)
        if isinstance(state, Reverting):
            _finish(home, journal, state)
        elif any(isinstance(action, PutBack) for action in actions):
            point(home, asked.slot.model, Pointer(active=asked.fallback))
            journal.remember(ROLLED_BACK, 1.0)
    finally:
        journal.close()
    forget_hang(home)


def _finish(home: Home, journal: Journal, state: Reverting) -> None:
    pointer = Pointer(active=state.fallback, fallback=state.older)
    point_back(home, state.slot.model, pointer)
    new, actions = step(state, Restored(key=state.offer.key, serving=state.fallback), time.time())
    reports = [action for action in actions if isinstance(action, Report)]
    journal.commit(new, reports, uptime=0.0, facts=facts_of(reports))
