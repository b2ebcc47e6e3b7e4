"""What ``argosy-edge defer`` and ``proceed`` do: ask the running agent."""

from __future__ import annotations

import secrets
import time
from typing import Literal

from edge_client import errand
from edge_client.errors import AgentMissingError, WishError
from edge_client.identity import load_identity
from edge_client.lock import is_locked
from edge_client.settings import Home
from edge_client.wish import Wish
from schemas.ids import Name

WAIT_SECONDS = 60.0


def ask(
    home: Home,
    kind: Literal["defer", "proceed"],
    model: Name | None = None,
    *,
    seconds: float = 3600.0,
    wait: float = WAIT_SECONDS,
) -> str:
    """Have the agent put an update off, or go on with it.

    Args:
        home: of the device.
        kind: which of them.
        model: of which model; None means whichever it is.
        seconds: how long to put it off.
        wait: seconds for the agent to answer.

    Returns:
        What was done.

    Raises:
        EdgeError: it was not done, and why.
    """
    load_identity(home)
    wish = Wish(id=secrets.token_hex(8), kind=kind, model=model, seconds=seconds)
    answered = None
    if is_locked(home):
        deadline, late = time.monotonic() + wait, "the agent has not answered in time"
        answered = errand.run(home, home.wish, home.wished, wish, deadline=deadline, late=late)
    if answered is None:
        msg = "the agent does not run, so that no update goes on"
        raise AgentMissingError(msg, hint="start it with `argosy-edge run`, then ask again")
    if answered.error is not None:
        raise WishError(answered.error, hint=answered.hint)
    return answered.said or ""
