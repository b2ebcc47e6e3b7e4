"""Rollouts by set: attempts, devices that vanish, retries by hand, fleets too large to list."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from sqlalchemy import event

from orchestrator.domain.rollout import RolloutEvent
from orchestrator.errors import Conflict, IllegalTransition, NotFound
from orchestrator.services import looking, moves, rollout_view
from orchestrator.services.engine import RolloutEngine
from schemas.device import Death
from schemas.errors import DeviceCause
from schemas.rollout import ExecReport, ExecState, PauseReason, RolloutSpec, RolloutState, WaveState
from schemas.rollout_view import RetryRequest
from schemas.topics import Up
from tests.unit.orchestrator.platform import BOOT
from tests.unit.orchestrator.test_rollout_service import (
    STEPS,
    assignment,
    desired,
    executions,
    start,
)

S = ExecState
EVERYONE = [{"percent": 100}]
ALL = RetryRequest()


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


def tell(platform, execution, attempt, *states, **more):
    for seq, state in enumerate(states):
        report = ExecReport(
            execution=execution.id,
            attempt=attempt,
            seq=seq,
            boot=BOOT,
            uptime=1,
            state=state,
            **more if state is states[-1] else {},
        )
        platform.receive(execution.device, Up.EXEC, report)


def only(platform, rollout):
    (execution,) = executions(platform, rollout)
    return execution


BROKE = {"cause": DeviceCause.TRANSFER_FAILED, "retryable": True}


def test_a_failure_that_may_pass_is_offered_again_after_longer_and_longer(platform, fleet):
    fleet(1)
    rollout = start(platform, waves=EVERYONE, retry_seconds=10, max_attempts=3)
    platform.tick()
    for attempt, wait in ((1, 10), (2, 20)):
        tell(platform, only(platform, rollout), attempt, S.DOWNLOADING, S.FAILED, **BROKE)
        platform.tick()
        waiting = only(platform, rollout)
        assert (waiting.state, waiting.attempt) == (S.SCHEDULED, attempt + 1)
        assert (waiting.due_at - platform.clock()).total_seconds() == wait
        platform.clock.forward(wait - 1)
        platform.tick()
        assert only(platform, rollout).state is S.SCHEDULED
        platform.clock.forward(1)
        platform.tick()
        offered = only(platform, rollout)
        assert (offered.state, offered.id) == (S.OFFERED, waiting.id)
        assert assignment(desired(platform, offered.device)).attempt == attempt + 1
    tell(platform, only(platform, rollout), 3, S.DOWNLOADING, S.FAILED, **BROKE)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert view.waves[0].executions[0].state is S.FAILED
    assert view.pause_reason is PauseReason.ERROR_THRESHOLD


def test_a_device_that_succeeds_at_its_second_attempt_has_not_failed(platform, fleet):
    fleet(1)
    rollout = start(platform, waves=EVERYONE, retry_seconds=1)
    platform.tick()
    tell(platform, only(platform, rollout), 1, S.DOWNLOADING, S.FAILED, bytes_fetched=3, **BROKE)
    platform.tick()
    platform.clock.forward(1)
    platform.tick()
    tell(platform, only(platform, rollout), 2, *STEPS, bytes_fetched=4)
    platform.window(only(platform, rollout).device)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    view = platform.rollouts.get(rollout)
    assert view.state is RolloutState.SUCCEEDED
    assert view.waves[0].progress.bytes_fetched == 7
    assert next(e for e in view.waves[0].evidence if e.metric == "failure_rate").value == 0


def test_a_device_that_vanishes_in_the_middle_holds_its_place_until_it_is_back(platform, fleet):
    devices = fleet(2)
    rollout = start(platform, waves=EVERYONE, step_seconds=60, straggler_seconds=1000)
    platform.tick()
    gone, other = executions(platform, rollout)
    tell(platform, gone, 1, S.ACCEPTED, S.DOWNLOADING)
    tell(platform, other, 1, *STEPS)
    platform.receive(gone.device, Up.DEATH, Death(boot=BOOT, session=1))
    platform.clock.forward(61)
    platform.tick()
    states = {e.device: e for e in executions(platform, rollout)}
    assert states[gone.device].state is S.UNKNOWN
    platform.clock.forward(900)
    platform.tick(8)
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.RUNNING
    platform.birth(gone.device, session=2)
    platform.report(gone.device, gone.id, 5, S.PROBATION)
    platform.report(gone.device, gone.id, 6, S.SUCCEEDED)
    platform.tick()
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.SOAKING
    assert len(devices) == 2


def test_a_device_that_stays_away_is_given_up_in_the_end(platform, fleet):
    fleet(1)
    rollout = start(platform, waves=EVERYONE, step_seconds=60, straggler_seconds=1000)
    platform.tick()
    gone = only(platform, rollout)
    tell(platform, gone, 1, S.ACCEPTED)
    platform.receive(gone.device, Up.DEATH, Death(boot=BOOT, session=1))
    for seconds, state in ((61, S.UNKNOWN), (999, S.UNKNOWN), (2, S.TIMED_OUT)):
        platform.clock.forward(seconds)
        platform.tick()
        assert only(platform, rollout).state is state


def failed(platform, fleet, count=2, **more):
    fleet(count)
    rollout = start(platform, waves=more.pop("waves", EVERYONE), **more)
    platform.tick()
    for execution in executions(platform, rollout, 0):
        tell(platform, execution, 1, S.FAILED, cause=DeviceCause.DISK_FULL)
    platform.tick()
    return rollout


def test_a_rollout_that_was_paused_for_failures_goes_on_after_a_retry_by_hand(platform, fleet):
    rollout = failed(platform, fleet)
    with pytest.raises(IllegalTransition):
        platform.rollouts.operate(rollout, RolloutEvent.RESUME)
    done = platform.rollouts.retry(rollout, ALL)
    # No operator paused it: the reason stays, though it may be resumed now.
    assert (done.devices, done.rollout.pause_reason) == (2, PauseReason.ERROR_THRESHOLD)
    platform.rollouts.operate(rollout, RolloutEvent.RESUME)
    platform.tick()
    again = executions(platform, rollout)
    assert {(e.state, e.attempt) for e in again} == {(S.OFFERED, 2)}
    for execution in again:
        tell(platform, execution, 2, *STEPS)
        platform.window(execution.device)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    assert platform.rollouts.get(rollout).state is RolloutState.SUCCEEDED


def test_what_failed_in_a_wave_that_passed_is_tried_again_with_the_stragglers(platform, fleet):
    fleet(4)
    gates = {"min_inferences": 50, "max_failure_rate": 0.5, "soak_seconds": 5}
    rollout = start(platform, waves=[{"count": 2}, *EVERYONE], gates=gates)
    platform.tick()
    bad, good = executions(platform, rollout, 0)
    tell(platform, bad, 1, S.FAILED, cause=DeviceCause.DISK_FULL)
    tell(platform, good, 1, *STEPS)
    platform.window(good.device)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.PASSED
    platform.rollouts.retry(rollout, RetryRequest(devices=(bad.device,)))
    waves = platform.rollouts.get(rollout).waves
    assert [(w.state, w.stragglers, w.size) for w in waves] == [
        (WaveState.PASSED, False, 1),
        (WaveState.RUNNING, False, 2),
        (WaveState.PENDING, True, 1),
    ]
    for execution in executions(platform, rollout, 1):
        tell(platform, execution, 1, *STEPS)
        platform.window(execution.device)
    platform.tick()
    platform.clock.forward(6)
    platform.tick()
    (again,) = executions(platform, rollout, 2)
    assert (again.device, again.state, again.attempt) == (bad.device, S.OFFERED, 2)


def test_a_wave_that_settled_runs_again_for_what_is_retried(platform, fleet):
    fleet(2)
    gates = {"min_inferences": 50, "max_failure_rate": 0.5, "soak_seconds": 50}
    rollout = start(platform, waves=EVERYONE, gates=gates)
    platform.tick()
    bad, good = executions(platform, rollout)
    tell(platform, bad, 1, S.REJECTED, cause=DeviceCause.EXPIRED)
    tell(platform, good, 1, *STEPS)
    platform.tick()
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.SOAKING
    platform.rollouts.retry(rollout, ALL)
    assert platform.rollouts.get(rollout).waves[0].state is WaveState.RUNNING


def test_a_retry_that_makes_no_sense_is_refused(platform, fleet):
    draft_of = fleet(2)
    draft = platform.rollouts.plan(RolloutSpec(model="digits", version=1))
    with pytest.raises(IllegalTransition, match="is not started") as refused:
        platform.rollouts.retry(draft.id, ALL)
    assert f"argosy rollout start {draft.id}" in refused.value.hint
    rollout = start(platform, waves=EVERYONE)
    platform.tick()
    with pytest.raises(Conflict, match="nothing to retry"):
        platform.rollouts.retry(rollout, ALL)
    with pytest.raises(Conflict, match="is OFFERED"):
        platform.rollouts.retry(rollout, RetryRequest(devices=tuple(draft_of)))
    with pytest.raises(NotFound, match="is not in"):
        platform.rollouts.retry(rollout, RetryRequest(devices=("dev_" + "0" * 16,)))
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    with pytest.raises(IllegalTransition, match="has ended"):
        platform.rollouts.retry(rollout, ALL)


def test_a_retry_is_audited_and_made_through_the_api(platform, fleet, admin):
    rollout = failed(platform, fleet)
    answer = admin.post(f"/v1/rollouts/{rollout}/retry", json={})
    assert (answer.status_code, answer.json()["devices"]) == (200, 2)
    entries = admin.get("/v1/audit").json()["items"]
    assert [
        (e["subject"], e["detail"]["devices"]) for e in entries if e["action"] == "rollout.retry"
    ] == [(rollout, 2)]
    assert admin.post(f"/v1/rollouts/{rollout}/retry", json={"device": "x"}).status_code == 422


def test_a_fleet_too_large_to_list_shows_its_troubles_and_counts_all(
    platform, fleet, admin, monkeypatch
):
    monkeypatch.setattr(rollout_view, "MAX_EXECUTIONS", 2)
    devices = fleet(6)
    rollout = start(platform, waves=EVERYONE, gates={"max_failure_rate": 0.9})
    platform.tick()
    bad = executions_by_route(admin, rollout)[-1]
    platform.report(bad["device"], bad["id"], 0, S.REJECTED, cause=DeviceCause.EXPIRED)
    view = platform.rollouts.get(rollout)
    listed = view.waves[0].executions
    assert (view.cut, len(listed), view.waves[0].size) == (True, 2, 6)
    assert {e.state for e in listed} == {S.REJECTED, S.OFFERED}
    assert view.waves[0].progress.states == {S.OFFERED: 5, S.REJECTED: 1}
    assert {e["device"] for e in executions_by_route(admin, rollout)} == set(devices)
    rejected = executions_by_route(admin, rollout, state="REJECTED", wave=0)
    assert [e["id"] for e in rejected] == [bad["id"]]
    assert executions_by_route(admin, rollout, wave=1) == []


def executions_by_route(admin, rollout, **params):
    found, cursor = [], None
    while True:
        query = {"limit": 4, **params} | ({"cursor": cursor} if cursor else {})
        page = admin.get(f"/v1/rollouts/{rollout}/executions", params=query).json()
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found


def test_watchers_of_a_large_set_are_told_by_wave(platform, fleet, monkeypatch):
    monkeypatch.setattr(moves, "MAX_EVENTS", 2)
    fleet(3)
    rollout = start(platform, waves=EVERYONE)
    with platform.uow.read() as tx:
        last = tx.events.last_id()
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    with platform.uow.read() as tx:
        told = [(e.kind, e.data) for e in tx.events.after(last, rollout, 10)]
    assert told == [
        ("rollout", {"state": "ABORTED"}),
        ("wave", {"wave": 0, "state": "PENDING", "moved": {"CANCELLED": 3}}),
    ]


@contextmanager
def statements(platform):
    seen = []

    def note(_c, _cursor, statement, *_):
        seen.append(statement)

    event.listen(platform.database, "before_cursor_execute", note)
    yield seen
    event.remove(platform.database, "before_cursor_execute", note)


def costs(platform, count, make):
    """Statements of each kind of round in a fleet of that size."""
    make(count)
    found = {}

    def cost(name, act):
        with statements(platform) as seen:
            act()
        found[name] = len(seen)

    cost(
        "plan",
        lambda: platform.rollouts.plan(RolloutSpec(model="digits", version=1, waves=EVERYONE)),
    )
    rollout = start(platform, waves=EVERYONE, step_seconds=60)
    tick = platform.engine.tick
    cost("begin", tick)
    cost("offer", tick)
    cost("steady", tick)
    for execution in executions(platform, rollout):
        platform.report(execution.device, execution.id, 0, S.DOWNLOADING)
        platform.receive(execution.device, Up.DEATH, Death(boot=BOOT, session=1))
    platform.clock.forward(61)
    cost("vanish", tick)
    for execution in executions(platform, rollout):
        platform.report(execution.device, execution.id, 1, S.FAILED, retryable=True)
    cost("retry", tick)
    cost("view", lambda: platform.rollouts.get(rollout))
    cost("abort", lambda: platform.rollouts.operate(rollout, RolloutEvent.ABORT))
    return found


def test_a_round_takes_as_many_statements_for_many_devices_as_for_few(
    platform, tmp_path_factory, fleet
):
    from tests.unit.orchestrator.platform import Platform

    few = costs(platform, 1, fleet)
    large = Platform(tmp_path_factory.mktemp("large"))
    large.models.register("digits", large.manifest(), None)

    def make(count):
        for device in large.enroll(count):
            large.birth(device)

    assert costs(large, 9, make) == few
    assert max(few.values()) < 40


def test_what_one_round_takes_is_bounded_and_the_next_goes_on(platform, fleet, monkeypatch):
    monkeypatch.setattr(looking, "ROUND", 2)
    fleet(5)
    rollout = start(platform, waves=EVERYONE)
    platform.engine.tick()
    for offered, busy in ((2, True), (4, True), (5, False)):
        platform.engine.tick()
        states = [e.state for e in executions(platform, rollout)]
        assert (states.count(S.OFFERED), platform.engine.busy) == (offered, busy)


def test_a_stop_between_two_rounds_that_follow_each_other_is_heeded(platform, fleet, monkeypatch):
    monkeypatch.setattr(looking, "ROUND", 2)
    fleet(5)
    rollout = start(platform, waves=EVERYONE)
    platform.engine.tick()
    platform.engine.tick()
    assert platform.engine.busy
    platform.rollouts.operate(rollout, RolloutEvent.ABORT)
    platform.engine.tick()
    assert not platform.engine.busy
    assert {e.state for e in executions(platform, rollout)} == {S.CANCELLED}


def test_after_a_long_look_that_found_nothing_the_engine_rests_in_proportion(platform, fleet):
    at, work = [100.0], [0.0]

    def worked():
        work[0] += 0.5  # a look costs so much
        return work[0]

    fleet(1)
    rollout = start(platform, waves=EVERYONE)
    slow = RolloutEngine(platform.uow, platform.clock, lambda: at[0], worked)
    while slow.tick():
        pass
    platform.report(only(platform, rollout).device, only(platform, rollout).id, 0, S.REJECTED)
    for later, acts in ((1.4, False), (0.2, True)):
        at[0] += later
        assert bool(slow.tick()) is acts
