"""How devices of rollouts ended, and whom stragglers' waves wait for, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from orchestrator.services.ports import AuditQuery
from orchestrator.services.records import WaveRecord
from orchestrator.services.rollout_standing import standings
from orchestrator.services.rollout_view import view
from schemas.ids import new_id
from schemas.rollout import ExecState, RolloutState, WaveState
from tests.contract.test_execution_sets import execution, stored
from tests.contract.test_repositories import rollout

pytestmark = pytest.mark.integration
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
S = ExecState


def a_rollout(uow, state, *how, salt=0):
    of = replace(
        rollout(), id=new_id("rol", entropy=salt), state=state, started_at=NOW, planned=True
    )
    records = [
        execution(of, 1000 * salt + n, one, sequence=sequence, late=late)
        for n, (one, sequence, late) in enumerate(how)
    ]
    stored(uow, of, records)
    return of


ENDED = (
    (S.SUCCEEDED, 3, None), (S.SUCCEEDED, 3, S.ROLLED_BACK), (S.SUCCEEDED, 3, None),
    (S.ROLLED_BACK, 3, None), (S.CANCELLED, 3, None), (S.CANCELLED, 0, None),
    (S.TIMED_OUT, 0, None), (S.TIMED_OUT, 3, S.SUCCEEDED), (S.NO_VARIANT, 0, None),
)  # fmt: skip
OUTCOME = {
    "SUCCEEDED": 2, "ROLLED_BACK": 2, "CANCELLED": 1, "TIMED_OUT": 1, "NO_VARIANT": 1,
    "NOT_OFFERED": 2,
}  # fmt: skip


def test_what_a_device_did_later_and_who_was_offered_nothing_count(uow):
    one = a_rollout(uow, RolloutState.SUCCEEDED, *ENDED)
    none = new_id("rol", entropy=7)
    with uow.read() as tx:
        assert tx.rollouts.outcomes([one.id, none]) == {one.id: OUTCOME, none: {}}
        shown = view(tx, one)
        assert (shown.outcome, shown.started_at) == (OUTCOME, NOW)
        assert shown.waves[0].progress.not_offered == 2


def test_a_list_counts_in_as_many_statements_however_long_it_is(uow, engine):
    ran = []

    @event.listens_for(engine, "before_cursor_execute")
    def _counted(*args):
        ran.append(args[2])

    records = [a_rollout(uow, RolloutState.SUCCEEDED, *ENDED[:n], salt=n) for n in range(1, 5)]
    needed = []
    for some in (records[:1], records):
        with uow.read() as tx:
            ran.clear()
            found = standings(tx, some)
            needed.append(len(ran))
        assert set(found) == {one.id for one in some}
    assert needed == [3, 3]
    event.remove(engine, "before_cursor_execute", _counted)


def test_stragglers_are_waited_for_until_their_patience_ends(uow):
    one = a_rollout(uow, RolloutState.RUNNING, (S.SUCCEEDED, 3, None), (S.SCHEDULED, 0, None))
    with uow() as tx:
        assert tx.rollouts.straggling([one.id]) == {}
        tx.rollouts.save_wave(
            WaveRecord(rollout_id=one.id, idx=0, state=WaveState.RUNNING, stragglers=True,
                       entered_at=NOW)
        )  # fmt: skip
    until = NOW + timedelta(seconds=one.spec.straggler_seconds)
    with uow.read() as tx:
        assert tx.rollouts.straggling([one.id]) == {one.id: (NOW, 1)}
        for shown in (view(tx, one).absent, standings(tx, [one])[one.id]["absent"]):
            assert (shown.devices, shown.until) == (1, until)


def test_who_asked_for_an_approval_is_known_from_the_audit_log(uow):
    one = replace(
        a_rollout(uow, RolloutState.AWAITING_APPROVAL, (S.SCHEDULED, 0, None)),
        requested_by="releaser:key_0000000000000001",
    )
    with uow() as tx:
        tx.audit.add("rollout.start", one.id, {"reason": "fixes the left lane"})
        tx.audit.add("rollout.start", new_id("rol", entropy=9), {"reason": "another"})
    with uow.read() as tx:
        asked = view(tx, one).asked
        query = AuditQuery(tail=5, subject=one.id)
        assert [entry.subject for entry in tx.audit.entries(query)] == [one.id]
    assert asked is not None
    assert (asked.name, asked.reason) == (None, "fixes the left lane")
    assert asked.at is not None
