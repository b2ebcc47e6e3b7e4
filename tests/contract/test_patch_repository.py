"""Records of patches, and what of them is of use, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain import collect
from orchestrator.services.records import PatchRecord, VersionRecord

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 1, tzinfo=UTC)
A, B, C, GOLDEN = "a" * 64, "b" * 64, "c" * 64, "d" * 64
P, Q = "1" * 64, "2" * 64


def hours(count):
    return NOW + timedelta(hours=count)


@pytest.fixture
def filled(uow):
    """Three versions, each with a file of its own; patches from the first to the others."""
    with uow() as tx:
        for number, sha256 in enumerate((A, B, C), 1):
            tx.models.add(
                VersionRecord(
                    model="digits",
                    version=number,
                    manifest="{}",
                    manifest_sha256=str(number) * 64,
                    manifest_size=2,
                    job_id=None,
                    created_at=NOW,
                )
            )
            tx.models.add_files("digits", number, {sha256: True, GOLDEN: False})
        for target, sha256, at in ((B, P, 1), (C, Q, 2)):
            tx.patches.put(
                PatchRecord(
                    target=target,
                    base=A,
                    sha256=sha256,
                    leaves_sha256="e" * 64,
                    size=3_000_000_000,
                    made_at=NOW,
                    offered_at=hours(at),
                )
            )
        tx.patches.put(PatchRecord(target=C, base=B, made_at=NOW, offered_at=NOW))
    return uow


def test_a_record_comes_back_as_it_was_and_is_replaced(filled):
    claim = PatchRecord(target=B, base=C, offered_at=NOW, owner="me", until=hours(1))
    with filled() as tx:
        assert tx.patches.get(B, C) is None
        tx.patches.put(claim)
    with filled() as tx:
        assert tx.patches.get(B, C) == claim
        assert {r.base for r in tx.patches.of(B, [A, C, GOLDEN])} == {A, C}
        tx.patches.remove(B, C)
        assert tx.patches.get(B, C) is None


def test_the_latest_offered_come_first(filled):
    with filled() as tx:
        assert [r.sha256 for r in tx.patches.made()] == [Q, P]
        tx.patches.offered(B, A, hours(3))
    with filled.read() as tx:
        assert [r.sha256 for r in tx.patches.made()] == [P, Q]


def test_bases_are_files_for_devices_whose_bytes_are_there(filled):
    with filled() as tx:
        assert tx.patches.bases([A, GOLDEN, "f" * 64]) == {A}
        tx.models.set_purged("digits", 1)
        assert tx.patches.bases([A, B]) == {B}


@pytest.mark.parametrize("how", ["revoked", "purged"])
def test_patches_to_what_is_not_served_are_stale(filled, how):
    with filled() as tx:
        assert tx.patches.serves(P)
        assert not tx.patches.serves(B)
        assert tx.patches.stale(NOW, 10) == []
        if how == "purged":
            tx.models.set_purged("digits", 2)
        else:
            tx.models.save(replace(tx.models.get("digits", 2), revoked=True))
    with filled.read() as tx:
        assert not tx.patches.serves(P)
        assert tx.patches.serves(Q)
        assert [(r.target, r.base) for r in tx.patches.stale(NOW, 10)] == [(B, A)]
        found = {(r.target, r.base) for r in tx.patches.stale(hours(1), 10)}
        assert found == {(B, A), (C, B)}  # and what came to nothing long ago
        assert len(tx.patches.stale(hours(1), 1)) == 1


def test_a_collection_keeps_a_patch_as_long_as_its_file(filled):
    with filled() as tx:
        assert tx.holdings.named([P, Q, A], NOW) == {P, Q, A}
        tx.models.set_purged("digits", 2)
        assert tx.holdings.named([P, Q], NOW) == {Q}
        plan = collect.plan(tx.holdings.all(), collect.Policy(3, timedelta(days=30)), NOW)
    assert Q in plan.needed
    assert P not in plan.needed
