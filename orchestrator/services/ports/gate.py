"""The broker's gate: who is let in, and who is not any more."""

# ruff: noqa: D102 - a port says by name and type what it does
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from orchestrator.domain.gate import Trial, Wanted
from orchestrator.services.records import RevokedCertificate
from schemas.ids import Sha256


class Gate(Protocol):
    """Tells the broker, tries it, and ends sessions. Every call may be repeated.

    embedded: whether the broker is ours, so that all this must work. roots: SHA-256 of those
    that are trusted. tell: writes everything that the broker reads, and has it read; answers
    when that is due again. end: whoever is connected as that device is so no more; ``clear``:
    and what the broker keeps for it goes.
    """

    @property
    def embedded(self) -> bool: ...
    def roots(self) -> tuple[str, ...]: ...
    def tell(self, wanted: Wanted, revoked: Sequence[RevokedCertificate]) -> datetime: ...
    def try_canaries(self) -> Trial: ...
    def end(self, device: str, *, clear: bool) -> None: ...
    def ended(self) -> frozenset[str]: ...
    def keep_ended(self, serials: frozenset[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class DeviceTrust:
    """What a device that takes part knows of authorities.

    online: it is connected now, in this ``boot`` and ``session``. roots: those that it
    said it trusts; None when it never said. issued_by: the root of its newest certificate.
    """

    device: str
    online: bool
    boot: str | None
    session: int
    roots: tuple[Sha256, ...] | None
    issued_by: Sha256 | None


class FleetTrust(Protocol):
    """What the fleet trusts, and how much of it was revoked.

    mark: changes whenever a certificate is revoked, or a device shut out or let in again.
    devices: those that take part.
    """

    def mark(self) -> tuple[int | datetime | None, ...]: ...
    def devices(self) -> Sequence[DeviceTrust]: ...
