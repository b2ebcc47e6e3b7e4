"""What a round of the rollout engine costs, by the size of the fleet, on SQLite and PostgreSQL.

``tick_100k_s`` is the slowest of all kinds of rounds over the largest fleet, beside one second;
the other figures have a fleet of 100 as their baseline: for statements the ratio is to be 1,
whatever the sizes; for seconds it says how a round grows. Nothing but the database is there:
devices are rows, and what they would report is written by this program.

Run: ``python -m benchmarks.engine [--quick] [--json FILE]``
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, event, select, update

from benchmarks import _postgres
from benchmarks._engine_fleet import WINDOW_SECONDS, Fleet
from benchmarks._harness import Figure, Options, Report, main, note
from orchestrator.adapters.tables import DeviceRow
from orchestrator.domain.acts import Act
from schemas.device import DeviceState, Presence
from schemas.rollout import WaveSpec

SIZES = (100, 10_000, 100_000)
QUICK = (100, 2_000)

ROUNDS = (
    "begin", "nobody_there", "offer", "steady", "paced", "vanish", "retry", "settle", "judge",
    "join", "nobody_joins",
)  # fmt: skip
"""Rounds of the control loop; the other acts are an operator's."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one act."""

    seconds: float
    statements: int


class Meter:
    """Takes the cost of acts on one database, by name."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self.costs: dict[str, Cost] = {}

    def __call__(self, name: str, act: Callable[[], object]) -> None:
        """Act, and note what it cost."""
        with counted(self._database) as statements:
            start = time.perf_counter()
            act()
            self.costs[name] = Cost(time.perf_counter() - start, len(statements))


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
    cost = Meter(fleet.database)
    _one_wave(fleet, cost)
    _judged(fleet, cost)
    _joined(fleet, cost)
    return cost.costs


def _one_wave(fleet: Fleet, cost: Meter) -> None:
    cost("plan", fleet.start)
    rollout = fleet.rollouts.page(None, 1)[0].id
    cost("begin", fleet.engine.tick)
    fleet.presence(Presence.OFFLINE)
    cost("nobody_there", fleet.engine.tick)
    fleet.presence(Presence.ONLINE)
    cost("offer", fleet.engine.tick)
    start = time.perf_counter()
    while fleet.engine.tick():
        pass
    cost.costs["offer_rest"] = Cost(time.perf_counter() - start, 0)
    fleet.analyze()
    cost("steady", fleet.engine.tick)
    cost("view", lambda: fleet.rollouts.get(rollout))
    fleet.executions(rollout, state="DOWNLOADING", due_at=fleet.clock())
    fleet.presence(Presence.OFFLINE)
    cost("vanish", fleet.engine.tick)
    fleet.executions(rollout, state="FAILED", retryable=True, due_at=None)
    cost("retry", fleet.engine.tick)
    fleet.executions(rollout, state="SUCCEEDED", attempt=1, retryable=False, due_at=None)
    cost("settle", fleet.engine.tick)
    fleet.rollouts.operate(rollout, Act.ABORT)
    fleet.presence(Presence.ONLINE)
    other = fleet.start(pace={"per_minute": 600, "growth": {}, "concurrent": fleet.size})
    fleet.engine.tick()
    cost("paced", fleet.engine.tick)
    fleet.executions(other, state="DOWNLOADING", sequence=2, due_at=fleet.clock())
    cost("abort", lambda: fleet.rollouts.operate(other, Act.ABORT))


def _judged(fleet: Fleet, cost: Meter) -> None:
    """Half of the fleet has switched, the other half is the control cohort."""
    half = (WaveSpec(percent=50), WaveSpec(percent=100))
    rollout = fleet.start(waves=half)
    fleet.engine.tick()
    switched = fleet.clock() + timedelta(seconds=2 * WINDOW_SECONDS)
    fleet.clock.forward(5 * WINDOW_SECONDS)
    fleet.serving(1, switched - timedelta(days=1))
    fleet.serving(2, switched, fleet.of_wave(rollout, 0))
    done = {"state": "SUCCEEDED", "variant": "int8", "due_at": None}
    fleet.executions(rollout, 0, **done, offered_at=switched, updated_at=switched)
    fleet.telemetry(switched, rollout, 0)
    fleet.engine.tick()
    fleet.clock.forward(6)
    fleet.engine.tick()
    cost("judge", fleet.engine.tick)
    fleet.rollouts.operate(rollout, Act.ABORT)


def _joined(fleet: Fleet, cost: Meter) -> None:
    """A tenth of the fleet comes later, a thousand of it in a round."""
    late = select(DeviceRow.id).order_by(DeviceRow.id).limit(fleet.size // 10)
    with fleet.database.connect() as connection:
        ids = list(connection.scalars(late))
    held = update(DeviceRow).where(DeviceRow.id.in_(late))
    fleet.write(held.values(state=DeviceState.SUSPENDED.value))
    rollout = fleet.start(dynamic=True)
    fleet.engine.tick()
    cost("nobody_joins", fleet.joining.tick)
    fleet.write(
        update(DeviceRow).where(DeviceRow.id >= ids[0]).values(state=DeviceState.ACTIVE.value)
    )
    cost("join", fleet.joining.tick)
    fleet.rollouts.operate(rollout, Act.ABORT)


Found = dict[int, list[dict[str, Cost]]]
"""By size, a dictionary of each round."""


def _figures(found: Found, name: str) -> dict[str, Figure]:
    """The figures of one kind of database; SQLite's have no name in front."""
    (*_, largest), smallest = found.values(), next(iter(found.values()))
    worst = tuple(max(one[kind].seconds for kind in ROUNDS) for one in largest)
    figures = {f"{name}tick_100k_s": Figure("s", worst, tuple(1.0 for _ in worst))}
    for kind in largest[0]:
        for what, unit in (("statements", ""), ("seconds", "s")):
            sides = [
                [float(getattr(one[kind], what)) for one in all_] for all_ in (largest, smallest)
            ]
            if all(sides[0]) and all(sides[1]):
                figures[f"{name}{kind}_{what}"] = Figure(unit, tuple(sides[0]), tuple(sides[1]))
    return figures


def _details(found: Found) -> dict[str, dict[str, dict[str, float]]]:
    return {
        str(size): {
            name: {
                "seconds": round(median(one[name].seconds for one in rounds), 4),
                "statements": rounds[0][name].statements,
            }
            for name in rounds[0]
        }
        for size, rounds in found.items()
    }


def run(options: Options) -> Report:
    """Measure fleets of each size, ``options.rounds`` times each."""
    sizes = QUICK if options.quick else SIZES
    figures: dict[str, Figure] = {}
    details: dict[str, Any] = {}
    with _postgres.server() as home:
        if home is None:
            note("PostgreSQL is not installed: SQLite alone is measured")
        for name, prefix in (("sqlite", ""), ("postgresql", "pg_")):
            if name == "postgresql" and home is None:
                continue
            found: Found = {size: [] for size in sizes}
            for _ in range(options.rounds):
                for size in sizes:
                    note(f"{size} devices on {name}")
                    url = _postgres.new_database(home) if prefix and home else None
                    with tempfile.TemporaryDirectory() as folder:
                        fleet = Fleet(Path(folder), size, url)
                        found[size].append(measure(fleet))
                        fleet.database.dispose()
            figures |= _figures(found, prefix)
            details[name] = _details(found)
            note(_table(details[name]))
    return Report(figures, details)


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
