"""What a round of the rollout engine costs, by the size of the fleet.

Each figure is taken in the largest fleet, with a fleet of 100 as its baseline: for statements
the ratio is to be 1, whatever the sizes; for seconds it says how a round grows. Nothing but
the database is there: devices are rows, and what they would report is written by this program.

Run: ``python -m benchmarks.engine [--quick] [--json FILE]``
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, event, insert, update
from sqlalchemy.orm import Session

from benchmarks._harness import Figure, Options, Report, main, note
from orchestrator.adapters.database import migrate
from orchestrator.adapters.mapping import row_of
from orchestrator.adapters.tables import DeviceRow, ExecutionRow, WindowRow
from orchestrator.adapters.trust import TrustStore
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.domain.rollout import RolloutEvent
from orchestrator.services.engine import RolloutEngine
from orchestrator.services.records import DeviceRecord, VersionRecord, WindowRecord
from orchestrator.services.rollouts import RolloutService
from schemas.device import DeviceState, Hardware, Presence
from schemas.ids import new_id
from schemas.measure import Accuracy, Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.rollout import RolloutSpec, WaveSpec
from schemas.signature import Signature, TensorSpec

SIZES = (100, 10_000, 100_000)
QUICK = (100, 2_000)
_KINDS = 20
"""Different devices in a fleet, in what decides which variant they get."""


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


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one act."""

    seconds: float
    statements: int


class Fleet:
    """Devices as rows, a version, and the parts of the server that roll it out."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size, self.clock = size, Clock()
        self.database = make_engine(f"sqlite:///{folder / 'argosy.db'}")
        migrate(self.database)
        self.uow = SqlUnitOfWork(self.database, self.clock)
        trust = TrustStore.open_or_create(folder / "trust", self.clock)
        self.rollouts = RolloutService(self.uow, self.clock, trust)
        self._fill()

    @property
    def engine(self) -> RolloutEngine:
        """One that has not looked yet, so that it rests after nothing."""
        return RolloutEngine(self.uow, self.clock)

    def _fill(self) -> None:
        manifest = _manifest().model_dump_json()
        with self.uow() as tx:
            tx.models.add(
                VersionRecord(
                    model="digits",
                    version=1,
                    manifest=manifest,
                    manifest_sha256="a" * 64,
                    manifest_size=len(manifest),
                    job_id=None,
                    created_at=self.clock(),
                )
            )
        self.write(insert(DeviceRow), [row_of(_device(n, self.clock())) for n in range(self.size)])

    def write(self, statement: Any, rows: list[dict[str, Any]] | None = None) -> None:
        """Do what devices would have caused."""
        with Session(self.database) as session, session.begin():
            session.execute(statement, rows, execution_options={"synchronize_session": False})

    def plan(self) -> str:
        """A rollout to all, in one wave."""
        spec = RolloutSpec(model="digits", version=1, waves=(WaveSpec(percent=100),))
        return self.rollouts.plan(spec).id

    def executions(self, rollout: str, **values: Any) -> None:
        """Set all executions of a rollout."""
        where = ExecutionRow.rollout_id == rollout
        self.write(update(ExecutionRow).where(where).values(**values))


def _device(number: int, now: datetime) -> DeviceRecord:
    hardware = Hardware(
        arch="x86_64",
        cpus=4,
        ram_mb=1024 + number % _KINDS,
        providers=("CPUExecutionProvider",),
        ort="1.23.0",
        agent="0.1.0",
    )
    return DeviceRecord(
        id=new_id("dev", now_ms=1, entropy=number),
        device_class="default",
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


@contextmanager
def counted(database: Engine) -> Iterator[list[str]]:
    """The statements that are sent meanwhile; one for many rows counts once."""
    seen: list[str] = []

    def note_it(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(database, "before_cursor_execute", note_it)
    try:
        yield seen
    finally:
        event.remove(database, "before_cursor_execute", note_it)


def measure(fleet: Fleet) -> dict[str, Cost]:
    """Roll out to a fleet, with every kind of round."""
    costs: dict[str, Cost] = {}

    def cost(name: str, act: Callable[[], object]) -> None:
        with counted(fleet.database) as statements:
            start = time.perf_counter()
            act()
            costs[name] = Cost(time.perf_counter() - start, len(statements))

    cost("plan", fleet.plan)
    rollout = fleet.rollouts.page(None, 1)[0].id
    fleet.rollouts.operate(rollout, RolloutEvent.START)
    cost("begin", fleet.engine.tick)
    fleet.write(update(DeviceRow).values(presence=Presence.OFFLINE.value))
    cost("nobody_there", fleet.engine.tick)
    fleet.write(update(DeviceRow).values(presence=Presence.ONLINE.value))
    cost("offer", fleet.engine.tick)
    start = time.perf_counter()
    while fleet.engine.tick():
        pass
    costs["offer_rest"] = Cost(time.perf_counter() - start, 0)
    cost("steady", fleet.engine.tick)
    cost("view", lambda: fleet.rollouts.get(rollout))
    fleet.executions(rollout, state="DOWNLOADING", due_at=fleet.clock())
    fleet.write(update(DeviceRow).values(presence=Presence.OFFLINE.value))
    cost("vanish", fleet.engine.tick)
    fleet.executions(rollout, state="FAILED", retryable=True, due_at=None)
    cost("retry", fleet.engine.tick)
    fleet.executions(rollout, state="SUCCEEDED", attempt=1, retryable=False, due_at=None)
    fleet.write(insert(WindowRow), [_window(n, fleet.clock())._asdict() for n in range(fleet.size)])
    cost("settle", fleet.engine.tick)
    fleet.clock.forward(6)
    fleet.engine.tick()
    cost("judge", fleet.engine.tick)
    other = fleet.plan()
    fleet.rollouts.operate(other, RolloutEvent.START)
    fleet.executions(other, state="DOWNLOADING", sequence=2, due_at=fleet.clock())
    cost("abort", lambda: fleet.rollouts.operate(other, RolloutEvent.ABORT))
    return costs


def _window(number: int, now: datetime) -> WindowRecord:
    return WindowRecord(
        device_id=new_id("dev", now_ms=1, entropy=number),
        boot=b"b" * 16,
        seq=0,
        model="digits",
        version=1,
        variant="int8",
        role="active",
        start_ms=round(now.timestamp() * 1000),
        received_ms=round(now.timestamp() * 1000),
        n=100,
        errors=0,
        lost=0,
        labelled=0,
        correct=0,
        body=b"",
    )


def _figures(largest: list[dict[str, Cost]], smallest: list[dict[str, Cost]]) -> dict[str, Figure]:
    figures = {}
    for name in largest[0]:
        for what, unit in (("statements", ""), ("seconds", "s")):
            sides = [
                [float(getattr(one[name], what)) for one in all_] for all_ in (largest, smallest)
            ]
            if all(sides[0]) and all(sides[1]):
                figures[f"{name}_{what}"] = Figure(unit, tuple(sides[0]), tuple(sides[1]))
    return figures


def run(options: Options) -> Report:
    """Measure fleets of each size, ``options.rounds`` times each."""
    sizes = QUICK if options.quick else SIZES
    found: dict[int, list[dict[str, Cost]]] = {size: [] for size in sizes}
    for _ in range(options.rounds):
        for size in sizes:
            note(f"{size} devices")
            with tempfile.TemporaryDirectory() as folder:
                fleet = Fleet(Path(folder), size)
                found[size].append(measure(fleet))
                fleet.database.dispose()
    details = {
        str(size): {
            name: {
                "seconds": round(median(one[name].seconds for one in rounds), 4),
                "statements": rounds[0][name].statements,
            }
            for name in rounds[0]
        }
        for size, rounds in found.items()
    }
    note(_table(details))
    return Report(_figures(found[sizes[-1]], found[sizes[0]]), {"sizes": details})


def _table(details: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    names = list(next(iter(details.values())))
    lines = ["".ljust(14) + "".join(f"{size:>10} devices       " for size in details)]
    for name in names:
        cells = (
            f"{costs[name]['seconds']:10.4f} s {costs[name]['statements']:4} stmts "
            for costs in details.values()
        )
        lines.append(name.ljust(14) + " ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main(run, what="A round of the engine: the largest fleet, and one of 100", rounds=1)
