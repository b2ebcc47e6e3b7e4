"""Records of devices, their join tokens, their classes and what they measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from orchestrator.domain.clone import Turn
from schemas.budget import DeviceClassSpec
from schemas.device import ActiveModels, CertificateSeen, DeviceState, Hardware, Presence
from schemas.measure import Benchmark
from schemas.selector import And, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A join token; ``secret_hash`` is SHA-256 of its secret.

    keys: SHA-256 of the public keys that may use it; empty is any. device_id: the device
    whose place it gives.
    """

    id: str
    secret_hash: str
    device_class: str
    tags: tuple[str, ...]
    max_uses: int
    uses: int = 0
    revoked: bool = False
    approval: bool = False
    keys: tuple[str, ...] = ()
    device_id: str | None = None
    note: str = ""
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A device. ``sequence`` is that of the last assignment signed for it.

    certificate_serial, certificate_expires_at: of the certificate issued last; None before
    there was one. seen_certificate: what its last birth said. spki_sha256: its present key.
    active: what it serves, by model. turns: the boots that its births told of lately. drifted_at:
    since when it serves what it was never given. rolled_back: a model was put back by hand.
    """

    id: str
    device_class: str
    tags: tuple[str, ...]
    state: DeviceState
    presence: Presence = Presence.NEVER
    boot: str | None = None
    session: int = 0
    hardware: Hardware | None = None
    active: ActiveModels = ()
    sequence: int = 0
    token_id: str
    certificate_serial: str | None = None
    certificate_expires_at: datetime | None = None
    seen_certificate: CertificateSeen | None = None
    spki_sha256: str
    turns: tuple[Turn, ...] = ()
    clone_suspected_at: datetime | None = None
    drifted_at: datetime | None = None
    rolled_back: bool = False
    revoked_at: datetime | None = None
    revoke_reason: str = ""
    enrolled_at: datetime
    last_seen_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKeyRecord:
    """A public key that is or was a device's.

    token_id: the join token that it came with; None if it came by renewal.
    """

    spki_sha256: str
    device_id: str
    token_id: str | None = None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRecord:
    """A certificate that was issued to a device.

    csr_sha256: of the PEM text of the request that it answers. pem: with its chain.
    seen_at: when a birth first told of it.
    """

    serial: str
    device_id: str
    spki_sha256: str
    csr_sha256: str
    root_sha256: str
    pem: str
    issued_at: datetime
    expires_at: datetime
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedCertificate:
    """A certificate that must not be accepted any more; serial in lower-case hex."""

    serial: str
    device_id: str
    at: datetime
    reason: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClassRecord:
    """What an operator said of a class of devices."""

    name: str
    spec: DeviceClassSpec
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRecord:
    """What a device measured of a variant's file, in batches of one size."""

    device_id: str
    sha256: str
    batch: int
    benchmark: Benchmark
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which active devices are meant: those that fit all of it.

    tags: all of them. where: a selector; exclude: one that must not match.
    """

    device_class: str | None = None
    tags: tuple[str, ...] = ()
    where: Node | None = None
    exclude: Node | None = None

    def narrowed(self, node: Node) -> Target:
        """Of these devices, those that a selector matches too."""
        where = node if self.where is None else And((self.where, node))
        return replace(self, where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class TagCount:
    """What a change of tags meets: devices that match, and of them those that it changes.

    too_many: those that would have more tags than a device may have.
    """

    matched: int
    changes: int
    too_many: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRecord:
    """A selector that was saved under a name."""

    name: str
    selector: str
    note: str = ""
    created_at: datetime
    updated_at: datetime
