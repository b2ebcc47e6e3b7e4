"""Tags of many devices at once: as of one after the other, on every database."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from sqlalchemy import event, select

from orchestrator.adapters.tables import DeviceTagRow
from orchestrator.domain.tagging import retagged
from orchestrator.services.facts import facts_of
from schemas.selector import matches, parse
from tests.fakes.selecting import NOW, a_fleet

pytestmark = pytest.mark.integration

SELECTORS = (
    "*", "tag = old", "tag = none", "not tag in (lab, old)", "class = cam and tag = roof",
    "provider = CUDAExecutionProvider or isa = neon", "model.digits = none", "seen < 2h",
    "ort < 1.20 and not agent >= 0.2", "class = nothing",
)  # fmt: skip
TAGS = ("lab", "old", "roof", "a.b_c", "new", "newer")


def indexed(engine):
    """What ``device_tags`` says, by device."""
    with engine.connect() as connection:
        rows = connection.execute(select(DeviceTagRow.device_id, DeviceTagRow.tag)).all()
    return {
        one: {tag for _, tag in group}
        for one, group in itertools.groupby(sorted(rows), lambda row: row[0])
    }


def test_a_set_changes_as_its_devices_would_one_by_one(uow, engine):
    draw = random.Random(9)  # noqa: S311 - changes of a test
    fleet = a_fleet(9, 40)
    with uow() as tx:
        for one in fleet:
            tx.devices.add(one)
    for text in SELECTORS:
        words = draw.sample(TAGS, draw.randint(1, 4))
        cut = draw.randint(0, len(words))
        add, remove, node = words[:cut], words[cut:], parse(text)
        with uow.read() as tx:
            before = tx.devices.many(one.id for one in fleet)
        meant = {one.id for one in before.values() if matches(node, facts_of(one, NOW))}
        wanted = {
            key: retagged(one.tags, add, remove) if key in meant else one.tags
            for key, one in before.items()
        }
        differ = [key for key, one in before.items() if wanted[key] != one.tags]
        with uow() as tx:
            counted = tx.devices.count_retagged(node, NOW, add, remove)
            assert (counted.matched, counted.changes) == (len(meant), len(differ)), text
            assert tx.devices.retag(node, NOW, add, remove) == len(differ)
        with uow.read() as tx:
            after = {key: one.tags for key, one in tx.devices.many(before).items()}
        assert after == wanted, text
        assert indexed(engine) == {key: set(tags) for key, tags in wanted.items() if tags}, text
    assert {tag for tags in wanted.values() for tag in tags} >= {"new", "newer"}


def test_who_would_have_too_many_is_counted(uow):
    full, free = a_fleet(10, 2)
    with uow() as tx:
        tx.devices.add(full)
        tx.devices.add(free)
        most = tuple(f"t{n}" for n in range(16))
        tx.devices.change([(full, replace(full, tags=most))], NOW)
        tx.devices.change([(free, replace(free, tags=most[:15]))], NOW)

        def too_many(add, remove=()):
            return tx.devices.count_retagged(parse("*"), NOW, add, remove).too_many

        assert too_many(["t3"]) == 0  # it has that
        assert too_many(["new"]) == 1
        assert too_many(["new"], ["t1"]) == 0
        assert too_many(["new", "newer"]) == 2


def test_many_take_as_many_statements_as_few(uow, engine):
    seen = []
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    for size in (2, 60):
        with uow() as tx:
            for one in a_fleet(size, size):
                tx.devices.add(one)
        seen.clear()
        with uow() as tx:
            assert tx.devices.retag(parse("*"), NOW, [f"for-{size}"], ["lab"]) >= size
        told = [text for text, _ in seen if not text.startswith(("BEGIN", "SELECT pg"))]
        assert len(told) == 3, told
        assert not any(isinstance(values, list) for _, values in seen)  # no list of devices
