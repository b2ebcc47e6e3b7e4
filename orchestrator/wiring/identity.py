"""Who takes part: enrollment, certificates, and shutting devices out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.adapters.broker_guard import BrokerGuard
from orchestrator.services.enrollment import EnrollmentService
from orchestrator.services.renewal import RenewalService
from orchestrator.services.shutting_out import ShuttingOut
from orchestrator.wiring.ground import Ground
from schemas.enroll import BrokerAddress


@dataclass(frozen=True, slots=True)
class Identity:
    """How devices get certificates, and lose them."""

    shutting_out: ShuttingOut
    renewals: RenewalService
    enrollment: EnrollmentService


def make_identity(ground: Ground) -> Identity:
    """Put it together."""
    settings, uow, clock = ground.settings, ground.uow, ground.clock
    grace = timedelta(days=settings.renew_grace_days)
    guard = BrokerGuard(ground.home, settings, ground.address, ground.authority)
    shutting_out = ShuttingOut(uow, clock, guard)
    renewals = RenewalService(
        uow,
        clock,
        ground.authority,
        certificate_days=settings.certificate_days,
        grace=grace,
        session_ended=shutting_out.has_ended,
    )
    enrollment = EnrollmentService(
        uow,
        clock,
        ground.authority,
        ground.signer,
        broker=BrokerAddress(host=settings.mqtt_public_host, port=settings.mqtt_port),
        certificate_days=settings.certificate_days,
        heartbeat_seconds=settings.heartbeat_seconds,
        grace=grace,
    )
    return Identity(shutting_out, renewals, enrollment)
