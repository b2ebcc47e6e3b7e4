"""Tokens, sessions and the audit log, on every database alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from orchestrator.client.audit_chain import verify
from orchestrator.services import actor, keys
from orchestrator.services.ports import AuditQuery
from orchestrator.services.records import SessionRecord
from schemas.access import PEOPLE, Role, Scope

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def whole(uow):
    with uow.read() as tx:
        return [one.model_dump(mode="json") for one in tx.audit.entries(AuditQuery())]


def test_the_chain_holds_over_writers_side_by_side(uow):
    def write(n):
        with actor.acting(f"admin:{n}"), uow() as tx:
            tx.audit.add("test.done", str(n), {"n": n, "share": n / 7, "text": "é"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(16)))
    verdict = verify(whole(uow))
    assert (verdict.entries, verdict.fault) == (16, None)
    assert {item["actor"] for item in whole(uow)} == {f"admin:{n}" for n in range(16)}


def test_entries_are_selected(uow):
    for n in range(4):
        with actor.acting(f"admin:{n % 2}"), uow() as tx:
            tx.audit.add(f"test.n{'ab'[n // 2]}", str(n))
    with uow.read() as tx:

        def found(**query):
            return [one.subject for one in tx.audit.entries(AuditQuery(**query))]

        assert found() == ["0", "1", "2", "3"]
        assert found(after=1, limit=2) == ["1", "2"]
        assert found(tail=1) == ["3"]
        assert found(actor="admin:1") == ["1", "3"]
        assert found(action="test.nb") == ["2", "3"]
        assert found(since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_a_token_keeps_its_scopes_and_its_last_use(uow):
    with uow() as tx:
        scoped = keys.id_of(
            keys.create(tx, Role.VIEWER, NOW, name="a", scopes=(Scope.JOBS_READ, Scope.TRUST_READ))
        )
        plain = keys.id_of(keys.create(tx, Role.ADMIN, NOW))
        keys.create(tx, Role.JOB, NOW, subject="job_x")
    with uow() as tx:
        tx.keys.used(scoped, NOW + timedelta(minutes=2))
        tx.keys.used(scoped, NOW + timedelta(minutes=1))
    with uow.read() as tx:
        record = tx.keys.get(scoped)
        assert record.scopes == (Scope.JOBS_READ, Scope.TRUST_READ)
        assert record.last_used_at == NOW + timedelta(minutes=2), "never back"
        assert tx.keys.get(plain).scopes is None
        assert {one.id for one in tx.keys.page(PEOPLE, None, 10)} == {scoped, plain}
        assert [one.id for one in tx.keys.of_role(Role.ADMIN)] == [plain]


def test_sessions_are_counted_and_end(uow):
    with uow() as tx:
        key = keys.id_of(keys.create(tx, Role.VIEWER, NOW))
        for n in range(5):
            at = NOW + timedelta(minutes=n)
            tx.sessions.add(SessionRecord(id=f"s{n}", key_id=key, created_at=at, seen_at=at))
        tx.sessions.remove_of(key, keep=3)
        tx.sessions.seen("s4", NOW + timedelta(hours=1))
    with uow() as tx:
        there = [n for n in range(5) if tx.sessions.get(f"s{n}") is not None]
        assert there == [2, 3, 4]
        tx.sessions.prune(NOW + timedelta(minutes=3), NOW + timedelta(minutes=30))
        assert [n for n in range(5) if tx.sessions.get(f"s{n}") is not None] == [4]
        tx.sessions.remove("s4")
        assert tx.sessions.get("s4") is None
