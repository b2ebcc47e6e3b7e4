"""What a connection to the broker is to the rest of the agent, whatever carries it.

``edge_client.mqtt_transport`` is the one that is made; it hands these events over from
threads of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from edge_client.identity import Identity
from edge_client.refusal import Refusal
from schemas.topics import Down, Up

Ticket: TypeAlias = tuple[int, int]
"""(connection, message): names a publication until it is acknowledged."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted the connection; it is the ``session``-th of this boot.

    serial: of the certificate that it accepted.
    """

    session: int
    serial: str = ""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone, or could not be made. refusal: trying again soon is of no use."""

    reason: str
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A message for this device."""

    leaf: Down
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has a publication (``ok``), or refuses it.

    heard: not ok, and False, when it would take it and nobody is there to whom it would go.
    """

    ticket: Ticket
    ok: bool
    heard: bool = True


TransportEvent: TypeAlias = Connected | Disconnected | Received | Acknowledged


class Transport(Protocol):
    """What the agent needs of a connection."""

    @property
    def alive(self) -> bool:
        """Whether it still tries to be connected."""

    def start(self) -> None:
        """Connect, and again whenever the connection is lost."""

    def stop(self, timeout: float) -> None:
        """Say goodbye and end, within ``timeout`` seconds."""

    def use(self, identity: Identity) -> None:
        """Connect anew with another certificate; what was not acknowledged is sent again."""

    def publish(self, leaf: Up, payload: str | bytes, *, qos: Literal[0, 1] = 1) -> Ticket | None:
        """Send; None when there is no connection."""

    def listen(self, sha256: str | None) -> None:
        """Hear the broadcast of a file, on this connection and the next ones; None: of none."""

    def announce(self) -> None:
        """Publish the birth message, retained."""
