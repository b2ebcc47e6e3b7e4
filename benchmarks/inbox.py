"""What devices send, stored: messages a second of each kind, in batches and one by one.

Ours hands the inbox batches of 500, as the gateway does while messages wait; the baseline is the
same messages, each in a transaction of its own. SQLite in a temporary folder, synced at each
commit, with the real services and no broker.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks._harness import Options, Report, alternate, main
from orchestrator.adapters.database import migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.clock import utc_now
from orchestrator.services.devices import DeviceService
from orchestrator.services.inbox import Inbox, UpMessage
from orchestrator.services.measured import MeasuredService
from orchestrator.services.records import (
    DeviceRecord,
    ExecutionRecord,
    RolloutRecord,
    VersionRecord,
    WaveRecord,
)
from orchestrator.services.reports import ReportService
from orchestrator.services.samples import SampleService
from orchestrator.services.telemetry import TelemetryService
from schemas.base import Wire
from schemas.device import ActiveModel, Birth, DeviceState, Hardware
from schemas.measure import Accuracy, Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.rollout import ExecReport, ExecState, RolloutSpec, RolloutState, WaveState
from schemas.signature import Signature, TensorSpec
from schemas.topics import Up, UpTopic
from schemas.window import About, Envelope, Window, encode, pack

WHAT = "the inbox: messages a second in batches, against one transaction for each"
UNITS = {"births": "1/s", "heartbeats": "1/s", "reports": "1/s", "windows": "1/s"}
BATCH = 500
ROLLOUT = "rol_" + "0" * 16
FILE = "f" * 64
HARDWARE = Hardware(
    arch="x86_64", cpus=4, ram_mb=4096, providers=("CPUExecutionProvider",), ort="1", agent="1"
)


class Side:
    """A database with a fleet in the middle of a rollout, and what stores its messages."""

    def __init__(self, folder: Path, devices: int) -> None:
        engine = make_engine(f"sqlite:///{folder / 'argosy.db'}")
        migrate(engine)
        uow = SqlUnitOfWork(engine)
        self.devices = [f"dev_{n:016}" for n in range(devices)]
        fill(uow, self.devices)
        self._inbox = Inbox(
            uow,
            DeviceService(uow, utc_now, heartbeat_seconds=30),
            ReportService(utc_now),
            TelemetryService(utc_now),
            MeasuredService(utc_now),
            SampleService(uow, utc_now),
        )
        self._turn = 0

    def rates(self, batch: int, count: int) -> dict[str, float]:
        """Messages a second of each kind, of ``count`` devices, in batches of ``batch``."""
        self._turn += 1
        some = self.devices[:count]
        kinds: dict[str, tuple[Up, Callable[[int, str], Wire | bytes]]] = {
            "births": (Up.BIRTH, lambda _n, _d: self._birth(1)),
            "heartbeats": (Up.BIRTH, lambda _n, _d: self._birth(2)),
            "reports": (Up.EXEC, lambda n, _d: self._report(n)),
            "windows": (Up.TELE, lambda _n, _d: self._window()),
        }
        return {
            name: self._rate(
                [_message(device, leaf, make(n, device)) for n, device in enumerate(some)], batch
            )
            for name, (leaf, make) in kinds.items()
        }

    def _rate(self, messages: Sequence[UpMessage], batch: int) -> float:
        began = time.perf_counter()
        for start in range(0, len(messages), batch):
            self._inbox.handle(messages[start : start + batch])
        return len(messages) / (time.perf_counter() - began)

    def _birth(self, nth: int) -> Birth:
        uptime = 10.0 * (2 * self._turn + nth)
        return Birth(
            boot="b" * 32,
            session=self._turn,
            uptime=uptime,
            hardware=HARDWARE,
            active=(ActiveModel(model="digits", version=1, variant="int8", sha256=FILE),),
        )

    def _report(self, n: int) -> ExecReport:
        return ExecReport(
            execution=_execution(n),
            attempt=1,
            seq=self._turn,
            boot="b" * 32,
            uptime=1,
            state=(ExecState.ACCEPTED, ExecState.VERIFIED)[self._turn % 2],
            bytes_done=self._turn,
            bytes_total=10**6,
        )

    def _window(self) -> bytes:
        """Ten classes and twenty buckets of latency: about 130 bytes."""
        about = About(boot=b"b" * 16, model="digits", version=1, variant="int8")
        window = Window(
            about=0,
            seq=self._turn,
            start_ms=round(time.time() * 1000),
            synced=True,
            length_ms=60_000,
            n=1000,
            runs=1000,
            latency=pack(dict.fromkeys(range(40, 60), 50)),
            confidence=[100] * 10,
            classes=pack(dict.fromkeys(range(10), 100)),
        )
        return encode(Envelope(format=1, about=[about], windows=[window]))


def _message(device: str, leaf: Up, message: Wire | bytes) -> UpMessage:
    payload = (
        message
        if isinstance(message, bytes)
        else message.model_dump_json(exclude_none=True).encode()
    )
    return UpMessage(UpTopic(device, leaf), payload, retained=False)


def _execution(n: int) -> str:
    return f"exe_{n:016}"


def fill(uow: SqlUnitOfWork, devices: Sequence[str]) -> None:
    """Put a fleet there, which a rollout is under way on."""
    now = datetime.now(UTC) - timedelta(hours=1)
    spec = RolloutSpec(model="digits", version=1)
    rollout = RolloutRecord(
        id=ROLLOUT, spec=spec, model="digits", version=1, state=RolloutState.RUNNING, created_at=now
    )
    wave = WaveRecord(rollout_id=ROLLOUT, idx=0, state=WaveState.RUNNING, entered_at=now)
    manifest = _manifest().model_dump_json()
    version = VersionRecord(
        model="digits",
        version=1,
        manifest=manifest,
        manifest_sha256=hashlib.sha256(manifest.encode()).hexdigest(),
        manifest_size=len(manifest),
        job_id=None,
        created_at=now,
    )
    with uow() as tx:
        tx.models.add(version)
        for device in devices:
            tx.devices.add(_device(device, now))
        tx.rollouts.add(rollout, [wave], [_offered(n, d, now) for n, d in enumerate(devices)])


def _manifest() -> Manifest:
    tensor = TensorSpec(name="x", dtype="uint8", shape=(-1, 1, 8, 8))
    figure = Accuracy(value=0.9, n=100, low=0.8, high=1.0, split="test", set_sha256="a" * 64)
    golden = Golden(file=_file("golden.npz"), samples=1, tolerance=0.01)
    variant = Variant(
        id="int8",
        precision="int8",
        scheme="qdq",
        opset=20,
        file=_file("int8.onnx"),
        accuracy=(figure,),
        golden=golden,
    )
    return Manifest(
        model="digits",
        signature=Signature(inputs=(tensor,), outputs=(tensor,)),
        variants=(variant,),
    )


def _file(name: str) -> ModelFile:
    return ModelFile(path=name, size=1, sha256=FILE, leaves_sha256=FILE)


def _device(device: str, now: datetime) -> DeviceRecord:
    return DeviceRecord(
        id=device,
        device_class="default",
        tags=(),
        state=DeviceState.ACTIVE,
        sequence=1,
        token_id="tok",  # noqa: S106 - an id, not a secret
        spki_sha256=device,
        enrolled_at=now,
    )


def _offered(n: int, device: str, now: datetime) -> ExecutionRecord:
    return ExecutionRecord(
        id=_execution(n),
        rollout_id=ROLLOUT,
        device_id=device,
        wave=0,
        state=ExecState.OFFERED,
        variant="int8",
        sequence=1,
        published=True,
        offered_at=now,
        updated_at=now,
    )


def run(options: Options) -> Report:
    """Both sides in turn, each with a database of its own."""
    count, single = (200, 20) if options.quick else (5000, 500)
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        ours, baseline = Path(folder, "ours"), Path(folder, "baseline")
        ours.mkdir()
        baseline.mkdir()
        batched, alone = Side(ours, count), Side(baseline, count)
        figures = alternate(
            lambda: batched.rates(BATCH, count),
            lambda: alone.rates(1, single),
            rounds=options.rounds,
            units=UNITS,
        )
    return Report(figures, {"batch": BATCH, "devices": count, "database": "sqlite"})


if __name__ == "__main__":
    main(run, what=WHAT, rounds=5)
