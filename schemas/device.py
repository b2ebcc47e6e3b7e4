"""Devices: join tokens, enrollment, birth and death messages, how the API shows them."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints

from schemas import PROTOCOL
from schemas.base import MAX_INTEGER, Authored, Line, UtcTime, Wire
from schemas.ids import BootId, DeviceId, Name, RolloutId, Sha256, TokenId

MAX_CSR_BYTES = 8 * 1024


class DeviceState(StrEnum):
    """Whether a device may take part."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    REVOKED = "REVOKED"


class Presence(StrEnum):
    """Whether a device is connected now."""

    NEVER = "NEVER"
    ONLINE = "ONLINE"
    OFFLINE = "OFFLINE"


Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]


class TokenRequest(Authored):
    """What a join token allows. ttl_seconds: from now. max_uses: devices."""

    device_class: Name = "default"
    tags: Annotated[tuple[Tag, ...], Field(max_length=16)] = ()
    ttl_seconds: Annotated[int, Field(ge=60, le=90 * 86400)] = 3600
    max_uses: Annotated[int, Field(ge=1, le=100_000)] = 1


class TokenView(Wire):
    """A join token without its secret."""

    id: TokenId
    device_class: Name
    tags: tuple[str, ...]
    max_uses: int
    uses: int
    expires_at: UtcTime
    revoked: bool
    created_at: UtcTime


class TokenCreated(Wire):
    """The one answer that holds the token itself."""

    token: str
    view: TokenView


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


Isa = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]


class Hardware(Wire):
    """What a device says it is.

    isa: instruction sets that decide which kernels run, as ``schemas.isa`` names them.
    board: its maker's name of it.
    """

    arch: Annotated[str, StringConstraints(max_length=32)]
    isa: Annotated[tuple[Isa, ...], Field(max_length=64)] = ()
    board: Annotated[Line, StringConstraints(max_length=100)] | None = None
    cpus: Annotated[int, Field(ge=1, le=4096)]
    ram_mb: Annotated[int, Field(ge=1)]
    providers: Annotated[tuple[str, ...], Field(max_length=32)]
    ort: Annotated[str, StringConstraints(max_length=32)]
    agent: Annotated[str, StringConstraints(max_length=32)]


class EnrollRequest(Wire):
    """Sent once, over HTTPS. csr_pem: PKCS #10; only its public key is taken.

    protocol: the version of these messages that the device speaks.
    """

    protocol: int = PROTOCOL
    token: Annotated[str, StringConstraints(max_length=400)]
    csr_pem: Annotated[str, StringConstraints(max_length=MAX_CSR_BYTES)]
    hardware: Hardware


class BrokerAddress(Wire):
    """Where the devices' MQTT broker listens, with TLS."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)]


class Enrolled(Wire):
    """What a device keeps: its identity and what to trust.

    root_json: the TUF root, pinned by the token. targets_json: the delegations.
    """

    device: DeviceId
    device_class: Name
    certificate_pem: str
    ca_pem: str
    root_json: str
    targets_json: str
    broker: BrokerAddress
    heartbeat_seconds: float


class ActiveModel(Wire):
    """What a device serves."""

    model: Name
    version: int
    variant: Name
    sha256: Sha256


class Birth(Wire):
    """Published retained at each connection, and again as a heartbeat.

    session: counts the connections within the boot, so that the death of an older
    connection is not taken for the death of this one. protocol: as at enrollment; an
    agent may be updated after it.
    """

    protocol: int = PROTOCOL
    boot: BootId
    session: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    uptime: Annotated[float, Field(ge=0)]
    hardware: Hardware
    active: ActiveModel | None = None


class Death(Wire):
    """The will: left with the broker at connect, published when the device is gone."""

    boot: BootId
    session: Annotated[int, Field(ge=1, le=MAX_INTEGER)]


class DeviceView(Wire):
    """A device, as the API shows it."""

    id: DeviceId
    device_class: Name
    tags: tuple[str, ...]
    state: DeviceState
    presence: Presence
    hardware: Hardware | None = None
    active: ActiveModel | None = None
    rollout: RolloutId | None = None
    certificate_expires_at: UtcTime
    enrolled_at: UtcTime
    last_seen_at: UtcTime | None = None
