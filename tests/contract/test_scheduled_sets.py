"""A plan's executions are written by sets: each is as if it had been added by itself."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import event

from orchestrator.adapters import bulk
from orchestrator.services.records import Among, ExecutionRecord, WaveRecord
from schemas.ids import new_id
from schemas.rollout import WaveState
from tests.contract.test_repositories import NOW, device, rollout, version_record


def test_what_is_scheduled_as_a_set_is_as_what_is_added_alone(uow, engine, monkeypatch):
    monkeypatch.setattr(bulk, "_PORTION", 4)
    made = rollout()
    wave = WaveRecord(rollout_id=made.id, idx=0, state=WaveState.PENDING, entered_at=NOW)
    devices = [replace(device(), id=new_id("dev")) for _ in range(10)]
    members = [(new_id("exe"), one.id, 0) for one in devices]
    statements = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with uow() as tx:
        if tx.models.get(made.model, made.version) is None:
            tx.models.add(version_record(made.version))
        for one in devices:
            tx.devices.add(one)
        tx.rollouts.add(made, [wave], ())
        before = len(statements)
        tx.rollouts.schedule(made.id, iter(members), NOW)
        assert len(statements) - before == 3
    with uow.read() as tx:
        found = tx.executions.page(Among(rollout_id=made.id), None, 100)
    assert sorted(found, key=lambda one: one.id) == [
        ExecutionRecord(
            id=execution, rollout_id=made.id, device_id=owner, wave=place, updated_at=NOW
        )
        for execution, owner, place in sorted(members)
    ]
