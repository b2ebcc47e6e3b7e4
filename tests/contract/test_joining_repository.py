"""Who joins and who leaves a dynamic rollout, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic import command

from orchestrator.adapters.database import alembic_config, differences
from orchestrator.services.fleets import frozen_target
from orchestrator.services.records import WaveRecord
from schemas.device import DeviceState, Presence
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from tests.contract.test_execution_sets import execution
from tests.contract.test_repositories import device, rollout

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
S = ExecState
SPEC = RolloutSpec(
    model="digits", version=1, tags=("lab",), where="class = cam", exclude="tag = old", dynamic=True
)
TARGET = frozen_target(SPEC, "presence = online")


@pytest.fixture
def running(uow):
    """A dynamic rollout without devices."""
    made = replace(rollout(), spec=SPEC, model="digits", version=1, state=RolloutState.RUNNING)
    wave = WaveRecord(rollout_id=made.id, idx=0, state=WaveState.RUNNING, entered_at=NOW)
    with uow() as tx:
        tx.rollouts.add(made, [wave], [])
    return made


def cam(uow, **more):
    its = {"device_class": "cam", "tags": ("lab",), "presence": Presence.ONLINE} | more
    made = device(**its)
    with uow() as tx:
        tx.devices.add(made)
    return made.id


def put(uow, of, device_id, number, state=S.SCHEDULED, sequence=0):
    made = execution(of, number, state, device_id=device_id, sequence=sequence)
    with uow() as tx:
        tx.rollouts.schedule(of.id, [(made.id, device_id, 0)], NOW)
        tx.rollouts.save_execution(made)
    return made.id


def test_only_dynamic_rollouts_that_run_are_looked_at(uow, running):
    plain = SPEC.model_copy(update={"dynamic": False})
    with uow() as tx:
        for spec, state in (
            (SPEC, RolloutState.PAUSED),
            (SPEC, RolloutState.DRAFT),
            (plain, RolloutState.RUNNING),
        ):
            other = replace(rollout(), spec=spec, model="digits", version=1, state=state)
            tx.rollouts.add(other, [], [])
    with uow.read() as tx:
        assert [one.id for one in tx.joining.dynamic()] == [running.id]
        standing = tx.joining.standing("digits")
    assert sorted(one.state for one in standing) == ["PAUSED", "RUNNING"]


def test_joiners_match_and_are_in_no_execution(uow, running):
    match, member = cam(uow), cam(uow)
    cam(uow, tags=("lab", "old"))
    cam(uow, tags=())
    cam(uow, device_class="gateway")
    cam(uow, presence=Presence.OFFLINE)
    cam(uow, state=DeviceState.REVOKED)
    put(uow, running, member, 1)
    with uow.read() as tx:
        assert tx.joining.joiners(running.id, TARGET, NOW, 10) == [match]
        both = tx.joining.joiners("rol_other", TARGET, NOW, 10)
        assert both == sorted([match, member])
        assert tx.joining.joiners("rol_other", TARGET, NOW, 1) == both[:1]


def test_who_was_asked_neither_leaves_nor_returns(uow, running):
    stray = {"tags": ("hall",)}
    waiting = put(uow, running, cam(uow, **stray), 1)
    put(uow, running, cam(uow, **stray), 2, sequence=3)
    put(uow, running, cam(uow, **stray), 3, S.OFFERED, sequence=4)
    removed = put(uow, running, cam(uow), 4, S.REMOVED)
    put(uow, running, cam(uow), 5, S.REMOVED, sequence=5)
    put(uow, running, cam(uow, **stray), 6, S.REMOVED)
    put(uow, running, cam(uow), 7)
    with uow.read() as tx:
        assert tx.joining.leaving(running.id, TARGET, NOW, 10) == [waiting]
        assert tx.joining.returning(running.id, TARGET, NOW, 10) == [removed]


def test_what_is_taken_back_is_as_if_it_had_stayed(uow, running):
    removed = put(uow, running, cam(uow), 1, S.REMOVED)
    with uow() as tx:
        (moved,) = tx.joining.take_back([removed], 3, NOW)
        assert (moved.id, moved.rollout_id, moved.wave) == (removed, running.id, 3)
        assert tx.joining.take_back([removed], 3, NOW) == []
    with uow.read() as tx:
        back = tx.rollouts.execution(removed)
    assert (back.state, back.wave, back.attempt, back.detail) == (S.SCHEDULED, 3, 1, None)


def test_the_columns_come_and_go(engine):
    """On a database with a rollout under way, which goes on."""
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0015")
        names = {one["name"] for one in sa.inspect(connection).get_columns("waves")}
        assert "joiners" not in names
        connection.execute(
            sa.text(
                "INSERT INTO rollouts (id, spec, model, version, state, planned, created_at)"
                " VALUES ('rol_old', '{}', 'digits', 1, 'RUNNING', true, :now)"
            ),
            {"now": NOW.isoformat(sep=" ")},
        )
        connection.execute(
            sa.text(
                "INSERT INTO waves (rollout_id, idx, state, stragglers, entered_at, evidence)"
                " VALUES ('rol_old', 0, 'RUNNING', false, :now, '[]')"
            ),
            {"now": NOW.isoformat(sep=" ")},
        )
        command.upgrade(alembic_config(connection), "head")
        old = connection.execute(
            sa.text(
                "SELECT fleet_where, joiners FROM rollouts JOIN waves ON rollout_id = rollouts.id"
            )
        ).one()
    assert (old.fleet_where, bool(old.joiners)) == (None, False)
    assert differences(engine) == []
