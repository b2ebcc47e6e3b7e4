"""Wires the program: the only place that knows every part."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta

from fastapi import FastAPI

from orchestrator.adapters.artifact_place import check_artifacts, open_artifacts
from orchestrator.adapters.authority import open_authority
from orchestrator.adapters.authority.served import local_ca
from orchestrator.adapters.broker import read_gateway
from orchestrator.adapters.broker_guard import BrokerGuard
from orchestrator.adapters.database import migrate
from orchestrator.adapters.exposition import Exposition
from orchestrator.adapters.link_key import open_link_key
from orchestrator.adapters.mqtt import MqttGateway
from orchestrator.adapters.patch_maker import FilePatchMaker
from orchestrator.adapters.prices import load_prices
from orchestrator.adapters.transfer_line import TransferLine
from orchestrator.adapters.trust import TrustStore
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.api.app import make_app
from orchestrator.api.context import Context
from orchestrator.clock import utc_now
from orchestrator.control_loop import ControlLoop
from orchestrator.domain.broadcast import Broadcasts, Rules
from orchestrator.errors import ArgosyError, Unavailable
from orchestrator.home import Credentials, Home
from orchestrator.services import keys
from orchestrator.services.access import AccessService
from orchestrator.services.admission import AdmissionService
from orchestrator.services.admitted import Admitted, among
from orchestrator.services.agents import AgentService
from orchestrator.services.aliases import AliasService
from orchestrator.services.attempts import FailedAttempts
from orchestrator.services.audit import AuditService
from orchestrator.services.authority import AuthorityService
from orchestrator.services.broadcasting import BroadcastDesk
from orchestrator.services.chunks import ChunkService
from orchestrator.services.collection import CollectionService
from orchestrator.services.comparison import ComparisonService
from orchestrator.services.device_classes import DeviceClassService
from orchestrator.services.devices import DeviceService
from orchestrator.services.engine import RolloutEngine
from orchestrator.services.enrollment import EnrollmentService
from orchestrator.services.experiments import ExperimentService
from orchestrator.services.fleets import FleetService
from orchestrator.services.hearing import Hearing
from orchestrator.services.holds import Holds
from orchestrator.services.inbox import Inbox
from orchestrator.services.jobs import JobService
from orchestrator.services.joining import JoiningService
from orchestrator.services.links import LinkService
from orchestrator.services.measured import MeasuredService
from orchestrator.services.models import ModelService
from orchestrator.services.orders import OrderService
from orchestrator.services.patch_workshop import PatchWorkshop
from orchestrator.services.patches import PatchService, fetchable
from orchestrator.services.publisher import DesiredPublisher
from orchestrator.services.renewal import RenewalService
from orchestrator.services.reports import ReportService
from orchestrator.services.retention import Retention
from orchestrator.services.revocation import RevocationService
from orchestrator.services.rolling_back import RollingBack
from orchestrator.services.rollouts import RolloutService
from orchestrator.services.samples import SampleService
from orchestrator.services.shutting_out import ShuttingOut
from orchestrator.services.telemetry import TelemetryService
from orchestrator.services.telemetry_queries import TelemetryQueries
from orchestrator.services.telemetry_retention import Ages, TelemetryRetention
from orchestrator.services.tokens import TokenService
from orchestrator.services.transfer import TransferService
from orchestrator.services.trust import TrustService
from orchestrator.services.uploads import UploadService
from orchestrator.services.why import WhyService
from orchestrator.settings import Settings
from schemas.access import Role
from schemas.enroll import BrokerAddress


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


def prepare_database(settings: Settings) -> str | None:
    """Migrate, and see to a token for the CLI and one for the embedded agent.

    Tokens that already work are kept, so a restart does not lock anybody out.

    Returns:
        The first admin's token, if this database had none before; else None.

    Raises:
        Invalid: the price table is damaged: told here, before anything has started.
        Unavailable: artifacts cannot be kept where the settings say: likewise.
    """
    load_prices(settings)
    check_artifacts(settings)
    home = Home(settings.home)
    engine = make_engine(settings.database)
    migrate(engine)
    uow = SqlUnitOfWork(engine)
    ca = local_ca(settings, home)
    with uow.read() as tx:
        is_first = not tx.keys.of_role(Role.ADMIN)
    first = None
    for role, name, read, write in (
        (Role.ADMIN, "home", home.credentials, home.write_credentials),
        (Role.WORKER, "agent", home.worker, home.write_worker),
    ):
        try:
            token: str | None = read().token
        except ArgosyError:
            token = None
        if not _works(uow, token, role):
            with uow() as tx:
                token = keys.create(tx, role, utc_now(), name=name)
                detail = {"name": name, "role": role}
                tx.audit.add("api_token.create", keys.id_of(token) or "", detail)
            first = token if is_first and role is Role.ADMIN else first
        write(Credentials(settings.url, token or "", ca))
    engine.dispose()
    return first


def _works(uow: SqlUnitOfWork, token: str | None, role: Role) -> bool:
    try:
        with uow() as tx:
            return keys.authenticate(tx, token, utc_now()).role is role
    except Unavailable:
        raise
    except ArgosyError:
        return False


def build(settings: Settings) -> Program:
    """Make the server over a home that ``supervisor.prepare`` has prepared.

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
    models = ModelService(uow, clock, artifacts)
    devices = DeviceService(uow, clock, heartbeat_seconds=settings.heartbeat_seconds)
    workshop = PatchWorkshop(
        uow,
        clock,
        artifacts,
        FilePatchMaker(artifacts, home.patches),
        max_bytes=settings.patch_bytes,
    )
    patches = PatchService(uow, clock, workshop if settings.patch_bytes else None)
    serves = fetchable(models.serves, patches)
    links = LinkService(
        clock,
        open_link_key(home.link_key, settings.link_key),
        serves=serves,
        admits=devices.admits,
        offering=settings.https_links,
        rate=settings.transfer_rate,
    )
    grace = timedelta(days=settings.renew_grace_days)
    days = settings.certificate_days
    guard = BrokerGuard(home, settings, address, authority)
    shutting_out = ShuttingOut(uow, clock, guard)
    renewals = RenewalService(
        uow,
        clock,
        authority,
        certificate_days=days,
        grace=grace,
        session_ended=shutting_out.has_ended,
    )
    enrollment = EnrollmentService(
        uow,
        clock,
        authority,
        signer,
        broker=BrokerAddress(host=settings.mqtt_public_host, port=settings.mqtt_port),
        certificate_days=days,
        heartbeat_seconds=settings.heartbeat_seconds,
        grace=grace,
    )
    telemetry = TelemetryService(clock, days=settings.window_days)
    samples = SampleService(
        uow,
        clock,
        days=settings.sample_days,
        most=settings.sample_bytes,
        most_in_all=settings.all_sample_bytes,
    )
    ages = Ages(settings.window_days, settings.device_hour_days, settings.class_hour_days)
    prices = load_prices(settings)
    jobs = JobService(uow, clock, settings.lease_seconds, artifacts=artifacts, prices=prices)
    broadcasts = BroadcastDesk(Broadcasts(broadcast_rules(settings)))
    transfer = TransferService(
        models,
        artifacts,
        signer,
        serves=serves,
        patches=patches,
        links=links,
        broadcasts=broadcasts,
    )
    gateway = MqttGateway(address, transfer, devices.admits, renewals.over_mqtt)
    broadcasts.announce_by(gateway.tell)
    transfers = TransferLine(
        address,
        ChunkService(serves, artifacts),
        Admitted(among(uow)),
        broadcasts=broadcasts,
        rate=settings.transfer_rate,
    )
    access = AccessService(uow, clock)
    # In so long every device that is there has sent a heartbeat.
    hearing = Hearing(clock, lambda: gateway.connected, 3 * settings.heartbeat_seconds)
    engine = RolloutEngine(uow, clock, hearing=hearing)
    rollouts = RolloutService(uow, clock, signer, transfer_rate=settings.transfer_rate)
    experiments = ExperimentService(uow, clock, rollouts)
    trust = TrustService(uow, signer)
    publisher = DesiredPublisher(uow, signer, gateway.downlink, clock)
    loop = ControlLoop(
        {
            "rollouts": engine.tick,
            "plans": rollouts.tick,
            "experiments": experiments.tick,
            "joining": JoiningService(uow, clock).tick,
            "rolling back": RollingBack(uow, clock, hearing.deaf).tick,
            "trust": trust.tick,
            "desired state": publisher.tick,
            "leases": jobs.expire_leases,
            "presence": lambda: None if hearing.deaf() else devices.sweep(),
            "certificates": renewals.tick,
            "retention": Retention(uow, clock, days=settings.event_days).tick,
            "telemetry": TelemetryRetention(uow, clock, samples, ages).tick,
            "access": access.tick,
        },
        settings.tick_seconds,
        busy=lambda: engine.busy or publisher.busy,
        seldom={"plans": 5.0, "experiments": 1.0, "rolling back": 0.5},
    )
    authorities = AuthorityService(
        uow,
        clock,
        authority,
        shutting_out,
        embedded=settings.embedded_broker,
        renew_now=gateway.downlink.renew_now,
    )
    # A loop of its own: it waits for the broker, and maybe for a program.
    guarding = ControlLoop(
        {"revocation": shutting_out.tick, "rotation": authorities.tick}, settings.tick_seconds
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
        tokens=TokenService(uow, clock, authority, signer, server=settings.advertised_url),
        enrollment=enrollment,
        renewals=renewals,
        admission=AdmissionService(uow, clock),
        device_classes=DeviceClassService(uow, clock),
        fleets=FleetService(uow, clock),
        why=WhyService(uow, clock),
        rollouts=rollouts,
        experiments=experiments,
        telemetry=TelemetryQueries(uow, clock),
        samples=samples,
        metrics=Exposition(telemetry),
        uploads=UploadService(
            artifacts, settings.max_artifact_bytes, collection.why_gone, Holds(uow, clock)
        ),
        links=links,
        collection=collection,
        access=access,
        audit=AuditService(uow),
        attempts=FailedAttempts(clock),
        public_url=settings.advertised_url,
        authority=authorities,
        trust=trust,
        transfers=lambda: transfers.beats,
        health=lambda: {
            "api": "ok",
            "broker": "ok" if gateway.connected else "not connected",
            "transfer": "ok" if transfers.connected else "not connected",
            "trust": signer.fault() or "ok",
            "revocation": shutting_out.health(),
            "control loop": "ok" if not loop.failing else f"failing: {', '.join(loop.failing)}",
        },
    )
    inbox = Inbox(uow, devices, ReportService(clock), telemetry, MeasuredService(clock), samples)
    return Program(make_app(context), context, gateway, transfers, inbox, loop, guarding, patches)


def broadcast_rules(settings: Settings) -> Rules:
    """When files are broadcast, and how fast."""
    return Rules(start_from=settings.broadcast_from, device_rate=settings.broadcast_rate)
