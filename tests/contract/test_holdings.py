"""What the database says of who needs which files, whatever the database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.services.records import ExecutionRecord, VersionRecord
from schemas.device import ActiveModel, DeviceState
from schemas.ids import new_id
from schemas.job import JobState
from schemas.jobfile import JobSpec
from schemas.rollout import ExecState, RolloutState
from tests.contract.test_repositories import NOW, device, job, rollout

pytestmark = pytest.mark.integration

CODE, FILE = "c" * 64, "f" * 64


def add_version(tx, version, model="digits", **more):
    made = VersionRecord(
        model=model,
        version=version,
        manifest="{}",
        manifest_sha256=f"{version:064x}",
        manifest_size=2,
        job_id=None,
        created_at=NOW,
    )
    tx.models.add(replace(made, **more))
    tx.models.add_files(model, version, {f"{version:064x}": True, "a" * 64: False})


def ran(tx, unit, versions, state=ExecState.SUCCEEDED, over=RolloutState.SUCCEEDED):
    """Rollouts of these versions to one device, one after the other."""
    for version in versions:
        made = rollout(version=version, state=over)
        number = len(tx.rollouts.page(None, 100)) + 1
        execution = ExecutionRecord(
            id=new_id("exe"),
            rollout_id=made.id,
            device_id=unit.id,
            wave=0,
            state=state,
            sequence=number,
            updated_at=NOW,
        )
        tx.rollouts.add(made, [], [execution])


def used(tx):
    return {version for _, version in tx.holdings.all().used}


def test_versions_come_with_their_files_and_without_those_that_are_purged(uow):
    with uow() as tx:
        add_version(tx, 1, tags=("gold",), revoked=True, job_id="job_x")
        add_version(tx, 2, purged=True)
        (found,) = tx.holdings.all().versions
        assert (found.ref, found.tagged, found.revoked) == (("digits", 1), True, True)
        assert (found.job_id, found.created_at) == ("job_x", NOW)
        assert found.files == {f"{1:064x}", "a" * 64}
        assert tx.holdings.lost(f"{2:064x}") == ("digits", 2)
        assert tx.holdings.lost(f"{1:064x}") is None


def test_aliases_and_rollouts_that_are_not_over_use_a_version(uow):
    with uow() as tx:
        tx.models.set_alias("digits", "live", 4)
        for version, state in enumerate(RolloutState, start=10):
            tx.rollouts.add(rollout(version=version, state=state), [], [])
        ended = {RolloutState.SUCCEEDED, RolloutState.ABORTED, RolloutState.ROLLED_BACK}
        going = {v for v, s in enumerate(RolloutState, start=10) if s not in ended}
        assert used(tx) == {4} | going


def test_a_device_uses_what_it_runs_what_it_had_before_and_what_it_was_offered_last(uow):
    unit, other = device(), device()
    with uow() as tx:
        tx.devices.add(replace(unit, active=(ActiveModel(
            model="digits", version=9, variant="int8", sha256="0" * 64
        ),)))  # fmt: skip
        tx.devices.add(other)
        ran(tx, unit, [1, 2, 3, 2])
        ran(tx, unit, [5, 6], state=ExecState.TIMED_OUT)
        ran(tx, other, [7])
        # 9 runs; 2 and 3 were the last to succeed; 6 is what lies with the broker.
        assert used(tx) == {9, 2, 3, 6, 7}
        tx.devices.save(replace(other, state=DeviceState.SUSPENDED))
        assert 7 in used(tx)
        tx.devices.save(replace(other, state=DeviceState.REVOKED))
        assert used(tx) == {9, 2, 3, 6}


def test_jobs_say_what_they_read(uow):
    code = {"sha256": CODE, "size": 10, "files": 1}
    plain = {"name": "digits", "stop": {"target": 0.9}}
    trains = JobSpec.model_validate({**plain, "task": "m:T", "code": code, "base": "digits@3"})
    imports = JobSpec.model_validate({**plain, "onnx": {"file": FILE, "size": 9}})
    infers = JobSpec.model_validate(
        {**plain, "batch": {"model": "faces@2", "input": "/in", "output": "/out"}}
    )
    ended = NOW + timedelta(hours=1)
    with uow() as tx:
        records = [
            job(spec=trains),
            job(spec=imports, state=JobState.RUNNING),
            job(spec=infers),
            job(state=JobState.SUCCEEDED, ended_at=ended),
        ]
        for record in records:
            tx.jobs.add(record)
        found = {one.id: one for one in tx.holdings.all().jobs}
        first, second, third, last = (found[record.id] for record in records)
        assert (first.inputs, first.versions) == ({CODE}, {("digits", 3)})
        assert (second.inputs, second.versions) == ({FILE}, set())
        assert (third.inputs, third.versions) == (set(), {("faces", 2)})
        assert first.ended_at is None
        assert last.ended_at == ended


def test_what_is_named_by_now_is_told(uow):
    code = {"sha256": CODE, "size": 10, "files": 1}
    spec = JobSpec.model_validate(
        {"name": "digits", "task": "m:T", "stop": {"target": 0.9}, "code": code}
    )
    asked = [CODE, FILE, "a" * 64, f"{1:064x}"]
    with uow() as tx:
        assert tx.holdings.named(asked, NOW) == set()
        add_version(tx, 1)
        record = job(spec=spec)
        tx.jobs.add(record)
        assert tx.holdings.named(asked, NOW) == {CODE, "a" * 64, f"{1:064x}"}
        tx.models.set_purged("digits", 1)
        tx.jobs.save(replace(record, state=JobState.FAILED, ended_at=NOW))
        assert tx.holdings.named(asked, NOW) == {CODE}
        assert tx.holdings.named(asked, NOW + timedelta(seconds=1)) == set()
