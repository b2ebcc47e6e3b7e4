"""The audit log: who did what, in the same transaction, and never with a secret."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.orm import Session

from orchestrator.adapters.access_repository import SqlAudit
from orchestrator.client.audit_chain import Head, Verdict, verify
from orchestrator.services import actor
from orchestrator.services.keys import id_of
from orchestrator.services.masking import masked
from orchestrator.services.ports import AuditQuery
from schemas.access import Role
from schemas.device import Birth
from schemas.job import ClaimRequest
from schemas.topics import Up
from tests.unit.orchestrator.platform import HARDWARE


def entries(admin, **params):
    return admin.get("/v1/audit", params=params).json()["items"]


def test_the_actor_of_a_request_is_seen_in_its_thread_and_nowhere_else(platform):
    ann, bob = platform.key(Role.ADMIN), platform.key(Role.OPERATOR)
    for token, name in ((ann, "a"), (bob, "b"), (ann, "c")):
        answer = platform.client(token).put(f"/v1/device-classes/{name}", json={"note": name})
        assert answer.status_code == 200, answer.text
    done = entries(platform.client(ann), action="device_class.set")
    assert [(one["actor"], one["subject"]) for one in done] == [
        (f"admin:{id_of(ann)}", "a"),
        (f"operator:{id_of(bob)}", "b"),
        (f"admin:{id_of(ann)}", "c"),
    ]
    assert actor.current() == "platform"


def test_an_entry_is_kept_only_if_the_change_is(platform, admin):
    def fails() -> None:
        with platform.uow() as tx:
            tx.audit.add("job.submit", "job_x")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fails()
    assert entries(admin) == []


def test_what_people_change_is_written_down(platform, admin):
    admin.put("/v1/device-classes/pi", json={"note": "x"})
    admin.put("/v1/device-classes/pi", json={"note": "x"})  # a repeat
    admin.delete("/v1/device-classes/pi")
    digits = platform.manifest()
    assert admin.post("/v1/models/digits/versions", json=digits.model_dump(mode="json")).is_success
    admin.put("/v1/models/digits/versions/1/note", json={"tags": ["t"], "note": "n"})
    admin.put("/v1/models/digits/aliases/best", json={"version": 1})
    admin.post("/v1/models/digits/versions/1/revoke", json={"reason": "bad"})
    admin.post("/v1/artifacts/collect", json={"dry_run": False})
    made = admin.post("/v1/api-tokens", json={"name": "v", "role": "viewer"}).json()
    platform.client().post("/v1/session", json={"token": made["token"]})
    admin.post(f"/v1/api-tokens/{made['view']['id']}/revoke")
    actions = [one["action"] for one in entries(admin)]
    assert [one for one in actions if one != "model.alias"] == [
        "device_class.set",
        "device_class.delete",
        "model.register",
        "model.note",
        "model.revoke",
        "model.gc",
        "api_token.create",
        "session.start",
        "api_token.revoke",
    ]
    assert "model.alias" in actions


def test_entries_are_found_by_who_what_and_when(platform, admin):
    for n in range(5):
        with actor.acting(f"device:{n % 2}"), platform.uow() as tx:
            tx.audit.add("device.test", f"s{n}")
        platform.clock.forward(10)
    since = platform.clock().isoformat()
    with platform.uow() as tx:
        tx.audit.add("other.test", "last")
    assert [one["subject"] for one in entries(admin, actor="device:1")] == ["s1", "s3"]
    assert [one["subject"] for one in entries(admin, action="other.test")] == ["last"]
    assert [one["subject"] for one in entries(admin, since=since)] == ["last"]
    assert [one["seq"] for one in entries(admin, tail=2)] == [5, 6]
    page = admin.get("/v1/audit", params={"after": 1, "limit": 2}).json()
    assert ([one["seq"] for one in page["items"]], page["next"]) == ([2, 3], "3")
    assert admin.get("/v1/audit", params={"since": "yesterday"}).status_code == 422


_SWAP = (
    "UPDATE audit SET seq = CASE seq WHEN 2 THEN -3 WHEN 3 THEN -2 END WHERE seq IN (2, 3);"
    "UPDATE audit SET seq = -seq WHERE seq < 0"
)
_APPEND = (
    "INSERT INTO audit SELECT seq + 1, at, actor, action, subject, detail, digest, digest"
    " FROM audit WHERE seq = 5"
)
TAMPERING = {
    "a changed detail": ("UPDATE audit SET detail = '{}' WHERE seq = 3", 3),
    "a changed actor": ("UPDATE audit SET actor = 'admin:x' WHERE seq = 3", 3),
    "a changed time": ("UPDATE audit SET at = '2020-01-01 00:00:00.000000' WHERE seq = 3", 3),
    "a damaged digest": ("UPDATE audit SET digest = 'x' WHERE seq = 3", 3),
    "a row taken out": ("DELETE FROM audit WHERE seq = 3", 3),
    "the first row taken out": ("DELETE FROM audit WHERE seq = 1", 1),
    "the last rows taken out": ("DELETE FROM audit WHERE seq >= 4", 4),
    "all rows taken out": ("DELETE FROM audit", 1),
    "two rows in each other's place": (_SWAP, 2),
    "a row of one's own at the end": (_APPEND, 6),
}


def test_tampering_in_the_database_is_found(platform, admin):
    for n in range(5):
        with platform.uow() as tx:
            tx.audit.add("test.done", f"s{n}", {"n": n, "text": "é", "share": 0.1})
    before = entries(admin)
    assert verify(before).fault is None
    remembered = Head(before[-1]["seq"], before[-1]["digest"])
    for kind, (statements, bad) in TAMPERING.items():
        with platform.database.connect() as connection:
            for statement in statements.split(";"):
                connection.exec_driver_sql(statement)
            found = SqlAudit(Session(connection)).entries(AuditQuery())
            verdict = verify(
                [one.model_dump(mode="json", warnings=False) for one in found], remembered
            )
            connection.rollback()
        assert verdict.fault is not None, kind
        assert verdict.bad == bad, kind


def test_a_damaged_entry_reaches_whoever_verifies_it(platform, admin):
    with platform.uow() as tx:
        tx.audit.add("test.done", "s")
    with platform.database.begin() as connection:
        connection.exec_driver_sql("UPDATE audit SET digest = 'x', action = 'NO SUCH'")
    assert verify(entries(admin)).bad == 1


def test_the_chain_goes_on_over_many_writers(platform, admin):
    for n in range(20):
        with platform.uow() as tx:
            tx.audit.add("test.one", str(n))
            tx.audit.add("test.two", str(n))
    verdict = verify(entries(admin))
    assert (verdict.entries, verdict.fault) == (40, None)


def test_no_secret_gets_into_the_log(platform, admin):
    token = platform.key(Role.VIEWER)
    join = "aj1.tok_0000000000000000." + ".".join(["x" * 43] * 3)
    pem = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"
    detail = {
        "password": "hunter2",
        "a_token": "opaque",
        "note": f"use {token} or {join}",
        "key": pem,
        "list": [token, {"client_secret": "hunter2"}],
        "token": "tok_0000000000000000",
    }
    with platform.uow() as tx:
        tx.audit.add("test.done", f"for {token}", detail)
    # What real requests leave there likewise.
    made = admin.post("/v1/api-tokens", json={"name": "v", "role": "viewer"}).json()
    platform.client().post("/v1/session", json={"token": made["token"]})
    with platform.database.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM audit").all()
    text = json.dumps([[str(cell) for cell in row] for row in rows])
    for secret in ("hunter2", "opaque", "MHcCAQEE", "x" * 43, token[-43:], made["token"][-43:]):
        assert secret not in text
    assert "tok_0000000000000000" in text, "ids are no secrets"
    assert id_of(token) in text
    assert verify(entries(admin)).fault is None


ODD = (
    "x" * 10_000,
    list(range(1000)),
    {str(n): n for n in range(1000)},
    {"a": {"b": {"c": {"d": {"e": {"f": "deep"}}}}}},
    {"nan": float("nan"), "big": 2**80, "bytes": b"\x00", "nul": "\x00", "half": "\ud800"},
)


def test_whatever_is_written_is_bounded_and_reads_back_as_it_was(platform, admin):
    for value in ODD:
        with platform.uow() as tx:
            tx.audit.add("test.done", "s" * 1000, {"value": value})
    found = entries(admin)
    assert all(len(json.dumps(entry)) < 40_000 for entry in found)
    assert verify(found) == Verdict(len(ODD), Head(len(ODD), found[-1]["digest"]))


def test_masking_keeps_plain_values():
    plain = {"n": 1, "share": 0.5, "none": None, "yes": True, "text": "é", "list": ["a"]}
    assert masked(plain) == plain


def test_a_claim_of_an_agent_is_no_deed_of_a_person(platform, admin):
    platform.jobs.claim(ClaimRequest(agent="a"))
    assert entries(admin) == []


def test_what_a_device_sends_is_done_in_its_name(platform, admin):
    (device,) = platform.enroll()
    for boot, uptime in (("a", 10), ("b", 10), ("a", 30)):
        platform.clock.forward(10)
        birth = Birth(boot=boot * 32, session=1, uptime=uptime, hardware=HARDWARE)
        platform.receive(device, Up.BIRTH, birth)
    (found,) = entries(admin, action="device.clone_suspected")
    assert (found["actor"], found["subject"]) == (f"device:{device}", device)
    assert actor.current() == "platform"
