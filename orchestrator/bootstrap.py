"""Wires the program: the only place that knows every part."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from fastapi import FastAPI

from orchestrator.adapters.exposition import Exposition
from orchestrator.adapters.mqtt import MqttGateway
from orchestrator.adapters.prices import load_prices
from orchestrator.adapters.transfer_line import TransferLine
from orchestrator.api.app import make_app
from orchestrator.api.context import Context
from orchestrator.control_loop import ControlLoop
from orchestrator.errors import Unavailable
from orchestrator.services.access import AccessService
from orchestrator.services.admission import AdmissionService
from orchestrator.services.agents import AgentService
from orchestrator.services.aliases import AliasService
from orchestrator.services.attempts import FailedAttempts
from orchestrator.services.audit import AuditService
from orchestrator.services.authority import AuthorityService
from orchestrator.services.collection import CollectionService
from orchestrator.services.comparison import ComparisonService
from orchestrator.services.device_classes import DeviceClassService
from orchestrator.services.devices import DeviceService
from orchestrator.services.fleets import FleetService
from orchestrator.services.holds import Holds
from orchestrator.services.inbox import Inbox
from orchestrator.services.jobs import JobService
from orchestrator.services.measured import MeasuredService
from orchestrator.services.models import ModelService
from orchestrator.services.orders import OrderService
from orchestrator.services.patches import PatchService
from orchestrator.services.reports import ReportService
from orchestrator.services.revocation import RevocationService
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry import TelemetryService
from orchestrator.services.telemetry_queries import TelemetryQueries
from orchestrator.services.tokens import TokenService
from orchestrator.services.trust import TrustService
from orchestrator.services.uploads import UploadService
from orchestrator.services.why import WhyService
from orchestrator.settings import Settings
from orchestrator.wiring.delivery import make_delivery
from orchestrator.wiring.ground import Ground, open_ground
from orchestrator.wiring.identity import make_identity
from orchestrator.wiring.rounds import Tended, make_rollouts, make_rounds


@dataclass(frozen=True, slots=True)
class Program:
    """The server's parts, not yet started."""

    app: FastAPI
    context: Context
    gateway: MqttGateway
    transfers: TransferLine
    inbox: Inbox
    loop: ControlLoop
    guarding: ControlLoop
    patches: PatchService

    def start(self) -> None:
        """Connect to the broker and begin to tick."""
        self.gateway.start(self.inbox.handle)
        self.transfers.start()
        self.loop.start()
        self.guarding.start()
        self.patches.start()

    def stop(self) -> None:
        """End streams, ticks and the connection."""
        self.context.stopping.set()
        self.patches.end()
        self.guarding.end()  # both finish their round at once, not one after the other
        self.loop.stop()
        self.guarding.stop()
        self.patches.stop()
        self.transfers.stop()
        self.gateway.stop()
        with contextlib.suppress(Unavailable):
            self.context.access.flush()


def build(settings: Settings) -> Program:
    """Make the server over a home that ``supervisor.prepare`` has prepared.

    Raises:
        Unavailable: the home is not prepared, or the database does not answer.
    """
    ground = open_ground(settings)
    uow, clock, artifacts, signer = ground.uow, ground.clock, ground.artifacts, ground.signer
    models = ModelService(uow, clock, artifacts)
    devices = DeviceService(uow, clock, heartbeat_seconds=settings.heartbeat_seconds)
    identity = make_identity(ground)
    delivery = make_delivery(ground, models, devices, identity.renewals)
    gateway, transfers = delivery.gateway, delivery.transfers
    telemetry = TelemetryService(clock, days=settings.window_days)
    samples = _samples(ground)
    prices = load_prices(settings)
    jobs = JobService(uow, clock, settings.lease_seconds, artifacts=artifacts, prices=prices)
    access, trust = AccessService(uow, clock), TrustService(uow, signer)
    rollouts = make_rollouts(ground, gateway)
    loop = make_rounds(
        ground,
        rollouts,
        Tended(
            access=access,
            devices=devices,
            jobs=jobs,
            renewals=identity.renewals,
            samples=samples,
            trust=trust,
        ),
    )
    authority = AuthorityService(
        uow,
        clock,
        ground.authority,
        identity.shutting_out,
        embedded=settings.embedded_broker,
        renew_now=gateway.downlink.renew_now,
    )
    # A loop of its own: it waits for the broker, and maybe for a program.
    guarding = ControlLoop(
        {"revocation": identity.shutting_out.tick, "rotation": authority.tick},
        settings.tick_seconds,
    )
    collection = CollectionService(uow, clock, artifacts)
    context = Context(
        uow=uow,
        clock=clock,
        jobs=jobs,
        orders=OrderService(uow, settings.lease_seconds),
        agents=AgentService(uow),
        models=models,
        aliases=AliasService(uow, clock),
        comparison=ComparisonService(uow, artifacts),
        revocation=RevocationService(uow, clock),
        devices=devices,
        tokens=TokenService(uow, clock, ground.authority, signer, server=settings.advertised_url),
        enrollment=identity.enrollment,
        renewals=identity.renewals,
        admission=AdmissionService(uow, clock),
        device_classes=DeviceClassService(uow, clock),
        fleets=FleetService(uow, clock),
        why=WhyService(uow, clock),
        rollouts=rollouts.service,
        experiments=rollouts.experiments,
        telemetry=TelemetryQueries(uow, clock),
        samples=samples,
        metrics=Exposition(telemetry),
        uploads=UploadService(
            artifacts, settings.max_artifact_bytes, collection.why_gone, Holds(uow, clock)
        ),
        links=delivery.links,
        collection=collection,
        access=access,
        audit=AuditService(uow),
        attempts=FailedAttempts(clock),
        public_url=settings.advertised_url,
        authority=authority,
        trust=trust,
        transfers=lambda: transfers.beats,
        health=lambda: {
            "api": "ok",
            "broker": "ok" if gateway.connected else "not connected",
            "transfer": "ok" if transfers.connected else "not connected",
            "trust": signer.fault() or "ok",
            "revocation": identity.shutting_out.health(),
            "control loop": loop.health(),
            "guarding": guarding.health(),
        },
    )
    inbox = Inbox(uow, devices, ReportService(clock), telemetry, MeasuredService(clock), samples)
    return Program(
        make_app(context), context, gateway, transfers, inbox, loop, guarding, delivery.patches
    )


def _samples(ground: Ground) -> SampleService:
    settings = ground.settings
    return SampleService(
        ground.uow,
        ground.clock,
        days=settings.sample_days,
        most=settings.sample_bytes,
        most_in_all=settings.all_sample_bytes,
    )
