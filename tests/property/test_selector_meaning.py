"""A selector has one meaning: what Python says of facts is what SQL finds in rows."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from schemas.selector import SelectorError, parse, write
from tests.fakes.databases import migrated_sqlite
from tests.fakes.selecting import a_fleet, check_one_meaning, selectors

FLEETS = {seed: a_fleet(seed, 60) for seed in (1, 2, 3)}
IDS = tuple(one.id for fleet in FLEETS.values() for one in fleet[:2])


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    made = {}
    for seed, fleet in FLEETS.items():
        url = migrated_sqlite(tmp_path_factory.mktemp("fleet") / "argosy.db")
        made[seed] = SqlUnitOfWork(make_engine(url))
        with made[seed]() as tx:
            for one in fleet:
                tx.devices.add(one)
    return made


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.sampled_from(sorted(FLEETS)), node=selectors(IDS))
def test_sql_finds_what_matches(databases, seed, node):
    check_one_meaning(databases[seed], FLEETS[seed], node)


@given(node=selectors(IDS))
def test_what_is_written_reads_as_the_same(node):
    assert parse(write(node)) == node


@given(st.text(alphabet="()=!<>,'\"* andortgclsinex.-_0123h", max_size=60))
def test_any_text_is_a_selector_or_a_clear_refusal(text):
    refused = None
    try:
        assert parse(write(parse(text))) == parse(text)
    except SelectorError as error:
        refused = error
    if refused is not None:
        assert 1 <= refused.position <= len(text) + 1
        assert "\n" not in str(refused)
