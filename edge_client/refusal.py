"""Why a broker will not have a device, or a device a broker: what TLS and MQTT say of it.

With TLS 1.3 a server looks at the client's certificate after the client has begun to talk, and
the alert that says why may be lost with the connection (RFC 8446, 4.4.2 and 6.2). So
``ask_why`` connects once more and says nothing: then the alert is all that can come.
"""

from __future__ import annotations

import socket
import ssl
from enum import StrEnum

PROBE_SECONDS = 3.0
# https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_NOT_YET_VALID, _EXPIRED = 9, 10
# MQTT 5, 3.2.2.2: client identifier, user name or password, not authorized, banned.
_CONNACK = frozenset({0x85, 0x86, 0x87, 0x8A})


class Refusal(StrEnum):
    """Why trying again soon is of no use."""

    REVOKED = "revoked"
    EXPIRED = "expired"
    REFUSED = "refused"
    UNTRUSTED = "untrusted"


_REVOKED, _OUTDATED = "ALERT_CERTIFICATE_REVOKED", "ALERT_CERTIFICATE_EXPIRED"
# Alerts (RFC 8446, 6.2) that say nothing of this device.
_PASSING = ("ALERT_INTERNAL_ERROR", "ALERT_USER_CANCELLED", "ALERT_CLOSE_NOTIFY")


def of_tls(error: ssl.SSLError) -> Refusal | None:
    """What a failed handshake says; None when trying again may help, or the clock is wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return None if is_clock(error) else Refusal.UNTRUSTED
    reason = error.reason or ""
    if "ALERT_" not in reason or reason.endswith(_PASSING):
        return None
    if reason.endswith(_REVOKED):
        return Refusal.REVOKED
    return Refusal.EXPIRED if reason.endswith(_OUTDATED) else Refusal.REFUSED


def of_connack(code: int) -> Refusal | None:
    """What a broker's CONNACK says; None when trying again may help."""
    return Refusal.REFUSED if code in _CONNACK else None


def is_clock(error: ssl.SSLCertVerificationError) -> bool:
    """Whether a certificate is not valid at the time that the clock says."""
    return error.verify_code in {_NOT_YET_VALID, _EXPIRED}


def ask_why(host: str, port: int, context: ssl.SSLContext) -> Refusal | None:
    """Ask a broker that hung up why; None when it does not say."""
    try:
        with (
            socket.create_connection((host, port), timeout=PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as line,
        ):
            line.recv(1)
    except ssl.SSLError as error:
        return of_tls(error)
    except OSError:
        return None
    return None


def in_words(refusal: Refusal, device: str) -> str:
    """What it means, and what to do."""
    anew = f"`argosy token create --device {device}`, then `argosy-edge enroll TOKEN --force`"
    match refusal:
        case Refusal.REVOKED:
            return (
                "the broker refuses this device: its certificate has been revoked."
                f" Ask the operator; to come back: {anew}"
            )
        case Refusal.EXPIRED:
            return "the broker refuses this device's certificate: it has expired"
        case Refusal.REFUSED:
            return (
                "the broker refuses this device's certificate."
                f" Ask the operator whether it was rejected or revoked; to come back: {anew}"
            )
        case Refusal.UNTRUSTED:
            return (
                "the broker's certificate is not of an authority that this device trusts:"
                " another server, or the authority was replaced while the device was away;"
                f" to come back: {anew}"
            )
