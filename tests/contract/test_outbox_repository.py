"""Executions by sets: what is to be sent, what devices were given, what a batch changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestrator.services.records import ExecutionRecord, WaveRecord
from schemas.ids import new_id
from schemas.rollout import ExecState, WaveState
from tests.contract.test_repositories import NOW, device, rollout, version_record

S = ExecState


def given(uow, count=3, **more):
    """A rollout that offered ``count`` devices their first model; its executions by device."""
    made, devices = (
        rollout(),
        [replace(device(), id=new_id("dev"), sequence=1) for _ in range(count)],
    )
    wave = WaveRecord(rollout_id=made.id, idx=0, state=WaveState.PENDING, entered_at=NOW)
    base = {"state": S.OFFERED, "sequence": 1, "variant": "int8", "offered_at": NOW, **more}
    executions = [
        ExecutionRecord(
            id=new_id("exe"), rollout_id=made.id, device_id=one.id, wave=0, updated_at=NOW, **base
        )
        for one in devices
    ]
    with uow() as tx:
        if tx.models.get(made.model, made.version) is None:
            tx.models.add(version_record(made.version))
        for one in devices:
            tx.devices.add(one)
        tx.rollouts.add(made, [wave], executions)
    return made, {one.device_id: one for one in executions}


def test_what_is_to_be_sent_is_found_by_rollout_and_state_until_it_is_published(uow):
    made, executions = given(uow)
    ids = sorted(one.id for one in executions.values())
    with uow() as tx:
        (group,) = tx.outbox.pending()
        assert group.count == 3
        assert [one.id for one in tx.outbox.waiting(group, 2)] == ids[:2]
        assert all(one.newest and one.rollout_id == made.id for one in tx.outbox.waiting(group, 9))
        tx.outbox.publish(ids[:2])
        assert [one.id for one in tx.outbox.waiting(group, 9)] == ids[2:]
        assert [tx.outbox.outgoing(ids)[key].published for key in ids] == [True, True, False]


def test_a_batch_writes_what_differs_and_reads_it_back_in_the_same_transaction(uow):
    _, executions = given(uow)
    ids = {one.id for one in executions.values()}
    with uow() as tx:
        before = tx.outbox.executions(ids)
        first, second, third = (before[key] for key in sorted(ids))
        after = [replace(first, seq=4), replace(second, seq=5), replace(third, detail="x")]
        tx.outbox.change(zip((first, second, third), after, strict=True))
        assert sorted(tx.outbox.executions(ids).values(), key=lambda one: one.id) == after
    with uow.read() as tx:
        assert sorted(tx.outbox.executions(ids).values(), key=lambda one: one.id) == after


def test_what_a_device_was_given_is_listed_the_newest_first(uow):
    _, executions = given(uow, 1)
    ((owner, old),) = executions.items()
    newer = rollout()
    wave = WaveRecord(rollout_id=newer.id, idx=0, state=WaveState.PENDING, entered_at=NOW)
    later = replace(
        old,
        id=new_id("exe"),
        rollout_id=newer.id,
        sequence=2,
        offered_at=NOW + timedelta(seconds=1),
        state=S.SUCCEEDED,
        late=S.ROLLED_BACK,
    )
    never = replace(old, id=new_id("exe"), rollout_id=rollout().id, sequence=0)
    with uow() as tx:
        tx.rollouts.add(newer, [wave], [later])
        other = replace(rollout(), id=never.rollout_id)
        tx.rollouts.add(other, [replace(wave, rollout_id=other.id)], [never])
        record = tx.devices.get(owner)
        tx.devices.change([(record, replace(record, sequence=2))], NOW)
    with uow.read() as tx:
        found = tx.outbox.given([owner, new_id("dev")])
        assert [one.execution for one in found[owner]] == [later.id, old.id]
        assert (found[owner][0].state, found[owner][0].late) == (S.SUCCEEDED, S.ROLLED_BACK)
        assert list(found) == [owner]
        assert tx.outbox.newest([owner])[owner].id == later.id
