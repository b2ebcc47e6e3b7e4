"""What a certificate says of itself, read without a cryptographic library.

A running agent needs of its own certificate when it is valid, its serial number and its digest:
for that alone ``cryptography`` would be 10 MiB of its memory. Only the form is verified here, by
the TLS library and by what follows; whom to believe is decided in ``edge_client.certificates``
and by the TLS library. Certificates are X.509 in DER form (RFC 5280, 4.1; ITU-T X.690).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from edge_client.errors import CertificateError
from schemas.device import CertificateSeen

MAX_CERTIFICATES = 8
"""In one PEM text: roots, or a chain."""

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_INTEGER, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _VERSION = 0x02, 0x17, 0x18, 0x30, 0xA0


@dataclass(frozen=True, slots=True)
class Life:
    """From when to when a certificate is valid; both with a zone."""

    start: dt.datetime
    end: dt.datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """What one certificate says. serial, digest (SHA-256 of the DER form): in hex."""

    serial: str
    life: Life
    digest: str


def read_facts(pem: bytes, what: str) -> list[Facts]:
    """Read one certificate or several. what: their name in errors.

    Raises:
        CertificateError: there is none, one is damaged, or there are too many.
    """
    try:
        found = _PEM.findall(pem.decode("ascii", "replace"))
        ders = [ssl.PEM_cert_to_DER_cert(text) for text in found[: MAX_CERTIFICATES + 1]]
        # OpenSSL reads each whole, to its last extension; it does not ask who issued it, and
        # refuses to read none.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(ders))
        facts = [_facts(der) for der in ders]
    except (ValueError, IndexError, ssl.SSLError) as error:
        msg = f"{what} is not a certificate in PEM form"
        raise CertificateError(msg) from error
    if len(facts) > MAX_CERTIFICATES:
        msg = f"{what} holds {len(found)} certificates; {MAX_CERTIFICATES} are the most"
        raise CertificateError(msg)
    return facts


def seen_of(leaf: Facts, roots: Sequence[Facts]) -> CertificateSeen:
    """What a birth message says of them."""
    return CertificateSeen(serial=leaf.serial, roots=tuple(root.digest for root in roots))


def _facts(der: bytes) -> Facts:
    """Walk to the serial number and the validity, which stand near the beginning."""
    certificate, _ = _take(der, _SEQUENCE)
    rest, _ = _take(certificate, _SEQUENCE)
    if rest[0] == _VERSION:
        _, rest = _take(rest, _VERSION)
    serial, rest = _take(rest, _INTEGER)
    _, rest = _take(rest, _SEQUENCE)  # the signature's algorithm
    _, rest = _take(rest, _SEQUENCE)  # the issuer
    validity, _ = _take(rest, _SEQUENCE)
    start, validity = _time(validity)
    end, _ = _time(validity)
    number = int.from_bytes(serial, signed=True)
    return Facts(f"{number:x}", Life(start, end), hashlib.sha256(der).hexdigest())


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The contents of the first value, which must have this tag, and what follows it.

    Raises:
        ValueError, IndexError: it has another tag, or ends too early.
    """
    if data[0] != tag:
        msg = f"tag {data[0]:#x} where {tag:#x} belongs"
        raise ValueError(msg)
    begin, length = 2, data[1]
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(data[2:begin])
    if begin + length > len(data):
        msg = "a value ends too early"
        raise ValueError(msg)
    return data[begin : begin + length], data[begin + length :]


def _time(data: bytes) -> tuple[dt.datetime, bytes]:
    """A time of the validity (RFC 5280, 4.1.2.5: to the second, in UTC), and what follows it."""
    if data[0] == _GENERALIZED_TIME:
        text, rest = _take(data, _GENERALIZED_TIME)
        digits = text.decode("ascii")
    else:
        text, rest = _take(data, _UTC_TIME)
        digits = text.decode("ascii")
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    return dt.datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=dt.UTC), rest
