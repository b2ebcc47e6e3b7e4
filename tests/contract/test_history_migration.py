"""A platform that has run jobs is brought to the tables of their history, and back."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.domain.logs import LogQuery
from schemas.job import JobState

pytestmark = pytest.mark.integration

ROWS = """
INSERT INTO jobs (id, name, state, spec, attempt, max_attempts, epoch, seq, cancel_requested,
  best, last, created_at)
VALUES ('job_1', 'digits', 'RUNNING', '{"name": "digits", "task": "m:T", "stop": {"target": 0.9}}',
  1, 3, 2, 5, false, '{}', '{}', '2026-01-01 12:00:00+00:00');
INSERT INTO job_logs (job_id, at, level, text)
VALUES ('job_1', '2026-01-01 12:00:00+00:00', 'info', 'a'),
  ('job_1', '2026-01-01 12:00:00+00:00', 'info', 'b');
INSERT INTO job_metrics (job_id, epoch, at, "values")
VALUES ('job_1', 2, '2026-01-01 12:00:00+00:00', '{"loss": 0.5}');
INSERT INTO events (at, kind, subject, data)
VALUES ('2026-01-01 12:00:00+00:00', 'job', 'job_1', '{}'),
  ('2026-01-01 12:00:00+00:00', 'job', 'job_1', '{}')
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request, tmp_path):
    """A database as the first version left it, with a job."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'argosy.db'}"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    engine = make_engine(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for row in ROWS.split(";"):
            connection.exec_driver_sql(row)
    yield engine
    engine.dispose()


def test_what_was_there_is_there_still(old):
    migrate(old)
    assert differences(old) == []
    with SqlUnitOfWork(old)() as tx:
        job = tx.jobs.get("job_1")
        assert job is not None
        assert (job.state, job.project, job.usage, job.live) == (
            JobState.RUNNING,
            "default",
            {},
            None,
        )
        assert [line.text for _, line in tx.job_history.logs("job_1", LogQuery())] == ["a", "b"]
        assert [p.values for p in tx.job_history.series("job_1", 0)] == [{"loss": 0.5}]
        last = tx.events.last_id()
        tx.events.replace_live("job_1", {}, job.created_at)
        assert tx.events.last_id() == last + 1


def test_it_leads_back(old):
    migrate(old)
    with SqlUnitOfWork(old)() as tx:
        found = tx.jobs.get("job_1")
        assert found is not None
        tx.events.replace_live("job_1", {}, found.created_at)
    with old.begin() as connection:
        command.downgrade(alembic_config(connection), "0001")
        assert connection.scalar(text("SELECT count(*) FROM job_metrics")) == 1
        assert connection.scalar(text("SELECT count(*) FROM job_logs")) == 2
        kinds = "SELECT count(*) FROM events WHERE kind = 'live'"
        assert connection.scalar(text(kinds)) == 0, "the first version does not know them"
    migrate(old)
    assert differences(old) == []


def test_what_was_used_before_counts_still(old):
    usage = '{"1": {"cpu_seconds": 20.5}, "2": {"cpu_seconds": 9.5}}'
    with old.begin() as connection:
        command.upgrade(alembic_config(connection), "0002")
        connection.execute(text("UPDATE jobs SET usage = :usage"), {"usage": usage})
    migrate(old)
    with SqlUnitOfWork(old).read() as tx:
        job = tx.jobs.get("job_1")
        assert job is not None
        assert (job.cpu_seconds, job.submission) == (30.0, None)
        assert tx.jobs.recent_use(job.created_at) == {"default": 30.0}


def test_a_migration_that_is_cut_off_leaves_all_as_it_was(old, monkeypatch):
    class Killed(BaseException):
        pass

    def cut_off(*_):
        raise Killed

    for last in ("drop_table", "create_index"):
        with monkeypatch.context() as patch:
            patch.setattr(f"alembic.op.{last}", cut_off)
            with pytest.raises(Killed):
                migrate(old)
        with old.begin() as connection:
            assert connection.scalar(text("SELECT count(*) FROM job_metrics")) == 1
            assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
    migrate(old)
    assert differences(old) == []
