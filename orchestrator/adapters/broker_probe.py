"""Knocking at the broker's listener for devices with a certificate for nobody."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.adapters.authority.generations import key_pem
from orchestrator.adapters.authority.issued import Canary
from orchestrator.domain.gate import CANARY, Trial

_SECONDS = 3.0
_CONNACK = 0x20
_ACCEPTED = 0
# MQTT 5, clean start, keep-alive 10 s, no properties (MQTT 5.0, section 3.1).
_CONNECT = b"\x00\x04MQTT\x05\x02\x00\x0a\x00"
_DISCONNECT = b"\xe0\x00"
# What OpenSSL says when the broker's own certificate is at fault, and not ours.
_THEIR_FAULT = "certificate verify failed"


@dataclass(frozen=True, slots=True)
class Door:
    """Where devices connect. name: what the broker's certificate must hold; ca: PEM file."""

    host: str
    port: int
    name: str
    ca: Path


def try_canary(door: Door, canary: Canary) -> Trial:
    """Knock with both certificates of a canary; the good one last.

    In this order a broker that was merely starting is not taken for one that refuses.
    """
    bad, why = _knock(door, canary.bad_pem, canary.key)
    good, good_why = _knock(door, canary.good_pem, canary.key)
    return Trial(bad=bad, good=good, why=why if bad is None else good_why)


def _knock(door: Door, pem: str, key: ec.EllipticCurvePrivateKey) -> tuple[bool | None, str]:
    """Whether that certificate gets in; None: it cannot be told, and why."""
    where = f"{door.host}:{door.port}"
    try:
        context = _context(door.ca, pem, key)
        raw = socket.create_connection((door.host, door.port), _SECONDS)
    except OSError as error:
        return None, f"{where} cannot be reached: {error.strerror or error}"
    with raw:
        try:
            with context.wrap_socket(raw, server_hostname=door.name) as sock:
                return _exchange(sock), ""
        except TimeoutError:
            return None, f"{where} does not answer"
        except ssl.SSLError as error:
            if _THEIR_FAULT in str(error):
                return None, f"the certificate of {where} is not one to trust: {error.reason}"
            return False, f"{where} refuses the certificate: {error.reason}"
        except OSError as error:
            # Since TLS 1.3 a refusal may come as a connection that just ends.
            return False, f"{where} ended the connection: {error.strerror or error}"


def _exchange(sock: ssl.SSLSocket) -> bool:
    name = CANARY.encode()
    body = _CONNECT + len(name).to_bytes(2, "big") + name
    sock.sendall(bytes([0x10, len(body)]) + body)
    answer = sock.recv(64)
    accepted = len(answer) > 3 and answer[0] == _CONNACK and answer[3] == _ACCEPTED  # noqa: PLR2004 - the reason code's place
    if accepted:
        with contextlib.suppress(OSError):
            sock.sendall(_DISCONNECT)
    return accepted


def _context(ca: Path, pem: str, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    # OpenSSL reads a certificate from a file alone; the folder is ours and goes at once.
    with tempfile.TemporaryDirectory(prefix="argosy-canary-") as folder:
        path = Path(folder) / "canary.pem"
        path.touch(mode=0o600)
        path.write_bytes(pem.encode() + key_pem(key))
        context.load_cert_chain(path)
    return context
