"""The rollout engine: wave order, no verdict without evidence, nothing while paused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.actions import (
    Bar,
    Expire,
    Extend,
    GiveUp,
    MoveRollout,
    MoveWave,
    Offer,
    Retry,
    Sift,
    Straggle,
)
from orchestrator.domain.because import because_of
from orchestrator.domain.engine import cannot_pass, decide
from orchestrator.domain.execution import AT_WORK, FAILURES, IN_FLIGHT
from orchestrator.domain.judge import Served
from orchestrator.domain.rollout import RolloutEvent, WaveEvent, step_wave
from orchestrator.domain.snapshot import Due, Snapshot, WaveFacts
from orchestrator.domain.timers import Timers
from schemas.gates import Gates
from schemas.rollout import EXEC_TERMINAL, ExecState, PauseReason, RolloutState, WaveState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GATES = Gates(min_inferences=10, soak_seconds=5, evidence_seconds=60, min_accuracy=0.9)
TIMERS = Timers(offer=120, step=300, straggler=600)
SETS = Bar | Retry | Extend | Expire | Offer | Sift | Straggle | GiveUp


@st.composite
def wave_facts(draw):
    """Sums that go together, as those of one table do."""
    counts = draw(st.dictionaries(st.sampled_from(ExecState), st.integers(0, 5)))
    there = [state for state in IN_FLIGHT if counts.get(state)]
    due = st.dictionaries(
        st.builds(Due, st.sampled_from(there or [ExecState.OFFERED]), st.booleans()),
        st.integers(0, 5),
    )
    waiting = counts.get(ExecState.SCHEDULED, 0)
    ready = draw(st.integers(0, waiting))
    later = draw(st.integers(0, waiting - ready))
    n = draw(st.integers(0, 100))
    return WaveFacts(
        index=0,
        state=draw(st.sampled_from(WaveState)),
        entered_at=NOW - timedelta(seconds=draw(st.integers(0, 2000))),
        counts=counts,
        stragglers=draw(st.booleans()),
        barred=draw(st.integers(0, 2)),
        retries=draw(st.integers(0, counts.get(ExecState.FAILED, 0))),
        due=draw(due) if there else {},
        ready=ready,
        later=later,
        held=draw(st.integers(0, waiting - ready - later)),
        served=Served(1, n, n, draw(st.integers(0, n)), n, draw(st.integers(0, n))),
    )


waves = st.lists(wave_facts(), max_size=4).map(
    lambda found: tuple(replace(wave, index=i) for i, wave in enumerate(found))
)
snapshots = st.builds(
    Snapshot,
    state=st.sampled_from(RolloutState),
    gates=st.just(GATES),
    timers=st.just(TIMERS),
    waves=waves,
)
running = snapshots.map(lambda s: replace(s, state=RolloutState.RUNNING))


@given(running)
def test_only_the_first_wave_that_has_not_passed_is_touched(snapshot):
    open_waves = [w for w in snapshot.waves if w.state is not WaveState.PASSED]
    for action in decide(snapshot, NOW):
        if isinstance(action, SETS):
            assert action.wave == open_waves[0].index
        if isinstance(action, MoveWave):
            assert action.index == open_waves[0].index


@given(snapshots)
def test_nothing_happens_unless_the_rollout_is_running(snapshot):
    if snapshot.state is not RolloutState.RUNNING:
        assert decide(snapshot, NOW) == ()


@given(running)
def test_it_finishes_exactly_when_every_wave_has_passed(snapshot):
    finished = MoveRollout(RolloutEvent.FINISH) in decide(snapshot, NOW)
    assert finished == all(w.state is WaveState.PASSED for w in snapshot.waves)


@given(running)
def test_offers_are_made_by_a_running_wave_that_can_still_pass(snapshot):
    for action in decide(snapshot, NOW):
        if isinstance(action, Offer):
            wave = snapshot.waves[action.wave]
            assert wave.state is WaveState.RUNNING
            assert wave.ready
            assert not cannot_pass(wave, GATES)


@given(running)
def test_a_wave_settles_only_when_no_device_has_anything_left_to_do(snapshot):
    for action in decide(snapshot, NOW):
        if isinstance(action, MoveWave) and action.event is WaveEvent.SETTLED:
            wave = snapshot.waves[action.index]
            assert all(state in EXEC_TERMINAL for state, n in wave.counts.items() if n)
            assert not wave.retries
            assert not wave.later
        if isinstance(action, Straggle | GiveUp):
            wave = snapshot.waves[action.wave]
            assert not any(wave.counts.get(state) for state in IN_FLIGHT)
            assert not wave.ready
            assert not wave.later or wave.stragglers


@given(running)
def test_every_wave_move_is_a_legal_edge(snapshot):
    states = {w.index: w.state for w in snapshot.waves}
    for action in decide(snapshot, NOW):
        if isinstance(action, MoveWave):
            assert step_wave(states[action.index], action.event) is not states[action.index]


@given(running)
def test_what_is_due_never_ends_for_a_device_that_is_gone_and_may_come_back(snapshot):
    for action in decide(snapshot, NOW):
        if isinstance(action, Expire) and not action.due.online:
            kept = {ExecState.UNKNOWN: ExecState.TIMED_OUT, ExecState.OFFERED: ExecState.SCHEDULED}
            assert action.becomes is kept.get(action.due.state, ExecState.UNKNOWN)


@given(running, st.sampled_from(sorted(FAILURES)))
def test_one_more_failure_never_lets_a_wave_go_on_that_could_not(snapshot, state):
    (wave, *_) = snapshot.waves or (None,)
    if wave is not None and cannot_pass(wave, GATES):
        counts = {**wave.counts, state: wave.counts.get(state, 0) + 1}
        assert cannot_pass(replace(wave, counts=counts), GATES)


def snapshot_of(
    state: WaveState, counts: dict[ExecState, int], since: float = 0, **more: object
) -> Snapshot:
    entered = NOW - timedelta(seconds=since)
    wave = replace(WaveFacts(0, state, entered, counts), **more)
    return Snapshot(RolloutState.RUNNING, GATES, TIMERS, (wave,))


S = ExecState
GOOD = Served(devices=1, least=50, n=50, errors=0, labelled=50, correct=49)
ONE_GOOD = {S.SUCCEEDED: 1}


def test_a_wave_with_good_evidence_passes():
    (action,) = decide(snapshot_of(WaveState.JUDGING, ONE_GOOD, served=GOOD), NOW)
    assert isinstance(action, MoveWave)
    assert action.event is WaveEvent.PASS
    assert {e.metric for e in action.evidence} == {
        "failure_rate",
        "min_inferences",
        "error_rate",
        "accuracy",
    }


@pytest.mark.parametrize(
    ("counts", "served"),
    [
        (ONE_GOOD, replace(GOOD, correct=20)),
        (ONE_GOOD, replace(GOOD, errors=30)),
        ({S.ROLLED_BACK: 1}, Served()),
    ],
    ids=["inaccurate", "failing", "rolled back"],
)
def test_bad_evidence_pauses_the_rollout(counts, served):
    actions = decide(snapshot_of(WaveState.JUDGING, counts, served=served), NOW)
    assert actions[0].event is WaveEvent.FAIL
    assert actions[1] == MoveRollout(RolloutEvent.PAUSE, PauseReason.VERDICT_FAILED)


def test_one_silent_device_among_many_keeps_a_wave_from_passing():
    served = replace(GOOD, devices=1000, least=0, n=50_000, labelled=50_000, correct=49_000)
    judged = snapshot_of(WaveState.JUDGING, {S.SUCCEEDED: 1000}, served=served)
    assert decide(judged, NOW) == ()


def test_missing_evidence_is_waited_for_and_never_passes():
    silent = Served(devices=1, least=0)
    assert decide(snapshot_of(WaveState.JUDGING, ONE_GOOD, 59, served=silent), NOW) == ()
    actions = decide(snapshot_of(WaveState.JUDGING, ONE_GOOD, 61, served=silent), NOW)
    assert actions[0].event is WaveEvent.INCONCLUSIVE
    assert actions[1] == MoveRollout(RolloutEvent.PAUSE, PauseReason.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("held", "stragglers", "acts"),
    [
        (0, False, [Straggle]),
        (1, False, []),
        (1, True, [GiveUp]),
        (2, True, []),
        (0, True, [GiveUp]),
    ],
)
def test_devices_that_work_for_another_model_are_neither_stragglers_nor_given_up(
    held, stragglers, acts
):
    counts = {S.SCHEDULED: 2, S.SUCCEEDED: 1}
    wave = WaveFacts(
        0, WaveState.RUNNING, NOW - timedelta(days=1), counts, stragglers=stragglers, held=held
    )
    snapshot = Snapshot(RolloutState.RUNNING, GATES, TIMERS, (wave,))
    assert [type(one) for one in decide(snapshot, NOW)] == acts


def test_why_a_rollout_is_paused_is_said_in_figures():
    judged = snapshot_of(WaveState.JUDGING, ONE_GOOD, served=replace(GOOD, errors=30))
    said = because_of(decide(judged, NOW))
    assert said.startswith("wave 1 failed: error rate 0.")
    assert said.endswith("at most 0.02 is asked for")
    silent = snapshot_of(WaveState.JUDGING, ONE_GOOD, 61, served=Served(devices=1, least=0))
    assert "has no data" in because_of(decide(silent, NOW))
    assert because_of((Offer(0),)) is None


def test_too_many_failures_stop_a_wave_before_its_end():
    failing = snapshot_of(WaveState.RUNNING, {S.FAILED: 1, S.DOWNLOADING: 1})
    actions = decide(failing, NOW)
    assert actions[0].event is WaveEvent.FAIL
    assert actions[1].reason is PauseReason.ERROR_THRESHOLD


def test_a_failure_that_is_tried_again_is_none_yet():
    failed = snapshot_of(WaveState.RUNNING, {S.FAILED: 1, S.DOWNLOADING: 1}, retries=1)
    assert decide(failed, NOW) == (Retry(0),)


def test_a_device_that_waits_for_its_next_attempt_is_no_straggler():
    waits = snapshot_of(WaveState.RUNNING, {S.SUCCEEDED: 1, S.SCHEDULED: 1}, later=1)
    assert decide(waits, NOW) == ()


def test_devices_that_are_not_there_go_to_the_stragglers():
    absent = snapshot_of(WaveState.RUNNING, {S.SUCCEEDED: 1, S.SCHEDULED: 1})
    assert decide(absent, NOW) == (Straggle(0),)


def test_stragglers_are_given_up_after_their_time_and_not_before():
    counts = {S.SCHEDULED: 3}
    for since, actions in ((600, ()), (601, (GiveUp(0),))):
        late = snapshot_of(WaveState.RUNNING, counts, since, stragglers=True)
        assert decide(late, NOW) == actions


def test_a_wave_in_which_nobody_is_there_waits():
    assert decide(snapshot_of(WaveState.RUNNING, {S.SCHEDULED: 2}), NOW) == ()


@pytest.mark.parametrize("state", sorted(AT_WORK))
def test_a_device_that_vanished_holds_its_place(state):
    gone = snapshot_of(WaveState.RUNNING, {state: 1}, due={Due(state, online=False): 1})
    assert decide(gone, NOW)[-1] == Expire(0, Due(state, online=False), S.UNKNOWN)
    held = snapshot_of(WaveState.RUNNING, {S.UNKNOWN: 1, S.SUCCEEDED: 9})
    assert decide(held, NOW) == ()


@pytest.mark.parametrize("state", [S.OFFERED, S.DOWNLOADING, S.UNKNOWN])
def test_silence_times_out(state):
    silent = snapshot_of(WaveState.RUNNING, {state: 1}, due={Due(state, online=True): 1})
    assert decide(silent, NOW) == (Expire(0, Due(state, online=True), S.TIMED_OUT),)


def test_telemetry_of_the_version_is_looked_at_before_a_probation_times_out():
    due = {Due(S.PROBATION, online=True): 2}
    actions = decide(snapshot_of(WaveState.RUNNING, {S.PROBATION: 2}, due=due), NOW)
    assert actions[0] == Extend(0)


def test_a_wave_begins_by_ending_what_needs_no_device():
    begun = decide(snapshot_of(WaveState.PENDING, {}), NOW)
    assert begun == (MoveWave(0, WaveEvent.BEGIN), Sift(0))


def test_a_resumed_rollout_judges_again():
    (action,) = decide(snapshot_of(WaveState.INCONCLUSIVE, ONE_GOOD), NOW)
    assert action == MoveWave(0, WaveEvent.REJUDGE)
