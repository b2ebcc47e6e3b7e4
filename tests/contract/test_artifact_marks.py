"""What the database says of held and condemned files, and of versions that came back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.services.records import VersionRecord

pytestmark = pytest.mark.integration

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(minutes=1)
A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_marks_are_of_one_kind_and_end_by_themselves(uow):
    with uow() as tx:
        marks = tx.artifact_marks
        marks.hold("one", [A, B, A], SOON)
        marks.condemn("two", [C], SOON)
        assert marks.held([A, B, C], NOW) == {A, B}
        assert marks.condemned([A, B, C], NOW) == {C}
        assert (marks.held([], NOW), marks.held([C], NOW)) == (set(), set())
        assert marks.held([A], SOON) == set()
        assert (marks.count("one", NOW), marks.count("one", SOON), marks.count("x", NOW)) == (
            2,
            0,
            0,
        )


def test_marks_are_their_owners(uow):
    later = SOON + timedelta(minutes=1)
    with uow() as tx:
        tx.artifact_marks.hold("one", [A], SOON)
        tx.artifact_marks.hold("two", [A], SOON)
        tx.artifact_marks.hold("one", [A, B], later)
    with uow() as tx:
        assert tx.artifact_marks.count("one", NOW) == 2
        tx.artifact_marks.prune(SOON)
        assert tx.artifact_marks.count("two", NOW) == 0
        assert tx.artifact_marks.held([A, B], SOON) == {A, B}
        tx.artifact_marks.release("two")
        tx.artifact_marks.release("one")
        assert tx.artifact_marks.held([A, B], NOW) == set()


def test_many_files_are_marked_at_once(uow):
    digests = [f"{number:064x}" for number in range(1201)]
    with uow() as tx:
        tx.artifact_marks.condemn("one", digests, SOON)
        assert tx.artifact_marks.condemned([*digests, A], NOW) == set(digests)
        assert tx.artifact_marks.count("one", NOW) == 1201


def test_a_version_that_came_back_counts_from_then(uow):
    record = VersionRecord(
        model="digits",
        version=1,
        manifest="{}",
        manifest_sha256=A,
        manifest_size=2,
        job_id=None,
        created_at=NOW,
    )
    with uow() as tx:
        tx.models.add(record)
        (held,) = tx.holdings.all().versions
        assert (held.restored_at, held.since) == (None, NOW)
        tx.models.save(replace(record, restored_at=SOON))
        (held,) = tx.holdings.all().versions
        assert (held.created_at, held.restored_at, held.since) == (NOW, SOON, SOON)
        assert tx.models.get("digits", 1).restored_at == SOON


def test_the_tables_come_and_go(engine):
    assert differences(engine) == []
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0005")
    assert differences(engine) != []
    migrate(engine)
    assert differences(engine) == []
