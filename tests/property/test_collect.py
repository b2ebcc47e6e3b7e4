"""Whatever there is: the collection takes nothing that anything may need."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.collect import (
    GRACE,
    Artifact,
    HeldJob,
    HeldVersion,
    Holdings,
    Policy,
    garbage,
    plan,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DIGESTS = [f"{n:064x}" for n in range(12)]

days = st.floats(0, 90).map(timedelta)
digests = st.frozensets(st.sampled_from(DIGESTS), max_size=4)
models = st.sampled_from(["digits", "faces"])
refs = st.tuples(models, st.integers(1, 6))
versions = st.builds(
    HeldVersion,
    model=models,
    version=st.integers(1, 6),
    created_at=days.map(lambda age: NOW - age),
    files=digests,
    tagged=st.booleans(),
    revoked=st.booleans(),
    job_id=st.none() | st.sampled_from(["job_1", "job_2"]),
    restored_at=st.none() | days.map(lambda age: NOW - age),
)
jobs = st.builds(
    HeldJob,
    id=st.sampled_from(["job_1", "job_2", "job_3"]),
    ended_at=st.none() | days.map(lambda age: NOW - age),
    inputs=digests,
    versions=st.frozensets(refs, max_size=2),
)
holdings = st.builds(
    Holdings,
    versions=st.lists(versions, max_size=10, unique_by=lambda v: v.ref).map(tuple),
    used=st.frozensets(refs, max_size=4),
    jobs=st.lists(jobs, max_size=3, unique_by=lambda j: j.id).map(tuple),
)
policies = st.builds(Policy, keep_last=st.integers(1, 4), older_than=days)
artifacts = st.lists(
    st.builds(
        Artifact,
        sha256=st.sampled_from(DIGESTS),
        size=st.integers(0, 100),
        put_at=days.map(lambda age: NOW - age),
    ),
    unique_by=lambda a: a.sha256,
)


@given(holdings, policies)
def test_a_version_goes_only_when_nothing_speaks_for_it(there: Holdings, policy: Policy) -> None:
    gone = set(plan(there, policy, NOW).purge)
    by_ref = {v.ref: v for v in there.versions}
    assert gone <= set(by_ref)
    for ref in gone:
        version = by_ref[ref]
        newer = [v for v in there.versions if v.model == ref[0] and v.version > ref[1]]
        assert ref not in there.used
        assert not version.tagged
        assert len(newer) >= policy.keep_last
        assert NOW - version.since > policy.older_than
        assert all(ref not in job.versions for job in there.jobs if job.ended_at is None)
        if not version.revoked:
            assert len([v for v in newer if not v.revoked]) >= policy.keep_last


@given(holdings, policies)
def test_a_version_that_nothing_speaks_for_does_go(there: Holdings, policy: Policy) -> None:
    gone = set(plan(there, policy, NOW).purge)
    for version in there.versions:
        peers = [v for v in there.versions if v.model == version.model]
        newer = [v for v in peers if v.version > version.version]
        needed = (
            version.ref in there.used
            or version.tagged
            or NOW - version.since <= policy.older_than
            or any(version.ref in j.versions for j in there.jobs if j.ended_at is None)
            or len(newer) < policy.keep_last
            or (not version.revoked and len([v for v in newer if not v.revoked]) < policy.keep_last)
        )
        assert (version.ref in gone) != needed


@given(holdings, policies, artifacts)
def test_no_file_goes_that_a_kept_version_or_a_job_names(
    there: Holdings, policy: Policy, stored: list[Artifact]
) -> None:
    made = plan(there, policy, NOW)
    gone = {a.sha256 for a in garbage(stored, made.needed, NOW)}
    for version in there.versions:
        if version.ref not in made.purge:
            assert not gone & version.files
    for job in there.jobs:
        if job.ended_at is None:
            assert not gone & job.inputs
    assert all(a.sha256 not in gone for a in stored if NOW - a.put_at <= GRACE)


@given(holdings, policies, artifacts)
def test_every_old_file_that_nothing_names_goes(
    there: Holdings, policy: Policy, stored: list[Artifact]
) -> None:
    gone = {a.sha256 for a in garbage(stored, plan(there, policy, NOW).needed, NOW)}
    named = {d for v in there.versions for d in v.files} | {d for j in there.jobs for d in j.inputs}
    assert all(a.sha256 in gone for a in stored if a.sha256 not in named and NOW - a.put_at > GRACE)


@given(holdings, policies, artifacts)
def test_a_second_collection_finds_what_the_first_left(
    there: Holdings, policy: Policy, stored: list[Artifact]
) -> None:
    """Killed after the versions were marked: the same files go, and no other version does."""
    first = plan(there, policy, NOW)
    left = tuple(v for v in there.versions if v.ref not in first.purge)
    second = plan(replace(there, versions=left), policy, NOW)
    assert second.purge == ()
    assert second.needed == first.needed
    assert garbage(stored, second.needed, NOW) == garbage(stored, first.needed, NOW)


@given(holdings, policies, refs)
def test_more_use_never_lets_more_go(there: Holdings, policy: Policy, ref: tuple[str, int]) -> None:
    more = replace(there, used=there.used | {ref})
    before, after = plan(there, policy, NOW), plan(more, policy, NOW)
    assert set(after.purge) <= set(before.purge)
    assert before.needed <= after.needed


@given(holdings, policies, days)
def test_what_came_back_of_late_stays_as_what_was_made_of_late(
    there: Holdings, policy: Policy, age: timedelta
) -> None:
    back = [replace(v, restored_at=NOW - age) for v in there.versions]
    made = [replace(v, created_at=NOW - age, restored_at=None) for v in there.versions]
    plans = [plan(replace(there, versions=tuple(them)), policy, NOW) for them in (back, made)]
    assert plans[0] == plans[1]
