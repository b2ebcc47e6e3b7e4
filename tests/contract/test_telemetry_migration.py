"""A database from before roll-ups is brought up with its windows added up, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork
from orchestrator.services.records import VersionRecord
from orchestrator.services.telemetry_queries import Question, TelemetryQueries
from tests.contract.test_repositories import device

pytestmark = pytest.mark.integration

START = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
VERSION = VersionRecord(
    model="digits",
    version=1,
    manifest="{}",
    manifest_sha256="a" * 64,
    manifest_size=2,
    job_id=None,
    created_at=START,
)
INSERT = """
INSERT INTO windows (device_id, boot, seq, model, version, variant, role, start, received_at,
                     n, errors, labelled, correct, payload)
VALUES (:device, :boot, :seq, 'digits', 1, 'int8', 'active', :start, :start, 10, 1, 10, 9, :payload)
"""
PAYLOAD = {
    "model": "digits", "version": 1, "variant": "int8", "role": "active", "seconds": 5.0, "n": 10,
    "latency_us": {"40": 6, "80": 4}, "confidence": [0] * 9 + [10], "classes": {"3": 10},
    "provider": "CPUExecutionProvider", "rss_mb": 52.4, "cpu_seconds": 1.5, "dropped": 2,
}  # fmt: skip


def downgraded(engine) -> None:
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0013")


def test_windows_move_along_and_are_added_up(engine):
    uow = SqlUnitOfWork(engine)
    one = device(device_class="camera")
    with uow() as tx:
        tx.devices.add(one)
        tx.models.add(VERSION)
    downgraded(engine)
    with engine.begin() as connection:
        for seq in range(1005):
            start = START + timedelta(hours=seq % 2)
            row = {"device": one.id, "boot": "ab" * 16, "seq": seq, "payload": json.dumps(PAYLOAD)}
            connection.execute(text(INSERT), row | {"start": start})
    for _ in range(2):
        migrate(engine)
        assert differences(engine) == []
        queries = TelemetryQueries(uow, lambda: START + timedelta(hours=2))
        (found,) = queries.summary(Question(model="digits", version=1), "class")
        assert (found.windows, found.n, found.errors, found.correct) == (1005, 10050, 1005, 9045)
        assert (found.device_class, found.classes, found.rss_mib) == ("camera", {3: 10050}, 50)
        assert found.p50_ms == pytest.approx(0.0306, rel=0.05)
        asked = Question(model="digits", version=1, since=START, device=one.id)
        assert [point.n for point in queries.series(asked, "1h")] == [5030, 5020]
        assert sum(point.n for point in queries.series(asked, "1m")) == 10050
        downgraded(engine)
        with engine.connect() as connection:
            count, least = connection.execute(text("SELECT count(*), min(boot) FROM windows")).one()
            (body,) = connection.execute(text("SELECT payload FROM windows LIMIT 1")).one()
        body = json.loads(body) if isinstance(body, str) else body
        assert (count, least) == (1005, "ab" * 16)
        assert body["latency_us"] == PAYLOAD["latency_us"]
        assert (body["dropped"], body["cpu_seconds"]) == (2, 1.5)
    migrate(engine)


def test_numbers_of_any_size_from_devices_do_not_keep_a_server_from_its_upgrade(engine):
    uow = SqlUnitOfWork(engine)
    one = device()
    with uow() as tx:
        tx.devices.add(one)
        tx.models.add(VERSION)
    downgraded(engine)
    odd = PAYLOAD | {
        "latency_us": {"40": 10**30}, "confidence": [10**25], "classes": {"-5": 1, str(10**12): 2},
        "rss_mb": 1e300, "cpu_seconds": 1e308,
    }  # fmt: skip
    row = {"device": one.id, "boot": "ab" * 16, "seq": 0, "payload": json.dumps(odd)}
    with engine.begin() as connection:
        connection.execute(text(INSERT), row | {"start": START})
    migrate(engine)
    queries = TelemetryQueries(uow, lambda: START + timedelta(hours=2))
    (point,) = queries.series(Question(model="digits", version=1, since=START), "1m")
    assert (point.n, point.classes) == (10, {0: 1, 9_999: 2})
    assert point.rss_mib == point.confidence[0] == 2**63 - 1
    downgraded(engine)
    migrate(engine)
