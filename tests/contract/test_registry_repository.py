"""What the registry keeps besides manifests, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from orchestrator.services.records import RolloutRecord, VersionRecord
from schemas.ids import new_id
from schemas.model import AliasChange
from schemas.rollout import RolloutSpec, RolloutState

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def version(number, model="digits", **more):
    made = VersionRecord(
        model=model,
        version=number,
        manifest="{}",
        manifest_sha256=f"{model}{number}",
        manifest_size=2,
        job_id=None,
        created_at=NOW,
    )
    return replace(made, **more)


def change(number, before=None, alias="champion"):
    return AliasChange(alias=alias, version=number, before=before, by="key_1", at=NOW)


def test_what_people_write_comes_back(uow):
    note = "naïve — 模型\nsecond line"
    with uow() as tx:
        tx.models.add(version(1))
        tx.models.save(version(1, tags=("night", "b"), note=note))
    with uow() as tx:
        found = tx.models.get("digits", 1)
        assert (found.tags, found.note, found.revoked, found.purged) == (
            ("night", "b"),
            note,
            False,
            False,
        )
        tx.models.save(replace(found, revoked=True, revoked_reason="labels"))
    with uow.read() as tx:
        found = tx.models.get("digits", 1)
        assert (found.revoked, found.revoked_reason, found.tags) == (True, "labels", ("night", "b"))


def test_purging_is_seen_in_the_same_transaction_and_can_be_undone(uow):
    with uow() as tx:
        tx.models.add(version(1))
        tx.models.set_purged("digits", 1)
        assert tx.models.get("digits", 1).purged is True
    with uow() as tx:
        tx.models.set_purged("digits", 1, purged=False)
        tx.models.set_purged("nobody", 1)
    with uow.read() as tx:
        assert tx.models.get("digits", 1).purged is False


def test_files_are_served_as_long_as_some_version_stands(uow):
    one, two, weights = "1" * 64, "2" * 64, "3" * 64
    with uow() as tx:
        for number, files in ((1, {one: True, weights: False}), (2, {one: True, two: True})):
            tx.models.add(version(number))
            tx.models.add_files("digits", number, files)
    with uow() as tx:
        served = [tx.models.serves(f) for f in (one, two, weights, "4" * 64)]
        assert served == [True, True, False, False]
        tx.models.save(version(2, revoked=True))
        assert [tx.models.serves(f) for f in (one, two)] == [True, False]
        tx.models.set_purged("digits", 1)
        assert not tx.models.serves(one)
        tx.models.set_purged("digits", 1, purged=False)
        assert tx.models.serves(one)
    with pytest.raises(IntegrityError), uow() as tx:
        tx.models.add_files("digits", 9, {one: True})


def test_the_moves_of_an_alias_come_newest_first(uow):
    with uow() as tx:
        for made in (change(1), change(2, 1), change(None, 2)):
            tx.models.add_alias_change("digits", made)
        tx.models.add_alias_change("audio", change(7))
        tx.models.add_alias_change("digits", change(7, alias="next"))
    with uow.read() as tx:
        found = tx.models.alias_changes("digits", "champion", None, 2)
        rest = tx.models.alias_changes("digits", "champion", found[-1][0], 2)
        assert not tx.models.alias_changes("digits", "nobody", None, 2)
    assert [made for _, made in (*found, *rest)] == [change(None, 2), change(2, 1), change(1)]
    numbers = [number for number, _ in (*found, *rest)]
    assert numbers == sorted(numbers, reverse=True)


def test_an_alias_that_was_dropped_is_gone_and_may_come_again(uow):
    with uow() as tx:
        tx.models.set_alias("digits", "champion", 1)
        tx.models.set_alias("audio", "champion", 1)
        tx.models.drop_alias("digits", "champion")
        tx.models.drop_alias("digits", "champion")
        assert dict(tx.models.aliases("digits")) == {}
        tx.models.set_alias("digits", "champion", 2)
    with uow.read() as tx:
        assert dict(tx.models.aliases("digits")) == {"champion": 2}
        assert dict(tx.models.aliases("audio")) == {"champion": 1}


def test_rollouts_are_found_by_version_and_state(uow):
    def rollout(number, state):
        spec = RolloutSpec.model_validate({"model": "digits", "version": number})
        return RolloutRecord(
            id=new_id("rol"),
            spec=spec,
            model="digits",
            version=number,
            state=state,
            created_at=NOW + timedelta(seconds=number),
        )

    wanted = rollout(1, RolloutState.PAUSED)
    with uow() as tx:
        for made in (
            wanted,
            rollout(1, RolloutState.SUCCEEDED),
            rollout(2, RolloutState.PAUSED),
        ):
            tx.rollouts.add(made, (), ())
    with uow.read() as tx:
        states = (RolloutState.DRAFT, RolloutState.PAUSED)
        assert [r.id for r in tx.rollouts.of_version("digits", 1, states)] == [wanted.id]
        assert not tx.rollouts.of_version("audio", 1, states)
