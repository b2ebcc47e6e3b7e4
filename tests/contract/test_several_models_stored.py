"""Several models of a device on every database: the migration there and back, and the sets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork
from orchestrator.services.records import Among
from schemas.device import ActiveModel, DeviceState, Presence
from schemas.rollout import ExecState, RolloutState
from tests.contract.test_execution_sets import BEFORE, NOW, execution, stored
from tests.contract.test_repositories import device, rollout, version_record

S = ExecState
DIGITS = ActiveModel(model="digits", version=3, variant="int8", sha256="a" * 64)
ANOMALY = ActiveModel(model="anomaly", version=1, variant="fp32", sha256="b" * 64)


def moved(engine, move, revision):
    with engine.begin() as connection:
        move(alembic_config(connection), revision)


def raw(engine, query):
    with engine.begin() as connection:
        return connection.execute(text(query)).all()


def plain(value):
    return json.loads(value) if isinstance(value, str) else value


@pytest.mark.integration
def test_what_devices_served_is_brought_up_and_back(engine):
    uow = SqlUnitOfWork(engine)
    seen = {"presence": Presence.ONLINE, "last_seen_at": BEFORE}
    both = device(active=(ANOMALY, DIGITS), **seen)
    one, none = device(active=(DIGITS,), **seen), device(last_seen_at=BEFORE)
    with uow() as tx:
        for record in (both, one, none):
            tx.devices.add(record)
        tx.rollouts.add(rollout(), (), ())
    moved(engine, command.downgrade, "0012")
    rows = {id_: plain(active) for id_, active in raw(engine, "SELECT id, active FROM devices")}
    assert rows == {both.id: ANOMALY.model_dump(), one.id: DIGITS.model_dump(), none.id: None}
    with engine.begin() as connection:
        connection.execute(text("UPDATE devices SET active = NULL WHERE id = :id"), {"id": none.id})
    migrate(engine)
    assert differences(engine) == []
    with uow.read() as tx:
        assert tx.devices.many([one.id, none.id, both.id]) == {
            one.id: one,
            none.id: none,
            both.id: replace(both, active=(ANOMALY,)),
        }
        assert tx.devices.serving_since([one.id, none.id]) == {one.id: {"digits": BEFORE}}


def test_what_a_device_serves_is_listed_by_model_from_when_it_was_told(uow):
    one, two = device(active=(DIGITS,), last_seen_at=BEFORE), device()
    with uow() as tx:
        tx.devices.add(one)
        tx.devices.add(two)
        newer = DIGITS.model_copy(update={"version": 4})
        after = [(one, replace(one, active=(ANOMALY, newer))), (two, replace(two, active=(newer,)))]
        tx.devices.change(after, NOW)
        assert [d.id for d in tx.devices.page(None, 9, model="anomaly")] == [one.id]
        assert {d.id for d in tx.devices.page(None, 9, (), "digits", 4)} == {one.id, two.id}
        assert tx.devices.page(None, 9, (), "digits", 3) == []
        assert tx.devices.page(None, 9, [DeviceState.REVOKED], "digits") == []
        assert tx.devices.serving_since([one.id]) == {one.id: {"digits": NOW, "anomaly": NOW}}
        tx.devices.change([(two, replace(two, active=(newer,), session=7))], NOW)
        tx.devices.save(replace(tx.devices.get(one.id), active=(newer,)))
        assert tx.devices.serving_since([one.id]) == {one.id: {"digits": NOW}}


def test_only_who_works_for_no_other_model_is_waiting(uow):
    mine, other = rollout(), rollout(model="anomaly")
    paused = rollout(model="weather", state=RolloutState.PAUSED)
    later = NOW + timedelta(hours=1)
    records = [execution(mine, n) for n in range(6)]
    waits = stored(uow, mine, records, presence=Presence.ONLINE)
    working, over, unsent, sent, same, free = waits
    with uow() as tx:
        busy = replace(execution(other, 11, S.DOWNLOADING), device_id=working.device_id)
        ended = replace(execution(other, 12, S.SUCCEEDED), device_id=over.device_id)
        held = execution(paused, 13, S.OFFERED, sequence=3, due_at=later)
        put_off = replace(held, device_id=unsent.device_id)
        known = execution(paused, 14, S.OFFERED, sequence=3, due_at=later, published=True)
        known = replace(known, device_id=sent.device_id)
        older = rollout(version=1)
        alike = replace(execution(older, 15, S.STAGED), device_id=same.device_id)
        tx.rollouts.add(other, (), [busy, ended])
        tx.rollouts.add(paused, (), [put_off, known])
        tx.rollouts.add(older, (), [alike])
    devices = [one.device_id for one in waits]
    with uow() as tx:
        found = {one.id for one in tx.executions.waiting(mine.id, 0, NOW, 10)}
        assert found == {over.id, unsent.id, same.id, free.id}
        its = Among(rollout_id=mine.id, held=True)
        assert {one.id for one in tx.executions.page(its, None, 9)} == {working.id, sent.id}
        assert tx.executions.count(replace(its, held=False)) == 4
        assert tx.executions.holders(mine.id, devices) == {
            working.device_id: other.id,
            sent.device_id: paused.id,
        }
        assert [one.id for one in tx.executions.give_way(mine.id, devices, NOW)] == [put_off.id]
        back = tx.rollouts.execution(put_off.id)
        assert (back.state, back.due_at, back.published) == (S.SCHEDULED, None, False)
        taken = tx.executions.supersede(mine.id, devices, NOW)
        assert [one.id for one in taken] == [alike.id]


def test_groups_of_alike_devices_are_told_apart_by_the_rollout_s_model_alone(uow):
    of = rollout()
    others = ({"active": (DIGITS,)}, {"active": (ANOMALY, DIGITS)}, {"active": (ANOMALY,)})
    stored(uow, of, [execution(of, n) for n in range(4)], *others)
    with uow.read() as tx:
        everything = Among(rollout_id=of.id)
        groups = {one.active: one for one in tx.executions.alike(everything, 10)}
        assert {active: one.devices for active, one in groups.items()} == {DIGITS: 2, None: 2}
        for group in groups.values():
            assert tx.executions.count(replace(everything, alike=group)) == 2


def test_what_was_given_is_known_of_each_model_however_often_another_came(uow, monkeypatch):
    monkeypatch.setattr("orchestrator.adapters.outbox_repository._HISTORY", 2)
    old, often = rollout(), [rollout(model="anomaly") for _ in range(4)]
    (first,) = stored(uow, old, [execution(old, 1, S.SUCCEEDED, sequence=1, offered_at=BEFORE)])
    with uow() as tx:
        for n, of in enumerate(often, start=2):
            at = NOW + timedelta(seconds=n)
            made = execution(of, n, S.SUCCEEDED, sequence=n, offered_at=at)
            tx.rollouts.add(of, (), [replace(made, device_id=first.device_id)])
        tx.models.add(version_record(1))
        tx.models.add(version_record(1, model="anomaly"))
        given = tx.outbox.given([first.device_id])[first.device_id]
    assert [one.model for one in given] == ["anomaly", "anomaly", "digits"]
