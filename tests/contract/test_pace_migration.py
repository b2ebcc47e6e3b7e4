"""Rollouts that were under way before there was a pace go on, and the way back works."""

from __future__ import annotations

from alembic import command

from orchestrator.adapters.database import alembic_config, differences, migrate
from schemas.rollout import ExecState
from tests.contract.test_execution_sets import execution, stored
from tests.contract.test_repositories import rollout


def test_what_was_under_way_begins_at_the_first_revision(engine, uow):
    of = rollout()
    (before,) = stored(uow, of, [execution(of, 1, ExecState.STAGED, sequence=1)])
    for move, revision in ((command.downgrade, "0016"), (command.upgrade, "0017")):
        with engine.begin() as connection:
            move(alembic_config(connection), revision)
    migrate(engine)
    assert differences(engine) == []
    with uow.read() as tx:
        after, its = tx.rollouts.execution(before.id), tx.rollouts.get(of.id)
    assert (after.state, after.proceed, after.waits_until) == (ExecState.STAGED, False, None)
    assert (its.revision, its.activated_at) == (1, None)
