"""What every other part stands on: the home, the database, the artifacts, the keys."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.adapters.artifact_place import AnyStore, open_artifacts
from orchestrator.adapters.authority import CertificateAuthority, open_authority
from orchestrator.adapters.broker import Gateway, read_gateway
from orchestrator.adapters.trust import TrustStore
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.clock import utc_now
from orchestrator.errors import Unavailable
from orchestrator.home import Home
from orchestrator.services.ports import Clock
from orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Ground:
    """Opened once. address: of the broker."""

    settings: Settings
    home: Home
    clock: Clock
    uow: SqlUnitOfWork
    artifacts: AnyStore
    authority: CertificateAuthority
    signer: TrustStore
    address: Gateway


def open_ground(settings: Settings) -> Ground:
    """Open what a home that ``supervisor.prepare`` has prepared holds.

    Raises:
        Unavailable: the home is not prepared, or the database does not answer.
    """
    home, clock = Home(settings.home), utc_now
    uow = SqlUnitOfWork(make_engine(settings.database))
    artifacts = open_artifacts(settings)
    authority = open_authority(home.ca, clock, command=settings.ca_command, roots=settings.ca_roots)
    signer = TrustStore.open(home.trust, clock)
    address = read_gateway(home)
    if address is None:
        msg = f"{home.gateway_json} is missing: this home has not been prepared"
        raise Unavailable(msg, hint="start the platform with `argosy up`")
    return Ground(settings, home, clock, uow, artifacts, authority, signer, address)
