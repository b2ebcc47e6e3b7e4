"""Selectors over rows: the same devices on every database as in Python."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from orchestrator.adapters.database import migrate
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.services.records import Target
from schemas.device import DeviceState, Hardware, Presence
from schemas.selector import parse
from tests.fakes.selecting import NOW, a_fleet, check_one_meaning, selectors

pytestmark = pytest.mark.integration

FLEET = a_fleet(4, 80)
IDS = tuple(one.id for one in FLEET[:4])


@pytest.fixture(scope="module")
def postgres(postgres_server):
    engine = make_engine(postgres_server.new_database())
    migrate(engine)
    uow = SqlUnitOfWork(engine)
    with uow() as tx:
        for one in FLEET:
            tx.devices.add(one)
    yield uow
    engine.dispose()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(node=selectors(IDS))
def test_postgresql_finds_what_matches(postgres, node):
    check_one_meaning(postgres, FLEET, node)


def test_only_active_devices_of_class_and_all_tags_that_no_exclusion_names(uow):
    draw = a_fleet(5, 3)
    pi, jetson, gone = (
        replace(draw[0], device_class="pi", tags=("lab",)),
        replace(draw[1], device_class="jetson", tags=("lab", "roof")),
        replace(draw[2], tags=("lab", "roof"), state=DeviceState.REVOKED),
    )
    with uow() as tx:
        for one in (pi, jetson, gone):
            tx.devices.add(one)

        def found(**target):
            return [one.device for one in tx.devices.candidates(Target(**target), NOW)]

        assert found() == sorted([pi.id, jetson.id])
        assert found(device_class="pi") == [pi.id]
        assert found(tags=("lab", "roof")) == [jetson.id]
        assert found(tags=("lab",), exclude=parse("tag = roof")) == [pi.id]
        both = Target(where=parse("tag = lab")).narrowed(parse("class = jetson"))
        assert [one.device for one in tx.devices.candidates(both, NOW)] == [jetson.id]


def test_facts_follow_the_record(uow):
    one = replace(a_fleet(6, 1)[0], tags=("lab",), hardware=None, active=())
    hardware = Hardware(arch="arm64", cpus=1, ram_mb=1, providers=(), ort="1.9.1", agent="0.1")
    with uow() as tx:
        tx.devices.add(one)
    changed = replace(one, tags=("roof",), hardware=hardware)
    with uow() as tx:
        tx.devices.change([(tx.devices.get(one.id), changed)], NOW)
    with uow() as tx:
        tx.devices.save(replace(changed, tags=("roof", "hall")))
    with uow.read() as tx:

        def is_found(text):
            return bool(tx.devices.candidates(Target(where=parse(text)), NOW))

        assert is_found("tag = roof and tag = hall and not tag = lab")
        assert is_found("ort < 1.20 and agent < 0.2")
        assert not is_found("ort > 1.9.1 or agent != 0.1.0")


def test_values_are_bound_and_never_part_of_the_statement(uow):
    evil = "'; DROP TABLE devices; --"
    one = replace(a_fleet(7, 1)[0], hardware=Hardware(
        arch="x", board=evil, cpus=1, ram_mb=1, providers=(), ort="1", agent="1"
    ))  # fmt: skip
    with uow() as tx:
        tx.devices.add(one)
        found = tx.devices.candidates(Target(where=parse(f'board = "{evil}"')), NOW)
        assert [c.device for c in found] == [one.id]
        assert not tx.devices.candidates(Target(where=parse('board = "%"')), NOW)


def test_a_census_counts_by_class_and_presence_and_a_page_takes_a_selector(uow):
    fleet = [
        replace(one, device_class=name, presence=presence)
        for one, name, presence in zip(
            a_fleet(8, 3), ("pi", "pi", "cam"),
            (Presence.ONLINE, Presence.ONLINE, Presence.OFFLINE), strict=True,
        )
    ]  # fmt: skip
    with uow() as tx:
        for one in fleet:
            tx.devices.add(one)
        assert tx.devices.census(Target(), NOW) == {
            ("pi", Presence.ONLINE): 2,
            ("cam", Presence.OFFLINE): 1,
        }
        page = tx.devices.page(None, 10, where=(parse("class = cam"), NOW))
        assert [one.id for one in page] == [fleet[2].id]


def test_what_a_hostile_device_tells_breaks_no_question():
    hostile = Hardware.model_validate(
        {"arch": "a\x00", "board": "\ud800b", "cpus": 1, "ram_mb": 10**300,
         "providers": ["\x00"], "ort": "\x00", "agent": "9" * 32}
    )  # fmt: skip
    assert "u0000" not in hostile.model_dump_json()
    assert hostile.ram_mb == 2**40
