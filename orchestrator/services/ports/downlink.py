"""The way to devices."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from typing import Protocol

from schemas.enroll import Renewed, RenewNow
from schemas.rollout import Command


class Downlink(Protocol):
    """Sends to devices. Every call may be repeated; none waits for the network.

    ``desired`` and ``command`` answer whether the broker has exactly that message, and go
    on doing so until ``forget``: after it, the same wish sends the message anew. ``has``
    answers the same, and sends nothing. ``refuses``: the last call could not hand its message
    over, so the next one hardly will. ``renewed`` and ``renew_now`` send at each call; False
    when nothing can be sent now.
    """

    @property
    def refuses(self) -> bool: ...
    def desired(self, device: str, document: bytes) -> bool: ...
    def command(self, device: str, command: Command) -> bool: ...
    def has(self, device: str, what: bytes | Command) -> bool: ...
    def renewed(self, device: str, answer: Renewed) -> bool: ...
    def renew_now(self, device: str, ask: RenewNow) -> bool: ...
    def forget(self, device: str, command: Command | None = None) -> None: ...
