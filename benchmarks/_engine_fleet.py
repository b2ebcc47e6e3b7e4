"""Fleets as rows: devices, versions, rollouts, telemetry, and the parts that roll out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Select, select, text, update
from sqlalchemy.orm import Session

from benchmarks._bulk import fill, table_of
from benchmarks._harness import note
from orchestrator.adapters.database import migrate
from orchestrator.adapters.mapping import row_of
from orchestrator.adapters.tables import DeviceModelRow, DeviceRow, ExecutionRow, WindowRow
from orchestrator.adapters.trust import TrustStore
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.domain.acts import Act
from orchestrator.domain.rollup import Kept
from orchestrator.services.engine import RolloutEngine
from orchestrator.services.joining import JoiningService
from orchestrator.services.records import DeviceRecord, VersionRecord, WindowRecord
from orchestrator.services.rollouts import RolloutService
from schemas.device import DeviceState, Hardware, Presence
from schemas.ids import new_id
from schemas.measure import Accuracy, Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.rollout import RolloutSpec, WaveSpec
from schemas.signature import Signature, TensorSpec
from schemas.window import Window, pack

KINDS = 20
"""Different devices in a fleet, in what decides which variant they get."""

CLASSES = 4
WINDOW_SECONDS = 60


@dataclass
class Clock:
    """Moved by hand, so that no timer runs out by itself."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        """The time."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class Fleet:
    """Devices as rows, two versions, and the parts of the server that roll one out.

    Args:
        folder: for the trust keys, and the database if it is SQLite's.
        size: devices.
        url: of an empty database; None makes one in the folder.
    """

    def __init__(self, folder: Path, size: int, url: str | None = None) -> None:
        self.size, self.clock = size, Clock()
        self.database = make_engine(url or f"sqlite:///{folder / 'argosy.db'}")
        migrate(self.database)
        self.uow = SqlUnitOfWork(self.database, self.clock)
        trust = TrustStore.open_or_create(folder / "trust", self.clock)
        self.rollouts = RolloutService(self.uow, self.clock, trust)
        self._fill()

    @property
    def engine(self) -> RolloutEngine:
        """One that has not looked yet, so that it rests after nothing."""
        return RolloutEngine(self.uow, self.clock)

    @property
    def joining(self) -> JoiningService:
        """One that has not looked yet."""
        return JoiningService(self.uow, self.clock)

    def _fill(self) -> None:
        manifest = _manifest().model_dump_json()
        with self.uow() as tx:
            for version in (1, 2):
                tx.models.add(
                    VersionRecord(
                        model="digits",
                        version=version,
                        manifest=manifest,
                        manifest_sha256=f"{version:064x}",
                        manifest_size=len(manifest),
                        job_id=None,
                        created_at=self.clock(),
                    )
                )
        devices = (row_of(_device(n, self.clock())) for n in range(self.size))
        fill(self.database, table_of(DeviceRow), devices)
        self.analyze()

    def write(self, statement: Any) -> None:
        """Do what devices would have caused."""
        with self.database.begin() as connection:
            connection.execute(statement)

    def analyze(self) -> None:
        """Let the planner know what was written at once, as its daemon does within a minute."""
        if self.database.dialect.name == "postgresql":
            with self.database.begin() as connection:
                connection.execute(text("ANALYZE"))

    def start(self, **more: Any) -> str:
        """Plan a rollout and start it; to all in one wave, unless it is said otherwise."""
        plan = {"model": "digits", "version": 2, "waves": (WaveSpec(percent=100),), **more}
        rollout = self.rollouts.plan(RolloutSpec.model_validate(plan)).id
        self.rollouts.operate(rollout, Act.START)
        self.analyze()
        return rollout

    def executions(self, rollout: str, wave: int | None = None, **values: Any) -> None:
        """Set all executions of a rollout, or of one wave."""
        where = [ExecutionRow.rollout_id == rollout]
        where += [] if wave is None else [ExecutionRow.wave == wave]
        self.write(update(ExecutionRow).where(*where).values(**values))

    def presence(self, presence: Presence) -> None:
        """Set whether devices are there."""
        self.write(update(DeviceRow).values(presence=presence.value))

    def serving(self, version: int, since: datetime, among: Select[Any] | None = None) -> None:
        """Have devices serve a version; those that serve none yet, or some."""
        if among is None:
            row = {"model": "digits", "variant": "int8", "sha256": "b" * 64}
            rows = (
                {**row, "device_id": _id(n), "version": version, "since": since}
                for n in range(self.size)
            )
            fill(self.database, table_of(DeviceModelRow), rows)
            return
        values = {"version": version, "since": since}
        self.write(update(DeviceModelRow).where(DeviceModelRow.device_id.in_(among)).values(values))

    def of_wave(self, rollout: str, wave: int) -> Select[Any]:
        """The devices of a wave."""
        e = ExecutionRow
        return select(e.device_id).where(e.rollout_id == rollout, e.wave == wave)

    def telemetry(self, switched: datetime, rollout: str, wave: int) -> None:
        """Windows of a minute before and after: of the wave's devices with the new version."""
        with Session(self.database) as session:
            treated = set(session.scalars(self.of_wave(rollout, wave)))
        count = fill(self.database, table_of(WindowRow), self._windows(switched, treated))
        self.analyze()
        note(f"  {count} windows of {self.size} devices")

    def _windows(self, switched: datetime, treated: set[str]) -> Iterator[dict[str, Any]]:
        for n in range(self.size):
            device = _id(n)
            for seq, start in enumerate((-2, -1, 0, 1)):
                new = start >= 0 and device in treated
                at = switched + timedelta(seconds=WINDOW_SECONDS * start)
                yield _window(device, seq, 2 if new else 1, at)._asdict()


def _id(number: int) -> str:
    return new_id("dev", now_ms=1, entropy=number * 0x9E3779B97F4A7C15 % 2**62)


def _device(number: int, now: datetime) -> DeviceRecord:
    hardware = Hardware(
        arch="x86_64",
        cpus=4,
        ram_mb=1024 + number % KINDS,
        providers=("CPUExecutionProvider",),
        ort="1.23.0",
        agent="0.1.0",
    )
    return DeviceRecord(
        id=_id(number),
        device_class=f"class-{number % CLASSES}",
        tags=("lab",),
        state=DeviceState.ACTIVE,
        presence=Presence.ONLINE,
        hardware=hardware,
        token_id="tok",  # noqa: S106 - an id, not a secret
        spki_sha256=f"{number:064x}",
        enrolled_at=now,
        last_seen_at=now,
    )


def _manifest() -> Manifest:
    tensor = TensorSpec(name="x", dtype="uint8", shape=(-1, 64))
    file = ModelFile(path="int8.onnx", size=10_000, sha256="b" * 64, leaves_sha256="c" * 64)
    accuracy = Accuracy(value=0.97, n=360, low=0.95, high=0.98, split="test", set_sha256="d" * 64)
    variant = Variant(
        id="int8",
        precision="int8",
        scheme="qdq",
        opset=20,
        file=file,
        accuracy=(accuracy,),
        golden=Golden(file=file, samples=1, tolerance=0.01),
    )
    signature = Signature(inputs=(tensor,), outputs=(tensor,))
    return Manifest(model="digits", signature=signature, variants=(variant,))


_TALLIES: dict[str, Any] = {
    "latency": pack({40: 60, 41: 30, 45: 10}),
    "confidence": [0, 0, 1, 1, 2, 4, 8, 16, 28, 40],
    "classes": pack(dict.fromkeys(range(10), 10)),
}


def _window(device: str, seq: int, version: int, at: datetime) -> WindowRecord:
    start = round(at.timestamp() * 1000)
    window = Window(
        about=0,
        seq=seq,
        start_ms=start,
        synced=True,
        length_ms=WINDOW_SECONDS * 1000,
        n=100,
        labelled=100,
        correct=97,
        rss_mib=40,
        **_TALLIES,
    )
    return WindowRecord(
        device_id=device,
        boot=b"b" * 16,
        seq=seq,
        model="digits",
        version=version,
        variant="int8",
        role="active",
        start_ms=start,
        received_ms=start + WINDOW_SECONDS * 1000,
        n=100,
        errors=0,
        lost=0,
        labelled=100,
        correct=97,
        body=msgspec.msgpack.encode(Kept(window, "cpu")),
    )
