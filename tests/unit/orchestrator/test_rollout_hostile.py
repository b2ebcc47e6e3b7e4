"""Rollouts that one device, one outage or one slow queue must not decide, or keep from going on."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from orchestrator.domain import reconcile
from orchestrator.domain.rollout import RolloutEvent
from orchestrator.services import devices as devices_service
from orchestrator.services import looking
from orchestrator.services.engine import RolloutEngine
from orchestrator.services.hearing import Hearing
from schemas.device import Birth, Death, Presence
from schemas.errors import DeviceCause
from schemas.rollout import ExecState, PauseReason, RolloutState, WaveState
from schemas.topics import Up
from tests.unit.orchestrator.platform import BOOT, HARDWARE
from tests.unit.orchestrator.test_rollout_service import (
    STEPS,
    assignment,
    desired,
    executions,
    start,
)
from tests.unit.orchestrator.test_rollout_sets import BROKE, EVERYONE, only, tell

S = ExecState
MOST = 2**63 - 1


@pytest.fixture
def fleet(platform):
    """Makes a version and so many devices that are there."""

    def make(count):
        platform.models.register("digits", platform.manifest(), None)
        devices = platform.enroll(count)
        for device in devices:
            platform.birth(device)
        return devices

    return make


def states(platform, rollout):
    return sorted(one.state for one in executions(platform, rollout))


def test_figures_that_no_file_has_do_not_take_the_rollout_from_its_operator(platform, fleet):
    fleet(2)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    for one in executions(platform, rollout):
        what = {"execution": one.id, "attempt": 1, "boot": BOOT, "uptime": 1, "seq": 0}
        figures = dict.fromkeys(("bytes_done", "bytes_total", "bytes_fetched"), MOST)
        report = json.dumps(what | figures | {"state": "DOWNLOADING"}).encode()
        platform.receive(one.device, Up.EXEC, report)
    assert states(platform, rollout) == [S.OFFERED, S.OFFERED]  # dropped, as malformed
    with platform.uow() as tx:  # as an older server has stored them
        for one in executions(platform, rollout):
            record = tx.rollouts.execution(one.id)
            figures = dict.fromkeys(("bytes_done", "bytes_total", "bytes_fetched"), MOST)
            tx.rollouts.save_execution(replace(record, **figures))
    assert platform.rollouts.get(rollout).waves[0].progress.bytes_done > MOST
    view = platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    assert view.state is RolloutState.ABORTED


def test_counts_that_overflow_do_not_keep_a_wave_from_its_verdict(platform, fleet):
    fleet(1)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    tell(platform, only(platform, rollout), 1, *STEPS)
    for seq in range(2):
        platform.window(
            only(platform, rollout).device, seq=seq, n=MOST, labelled=MOST, correct=MOST
        )
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    assert platform.rollouts.get(rollout).state is RolloutState.SUCCEEDED


def test_a_device_that_nobody_asks_may_take_its_whole_probation(platform, fleet):
    fleet(1)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    tell(platform, only(platform, rollout), 1, *STEPS[:-1])
    assert only(platform, rollout).state is S.PROBATION
    platform.clock.forward(601)  # Probation.max_seconds, after which it decides
    platform.tick()
    assert only(platform, rollout).state is S.PROBATION
    platform.clock.forward(300)
    platform.tick()
    assert only(platform, rollout).state is S.TIMED_OUT


def test_the_time_of_an_offer_begins_when_the_broker_has_it(platform, fleet):
    fleet(1)
    platform.broker.up = False
    rollout = start(platform, waves=EVERYONE, offer_seconds=120)
    platform.tick()
    platform.clock.forward(121)
    platform.tick()
    assert only(platform, rollout).state is S.OFFERED  # no device has failed to answer it
    platform.broker.up = True
    platform.tick()
    platform.clock.forward(119)
    platform.tick()
    assert only(platform, rollout).state is S.OFFERED
    platform.clock.forward(2)
    platform.tick()
    assert only(platform, rollout).state is S.TIMED_OUT


def test_an_offer_that_is_sent_again_and_again_has_no_more_time(platform, fleet):
    (device,) = fleet(1)
    rollout = start(platform, waves=EVERYONE, offer_seconds=120)
    platform.tick()
    for beat in range(12):
        platform.clock.forward(20)
        platform.birth(device, session=beat + 2)  # knows nothing of it
        platform.tick()
    assert only(platform, rollout).state is S.TIMED_OUT


def test_what_was_not_sent_before_a_pause_waits_for_its_end(platform, fleet):
    (device,) = fleet(1)
    platform.broker.up = False
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    platform.rollouts.operate(rollout, RolloutEvent.PAUSE)
    platform.broker.up = True
    platform.tick()
    assert desired(platform, device) is None
    platform.clock.forward(1000)
    platform.rollouts.operate(rollout, RolloutEvent.RESUME)
    platform.tick()
    assert assignment(desired(platform, device)).execution == only(platform, rollout).id
    platform.clock.forward(100)
    platform.tick()
    assert only(platform, rollout).state is S.OFFERED


def test_no_more_probations_time_out_than_were_looked_at(platform, fleet, monkeypatch):
    monkeypatch.setattr(looking, "ROUND", 1)
    devices = fleet(3)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    for one in executions(platform, rollout):
        tell(platform, one, 1, *STEPS[:-1])
    platform.clock.forward(901)
    for device in devices:
        platform.window(device)
    platform.tick(8)
    assert states(platform, rollout) == [S.PROBATION] * 3


def test_a_straggler_that_waits_for_its_next_attempt_is_not_given_up(platform, fleet):
    first, second = fleet(2)
    platform.receive(second, Up.DEATH, Death(boot=BOOT, session=1))
    rollout = start(platform, waves=EVERYONE, straggler_seconds=0, retry_seconds=5)
    platform.tick()
    one = next(e for e in executions(platform, rollout) if e.device == first)
    tell(platform, one, 1, *STEPS)
    platform.window(first)
    platform.tick()
    platform.birth(second, session=2)
    platform.clock.forward(6)
    platform.tick(1)
    platform.tick()
    late = next(e for e in executions(platform, rollout) if e.device == second)
    assert (late.wave, late.state) == (1, S.OFFERED)
    tell(platform, late, 1, S.DOWNLOADING, S.FAILED, **BROKE)
    platform.clock.forward(1)
    platform.tick()
    assert states(platform, rollout) == [S.SCHEDULED, S.SUCCEEDED]
    for attempt in (2, 3):
        platform.clock.forward(20)
        platform.tick()
        tell(platform, late, attempt, S.DOWNLOADING, S.FAILED, **BROKE)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert view.pause_reason is PauseReason.ERROR_THRESHOLD
    assert view.waves[1].state is WaveState.FAILED


def test_a_device_that_was_revoked_after_it_succeeded_holds_nobody_up(platform, fleet):
    first, second = fleet(2)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    for one in executions(platform, rollout):
        tell(platform, one, 1, *STEPS)
    platform.admission.revoke(first, "stolen")
    platform.window(second)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    platform.clock.forward(61)
    platform.tick()
    assert platform.rollouts.get(rollout).state is RolloutState.SUCCEEDED


def test_an_offer_with_a_higher_number_has_its_whole_time(platform, fleet):
    fleet(1)
    rollout = start(platform, waves=EVERYONE, offer_seconds=120)
    platform.tick()
    platform.clock.forward(100)
    tell(
        platform,
        only(platform, rollout),
        1,
        S.REJECTED,
        cause=DeviceCause.BELOW_FLOOR,
    )
    platform.tick()
    platform.clock.forward(100)
    platform.tick()
    assert only(platform, rollout).state is S.OFFERED


@pytest.fixture
def ears():
    """What decides whether devices are heard: a date, a steady clock, a connection."""
    return SimpleNamespace(date=datetime(2026, 1, 1, tzinfo=UTC), steady=0.0, connected=True)


def hearing_by(ears, grace=30):
    return Hearing(lambda: ears.date, lambda: ears.connected, grace, lambda: ears.steady)


def passes(ears, seconds):
    ears.date += timedelta(seconds=seconds)
    ears.steady += seconds


def test_silence_says_nothing_after_a_start_an_outage_or_a_clock_that_was_set(ears):
    hearing = hearing_by(ears)
    assert hearing.deaf()
    for disturb in (
        lambda: None,
        lambda: setattr(ears, "connected", False),
        lambda: setattr(ears, "date", ears.date + timedelta(hours=1)),
        lambda: setattr(ears, "date", ears.date - timedelta(hours=1)),
    ):
        disturb()
        hearing.deaf()
        ears.connected = True
        passes(ears, 29)
        assert hearing.deaf()
        passes(ears, 1)
        assert not hearing.deaf()
        passes(ears, 1)


def test_an_outage_of_the_server_times_nobody_out(platform, fleet, ears):
    fleet(2)
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    one, other = executions(platform, rollout)
    tell(platform, one, 1, S.ACCEPTED, S.DOWNLOADING)
    platform.clock.forward(3600)  # and nobody has swept yet: both are there, by the database
    platform.engine = RolloutEngine(
        platform.uow, platform.clock, worked=lambda: 0.0, hearing=hearing_by(ears)
    )
    platform.tick()
    assert states(platform, rollout) == [S.DOWNLOADING, S.OFFERED]
    platform.report(one.device, one.id, 2, S.VERIFIED)
    passes(ears, 31)
    platform.tick()
    assert {e.device: e.state for e in executions(platform, rollout)} == {
        one.device: S.VERIFIED,
        other.device: S.TIMED_OUT,
    }


def test_a_fleet_that_falls_silent_at_once_is_swept_by_portions(platform, fleet, monkeypatch):
    monkeypatch.setattr(devices_service, "_PORTION", 2)
    monkeypatch.setattr(devices_service, "_PORTIONS", 2)
    gone = fleet(5)
    platform.clock.forward(31)
    assert [platform.devices.sweep() for _ in range(3)] == [4, 1, 0]
    assert {platform.devices.get(device).presence for device in gone} == {Presence.OFFLINE}


def test_a_device_that_loses_its_journal_at_each_start_is_given_up(platform, fleet, monkeypatch):
    monkeypatch.setattr(reconcile, "MAX_ATTEMPTS", 3)
    (device,) = fleet(1)
    rollout = start(platform, waves=EVERYONE, step_seconds=60)
    platform.tick()
    for start_no in range(8):
        one = only(platform, rollout)
        tell(platform, one, one.attempt, S.ACCEPTED)
        boot = f"{start_no:032x}"
        platform.receive(device, Up.BIRTH, Birth(boot=boot, session=1, uptime=1, hardware=HARDWARE))
        platform.clock.forward(50)
        platform.tick()
    assert (only(platform, rollout).attempt, only(platform, rollout).state) == (3, S.TIMED_OUT)
