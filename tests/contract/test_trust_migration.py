"""A database of the release before enrollment and trust, with data, is brought up, and back."""

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
KEY = {
    "id": KEY_ID,
    "secret_hash": keys.digest(SECRET),
    "role": "admin",
    "revoked": False,
    "created_at": AT,
}
TOKEN = {"id": "tok_1", "secret_hash": "x", "device_class": "default", "tags": "[]", "max_uses": 3}
TOKEN |= {"uses": 1, "revoked": False, "expires_at": AT, "created_at": AT}
DEVICE = {"device_class": "default", "tags": "[]", "state": "ACTIVE", "presence": "OFFLINE"}
DEVICE |= {"session": 0, "sequence": 4, "token_id": "tok_1", "enrolled_at": AT}
DEVICE |= {"certificate_expires_at": "2026-01-08 12:00:00+00:00"}
VERSION = {"model": "digits", "version": 1, "manifest": MANIFEST, "manifest_sha256": "x"}
VERSION |= {"signed": "{}", "revoked": False, "purged": False, "note": "", "tags": "[]"}
ROWS = [
    ("api_keys", KEY),
    ("join_tokens", TOKEN),
    *(
        ("devices", DEVICE | {"id": f"dev_{n}", "certificate_serial": f"ab{n}", "spki_sha256": key})
        for n, key in ((1, "k1"), (2, "k2"), (3, "k1"))
    ),
    ("model_versions", VERSION | {"created_at": AT}),
]


def insert(connection, table, row):
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    statement = f"INSERT INTO {table} ({columns}) VALUES ({values})"  # noqa: S608 - our own text
    connection.execute(text(statement), row)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'argosy.db'}"
    else:
        url = request.getfixturevalue("fresh_postgres_url")
    engine = make_engine(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0006")
        for table, row in ROWS:
            insert(connection, table, row)
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
