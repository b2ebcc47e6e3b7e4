"""Who acts: found by the audit log wherever a service writes to it.

A context variable, and not an argument of every service: it follows a request from the task
that serves it into the thread that runs its handler, and nothing else can see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PLATFORM = "platform"
"""The control loop, and whatever else acts by itself."""

_ACTOR: ContextVar[str] = ContextVar("argosy_actor", default=PLATFORM)


def current() -> str:
    """Who acts now: ``<role>:<token id>``, ``device:<id>`` or ``platform``."""
    return _ACTOR.get()


def become(actor: str) -> None:
    """Act as somebody until the task or thread at hand ends.

    Only where that is one request's own; ``acting`` gives the name back.
    """
    _ACTOR.set(actor)


@contextmanager
def acting(actor: str) -> Iterator[None]:
    """Act as somebody within a block."""
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)


def device(device_id: str) -> str:
    """The name of a device as an actor."""
    return f"device:{device_id}"
