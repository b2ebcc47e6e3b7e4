"""Devices of before selectors: their tags and versions are found after the migration."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from alembic import command
from sqlalchemy import text

from orchestrator.adapters.database import alembic_config, differences, migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork
from orchestrator.services.records import FleetRecord, Target
from schemas.device import Hardware
from schemas.rollout import RolloutSpec, RolloutState
from schemas.selector import parse
from tests.contract.test_repositories import NOW, device, rollout

pytestmark = pytest.mark.integration


def moved(engine, move, revision):
    with engine.begin() as connection:
        move(alembic_config(connection), revision)


def test_what_devices_were_is_found_after_the_migration_and_kept_on_the_way_back(engine):
    uow = SqlUnitOfWork(engine)
    hardware = Hardware(arch="arm64", cpus=4, ram_mb=512, providers=(), ort="1.9.1", agent="0.2")
    told, silent = device(tags=("lab", "hall"), hardware=hardware), device(tags=())
    with uow() as tx:
        tx.devices.add(told)
        tx.devices.add(silent)
    moved(engine, command.downgrade, "0014")
    nul = json.dumps({**hardware.model_dump(mode="json"), "board": "a\x00b"})
    change = text("UPDATE devices SET tags = :tags, hardware = :hardware WHERE id = :id")
    with engine.begin() as connection:  # a tag twice and NUL, which nothing forbade
        twice = json.dumps(["lab", "hall", "lab"])
        connection.execute(change, {"tags": twice, "hardware": nul, "id": told.id})
    migrate(engine)
    assert differences(engine) == []
    with uow.read() as tx:

        def found(selector):
            target = Target(where=parse(selector))
            return {one.device for one in tx.devices.candidates(target, NOW)}

        assert found("tag = lab and tag = hall") == {told.id}
        assert found("tag = none") == {silent.id}
        assert found("ort > 1.9 and ort < 1.20 and agent = 0.2.0") == {told.id}
        assert found("ort = none") == {silent.id}
        assert found("board = ab") == {told.id}


def test_fleets_are_kept_by_name_and_know_their_rollouts(uow):
    made = FleetRecord(name="lab", selector="tag = lab", created_at=NOW, updated_at=NOW)
    other = FleetRecord(name="hall", selector="*", note="n", created_at=NOW, updated_at=NOW)
    spec = RolloutSpec(model="digits", version=1, fleet="lab")
    open_one, over = rollout(spec=spec), rollout(spec=spec, state=RolloutState.SUCCEEDED)
    with uow() as tx:
        tx.fleets.put(made)
        tx.fleets.put(other)
        for one in (open_one, over, rollout()):
            tx.rollouts.add(one, (), ())
        assert [one.name for one in tx.fleets.page(None, 10)] == ["hall", "lab"]
        assert [one.name for one in tx.fleets.page("hall", 10)] == ["lab"]
        assert tx.fleets.used_by("lab") == [open_one.id]
        assert tx.fleets.used_by("hall") == []
        later = FleetRecord(
            name="lab", selector="*", created_at=NOW, updated_at=NOW + timedelta(seconds=1)
        )
        tx.fleets.put(later)
        assert tx.fleets.get("lab") == later
        tx.fleets.delete("lab")
        assert tx.fleets.get("lab") is None
