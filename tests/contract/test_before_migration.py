"""Rollouts from before a device's earlier version was kept can be rolled back by what is known."""

from __future__ import annotations

from dataclasses import replace

from alembic import command

from orchestrator.adapters.database import alembic_config, differences, migrate
from schemas.rollout import ExecState
from tests.contract.test_execution_sets import execution, stored
from tests.contract.test_repositories import rollout

S = ExecState


def test_what_a_device_served_before_is_taken_from_its_history(engine, uow):
    first = rollout()
    (early, undone, other) = stored(
        uow,
        first,
        [
            execution(first, 1, S.SUCCEEDED, sequence=1, variant="int8"),
            execution(first, 2, S.SUCCEEDED, sequence=1, late=S.ROLLED_BACK),
            execution(first, 3, S.FAILED, sequence=1),
        ],
    )
    second = rollout(version=2)
    with uow() as tx:
        its = [
            replace(execution(second, 4 + n, S.SUCCEEDED, sequence=2), device_id=one.device_id)
            for n, one in enumerate((early, undone, other))
        ]
        told = replace(its[0], before_version=7)
        tx.rollouts.add(second, (), its)
    third = rollout(version=3)
    with uow() as tx:
        tx.rollouts.add(third, (), [replace(told, id=early.id[:-1] + "z", rollout_id=third.id)])
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0020")
    migrate(engine)
    assert differences(engine) == []
    with uow.read() as tx:
        found = [tx.rollouts.execution(one.id) for one in its]
        kept = tx.rollouts.execution(early.id[:-1] + "z")
    assert [(one.before_version, one.before_variant) for one in found] == [
        (1, "int8"),
        (None, None),
        (None, None),
    ]
    assert kept.before_version == 7
