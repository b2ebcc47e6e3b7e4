"""What a connection to the broker is made of, and its errors in words."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_client.identity import Identity
from edge_client.refusal import is_clock

SESSION_SECONDS = 7 * 86400
MAX_PACKET_BYTES = 8 * 1024**2

FIRST_DELAY, LAST_DELAY = 0.5, 30.0
REFUSED_DELAY = 300.0
"""The longest delay after a refusal: only an operator can change it."""


def backoff(attempt: int, spread: float, *, refused: bool = False) -> float:
    """Seconds to wait before connection attempt ``attempt`` (from 0).

    spread: 0..1, drawn at random, so that a fleet does not come back at once. refused: by
    a broker that knows the device and will not have it.
    """
    most = REFUSED_DELAY if refused else LAST_DELAY
    return min(most, FIRST_DELAY * 2.0 ** min(attempt, 16)) * (0.5 + spread / 2)


def tls_of(identity: Identity) -> ssl.SSLContext:
    """Mutual TLS: the device's certificate, and its own authorities alone.

    Raises:
        OSError: a file is missing or damaged.
    """
    context = ssl.create_default_context(cafile=str(identity.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(identity.certificate), str(identity.key))
    return context


def connect_properties() -> Properties:
    """Of CONNECT: how long the broker keeps the session, and what it may send."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
    properties.SessionExpiryInterval = SESSION_SECONDS
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def no_delay(_client: mqtt.Client, _userdata: Any, sock: Any) -> None:
    """Send small messages at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def plain(error: Exception) -> str:
    """An error of the network in words an operator can act on."""
    if isinstance(error, ssl.SSLCertVerificationError) and is_clock(error):
        what = error.verify_message
        return f"the broker's certificate is not valid by this device's clock ({what}): set it"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at the broker's address"
    return f"cannot reach the broker: {error}"
