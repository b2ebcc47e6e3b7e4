"""What a name and an old certificate must be; no files."""

from __future__ import annotations

import re

from cryptography import x509

from orchestrator.adapters.authority.chains import is_for_clients
from orchestrator.adapters.authority.parts import common_name
from orchestrator.errors import ArgosyError, Invalid, Unauthenticated
from schemas.ids import device_id_pattern

_DEVICE_ID = re.compile(device_id_pattern())


def check_device_id(device_id: str) -> None:
    """See that a name is a device's, before a certificate bears it.

    Raises:
        Invalid: it is not.
    """
    if not _DEVICE_ID.fullmatch(device_id):
        msg = f"{device_id[:80]!r} is not a device id"
        raise Invalid(msg)


def check_old(leaf: x509.Certificate, device_id: str) -> None:
    """See that a certificate that was issued here is a client's, and that device's.

    Raises:
        Unauthenticated: it is not.
    """
    if common_name(leaf) != device_id or not is_for_clients(leaf):
        msg = "the certificate is not that device's"
        raise Unauthenticated(msg)


def not_ours() -> ArgosyError:
    """A certificate is not of an authority that is trusted here."""
    msg = "the certificate is not of an authority that this platform trusts"
    return Unauthenticated(msg, hint="enroll the device again, with a join token made for it")
