"""Records of devices, their join tokens, their classes and what they measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.budget import DeviceClassSpec
from schemas.device import ActiveModel, DeviceState, Hardware, Presence
from schemas.measure import Benchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A join token; ``secret_hash`` is SHA-256 of its secret."""

    id: str
    secret_hash: str
    device_class: str
    tags: tuple[str, ...]
    max_uses: int
    uses: int = 0
    revoked: bool = False
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """A device. ``sequence`` is that of the last assignment signed for it."""

    id: str
    device_class: str
    tags: tuple[str, ...]
    state: DeviceState
    presence: Presence = Presence.NEVER
    boot: str | None = None
    session: int = 0
    hardware: Hardware | None = None
    active: ActiveModel | None = None
    sequence: int = 0
    token_id: str
    certificate_serial: str
    certificate_expires_at: datetime
    spki_sha256: str
    enrolled_at: datetime
    last_seen_at: datetime | None = None


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
