"""What verdicts are made of: both cohorts of a wave, before and after, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import event

from orchestrator.domain.rollup import Kept
from orchestrator.services.records import ExecutionRecord, RolloutRecord, WaveRecord, WindowRecord
from schemas.device import ActiveModel, DeviceState, Presence
from schemas.errors import DeviceCause
from schemas.ids import new_id
from schemas.rollout import ExecState, RolloutSpec, RolloutState, Shadow, WaveState
from schemas.window import Window, pack
from tests.contract.test_repositories import device, milliseconds

pytestmark = pytest.mark.integration

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SWITCH = NOW - timedelta(minutes=30)
S = ExecState
ALIVE = {"state": DeviceState.ACTIVE, "presence": Presence.ONLINE, "last_seen_at": NOW}
RISE = timedelta(minutes=1)


class Fleet:
    """Devices of class ``pi`` that serve digits@1, and a rollout of digits@2 under way."""

    def __init__(self, uow, **spec) -> None:
        self.uow = uow
        gates = {"baseline_seconds": 1800, "min_inferences": 1}
        made = RolloutSpec(model="digits", version=2, gates=gates, **spec)
        self.rollout = RolloutRecord(
            id=new_id("rol"), spec=made, model="digits", version=2, state=RolloutState.RUNNING,
            created_at=SWITCH - timedelta(minutes=10),
        )  # fmt: skip
        begun = {"rollout_id": self.rollout.id, "entered_at": SWITCH}
        waves = [
            WaveRecord(idx=0, state=WaveState.JUDGING, **begun),
            WaveRecord(idx=1, state=WaveState.PENDING, **begun),
        ]
        with uow() as tx:
            tx.rollouts.add(self.rollout, waves, [])
        self._number = 0

    def member(self, wave=0, state=S.SUCCEEDED, version=2, late=None, cause=None, **about) -> str:
        """A device that is in a wave."""
        name = self.device(version, **about)
        execution = ExecutionRecord(
            id=new_id("exe"), rollout_id=self.rollout.id, device_id=name, wave=wave, state=state,
            late=late, cause=cause, offered_at=SWITCH - timedelta(minutes=5), updated_at=SWITCH,
        )  # fmt: skip
        with self.uow() as tx:
            tx.rollouts.add(replace(self.rollout, id=new_id("rol")), [], [])
            tx.rollouts.schedule(self.rollout.id, [(execution.id, name, wave)], SWITCH)
            tx.rollouts.save_execution(execution)
        return name

    def device(self, version=1, since=None, **about) -> str:
        """A device that is in no wave."""
        self._number += 1
        made = device(id=new_id("dev", entropy=self._number), **(ALIVE | about))
        active = ActiveModel(model="digits", version=version, variant="int8", sha256="a" * 64)
        with self.uow() as tx:
            tx.devices.add(made)
            changed = replace(made, active=(active,))
            tx.devices.change([(made, changed)], since or SWITCH - timedelta(days=1))
        return made.id

    def windows(self, name, version, *at, role="active", **more) -> None:
        """A minute of inferences that began at each of these times."""
        figures = {"n": 60, "latency": pack({40: 60})} | more
        records = []
        for start in at:
            self._number += 1
            start_ms = milliseconds(start)
            window = Window(0, self._number, start_ms, synced=True, length_ms=60_000, **figures)
            record = WindowRecord(
                name, b"b" * 16, self._number, "digits", version, "int8", role, start_ms,
                milliseconds(NOW), window.n, window.errors, window.lost, window.labelled,
                window.correct, msgspec.msgpack.encode(Kept(window)),
            )  # fmt: skip
            records.append(record)
        with self.uow() as tx:
            tx.telemetry.add(records)

    def cohorts(self, limit=300, wave=0):
        with self.uow.read() as tx:
            return tx.executions.cohorts(self.rollout, wave, NOW, limit)


@pytest.fixture
def fleet(uow):
    return Fleet(uow)


def test_a_device_is_held_against_its_own_past_from_its_own_switch_on(fleet):
    name = fleet.member()
    fleet.windows(name, 1, SWITCH - 40 * RISE, SWITCH - 10 * RISE, SWITCH - RISE, errors=6)
    later = {"energy_mj": 500, "method": "rapl", "rss_mib": 30, "labelled": 60, "correct": 57}
    fleet.windows(name, 2, SWITCH, SWITCH + RISE, lost=2, classes=pack({3: 58}), **later)
    fleet.windows(name, 2, SWITCH + RISE, n=5, errors=5, role="shadow")
    (one,) = fleet.cohorts().treated
    assert (one.device, one.device_class, one.silent) == (name, "pi", False)
    # The window of 40 minutes before lies beyond baseline_seconds.
    assert (one.pre.n, one.pre.errors, one.pre.seconds) == (120, 12, 120)
    assert (one.post.n, one.post.errors, one.post.lost) == (120, 0, 4)
    assert (one.post.energy_mj, one.post.energy_n, one.post.method) == (1000, 120, "rapl")
    assert (one.post.rss_mib, one.post.correct, one.post.classes) == (30, 114, {3: 116})
    assert (one.post.latency, one.post.compared) == ({40: 120}, 0)


def test_windows_that_come_late_count_by_their_own_time(fleet):
    name = fleet.member()
    fleet.windows(name, 2, SWITCH)
    fleet.windows(name, 1, SWITCH - 3 * RISE)  # received just now, as all here are
    fleet.windows(name, 2, SWITCH - timedelta(days=2))  # of an earlier time with the version
    (one,) = fleet.cohorts().treated
    assert (one.pre.n, one.post.n) == (60, 60)


def test_only_devices_that_serve_the_version_are_judged(fleet):
    serving = fleet.member()
    fleet.member(state=S.FAILED)
    fleet.member(late=S.ROLLED_BACK)
    fleet.member(drifted_at=NOW)
    fleet.member(state=S.ALREADY_INSTALLED)
    revoked = fleet.member()
    fleet.member(wave=1, state=S.SCHEDULED, version=1)
    with fleet.uow() as tx:
        tx.devices.save(replace(tx.devices.get(revoked), state=DeviceState.REVOKED))
    assert [one.device for one in fleet.cohorts().treated] == [serving]


def test_the_control_cohort_keeps_another_version_and_is_left_alone(fleet):
    treated = fleet.member()
    fleet.windows(treated, 2, SWITCH)
    good = [fleet.device(), fleet.member(wave=1, state=S.SCHEDULED, version=1)]
    bad = [
        fleet.device(device_class="cam"),
        fleet.device(version=2),
        fleet.device(since=NOW),  # it switched itself meanwhile
        fleet.device(drifted_at=NOW),
        fleet.device(presence=Presence.OFFLINE, last_seen_at=SWITCH - timedelta(hours=1)),
        fleet.member(wave=0, state=S.FAILED, version=1),
        fleet.member(wave=1, state=S.OFFERED, version=1),
    ]
    for name in (*good, *bad):
        fleet.windows(name, 1, SWITCH - 2 * RISE, SWITCH - RISE, SWITCH + RISE)
    fleet.device()  # there, but it never told of anything
    control = fleet.cohorts().control
    assert sorted(one.device for one in control) == sorted(good)
    assert {(one.pre.n, one.post.n) for one in control} == {(120, 60)}


def test_the_cohort_switched_when_the_median_device_did(fleet):
    for minutes in (-20, 0, 1):
        fleet.windows(fleet.member(), 2, SWITCH + minutes * RISE)
    name = fleet.device()
    fleet.windows(name, 1, *(SWITCH + minutes * RISE for minutes in range(-5, 5)))
    (one,) = fleet.cohorts().control
    assert (one.pre.n, one.post.n) == (300, 300)


def test_whoever_worked_before_and_is_not_heard_of_again_is_silent(fleet):
    dark, idle, gone = fleet.member(), fleet.member(), fleet.member(presence=Presence.OFFLINE)
    fleet.windows(dark, 1, SWITCH - RISE)
    fleet.windows(gone, 2, SWITCH + RISE)
    works = fleet.member(presence=Presence.OFFLINE)
    fleet.windows(works, 2, SWITCH, NOW - RISE)
    control = fleet.device()
    fleet.windows(control, 1, SWITCH - RISE)
    cohorts = fleet.cohorts()
    silent = {one.device: one.silent for one in (*cohorts.treated, *cohorts.control)}
    assert silent == {dark: True, idle: False, gone: True, works: False, control: True}


def test_a_cohort_is_bounded_and_the_same_at_each_look(fleet):
    for _ in range(7):
        fleet.windows(fleet.member(), 2, SWITCH)
        fleet.windows(fleet.member(device_class="cam"), 2, SWITCH)
        fleet.windows(fleet.device(), 1, SWITCH - RISE, SWITCH + RISE)
    first, again = fleet.cohorts(limit=6), fleet.cohorts(limit=6)
    assert first == again
    classes = [one.device_class for one in first.treated]
    assert (classes.count("pi"), classes.count("cam"), len(first.control)) == (6, 6, 6)


def test_of_a_long_span_the_windows_next_to_the_switch_and_to_now_are_read(fleet, monkeypatch):
    monkeypatch.setattr("orchestrator.adapters.cohort_repository.WINDOWS", 1)
    name = fleet.member()
    fleet.windows(name, 1, *(SWITCH - n * RISE for n in range(1, 16)), errors=0)
    fleet.windows(name, 1, *(SWITCH - n * RISE for n in range(16, 25)), errors=60)
    fleet.windows(name, 2, *(SWITCH + n * RISE for n in range(15)), errors=60)
    fleet.windows(name, 2, *(SWITCH + n * RISE for n in range(15, 28)), errors=0)
    (one,) = fleet.cohorts().treated
    assert (one.pre.n, one.pre.errors) == (600, 0)
    assert (one.post.n, one.post.errors) == (600, 0)


def test_what_a_shadow_compared_belongs_to_the_time_in_which_it_serves(uow):
    fleet = Fleet(uow, shadow=Shadow())
    both, shadow_alone = fleet.member(), fleet.member()
    for name in (both, shadow_alone):
        fleet.windows(name, 2, SWITCH - 2 * RISE, role="shadow", compared=50, agreed=49)
    fleet.windows(both, 2, SWITCH)
    treated = {one.device: one for one in fleet.cohorts().treated}
    assert (treated[both].post.n, treated[both].post.compared) == (60, 50)
    assert (treated[shadow_alone].post.n, treated[shadow_alone].post.agreed) == (0, 49)


def test_statements_do_not_grow_with_the_fleet(fleet, engine):
    def cost() -> int:
        said = []

        def heard(*args: object) -> None:
            said.append(args[2])

        event.listen(engine, "before_cursor_execute", heard)
        fleet.cohorts()
        event.remove(engine, "before_cursor_execute", heard)
        return len(said)

    def grow(by: int) -> None:
        for _ in range(by):
            fleet.windows(fleet.member(), 2, SWITCH)
            fleet.windows(fleet.device(), 1, SWITCH - RISE)

    grow(5)  # with fewer, waves that have passed are looked at too
    few = cost()
    grow(12)
    assert cost() == few


def test_what_came_to_grief_later_is_counted_with_its_causes(fleet):
    cause = {"cause": DeviceCause.OPERATOR}
    fleet.member(late=S.ROLLED_BACK, **cause)
    fleet.member(late=S.SUCCEEDED)
    fleet.member(state=S.TIMED_OUT, late=S.ROLLED_BACK, **cause)
    fleet.member(state=S.REJECTED, cause=DeviceCause.GOLDEN_MISMATCH)
    fleet.member(state=S.SUPERSEDED, cause=DeviceCause.SUPERSEDED)
    with fleet.uow.read() as tx:
        assert tx.executions.late(fleet.rollout.id, 0) == {S.ROLLED_BACK: 1}
        assert tx.executions.causes(fleet.rollout.id, 0) == {
            DeviceCause.OPERATOR: 2,
            DeviceCause.GOLDEN_MISMATCH: 1,
        }


def test_a_wave_without_any_device_has_empty_cohorts(fleet):
    assert fleet.cohorts(wave=7) == replace(fleet.cohorts(), treated=(), control=())


def test_a_class_that_is_rare_in_a_large_wave_is_judged_too(fleet, monkeypatch):
    monkeypatch.setattr("orchestrator.adapters.cohort_members.MEMBERS", 4)
    for _ in range(30):
        fleet.member()
    rare = {fleet.member(device_class="cam") for _ in range(3)}
    treated = fleet.cohorts(limit=3).treated
    assert {one.device for one in treated if one.device_class == "cam"} == rare


def test_as_many_are_read_as_the_gates_ask_for(uow, monkeypatch):
    monkeypatch.setattr("orchestrator.adapters.cohort_repository.DEVICES", 2)
    fleet = Fleet(uow)  # whose gates need five
    for _ in range(7):
        fleet.windows(fleet.member(), 2, SWITCH)
        fleet.windows(fleet.device(), 1, SWITCH - RISE, SWITCH + RISE)
    cohorts = fleet.cohorts(limit=3)
    assert (len(cohorts.treated), len(cohorts.control)) == (5, 5)


def test_a_class_with_too_few_is_judged_with_those_of_waves_that_passed(fleet):
    stragglers = fleet.member(wave=1)
    passed = [fleet.member(wave=0) for _ in range(7)]
    jetson = fleet.member(wave=0, device_class="jetson")
    with fleet.uow() as tx:
        waves = {wave.idx: wave for wave in tx.rollouts.waves(fleet.rollout.id)}
        tx.rollouts.save_wave(replace(waves[0], state=WaveState.PASSED))
        tx.rollouts.save_wave(replace(waves[1], state=WaveState.JUDGING))
    with fleet.uow.read() as tx:
        treated = tx.executions.cohorts(fleet.rollout, 1, NOW, 300).treated
    own = {one.device for one in treated if not one.earlier}
    joined = {one.device for one in treated if one.earlier}
    assert own == {stragglers}
    assert joined <= set(passed)
    assert len(joined) == fleet.rollout.spec.gates.min_devices
    assert jetson not in joined, "no device of that class is judged here"


def test_a_wave_that_has_enough_is_judged_alone(fleet):
    own = {fleet.member(wave=0) for _ in range(5)}
    fleet.member(wave=1)
    with fleet.uow() as tx:
        waves = {wave.idx: wave for wave in tx.rollouts.waves(fleet.rollout.id)}
        tx.rollouts.save_wave(replace(waves[1], state=WaveState.PASSED))
    with fleet.uow.read() as tx:
        treated = tx.executions.cohorts(fleet.rollout, 0, NOW, 300).treated
    assert {one.device for one in treated} == own
