"""What is kept of keys, certificates and join tokens, whatever the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.domain.clone import Turn
from orchestrator.services.records import (
    CertificateRecord,
    DeviceKeyRecord,
    DeviceRecord,
    RevokedCertificate,
    TokenRecord,
)
from schemas.device import CertificateSeen, DeviceState
from schemas.ids import new_id

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def device(tx, **more) -> DeviceRecord:
    made = DeviceRecord(
        id=new_id("dev"),
        device_class="pi",
        tags=("lab",),
        state=DeviceState.ACTIVE,
        token_id="tok_x",
        spki_sha256="0" * 64,
        enrolled_at=NOW,
    )
    tx.devices.add(replace(made, **more))
    return replace(made, **more)


def certificate(device_id: str, serial: str, **more) -> CertificateRecord:
    made = CertificateRecord(
        serial=serial,
        device_id=device_id,
        spki_sha256=serial * 16,
        csr_sha256=serial * 16,
        root_sha256="f" * 64,
        pem="-----BEGIN",
        issued_at=NOW,
        expires_at=NOW + 7 * DAY,
    )
    return replace(made, **more)


def test_everything_of_a_device_and_a_token_comes_back(uow):
    token = TokenRecord(
        id=new_id("tok"),
        secret_hash="0" * 64,
        device_class="pi",
        tags=(),
        max_uses=2,
        approval=True,
        keys=("a" * 64, "b" * 64),
        device_id=new_id("dev"),
        note="lab",
        expires_at=NOW,
        created_at=NOW,
    )
    with uow() as tx:
        one = device(
            tx,
            certificate_serial="ab",
            certificate_expires_at=NOW,
            seen_certificate=CertificateSeen(serial="ab", roots=("a" * 64,)),
            turns=(Turn("b" * 32, 3, 5.5, 1e9, 1e9 + 1),),
            clone_suspected_at=NOW,
            revoked_at=NOW,
            revoke_reason="stolen",
        )
        tx.devices.add_token(token)
    with uow.read() as tx:
        assert tx.devices.get(one.id) == one
        assert tx.devices.token(token.id) == token
    with uow() as tx:
        tx.devices.save_token(replace(token, revoked=True))
    with uow.read() as tx:
        assert tx.devices.token(token.id).revoked


def test_a_key_has_one_device(uow):
    key = DeviceKeyRecord(spki_sha256="a" * 64, device_id="", token_id="tok_a", at=NOW)
    with uow() as tx:
        first, second = device(tx), device(tx)
        tx.devices.add_key(replace(key, device_id=first.id))
    with pytest.raises(IntegrityError), uow() as tx:
        tx.devices.add_key(replace(key, device_id=second.id))
    with uow.read() as tx:
        assert tx.devices.key("a" * 64).device_id == first.id
        assert tx.devices.key("b" * 64) is None


def test_certificates_are_found_newest_first_and_by_request(uow):
    with uow() as tx:
        one, other = device(tx), device(tx)
        for serial, hours in (("1", 0), ("2", 2), ("3", 1)):
            issued = NOW + timedelta(hours=hours)
            tx.devices.add_certificate(certificate(one.id, serial, issued_at=issued))
        tx.devices.add_certificate(certificate(other.id, "4", csr_sha256="1" * 16))
    with uow.read() as tx:
        assert [c.serial for c in tx.devices.certificates(one.id)] == ["2", "3", "1"]
        assert tx.devices.answering(one.id, "1" * 16).serial == "1"
        assert tx.devices.answering(other.id, "1" * 16).serial == "4"
        assert tx.devices.answering(other.id, "2" * 16) is None
        assert tx.devices.certificate("3").device_id == one.id


def test_a_certificate_is_seen_once_and_by_its_own_device(uow):
    with uow() as tx:
        one, other = device(tx), device(tx)
        tx.devices.add_certificate(certificate(one.id, "1"))
    with uow() as tx:
        assert not tx.devices.see_certificate(other.id, "1", NOW)
        assert tx.devices.see_certificate(one.id, "1", NOW)
        assert not tx.devices.see_certificate(one.id, "1", NOW + DAY)
    with uow.read() as tx:
        assert tx.devices.certificate("1").seen_at == NOW


def test_a_serial_is_revoked_once_and_for_good(uow):
    with uow() as tx:
        one = device(tx)
        for serial, days in (("1", 1), ("2", 5)):
            tx.devices.add_certificate(certificate(one.id, serial, expires_at=NOW + days * DAY))
            revoked = RevokedCertificate(
                serial=serial, device_id=one.id, at=NOW, reason="x", expires_at=NOW + days * DAY
            )
            tx.devices.revoke_serial(revoked)
            tx.devices.revoke_serial(replace(revoked, reason="another", at=NOW + DAY))
    with uow.read() as tx:
        assert [(r.serial, r.reason) for r in tx.devices.revoked_serials(NOW)] == [
            ("1", "x"),
            ("2", "x"),
        ]
        assert [r.serial for r in tx.devices.revoked_serials(NOW + 2 * DAY)] == ["2"]
        assert len(tx.devices.revoked_serials()) == 2
    with uow() as tx:
        assert tx.devices.prune_certificates(NOW + 2 * DAY) == 1
    with uow.read() as tx:
        assert tx.devices.certificate("1") is None
        assert (tx.devices.is_revoked("1"), tx.devices.is_revoked("2")) == (True, True)


def test_the_newest_certificate_of_a_device_is_never_forgotten(uow):
    with uow() as tx:
        one = device(tx)
        for serial in ("1", "2"):
            tx.devices.add_certificate(certificate(one.id, serial, expires_at=NOW))
        tx.devices.save(replace(one, certificate_serial="2"))
    with uow() as tx:
        assert tx.devices.prune_certificates(NOW + DAY) == 1
    with uow.read() as tx:
        assert [one.serial for one in tx.devices.certificates(one.id)] == ["2"]


def test_who_takes_part_and_who_is_in_a_state(uow):
    with uow() as tx:
        ids = {state: device(tx, state=state).id for state in DeviceState}
    with uow.read() as tx:
        assert tx.devices.taking_part([*ids.values(), "dev_x"]) == {
            ids[DeviceState.ACTIVE],
            ids[DeviceState.SUSPENDED],
        }
        assert tx.devices.taking_part([]) == set()
        waiting = tx.devices.page(None, 10, [DeviceState.PENDING])
        assert [one.id for one in waiting] == [ids[DeviceState.PENDING]]
        assert len(tx.devices.page(None, 10)) == len(ids)


def test_of_40_that_race_for_5_uses_5_get_one(uow):
    with uow() as tx:
        tx.devices.add_token(
            TokenRecord(
                id="tok_race",
                secret_hash="0" * 64,
                device_class="pi",
                tags=(),
                max_uses=5,
                expires_at=NOW + DAY,
                created_at=NOW,
            )
        )

    def spend(_) -> bool:
        with uow() as tx:
            return tx.devices.spend("tok_race", NOW)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(spend, range(40))) == 5


OLD = """
INSERT INTO devices (id, device_class, tags, state, presence, session, sequence, token_id,
  certificate_serial, certificate_expires_at, spki_sha256, enrolled_at)
VALUES (:id, 'pi', '[]', 'ACTIVE', 'NEVER', 0, 7, 'tok_a', :serial,
  '2026-01-08 12:00:00+00:00', 'aa', '2026-01-01 12:00:00+00:00')
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_devices_of_before_keep_their_certificates_there_and_back(request, tmp_path, kind):
    url = f"sqlite:///{tmp_path / 'argosy.db'}"
    if kind == "postgresql":
        url = request.getfixturevalue("fresh_postgres_url")
    engine = make_engine(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0007")
        for name, serial in (("dev_a", "01"), ("dev_b", "02")):
            connection.execute(text(OLD), {"id": name, "serial": serial})
    migrate(engine)
    assert differences(engine) == []
    with SqlUnitOfWork(engine)() as tx:
        one = tx.devices.get("dev_b")
        assert (one.certificate_serial, one.sequence) == ("02", 7)
        assert one.certificate_expires_at == NOW + 7 * DAY
        assert [c.serial for c in tx.devices.certificates("dev_b")] == ["02"]
        # Two devices with one key were possible before: the older one has it.
        assert tx.devices.key("aa").device_id == "dev_a"
        device(tx, state=DeviceState.PENDING)
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0007")
        rows = connection.execute(
            text("SELECT id, certificate_serial FROM devices ORDER BY id")
        ).all()
        assert [tuple(row) for row in rows] == [("dev_a", "01"), ("dev_b", "02")]
    migrate(engine)
    assert differences(engine) == []
    engine.dispose()
