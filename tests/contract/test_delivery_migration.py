"""A database from before timers, with an update on its way, is brought up, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork
from orchestrator.services.records import Among
from schemas.rollout import ExecState
from tests.contract.test_repositories import device, rollout

pytestmark = pytest.mark.integration

ROLLOUT = rollout()
INSERT = """
INSERT INTO executions (id, rollout_id, device_id, wave, attempt, state, seq, sequence, published,
                        updated_at)
VALUES (:id, :rollout, :device, 0, 1, :state, -1, 1, :published, '2026-01-01 12:00:00+00:00')
"""


def test_what_is_on_its_way_gets_a_timer_and_nothing_is_lost(engine):
    uow = SqlUnitOfWork(engine)
    one, two = device(), device()
    with uow() as tx:
        tx.devices.add(one)
        tx.devices.add(two)
        tx.rollouts.add(ROLLOUT, (), ())
    for move, revision in ((command.downgrade, "0009"), (command.upgrade, "head")):
        with engine.begin() as connection:
            move(alembic_config(connection), revision)
    assert differences(engine) == []
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0009")
        for name, its, state in (("a", one.id, "DOWNLOADING"), ("b", two.id, "SUCCEEDED")):
            row = {"id": name, "rollout": ROLLOUT.id, "device": its, "state": state}
            connection.execute(text(INSERT), row | {"published": True})
    migrate(engine)
    with uow.read() as tx:
        going, over = tx.executions.page(Among(rollout_id=ROLLOUT.id), None, 5)
    assert going.state is ExecState.DOWNLOADING
    assert going.due_at > datetime.now(UTC) + timedelta(minutes=4)
    assert (over.due_at, over.bytes_earlier, over.retryable) == (None, 0, False)
