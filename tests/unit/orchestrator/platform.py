"""The orchestrator over a real database, keys and files, with the broker's side in hand."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.authority import CertificateAuthority
from orchestrator.adapters.downlink import BrokerDownlink
from orchestrator.adapters.exposition import Exposition
from orchestrator.adapters.trust import TrustStore
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.api.app import make_app
from orchestrator.api.context import Context
from orchestrator.services import keys
from orchestrator.services.access import AccessService
from orchestrator.services.admission import AdmissionService
from orchestrator.services.agents import AgentService
from orchestrator.services.aliases import AliasService
from orchestrator.services.attempts import FailedAttempts
from orchestrator.services.audit import AuditService
from orchestrator.services.authority import AuthorityService
from orchestrator.services.chunks import ChunkService
from orchestrator.services.collection import CollectionService
from orchestrator.services.comparison import ComparisonService
from orchestrator.services.device_classes import DeviceClassService
from orchestrator.services.devices import DeviceService
from orchestrator.services.engine import RolloutEngine
from orchestrator.services.enrollment import EnrollmentService
from orchestrator.services.experiments import ExperimentService
from orchestrator.services.fleets import FleetService
from orchestrator.services.holds import Holds
from orchestrator.services.inbox import Inbox, UpMessage
from orchestrator.services.jobs import JobService
from orchestrator.services.links import LinkService
from orchestrator.services.measured import MeasuredService
from orchestrator.services.models import ModelService
from orchestrator.services.orders import OrderService
from orchestrator.services.publisher import DesiredPublisher
from orchestrator.services.renewal import RenewalService
from orchestrator.services.reports import ReportService
from orchestrator.services.revocation import RevocationService
from orchestrator.services.rolling_back import RollingBack
from orchestrator.services.rollouts import RolloutService
from orchestrator.services.samples import SampleService
from orchestrator.services.shutting_out import ShuttingOut
from orchestrator.services.telemetry import TelemetryService
from orchestrator.services.telemetry_queries import Question, TelemetryQueries
from orchestrator.services.tokens import TokenService
from orchestrator.services.transfer import TransferService
from orchestrator.services.trust import TrustService
from orchestrator.services.uploads import UploadService
from orchestrator.services.why import WhyService
from schemas.access import Role
from schemas.device import Birth, Hardware
from schemas.enroll import BrokerAddress, Enrolled, EnrollPending, EnrollRequest, TokenRequest
from schemas.measure import Accuracy, Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.rollout import ExecReport
from schemas.signature import Signature, TensorSpec
from schemas.topics import Up, UpTopic
from schemas.transfer import CHUNK_BYTES, leaves_digest, leaves_of
from schemas.window import About, Envelope, Window, encode, pack
from tests.fakes.databases import migrated_sqlite, sharing
from tests.fakes.gate import FakeGate
from tests.fakes.tiny_onnx import tiny_onnx

HARDWARE = Hardware(
    arch="x86_64",
    cpus=4,
    ram_mb=4096,
    providers=("CPUExecutionProvider",),
    ort="1.31.1",
    agent="0.1.0",
)
BOOT = "b" * 32
SERVER = "https://platform.example:8420"
GRACE = timedelta(days=90)


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Broker:
    """Records what is published; acknowledges it while ``up``."""

    up: bool = True
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, retain: bool) -> int | None:  # noqa: FBT001
        if not self.up:
            return None
        self.sent.append((topic, payload, retain))
        return len(self.sent)


class Platform:
    """Everything but the network."""

    def __init__(self, folder, prices=None) -> None:
        file = folder / "argosy.db"
        if not file.exists():
            migrated_sqlite(file)
        self.database = engine = sharing(make_engine(f"sqlite:///{file}"))
        self.clock, self.broker = Clock(), Broker()
        self.uow = SqlUnitOfWork(engine, self.clock)
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.ca = CertificateAuthority.open_or_create(folder / "ca", self.clock)
        self.trust = TrustStore.open_or_create(folder / "trust", self.clock)
        self.downlink = BrokerDownlink(self.broker.publish)
        self.models = ModelService(self.uow, self.clock, self.artifacts)
        self.jobs = JobService(self.uow, self.clock, 30, artifacts=self.artifacts, prices=prices)
        self.rollouts = RolloutService(self.uow, self.clock, self.trust)
        self.telemetry = TelemetryQueries(self.uow, self.clock)
        self.intake = TelemetryService(self.clock)
        self.samples = SampleService(self.uow, self.clock)
        self.collection = CollectionService(self.uow, self.clock, self.artifacts)
        self.holds = Holds(self.uow, self.clock)
        self.transfer = TransferService(self.models, self.artifacts, self.trust)
        self.devices = DeviceService(self.uow, self.clock, heartbeat_seconds=10)
        self.tokens = TokenService(self.uow, self.clock, self.ca, self.trust, server=SERVER)
        self.enrollment = EnrollmentService(
            self.uow,
            self.clock,
            self.ca,
            self.trust,
            broker=BrokerAddress(host="127.0.0.1", port=8883),
            certificate_days=7,
            heartbeat_seconds=10,
            grace=GRACE,
        )
        self.gate = FakeGate(self.ca)
        self.shutting_out = ShuttingOut(self.uow, self.clock, self.gate)
        self.renewals = RenewalService(
            self.uow,
            self.clock,
            self.ca,
            certificate_days=7,
            grace=GRACE,
            session_ended=self.shutting_out.has_ended,
        )
        self.admission = AdmissionService(self.uow, self.clock)
        self.access = AccessService(self.uow, self.clock)
        self.engine = RolloutEngine(self.uow, self.clock, worked=lambda: 0.0)  # never rests
        self.rolling_back = RollingBack(
            self.uow, self.clock, monotonic=lambda: self.clock().timestamp()
        )
        self.signing = TrustService(self.uow, self.trust)
        self.publisher = DesiredPublisher(self.uow, self.trust, self.downlink, self.clock)
        reports = ReportService(self.clock)
        measured = MeasuredService(self.clock)
        self.inbox = Inbox(self.uow, self.devices, reports, self.intake, measured, self.samples)
        self.authority = AuthorityService(
            self.uow,
            self.clock,
            self.ca,
            self.shutting_out,
            embedded=True,
            renew_now=self.downlink.renew_now,
        )
        self.links = LinkService(
            self.clock, b"k" * 32, serves=self.models.serves, admits=self.devices.admits
        )
        self.experiments = ExperimentService(self.uow, self.clock, self.rollouts)
        self.stopping = threading.Event()
        self.app = make_app(
            Context(
                uow=self.uow,
                clock=self.clock,
                jobs=self.jobs,
                orders=OrderService(self.uow, 30),
                agents=AgentService(self.uow),
                models=self.models,
                aliases=AliasService(self.uow, self.clock),
                comparison=ComparisonService(self.uow, self.artifacts),
                revocation=RevocationService(self.uow, self.clock),
                devices=self.devices,
                tokens=self.tokens,
                enrollment=self.enrollment,
                renewals=self.renewals,
                admission=self.admission,
                fleets=FleetService(self.uow, self.clock),
                why=WhyService(self.uow, self.clock),
                device_classes=DeviceClassService(self.uow, self.clock),
                rollouts=self.rollouts,
                experiments=self.experiments,
                telemetry=self.telemetry,
                samples=self.samples,
                metrics=Exposition(self.intake),
                uploads=UploadService(
                    self.artifacts, 10 * 1024**2, self.collection.why_gone, self.holds
                ),
                links=self.links,
                collection=self.collection,
                access=self.access,
                audit=AuditService(self.uow),
                attempts=FailedAttempts(self.clock),
                public_url="http://testserver",
                authority=self.authority,
                trust=self.signing,
                health=lambda: {"api": "ok"},
                stopping=self.stopping,
            )
        )

    @property
    def chunks(self) -> ChunkService:
        """As it is at a start: it remembers nothing of before."""
        return ChunkService(self.models.serves, self.artifacts)

    def key(self, role: Role, subject: str | None = None) -> str:
        with self.uow() as tx:
            return keys.create(tx, role, self.clock(), subject=subject)

    def client(self, token: str | None = None) -> TestClient:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def tick(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            self.engine.tick()
            self.rolling_back.tick()
            self.signing.tick()
            self.publisher.tick()
            for mid in range(1, len(self.broker.sent) + 1):
                self.downlink.acknowledged(mid)

    def enroll(self, count: int = 1, device_class: str = "default") -> list[str]:
        made = self.tokens.create(TokenRequest(max_uses=count, device_class=device_class))
        return [self.join(made.token).device for _ in range(count)]

    def join(self, token: str, request: str | None = None) -> Enrolled | EnrollPending:
        """A device's request, by default with a key of its own."""
        return self.enrollment.enroll(
            EnrollRequest(token=token, csr_pem=request or csr(), hardware=HARDWARE)
        )

    def receive(self, device: str, leaf: Up, message, *, retained: bool = False) -> None:
        payload = message if isinstance(message, bytes) else message.model_dump_json().encode()
        self.inbox.handle([UpMessage(UpTopic(device, leaf), payload, retained)])

    def birth(self, device: str, session: int = 1, **more) -> None:
        self.receive(
            device, Up.BIRTH, Birth(boot=BOOT, session=session, uptime=1, hardware=HARDWARE, **more)
        )

    def report(self, device: str, execution: str, seq: int, state, **more) -> None:
        report = ExecReport(
            execution=execution, attempt=1, seq=seq, boot=BOOT, uptime=1, state=state, **more
        )
        self.receive(device, Up.EXEC, report)

    def window(self, device: str, seq: int = 0, **more) -> None:
        self.receive(device, Up.TELE, encode(self.envelope(seq, **more)))

    def envelope(self, seq: int = 0, *, about=None, **more) -> Envelope:
        """A window of digits@1, of the last five seconds."""
        names = {"model": "digits", "version": 1, "variant": "int8"} | (about or {})
        values = {
            "start_ms": round(self.clock().timestamp() * 1000),
            "synced": True,
            "length_ms": 5000,
            "n": 100,
            "labelled": 100,
            "correct": 97,
            "latency": pack({40: 100}),
        }
        boot = bytes.fromhex(BOOT)
        window = Window(about=0, seq=seq, **(values | more))
        return Envelope(format=1, about=[About(boot=boot, **names)], windows=[window])

    def summary(self, by=None, version: int = 1, **more):
        """What telemetry says of digits."""
        return self.telemetry.summary(Question(model="digits", version=version, **more), by)

    def file(self, path: str, data: bytes) -> ModelFile:
        sha256 = hashlib.sha256(data).hexdigest()
        self.artifacts.put([data], sha256, len(data))
        blocks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
        leaves = leaves_digest(leaves_of(blocks))
        return ModelFile(path=path, size=len(data), sha256=sha256, leaves_sha256=leaves)

    def manifest(self, *variants: str, content: bytes = b"weights") -> Manifest:
        tensor = TensorSpec(name="x", dtype="uint8", shape=(-1, 1, 8, 8))
        golden = Golden(file=self.file("golden.npz", b"golden"), samples=1, tolerance=0.01)
        accuracy = Accuracy(
            value=0.97, n=360, low=0.95, high=0.98, split="test", set_sha256="a" * 64
        )
        return Manifest(
            model="digits",
            signature=Signature(inputs=(tensor,), outputs=(tensor,)),
            variants=tuple(
                Variant(
                    id=variant,
                    precision="int8" if variant == "int8" else "fp32",
                    scheme="qdq",
                    opset=20,
                    file=self.file(f"{variant}.onnx", tiny_onnx(content + variant.encode())),
                    accuracy=(accuracy,),
                    golden=golden,
                )
                for variant in variants or ("int8", "fp32")
            ),
        )


def csr(key=None, name: str = "anything") -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return request.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode()
