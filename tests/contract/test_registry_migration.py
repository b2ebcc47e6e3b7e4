"""A registry that has versions is brought to the tables of its files and history, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine

pytestmark = pytest.mark.integration

MODEL, GOLDEN, OUTCOMES = "1" * 64, "2" * 64, "3" * 64
MANIFEST = {
    "model": "digits",
    "variants": [
        {
            "file": {"sha256": MODEL},
            "golden": {"file": {"sha256": GOLDEN}},
            "accuracy": [{"value": 0.9}, {"outcomes": {"sha256": OUTCOMES}}],
        },
        {"file": {"sha256": MODEL}, "golden": {"file": {"sha256": GOLDEN}}},
    ],
}
VERSION = """
INSERT INTO model_versions
  (model, version, manifest, manifest_sha256, signed, job_id, revoked, created_at)
VALUES (:model, :version, :manifest, 'x', '{}', NULL, :revoked, '2026-01-01 12:00:00+00:00')
"""
ALIAS = "INSERT INTO aliases (model, alias, version) VALUES ('digits', 'champion', 1)"


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request, tmp_path):
    """A database of the revision before, with two versions and an alias."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'argosy.db'}"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    engine = make_engine(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0003")
        for number, manifest in ((1, MANIFEST), (2, {"model": "digits"})):
            row = {"model": "digits", "version": number, "revoked": number == 2}
            connection.execute(text(VERSION), row | {"manifest": json.dumps(manifest)})
        connection.execute(text(ALIAS))
    yield engine
    engine.dispose()


def files(tx):
    return {held.version: held.files for held in tx.holdings.all().versions}


def test_versions_get_their_files_and_aliases_a_beginning(old):
    migrate(old)
    assert differences(old) == []
    with SqlUnitOfWork(old)() as tx:
        first, second = tx.models.get("digits", 1), tx.models.get("digits", 2)
        assert (first.note, first.tags, first.purged, first.revoked) == ("", (), False, False)
        assert (second.revoked, second.revoked_reason) == (True, None)
        assert json.loads(first.manifest) == MANIFEST, "it is signed: not a byte may change"
        assert files(tx) == {1: {MODEL, GOLDEN, OUTCOMES}, 2: set()}
        assert [tx.models.serves(f) for f in (MODEL, GOLDEN, OUTCOMES)] == [True, True, False]
        ((_, change),) = tx.models.alias_changes("digits", "champion", None, 5)
        assert (change.version, change.before, change.by) == (1, None, "unrecorded")
        assert change.at == datetime(2026, 1, 1, 12, tzinfo=UTC)
        tx.models.add_alias_change("digits", change)


def test_it_leads_back_and_forth(old):
    migrate(old)
    with old.begin() as connection:
        command.downgrade(alembic_config(connection), "0003")
        count = connection.scalar(text("SELECT count(*) FROM model_versions"))
        alias = connection.scalar(text("SELECT version FROM aliases"))
        assert (count, alias) == (2, 1)
    migrate(old)
    assert differences(old) == []
    with SqlUnitOfWork(old).read() as tx:
        assert files(tx) == {1: {MODEL, GOLDEN, OUTCOMES}, 2: set()}


def test_a_migration_that_is_cut_off_leaves_all_as_it_was(old, monkeypatch):
    class Killed(BaseException):
        pass

    def cut_off(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", cut_off)
        with pytest.raises(Killed):
            migrate(old)
    with old.begin() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0003"
        connection.execute(
            text(VERSION), {"model": "a", "version": 1, "manifest": "{}", "revoked": False}
        )
    migrate(old)
    assert differences(old) == []
