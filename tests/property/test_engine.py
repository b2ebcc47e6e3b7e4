"""The rollout engine: wave order, no verdict without evidence, nothing while paused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import engine
from orchestrator.domain.engine import (
    End,
    ExecutionFacts,
    MoveRollout,
    MoveWave,
    Offer,
    Snapshot,
    Straggle,
    WaveFacts,
    decide,
)
from orchestrator.domain.rollout import RolloutEvent, WaveEvent, step_wave
from schemas.rollout import ExecState, Gates, PauseReason, RolloutState, WaveState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GATES = Gates(min_inferences=10, soak_seconds=5, evidence_seconds=60, min_accuracy=0.9)

facts = st.builds(
    ExecutionFacts,
    id=st.uuids().map(str),
    device=st.uuids().map(str),
    state=st.sampled_from(ExecState),
    updated_at=st.integers(0, 2000).map(lambda s: NOW - timedelta(seconds=s)),
    online=st.booleans(),
    usable=st.booleans(),
    installed=st.booleans(),
    fits=st.booleans(),
    n=st.integers(0, 100),
    errors=st.integers(0, 5),
    labelled=st.integers(0, 100),
    correct=st.integers(0, 50),
)
waves = st.lists(
    st.builds(
        WaveFacts,
        index=st.just(0),
        state=st.sampled_from(WaveState),
        entered_at=st.integers(0, 200).map(lambda s: NOW - timedelta(seconds=s)),
        executions=st.lists(facts, max_size=6).map(tuple),
    ),
    max_size=4,
).map(lambda found: tuple(replace(wave, index=i) for i, wave in enumerate(found)))
snapshots = st.builds(
    Snapshot,
    state=st.sampled_from(RolloutState),
    gates=st.just(GATES),
    offer_seconds=st.just(120.0),
    step_seconds=st.just(300.0),
    straggler_seconds=st.just(600.0),
    waves=waves,
)


@given(snapshots)
def test_only_the_first_wave_that_has_not_passed_is_touched(snapshot):
    actions = decide(snapshot, NOW)
    open_waves = [w for w in snapshot.waves if w.state is not WaveState.PASSED]
    allowed = {e.id for e in open_waves[0].executions} if open_waves else set()
    for action in actions:
        if isinstance(action, Offer | End):
            assert action.execution in allowed
        if isinstance(action, MoveWave):
            assert action.index == open_waves[0].index


@given(snapshots)
def test_nothing_happens_unless_the_rollout_is_running(snapshot):
    if snapshot.state is not RolloutState.RUNNING:
        assert decide(snapshot, NOW) == ()


@given(snapshots)
def test_it_finishes_exactly_when_every_wave_has_passed(snapshot):
    running = replace(snapshot, state=RolloutState.RUNNING)
    finished = MoveRollout(RolloutEvent.FINISH) in decide(running, NOW)
    assert finished == all(w.state is WaveState.PASSED for w in running.waves)


@given(snapshots)
def test_no_device_is_offered_what_it_cannot_run_or_has(snapshot):
    by_id = {e.id: e for w in snapshot.waves for e in w.executions}
    for action in decide(replace(snapshot, state=RolloutState.RUNNING), NOW):
        if isinstance(action, Offer):
            fact = by_id[action.execution]
            assert fact.online
            assert fact.usable
            assert fact.fits
            assert not fact.installed
            assert fact.state is ExecState.SCHEDULED


@given(snapshots)
def test_every_wave_move_is_a_legal_edge(snapshot):
    running = replace(snapshot, state=RolloutState.RUNNING)
    states = {w.index: w.state for w in running.waves}
    for action in decide(running, NOW):
        if isinstance(action, MoveWave):
            assert step_wave(states[action.index], action.event) is not states[action.index]


def device(state: ExecState, **more: object) -> ExecutionFacts:
    base = ExecutionFacts("exe", "dev", state, NOW, online=True)
    return replace(base, **more)


def snapshot_of(state: WaveState, *executions: ExecutionFacts, since: float = 0) -> Snapshot:
    entered = NOW - timedelta(seconds=since)
    named = tuple(replace(e, id=f"exe{i}", device=f"dev{i}") for i, e in enumerate(executions))
    wave = WaveFacts(0, state, entered, named)
    return Snapshot(RolloutState.RUNNING, GATES, 120, 300, 600, (wave,))


GOOD = device(ExecState.SUCCEEDED, n=50, labelled=50, correct=49)


def test_a_wave_with_good_evidence_passes():
    (action,) = decide(snapshot_of(WaveState.JUDGING, GOOD), NOW)
    assert isinstance(action, MoveWave)
    assert action.event is WaveEvent.PASS
    assert {e.metric for e in action.evidence} == {
        "failure_rate",
        "min_inferences",
        "error_rate",
        "accuracy",
    }


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, correct=20),
        replace(GOOD, errors=30),
        replace(GOOD, state=ExecState.ROLLED_BACK),
    ],
    ids=["inaccurate", "failing", "rolled back"],
)
def test_bad_evidence_pauses_the_rollout(bad):
    actions = decide(snapshot_of(WaveState.JUDGING, bad), NOW)
    assert actions[0].event is WaveEvent.FAIL
    assert actions[1] == MoveRollout(RolloutEvent.PAUSE, PauseReason.VERDICT_FAILED)


def test_missing_evidence_is_waited_for_and_never_passes():
    silent = replace(GOOD, n=0, labelled=0, correct=0)
    assert decide(snapshot_of(WaveState.JUDGING, silent, since=59), NOW) == ()
    actions = decide(snapshot_of(WaveState.JUDGING, silent, since=61), NOW)
    assert actions[0].event is WaveEvent.INCONCLUSIVE
    assert actions[1] == MoveRollout(RolloutEvent.PAUSE, PauseReason.INCONCLUSIVE)


def test_too_many_failures_stop_a_wave_before_its_end():
    running = snapshot_of(
        WaveState.RUNNING, device(ExecState.FAILED), device(ExecState.DOWNLOADING)
    )
    actions = decide(running, NOW)
    assert actions[0].event is WaveEvent.FAIL
    assert actions[1].reason is PauseReason.ERROR_THRESHOLD


def test_devices_that_are_not_there_go_to_the_stragglers():
    absent = device(ExecState.SCHEDULED, online=False)
    assert decide(snapshot_of(WaveState.RUNNING, GOOD, absent), NOW) == (Straggle(("exe1",)),)


def test_a_wave_in_which_nobody_is_there_waits():
    absent = device(ExecState.SCHEDULED, online=False)
    assert decide(snapshot_of(WaveState.RUNNING, absent), NOW) == ()


@pytest.mark.parametrize(
    ("state", "seconds"), [(ExecState.OFFERED, 121), (ExecState.DOWNLOADING, 301)]
)
def test_silence_times_out(state, seconds):
    silent = device(state, updated_at=NOW - timedelta(seconds=seconds))
    (action,) = decide(snapshot_of(WaveState.RUNNING, silent), NOW)
    assert isinstance(action, End)
    assert action.state is ExecState.TIMED_OUT


def test_a_resumed_rollout_judges_again():
    (action,) = decide(snapshot_of(WaveState.INCONCLUSIVE, GOOD), NOW)
    assert action == engine.MoveWave(0, WaveEvent.REJUDGE)
