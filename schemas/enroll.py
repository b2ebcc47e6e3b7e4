"""Joining the fleet: join tokens, enrollment, and the renewal of certificates."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, StringConstraints

from schemas import PROTOCOL
from schemas.base import Authored, PlainText, UtcTime, Wire
from schemas.device import Hardware, Tag
from schemas.ids import DeviceId, Name, Sha256, TokenId

MAX_CSR_BYTES = 8 * 1024
MAX_CHAIN_BYTES = 64 * 1024
MAX_KEYS = 1000
"""Keys that one join token may name."""

Csr = Annotated[str, StringConstraints(max_length=MAX_CSR_BYTES)]
Chain = Annotated[str, StringConstraints(max_length=MAX_CHAIN_BYTES)]


class TokenRequest(Authored):
    """What a join token allows.

    ttl_seconds: from now. max_uses: devices. approval: an operator must approve each
    device before it gets a certificate. keys: SHA-256 of public keys (SubjectPublicKeyInfo
    in DER form); where there are any, only they may use the token, each once, and they need no
    approval. device: an existing device that was lost or reset: whoever uses the token
    takes its place, and its certificates count no more.
    """

    device_class: Name | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=16)] = ()
    ttl_seconds: Annotated[int, Field(ge=60, le=90 * 86400)] = 3600
    max_uses: Annotated[int, Field(ge=1, le=100_000)] = 1
    approval: bool = False
    keys: Annotated[tuple[Sha256, ...], Field(max_length=MAX_KEYS)] = ()
    device: DeviceId | None = None
    note: Annotated[PlainText, StringConstraints(max_length=200)] = ""


class TokenView(Wire):
    """A join token without its secret. keys: how many it names."""

    id: TokenId
    device_class: Name
    tags: tuple[str, ...]
    max_uses: int
    uses: int
    approval: bool = False
    keys: int = 0
    device: DeviceId | None = None
    note: str = ""
    expires_at: UtcTime
    revoked: bool
    created_at: UtcTime


class TokenCreated(Wire):
    """The one answer that holds the token itself. server: what a device is told to call."""

    token: str
    view: TokenView
    server: str = ""


_TOKEN_FORM = re.compile(
    r"^aj1\.(tok_[0-9a-hjkmnp-tv-z]{16})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})$"
)


def _b64(hex_digest: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(hex_digest)).rstrip(b"=").decode()


def _hex(text: str) -> str:
    return base64.urlsafe_b64decode(text + "=").hex()


@dataclass(frozen=True, slots=True)
class JoinToken:
    """``aj1.<id>.<secret>.<CA hash>.<root hash>``.

    The hashes (SHA-256, hex here) pin the certificate authority (its DER form) and
    the trust root, so that a device can enroll through an untrusted network. secret
    is 32 random bytes in unpadded base64url.
    """

    id: str
    secret: str
    ca_sha256: str
    root_sha256: str

    def __str__(self) -> str:
        """The token as it is handed over."""
        return f"aj1.{self.id}.{self.secret}.{_b64(self.ca_sha256)}.{_b64(self.root_sha256)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token.

        Raises:
            ValueError: it does not have the form of one.
        """
        found = _TOKEN_FORM.match(text.strip())
        if found is None:
            msg = "not a join token: it must look like aj1.tok_….….….…, on one line"
            raise ValueError(msg)
        try:
            return cls(found[1], found[2], _hex(found[3]), _hex(found[4]))
        except binascii.Error as error:
            msg = "not a join token: its hashes are damaged; copy it again, whole"
            raise ValueError(msg) from error


class EnrollRequest(Wire):
    """Sent over HTTPS until it is answered with a certificate. csr_pem: PKCS #10.

    Only the public key is taken from the request. The same token with the same key is the
    same device, however often it is sent: an answer that was lost, or an approval that is
    awaited. protocol: the version of these messages that the device speaks.
    """

    protocol: int = PROTOCOL
    token: Annotated[str, StringConstraints(max_length=400)]
    csr_pem: Csr
    hardware: Hardware


class EnrollPending(Wire):
    """The answer (202) while an operator has not approved yet: ask again.

    fingerprint: of the device's key, as the operator sees it too.
    """

    device: DeviceId
    fingerprint: str
    retry_seconds: Annotated[float, Field(ge=1, le=3600)]


class BrokerAddress(Wire):
    """Where the devices' MQTT broker listens, with TLS."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)]


class Enrolled(Wire):
    """What a device keeps: its identity and what to trust.

    certificate_pem: the device's certificate, then those of the authorities between it
    and the root. ca_pem: the roots to trust, one after the other; there are two while the
    authority is being rotated. root_json: the TUF root that the token pins.
    """

    device: DeviceId
    device_class: Name
    certificate_pem: Chain
    ca_pem: Chain
    root_json: str
    broker: BrokerAddress
    heartbeat_seconds: float


class RenewAsk(Wire):
    """On ``up/renew``, over the connection that the present certificate opened."""

    protocol: int = PROTOCOL
    csr_pem: Csr


class RenewNow(Wire):
    """On ``down/renew``: ask for a new certificate at once; the authority is being rotated.

    within_seconds: each device draws its moment from these, so that a fleet does not ask at once.
    """

    within_seconds: Annotated[float, Field(ge=0, le=7 * 86400)] = 0.0


class RenewRequest(Wire):
    """By HTTPS, for a device whose certificate has expired (POST ``/v1/renew``).

    certificate_pem: the last one. signature: of ``renewal_text`` by the key of that
    certificate, in base64; signed_at: by the device's clock, for the log alone.
    """

    protocol: int = PROTOCOL
    device: DeviceId
    certificate_pem: Chain
    csr_pem: Csr
    signed_at: UtcTime
    signature: Annotated[str, StringConstraints(max_length=2048)]


class Renewed(Wire):
    """A new certificate, on ``down/renewed`` or as the answer to a RenewRequest.

    csr_sha256: of the request (its PEM text) that it answers. error: why there is none.
    """

    csr_sha256: Sha256
    certificate_pem: Chain | None = None
    ca_pem: Chain | None = None
    error: str | None = None


class RevokeDevice(Authored):
    """Why a device is shut out."""

    reason: Annotated[PlainText, StringConstraints(max_length=200)] = ""


def renewal_text(device: str, csr_pem: str, signed_at: str) -> bytes:
    """What a device signs to renew an expired certificate.

    signed_at: as ISO 8601, exactly as in the request's JSON.
    """
    return f"argosy-renew-1\n{device}\n{signed_at}\n{csr_pem}".encode()


def fingerprint(spki_sha256: str) -> str:
    """The first 8 bytes of a key's SHA-256, for people to compare: ``3f2a-91bc-…``."""
    return "-".join(spki_sha256[i : i + 4] for i in range(0, 16, 4))
