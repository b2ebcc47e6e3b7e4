"""Sets of executions move as the machine moves one, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.domain.execution import Ended, Offered, Retried, Vanished, Withdrawn
from orchestrator.domain.judge import Served
from orchestrator.domain.snapshot import Due
from orchestrator.domain.timers import Timers, due_at, retry_at
from orchestrator.services.moves import moved_execution
from orchestrator.services.overlap import kept
from orchestrator.services.records import Among, ExecutionRecord, WaveRecord
from schemas.device import ActiveModel, DeviceState, Hardware, Presence
from schemas.errors import DeviceCause
from schemas.ids import new_id
from schemas.rollout import ExecState, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import Progress
from tests.contract.test_repositories import device, milliseconds, rollout, window

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=1)
TIMERS = Timers(offer=120, step=300, straggler=600, retry=10, max_attempts=3)
S = ExecState


def execution(of, number, state=S.SCHEDULED, **more):
    base = ExecutionRecord(
        id=new_id("exe", entropy=number),
        rollout_id=of.id,
        device_id="",
        wave=0,
        state=state,
        updated_at=BEFORE,
    )
    return replace(base, **more)


def stored(uow, of, records, *others, **about_device):
    """The records, each with a device of its own; the last ones' devices are as ``others`` say."""
    records = list(records)
    about = [about_device] * (len(records) - len(others)) + [about_device | o for o in others]
    placed = []
    with uow() as tx:
        for record, its in zip(records, about, strict=True):
            one = device(**its)
            tx.devices.add(one)
            placed.append(replace(record, device_id=one.id))
        wave = WaveRecord(rollout_id=of.id, idx=0, state=WaveState.RUNNING, entered_at=BEFORE)
        tx.rollouts.add(of, [wave], placed)
    return placed


def every_kind(of):
    """One record for each state that a device may have heard of or not, and may try again."""
    number = 0
    for state in S:
        for sequence in (0, 7):
            for attempt, retryable in ((1, True), (2, True), (3, True), (1, False)):
                number += 1
                yield execution(
                    of,
                    number,
                    state,
                    attempt=attempt,
                    retryable=retryable and state is S.FAILED,
                    sequence=sequence,
                    published=True,
                    seq=4,
                    bytes_done=5,
                    bytes_fetched=6,
                    bytes_earlier=7,
                    cause=DeviceCause.DISK_FULL,
                    detail="as it was",
                    due_at=BEFORE,
                    late=S.SUCCEEDED if state is S.TIMED_OUT else None,
                )


def retried(tx, among):
    due = {n: retry_at(n, NOW, TIMERS) for n in (1, 2)}
    return tx.executions.retry(replace(among, retryable_below=3), due, NOW, 1000)


def vanished(tx, among):
    due = due_at(S.UNKNOWN, NOW, TIMERS)
    return tx.executions.vanish(among, due, NOW, 1000)


MOVES = {
    "cancel": (
        lambda tx, among: tx.executions.end(among, S.CANCELLED, "over", NOW, 1000),
        Ended(S.CANCELLED, "over"),
    ),
    "cancel all": (
        lambda tx, among: tx.executions.end(among, S.CANCELLED, "over", NOW),
        Ended(S.CANCELLED, "over"),
    ),
    "withdraw": (lambda tx, among: tx.executions.withdraw(among, NOW, 1000), Withdrawn()),
    "vanish": (vanished, Vanished()),
    "retry": (retried, Retried()),
    "by hand": (
        lambda tx, among: tx.executions.retry_by_hand(among, NOW, limit=1000),
        Retried(by_hand=True),
    ),
    "all by hand": (
        lambda tx, among: tx.executions.retry_by_hand(among, NOW),
        Retried(by_hand=True),
    ),
}


def test_sets_move_as_the_machine_moves_each(uow):
    other = rollout()
    (untouched,) = stored(uow, other, [execution(other, 999, S.OFFERED, sequence=1)])
    for name in MOVES:
        check_move(uow, name)
    with uow.read() as tx:
        assert tx.rollouts.execution(untouched.id) == untouched


def check_move(uow, name):
    move, event = MOVES[name]
    of = rollout()
    records = stored(uow, of, every_kind(of))
    with uow() as tx:
        told = move(tx, Among(rollout_id=of.id))
    with uow.read() as tx:
        found = {e.id: e for e in tx.executions.page(Among(rollout_id=of.id), None, 500)}
        moved = set()
        for record in records:
            last = event == Retried() and record.attempt >= TIMERS.max_attempts
            expected = record if last else moved_execution(tx, record, event, NOW, TIMERS)[0]
            assert found[record.id] == expected, (name, record.state)
            moved |= {record.id} if expected != record else set()
    assert moved
    if "all" not in name:
        assert {one.id for one in told} == moved


def test_an_offer_gives_each_device_its_next_sequence(uow):
    of = rollout()
    records = stored(uow, of, [execution(of, n) for n in range(3)], sequence=41)
    ids = [record.id for record in records[:2]]
    due = due_at(S.OFFERED, NOW, TIMERS)
    with uow() as tx:
        told = tx.executions.offer(ids, "int8", NOW, due)
        again = tx.executions.offer(ids, "fp32", NOW, due)
    assert ({one.id for one in told}, again) == (set(ids), [])
    with uow.read() as tx:
        for record in records[:2]:
            moved, _ = moved_execution(tx, record, Offered(), NOW, TIMERS)
            offered = replace(moved, variant="int8", sequence=42, offered_at=NOW)
            assert tx.rollouts.execution(record.id) == offered
            assert tx.devices.get(record.device_id).sequence == 42
        assert tx.rollouts.execution(records[2].id) == records[2]


def test_no_move_takes_more_than_it_may(uow):
    of = rollout()
    stored(uow, of, [execution(of, n, S.OFFERED) for n in range(5)])
    with uow() as tx:
        assert len(tx.executions.withdraw(Among(rollout_id=of.id), NOW, 2)) == 2
        assert tx.executions.counts(of.id) == {0: {S.SCHEDULED: 2, S.OFFERED: 3}}


def test_who_waits_is_there_may_take_part_and_its_time_has_come(uow):
    of = rollout()
    hardware = Hardware(arch="x", cpus=1, ram_mb=1, providers=(), ort="1", agent="1")
    active = ActiveModel(model="digits", version=1, variant="int8", sha256="a" * 64)
    is_there = {"presence": Presence.ONLINE, "hardware": hardware, "active": (active,)}
    later = execution(of, 3, attempt=2, due_at=NOW + timedelta(seconds=1))
    second = execution(of, 2, attempt=2, due_at=NOW)
    others = ({"presence": Presence.OFFLINE}, {"state": DeviceState.SUSPENDED})
    every = [execution(of, 1), second, later, execution(of, 4), execution(of, 5)]
    ready = stored(uow, of, every, *others, **is_there)[:2]
    with uow.read() as tx:
        found = tx.executions.waiting(of.id, 0, NOW, 10)
        assert {one.id for one in found} == {one.id for one in ready}
        assert {(one.hardware, one.active) for one in found} == {(hardware, active)}
        assert tx.executions.later(of.id, 0, NOW) == 1
        assert tx.executions.count(Among(rollout_id=of.id, usable=False)) == 1
        (group, *_) = tx.executions.alike(Among(rollout_id=of.id), 10)
        assert (group.devices, group.hardware, group.active) == (5, hardware, active)
        assert tx.executions.classes(of.id) == {0: {group.device_class: 5}}
        assert tx.executions.count(Among(rollout_id=of.id, alike=group)) == 5


def test_what_is_due_is_counted_by_state_and_presence(uow):
    of, other = rollout(), rollout()
    gone = [execution(of, n, S.DOWNLOADING, due_at=NOW) for n in (1, 2)]
    not_yet = execution(of, 3, S.OFFERED, due_at=NOW + timedelta(seconds=1))
    stored(uow, of, [*gone, not_yet, execution(of, 4, due_at=BEFORE)], presence=Presence.OFFLINE)
    sent = execution(other, 5, S.OFFERED, due_at=BEFORE, published=True)
    unsent = execution(other, 6, S.OFFERED, due_at=BEFORE)
    stored(uow, other, [sent, unsent], presence=Presence.ONLINE)
    with uow.read() as tx:
        assert tx.executions.due(of.id, 0, NOW) == {Due(S.DOWNLOADING, online=False): 2}
        assert tx.executions.due(other.id, 0, NOW) == {Due(S.OFFERED, online=True): 1}


def test_progress_counts_the_bytes_of_all_attempts(uow):
    of = rollout()
    first = execution(of, 1, S.DOWNLOADING, bytes_done=1, bytes_total=10, bytes_fetched=2)
    stored(uow, of, [first, execution(of, 2, S.SUCCEEDED, bytes_earlier=5, bytes_fetched=3)])
    states = {S.DOWNLOADING: 1, S.SUCCEEDED: 1}
    with uow.read() as tx:
        assert tx.executions.progress(of.id) == {
            0: Progress(states=states, bytes_done=1, bytes_total=10, bytes_fetched=10)
        }


def test_each_device_that_serves_has_one_vote(uow):
    spec = RolloutSpec(model="digits", version=1, gates={"min_inferences": 20})
    of = rollout(created_at=BEFORE, spec=spec)
    serving = [execution(of, n, S.SUCCEEDED) for n in (1, 2)]
    serving = stored(uow, of, [*serving, execution(of, 3, S.FAILED)])
    *both, failed = (record.device_id for record in serving)
    with uow() as tx:
        now, early = milliseconds(NOW), milliseconds(BEFORE - timedelta(seconds=1))
        for name in (both[0], failed):
            for seq in (0, 1):
                tx.telemetry.add([window(name, seq, received_ms=now, start_ms=now)])
        tx.telemetry.add([window(both[0], 2, received_ms=early, start_ms=early)])
        # It began before the rollout was there, and came when its device was back.
        tx.telemetry.add([window(both[0], 4, received_ms=now, start_ms=early)])
        tx.telemetry.add([window(both[0], 3, received_ms=now, start_ms=now, role="shadow")])
        one = tx.executions.served(of, 0)
        drifted = replace(tx.devices.get(both[1]), drifted_at=NOW)
        tx.devices.save(drifted)
        other = tx.executions.served(of, 0)
        huge = 2**53
        many = {
            "n": huge,
            "errors": huge,
            "labelled": huge,
            "correct": 0,
            "received_ms": now,
            "start_ms": now,
        }
        tx.telemetry.add([window(both[1], 5, **many)])
        tx.devices.save(replace(drifted, drifted_at=None))
        shouted = tx.executions.served(of, 0)
    assert one == Served(
        devices=2, least=0, voters=1, errors=0.1, labelling=1, correct=0.9, labels=20
    )
    assert shouted == Served(
        devices=2, least=20, voters=2, errors=1.1, labelling=2, correct=0.9, labels=40
    )
    assert (other.devices, other.least) == (1, 20)


def test_the_rollout_that_was_started_last_has_the_device(uow):
    of = rollout(started_at=BEFORE)
    later = rollout(started_at=NOW, state=RolloutState.PAUSED)
    given_up = rollout(started_at=NOW, state=RolloutState.ABORTED)
    mine = stored(uow, of, [execution(of, n) for n in range(3)])
    with uow() as tx:
        for n, record, its in ((11, mine[0], later), (12, mine[1], given_up)):
            has = execution(its, n, S.DOWNLOADING, device_id=record.device_id, sequence=3)
            tx.rollouts.add(its, (), [has])
        devices = [record.device_id for record in mine]
        assert set(kept(tx, of, devices)) == {mine[0].device_id}
        told = tx.executions.supersede(of.id, devices, NOW)
        assert {one.rollout_id for one in told} == {later.id, given_up.id}
        ended = tx.executions.page(Among(rollout_id=later.id), None, 5)
        assert [(e.state, e.previous, e.published) for e in ended] == [
            (S.SUPERSEDED, S.DOWNLOADING, False)
        ]


def test_pages_of_executions_have_no_gaps(uow):
    of = rollout()
    made = stored(uow, of, [execution(of, n, S.FAILED if n % 2 else S.OFFERED) for n in range(9)])
    failed = Among(rollout_id=of.id, states=frozenset({S.FAILED}))
    with uow.read() as tx:
        first = tx.executions.page(failed, None, 3)
        rest = tx.executions.page(failed, first[-1].id, 3)
        named = tx.executions.of_devices(of.id, [made[1].device_id, "dev_x"])
    assert [*first, *rest] == [record for record in made if record.state is S.FAILED]
    assert named == {made[1].device_id: S.FAILED}
