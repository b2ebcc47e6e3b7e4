"""A broker's gate in memory: who is told to it is kept out, once ``loaded``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.adapters.authority import CertificateAuthority
from orchestrator.domain.gate import Trial, Wanted
from orchestrator.errors import Unavailable
from orchestrator.services.records import RevokedCertificate

FAR = timedelta(days=365)


@dataclass
class FakeGate:
    """``services.ports.Gate``. up: it answers. reads: it reads what it is told."""

    authority: CertificateAuthority
    embedded: bool = True
    up: bool = True
    reads: bool = True
    told: list[Wanted] = field(default_factory=list)
    loaded: Wanted | None = None
    over: list[tuple[str, bool]] = field(default_factory=list)
    kept: frozenset[str] = frozenset()

    def roots(self) -> tuple[str, ...]:
        return tuple(root.sha256 for root in self.authority.roots())

    def tell(self, wanted: Wanted, revoked: Sequence[RevokedCertificate]) -> datetime:
        assert {r.serial for r in revoked} == wanted.serials
        self.told.append(wanted)
        if self.up and self.reads:
            self.loaded = wanted
        return datetime.now(UTC) + FAR

    def try_canaries(self) -> Trial:
        if not self.up:
            return Trial(bad=None, good=None, why="it cannot be reached")
        return Trial(bad=self.loaded != self.told[-1], good=True)

    def end(self, device: str, *, clear: bool) -> None:
        if not self.up:
            msg = "the broker cannot be reached"
            raise Unavailable(msg)
        self.over.append((device, clear))

    def ended(self) -> frozenset[str]:
        return self.kept

    def keep_ended(self, serials: frozenset[str]) -> None:
        self.kept = serials
