"""Gateway and inbox as a process that is killed again and again: every window counts once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from benchmarks._harness import ROOT
from benchmarks.inbox import fill
from benchmarks.telemetry import Bench, broker
from orchestrator.adapters.database import migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.clock import utc_now
from orchestrator.services.telemetry_queries import Question, TelemetryQueries

pytestmark = pytest.mark.integration

COUNT = 3_000
PORTION = 1_200


def stored(bench: Bench) -> int:
    with closing(sqlite3.connect(bench.database, timeout=10)) as database:
        return int(database.execute("SELECT count(*) FROM windows").fetchone()[0])


def receiver(bench: Bench) -> subprocess.Popen[bytes]:
    arguments = ("ours", str(bench.port), str(10 * COUNT), str(bench.database))
    command = [sys.executable, "-m", "benchmarks._telemetry_receiver", *arguments]
    return subprocess.Popen(command, cwd=ROOT)


def test_windows_are_counted_exactly_once_through_kills(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'argosy.db'}")
    migrate(engine)
    uow = SqlUnitOfWork(engine)
    devices = [f"dev_{n:016}" for n in range(50)]
    fill(uow, devices)
    with broker(tmp_path) as port:
        bench = Bench(tmp_path, port, devices, COUNT)
        bench.publish()
        kills, deadline = 0, time.monotonic() + 60
        while stored(bench) < COUNT:
            process = receiver(bench)
            wanted = min(COUNT, stored(bench) + PORTION)
            while stored(bench) < wanted:
                assert process.poll() is None
                assert time.monotonic() < deadline, f"{stored(bench)} of {COUNT} are stored"
                time.sleep(0.002)
            process.kill()
            process.wait()
            kills += 1
        assert kills >= 2
    queries = TelemetryQueries(uow, utc_now)
    asked = Question(model="digits", version=1)
    (whole,) = queries.summary(asked)
    of_devices = queries.summary(asked, "device")
    engine.dispose()
    for name, each in (("windows", 1), ("n", 600), ("raw_bytes", 600 * 64)):
        assert getattr(whole, name) == each * COUNT
        assert {getattr(row, name) for row in of_devices} == {each * COUNT // len(devices)}
    assert whole.classes == dict.fromkeys(range(10), 60 * COUNT)
