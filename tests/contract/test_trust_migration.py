"""A database of the release before enrollment and trust, with data in it, is brought up, and back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.services import keys
from schemas.access import SCOPES_OF, Role
from schemas.device import DeviceState

pytestmark = pytest.mark.integration

NOW = datetime(2026, 6, 1, tzinfo=UTC)
AT = "2026-01-01 12:00:00+00:00"
MANIFEST = '{"model": "digits", "note": "größer"}'
KEY_ID, SECRET = "key_" + "0" * 16, "s" * 43
ROWS = (
    "INSERT INTO api_keys (id, secret_hash, role, subject, expires_at, revoked, created_at)"
    f" VALUES ('{KEY_ID}', '{keys.digest(SECRET)}', 'admin', NULL, NULL, false, '{AT}')",
    "INSERT INTO join_tokens (id, secret_hash, device_class, tags, max_uses, uses, revoked,"
    " expires_at, created_at)"
    f" VALUES ('tok_1', 'x', 'default', '[]', 3, 1, false, '{AT}', '{AT}')",
    *(
        "INSERT INTO devices (id, device_class, tags, state, presence, session, sequence,"
        " token_id, certificate_serial, certificate_expires_at, spki_sha256, enrolled_at)"
        f" VALUES ('dev_{n}', 'default', '[]', 'ACTIVE', 'OFFLINE', 0, 4, 'tok_1', 'ab{n}',"
        f" '2026-01-08 12:00:00+00:00', '{key}', '{AT}')"
        for n, key in ((1, "k1"), (2, "k2"), (3, "k1"))
    ),
    "INSERT INTO model_versions (model, version, manifest, manifest_sha256, signed, revoked,"
    f" purged, note, tags, created_at) VALUES ('digits', 1, '{MANIFEST}', 'x', '{{}}', false,"
    f" false, '', '[]', '{AT}')",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'argosy.db'}"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    engine = make_engine(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0006")
        for row in ROWS:
            connection.exec_driver_sql(row)
    yield engine
    engine.dispose()


def check(engine):
    with SqlUnitOfWork(engine).read() as tx:
        found = keys.authenticate(tx, f"arg_{KEY_ID}_{SECRET}", NOW)
        assert (found.role, found.scopes) == (Role.ADMIN, SCOPES_OF[Role.ADMIN])
        (stand,) = tx.models.standing()
        assert stand.length == len(MANIFEST.encode())
        device = tx.devices.get("dev_2")
        assert (device.state, device.sequence) == (DeviceState.ACTIVE, 4)
        assert (device.certificate_serial, device.certificate_expires_at.day) == ("ab2", 8)


def test_people_models_and_devices_go_on(old):
    migrate(old)
    assert differences(old) == []
    check(old)
    with SqlUnitOfWork(old)() as tx:
        tx.audit.add("token.create", "tok_2", {"uses": 1})
    with old.connect() as connection:
        rows = connection.execute(text("SELECT spki_sha256, device_id FROM device_keys"))
        assert sorted(map(tuple, rows)) == [("k1", "dev_1"), ("k2", "dev_2")]


def test_they_go_back_and_forth(old):
    migrate(old)
    with old.begin() as connection:
        command.downgrade(alembic_config(connection), "0006")
    migrate(old)
    assert differences(old) == []
    check(old)
