"""What every repository promises, whatever the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.database import differences, migrate
from orchestrator.errors import NotFound, Unavailable
from orchestrator.services.records import (
    ActiveJob,
    AgentRecord,
    Among,
    DeviceRecord,
    ExecutionRecord,
    JobRecord,
    KeyRecord,
    RolloutRecord,
    Target,
    TokenRecord,
    VersionRecord,
    WaveRecord,
    WindowRecord,
)
from schemas.device import ActiveModel, DeviceState, Presence
from schemas.gates import Evidence
from schemas.ids import new_id
from schemas.job import Capacity, JobState
from schemas.jobfile import JobSpec, Resources
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPEC = JobSpec.model_validate({"name": "digits", "task": "m:T", "stop": {"target": 0.9}})


def job(**more):
    made = JobRecord(
        id=new_id("job"),
        name="digits",
        state=JobState.QUEUED,
        spec=SPEC,
        max_attempts=3,
        created_at=NOW,
    )
    return replace(made, **more)


def token(**more):
    made = TokenRecord(
        id=new_id("tok"),
        secret_hash="0" * 64,
        device_class="pi",
        tags=("lab", "floor-2"),
        max_uses=5,
        expires_at=NOW + timedelta(hours=1),
        created_at=NOW,
    )
    return replace(made, **more)


def device(**more):
    made = DeviceRecord(
        id=new_id("dev"),
        device_class="pi",
        tags=("lab",),
        state=DeviceState.ACTIVE,
        token_id="tok_x",
        certificate_serial="1",
        certificate_expires_at=NOW,
        spki_sha256="0" * 64,
        enrolled_at=NOW,
    )
    return replace(made, **more)


def rollout(**more):
    spec = RolloutSpec(model="digits", version=1)
    made = RolloutRecord(
        id=new_id("rol"),
        spec=spec,
        model="digits",
        version=1,
        state=RolloutState.RUNNING,
        created_at=NOW,
    )
    return replace(made, **more)


def window(device_id, seq, **more):
    made = WindowRecord(
        device_id=device_id,
        boot=b"b" * 16,
        seq=seq,
        model="digits",
        version=1,
        variant="int8",
        role="active",
        start_ms=milliseconds(NOW),
        received_ms=milliseconds(NOW),
        n=10,
        errors=1,
        lost=0,
        labelled=10,
        correct=9,
        body=b"",
    )
    return made._replace(**more)


def milliseconds(at):
    return round(at.timestamp() * 1000)


def test_migrations_give_exactly_the_tables(engine):
    assert differences(engine) == []
    migrate(engine)
    assert differences(engine) == []


def test_a_record_comes_back_as_it_was_saved(uow):
    made = job(lease_until=NOW + timedelta(seconds=0.5), best={"accuracy": 0.97}, epoch=4)
    with uow() as tx:
        tx.jobs.add(made)
    with uow() as tx:
        assert tx.jobs.get(made.id) == made
    changed = replace(made, state=JobState.RUNNING, lease_until=None)
    with uow() as tx:
        tx.jobs.save(changed)
    with uow() as tx:
        assert tx.jobs.get(made.id) == changed


def test_a_failed_block_leaves_nothing_behind(uow):
    made = job()

    def failing():
        with uow() as tx:
            tx.jobs.add(made)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    with uow() as tx:
        assert tx.jobs.get(made.id) is None


def test_saving_what_is_not_there_is_an_error(uow):
    with pytest.raises(NotFound), uow() as tx:
        tx.jobs.save(job())


def test_the_queue_holds_what_waits_and_expired_leases_are_found(uow):
    first, second = job(created_at=NOW), job(not_before=NOW, priority=-3, project="b")
    with uow() as tx:
        tx.jobs.add(second)
        tx.jobs.add(first)
        assert {j.id for j in tx.jobs.queued(10)} == {first.id, second.id}
        tx.jobs.save(replace(first, state=JobState.RUNNING, lease_until=NOW, agent="a"))
        (waiting,) = tx.jobs.queued(10)
        assert (waiting.id, waiting.project, waiting.priority) == (second.id, "b", -3)
        assert (waiting.not_before, waiting.created_at) == (NOW, NOW)
        assert waiting.resources == SPEC.resources
        assert list(tx.jobs.active()) == [ActiveJob(id=first.id, project="default", agent="a")]
        assert [j.id for j in tx.jobs.lease_expired(NOW)] == [first.id]
        assert list(tx.jobs.lease_expired(NOW - timedelta(seconds=1))) == []


def test_of_a_long_queue_the_oldest_of_each_kind_are_loaded(uow):
    gpu = SPEC.model_copy(
        update={"resources": Resources.model_validate({"workers": "2..4", "gpus_per_worker": 1})}
    )
    old = [job(created_at=NOW - timedelta(hours=i)) for i in (3, 2)]
    young = [job(created_at=NOW + timedelta(seconds=i)) for i in range(4)]
    others = [job(priority=9), job(project="b"), job(spec=gpu)]
    with uow() as tx:
        for record in (*others, *young, *old):
            tx.jobs.add(record)
        found = {j.id: j for j in tx.jobs.queued(2)}
    assert set(found) == {j.id for j in (*old, *others)}
    assert found[others[2].id].resources == gpu.resources
    assert found[old[0].id].created_at == old[0].created_at


def test_a_submission_is_found_by_its_key_and_never_twice(uow):
    made = job(submission="k" * 16)
    with uow() as tx:
        tx.jobs.add(made)
        tx.jobs.add(job())
        tx.jobs.add(job())
        assert tx.jobs.by_submission("k" * 16) == made
        assert tx.jobs.by_submission("x" * 16) is None
    with pytest.raises(IntegrityError), uow() as tx:
        tx.jobs.add(job(submission="k" * 16))


def test_use_is_added_up_by_project_and_forgotten_with_time(uow):
    def used(*seconds, **more):
        return job(cpu_seconds=sum(seconds), attempt=len(seconds), **more)

    since = NOW - timedelta(hours=24)
    ended = {"state": JobState.SUCCEEDED, "ended_at": NOW - timedelta(hours=1)}
    with uow() as tx:
        tx.jobs.add(used(10, 20, project="a", **ended))
        tx.jobs.add(used(5.5, project="a", state=JobState.RUNNING))
        tx.jobs.add(used(7, project="b"))
        tx.jobs.add(used(99, project="c", **ended | {"ended_at": since - timedelta(seconds=1)}))
        tx.jobs.add(job(project="d"))
        assert dict(tx.jobs.recent_use(since)) == {"a": 35.5, "b": 7.0}


def test_a_page_holds_the_states_the_project_and_the_name_that_are_asked_for(uow):
    made = [
        job(name="digits", project="a"),
        job(name="digits", project="b", state=JobState.FAILED),
        job(name="sounds", project="a", state=JobState.RUNNING),
    ]
    with uow() as tx:
        for record in made:
            tx.jobs.add(record)

        def found(**asked):
            return {r.id for r in tx.jobs.page(None, 10, **asked)}

        assert found() == {r.id for r in made}
        assert found(states=[JobState.FAILED, JobState.RUNNING]) == {made[1].id, made[2].id}
        assert found(project="a", name="digits") == {made[0].id}
        assert found(project="a", states=[JobState.FAILED]) == set()


def test_agents_are_kept_by_name_and_forgotten_with_time(uow):
    capacity = Capacity(nodes=2, cpus=8, gpus=1, memory_gb=31.5, grows=True)
    with uow() as tx:
        tx.agents.save(AgentRecord(name="b", seen_at=NOW))
        tx.agents.save(AgentRecord(name="a", seen_at=NOW - timedelta(days=2)))
        tx.agents.save(AgentRecord(name="b", capacity=capacity, seen_at=NOW))
        assert [a.name for a in tx.agents.all()] == ["a", "b"]
        tx.agents.prune(NOW - timedelta(days=1), 100)
    with uow() as tx:
        assert list(tx.agents.all()) == [AgentRecord(name="b", capacity=capacity, seen_at=NOW)]
        assert tx.agents.get("a") is None


def test_numbers_of_microseconds_and_large_files_fit(uow):
    made = job(seq=1_800_000_000_000_000)
    one, its = device(), rollout()
    execution = ExecutionRecord(
        id=new_id("exe"),
        rollout_id=its.id,
        device_id=one.id,
        wave=0,
        updated_at=NOW,
        bytes_done=3 * 1024**3,
        seq=2**63 - 1,
    )
    with uow() as tx:
        tx.jobs.add(made)
        tx.devices.add(one)
        tx.rollouts.add(its, [], [execution])
        tx.telemetry.add([window(one.id, 2**62, n=2**40)])
    with uow.read() as tx:
        assert tx.jobs.get(made.id) == made
        assert tx.rollouts.execution(execution.id) == execution


def test_a_reader_neither_waits_for_a_writer_nor_holds_one_up(uow):
    with uow() as writing:
        writing.jobs.add(job())
        with uow.read() as reading:
            assert list(reading.jobs.page(None, 5)) == []
    with uow.read() as reading:
        first = reading.jobs.page(None, 5)
        with uow() as writing:
            writing.jobs.add(job())
        assert list(reading.jobs.page(None, 5)) == list(first)


def test_a_reader_cannot_write(uow, engine):
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no read-only transactions on a writable connection")

    def write():
        with uow.read() as tx:
            tx.jobs.add(job())

    with pytest.raises(Unavailable, match="read-only"):
        write()


def test_writers_take_turns_and_never_deadlock(uow):
    first, second = job(), job()
    with uow() as tx:
        tx.jobs.add(first)
        tx.jobs.add(second)

    def touch(order):
        for _ in range(10):
            with uow() as tx:
                for record in order:
                    tx.jobs.save(replace(tx.jobs.get(record.id, lock=True), epoch=1))
                    tx.events.add("job", record.id, {}, NOW)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(touch, [(first, second), (second, first)] * 2))


def test_one_queued_job_is_claimed_once_however_many_ask(uow):
    made = job()
    with uow() as tx:
        tx.jobs.add(made)

    def claim(_):
        with uow() as tx:
            found = tx.jobs.queued(2)
            for waiting in found:
                record = tx.jobs.get(waiting.id, lock=True)
                tx.jobs.save(replace(record, state=JobState.RUNNING))
            return bool(found)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(16))) == 1


def test_pages_go_from_new_to_old_without_gaps(uow):
    made = [job(id=new_id("job", now_ms=i, entropy=i)) for i in range(7)]
    with uow() as tx:
        for record in made:
            tx.jobs.add(record)
        first = tx.jobs.page(None, 4)
        rest = tx.jobs.page(first[-1].id, 4)
    assert [r.id for r in (*first, *rest)] == [r.id for r in reversed(made)]


def test_forty_racing_uses_of_a_token_with_five_give_five(uow):
    made = token()
    with uow() as tx:
        tx.devices.add_token(made)

    def spend(_):
        with uow() as tx:
            return tx.devices.spend(made.id, NOW)

    with ThreadPoolExecutor(40) as pool:
        assert sum(pool.map(spend, range(40))) == 5
    with uow() as tx:
        assert tx.devices.token(made.id).uses == 5


@pytest.mark.parametrize(
    "unusable",
    [token(revoked=True), token(expires_at=NOW), token(uses=5)],
    ids=["revoked", "expired", "spent"],
)
def test_a_token_that_may_not_be_used_is_not_spent(uow, unusable):
    with uow() as tx:
        tx.devices.add_token(unusable)
        assert not tx.devices.spend(unusable.id, NOW)


def test_devices_are_targeted_by_class_and_tags_and_only_when_active(uow):
    pi, other = device(), device(device_class="jetson", tags=("lab", "roof"))
    gone = device(state=DeviceState.REVOKED)
    with uow() as tx:
        for record in (pi, other, gone):
            tx.devices.add(record)
        found = {c.device: c.device_class for c in tx.devices.candidates(Target(), NOW)}
        assert found == {pi.id: pi.device_class, other.id: "jetson"}
        assert [c.device for c in tx.devices.candidates(Target(device_class="jetson"), NOW)] == [
            other.id
        ]
        both = Target(tags=("lab", "roof"))
        assert [c.device for c in tx.devices.candidates(both, NOW)] == [other.id]


def test_devices_that_fell_silent_are_found(uow):
    there = device(presence=Presence.ONLINE, last_seen_at=NOW)
    silent = device(presence=Presence.ONLINE, last_seen_at=NOW - timedelta(minutes=5))
    with uow() as tx:
        tx.devices.add(there)
        tx.devices.add(silent)
        assert [d.id for d in tx.devices.silent(NOW - timedelta(minutes=1), 5)] == [silent.id]


def test_a_device_keeps_what_it_serves(uow):
    active = ActiveModel(model="digits", version=2, variant="int8", sha256="a" * 64)
    other = active.model_copy(update={"model": "anomaly", "version": 1})
    made = device(active=(other, active), presence=Presence.ONLINE, last_seen_at=NOW)
    with uow() as tx:
        tx.devices.add(made)
    with uow() as tx:
        assert tx.devices.many([made.id]) == {made.id: made}


def version_record(number, **more):
    made = VersionRecord(
        model="digits",
        version=number,
        manifest="{}",
        manifest_sha256=f"{number:064}",
        manifest_size=2,
        job_id=None,
        created_at=NOW,
    )
    return replace(made, **more)


def test_versions_are_immutable_and_found_by_number_and_digest(uow):
    with uow() as tx:
        assert tx.models.last_version("digits") == 0
        tx.models.add(version_record(1))
        tx.models.add(version_record(2))
        tx.models.set_alias("digits", "champion", 1)
        tx.models.set_alias("digits", "champion", 2)
    with pytest.raises(IntegrityError), uow() as tx:
        tx.models.add(version_record(2, manifest="{1}"))
    with uow() as tx:
        assert list(tx.models.versions("digits")) == [2, 1]
        assert tx.models.by_digest(f"{1:064}").version == 1
        assert tx.models.by_manifest("other", f"{1:064}") is None
        assert dict(tx.models.aliases("digits")) == {"champion": 2}
        assert list(tx.models.names(None, 5)) == ["digits"]


def test_a_rollout_comes_back_with_its_waves_and_executions(uow):
    made, one = rollout(), device()
    wave = WaveRecord(rollout_id=made.id, idx=0, state=WaveState.PENDING, entered_at=NOW)
    execution = ExecutionRecord(
        id=new_id("exe"), rollout_id=made.id, device_id=one.id, wave=0, updated_at=NOW
    )
    with uow() as tx:
        tx.devices.add(one)
        tx.rollouts.add(made, [wave], [execution])
    evidence = Evidence(metric="accuracy", value=0.9, threshold=0.8, n=100, ok=True)
    judged = replace(wave, state=WaveState.PASSED, evidence=(evidence,))
    offered = replace(execution, state=ExecState.OFFERED, sequence=1, variant="int8")
    with uow() as tx:
        tx.rollouts.save_wave(judged)
        tx.rollouts.save_execution(offered)
    with uow() as tx:
        assert tx.rollouts.get(made.id) == made
        assert list(tx.rollouts.running()) == [made.id]
        assert list(tx.rollouts.waves(made.id)) == [judged]
        assert list(tx.executions.page(Among(rollout_id=made.id), None, 5)) == [offered]
        (group,) = tx.outbox.pending()
        assert (group.rollout_id, group.state, group.count) == (made.id, ExecState.OFFERED, 1)
        assert [found.id for found in tx.outbox.waiting(group, 10)] == [offered.id]
        assert tx.rollouts.latest_of_device(one.id) == offered
        assert list(tx.rollouts.of_device(one.id, [ExecState.OFFERED])) == [offered]
        assert list(tx.rollouts.of_device(one.id, [ExecState.FAILED])) == []


def test_a_device_is_in_a_rollout_once(uow):
    made, one = rollout(), device()
    twice = [
        ExecutionRecord(
            id=new_id("exe"), rollout_id=made.id, device_id=one.id, wave=0, updated_at=NOW
        )
        for _ in range(2)
    ]
    with uow() as tx:
        tx.devices.add(one)
    with pytest.raises(IntegrityError), uow() as tx:
        tx.rollouts.add(made, [], twice)


def test_keys_of_a_subject_are_revoked_together(uow):
    record = KeyRecord(
        id=new_id("key"), secret_hash="0" * 64, role="job", subject="job_1", created_at=NOW
    )
    with uow() as tx:
        tx.keys.add(record)
        tx.keys.revoke_subject("job_1")
    with uow() as tx:
        assert tx.keys.get(record.id).revoked


def test_events_are_read_in_order_from_after_the_last_one_seen(uow):
    with uow() as tx:
        assert tx.events.last_id() == 0
        for i in range(5):
            tx.events.add("job", f"job_{i % 2}", {"state": "RUNNING", "i": i}, NOW)
    with uow() as tx:
        every = tx.events.after(0, None, 10)
        rest = tx.events.after(every[1].id, "job_0", 10)
        assert tx.events.last_id() == every[-1].id
    assert [e.data["i"] for e in every] == [0, 1, 2, 3, 4]
    assert [e.data["i"] for e in rest] == [2, 4]


def test_no_event_becomes_visible_behind_one_that_was_read(uow):
    def write(i):
        with uow() as tx:
            tx.events.add("job", "job_1", {"i": i}, NOW)

    last, seen = 0, []
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(write, i) for i in range(60)]
        while len(seen) < 60:
            with uow() as tx:
                found = tx.events.after(last, None, 100)
            assert all(event.id > last for event in found)
            seen += [event.data["i"] for event in found]
            last = found[-1].id if found else last
            if all(f.done() for f in running) and not found:
                break
    assert sorted(seen) == list(range(60))
