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
    KeepLook,
    MoveRollout,
    MoveWave,
    Offer,
    Retry,
    Sift,
    Straggle,
    TakeLook,
)
from orchestrator.domain.because import because_of
from orchestrator.domain.engine import decide
from orchestrator.domain.execution import AT_WORK, FAILURES, IN_FLIGHT
from orchestrator.domain.judge import Ends, Served, hopeless, judge
from orchestrator.domain.rollout import RolloutEvent, WaveEvent, step_wave
from orchestrator.domain.snapshot import Due, Looked, Snapshot, WaveFacts
from orchestrator.domain.timers import Timers
from schemas.errors import DeviceCause
from schemas.gates import Evidence, FailureGate, FailureKind, Gates, Metric, TelemetryGate
from schemas.rollout import (
    EXEC_TERMINAL,
    ExecState,
    OnFailure,
    PauseReason,
    RolloutState,
    WaveState,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GATES = Gates(min_inferences=10, soak_seconds=5, evidence_seconds=60, min_accuracy=0.9)
TIMERS = Timers(offer=120, step=300, straggler=600)
SETS = Bar | Retry | Extend | Expire | Offer | Sift | Straggle | GiveUp


@st.composite
def served(draw):
    """Figures of some devices that go together."""
    devices = draw(st.integers(0, 6))
    voters, labelling = draw(st.integers(0, devices)), draw(st.integers(0, devices))
    return Served(
        devices=devices,
        least=draw(st.integers(0, 100)) if devices else None,
        voters=voters,
        errors=draw(st.floats(0, 1)) * voters,
        labelling=labelling,
        correct=draw(st.floats(0, 1)) * labelling,
        labels=draw(st.integers(0, 100)),
    )


evidences = st.builds(
    Evidence,
    metric=st.sampled_from([one.value for one in Metric]),
    value=st.none() | st.floats(-1, 5),
    threshold=st.just(0.1),
    n=st.integers(0, 20),
    ok=st.sampled_from([True, False, None]),
    binding=st.booleans(),
    look=st.integers(1, 4),
)


def looks():
    found = st.lists(evidences, max_size=4).map(tuple)
    return st.builds(Looked, look=st.integers(1, 4), last=st.booleans(), evidence=found)


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
    succeeded = counts.get(ExecState.SUCCEEDED, 0)
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
        late={ExecState.ROLLED_BACK: draw(st.integers(0, succeeded))},
        served=draw(served()),
        looks=draw(st.integers(0, 3)),
        looked_at=draw(st.none() | st.just(NOW - timedelta(seconds=30))),
        looked=draw(st.none() | looks()),
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
    open_waves.sort(key=lambda w: w.stragglers)  # theirs comes last
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
            assert not hopeless(wave.ends, GATES)


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


gate_kinds = st.builds(
    FailureGate,
    kind=st.sampled_from(FailureKind),
    max_rate=st.floats(0, 1),
    min_devices=st.integers(1, 10),
)
many_gates = st.builds(
    Gates,
    max_failure_rate=st.floats(0, 1),
    failures=st.lists(gate_kinds, max_size=3).map(tuple),
    min_success_rate=st.none() | st.floats(0, 1),
    min_inferences=st.just(10),
    min_accuracy=st.none() | st.floats(0, 1),
)
GOODNESS = {WaveEvent.FAIL: 0, WaveEvent.INCONCLUSIVE: 1, None: 2, WaveEvent.PASS: 3}


def verdict_of(snapshot: Snapshot) -> int:
    """How good what is decided on the first wave is; a look that is to be taken decides nothing."""
    moves = [one for one in decide(snapshot, NOW) if isinstance(one, MoveWave)]
    return GOODNESS[moves[0].event if moves else None]


@given(wave_facts(), many_gates, st.sampled_from(sorted(FAILURES)))
def test_a_success_that_is_a_failure_instead_never_improves_the_verdict(wave, gates, state):
    good = wave.counts.get(S.SUCCEEDED, 0) - sum(wave.late.values())
    if good < 1:
        return
    counts = {**wave.counts, S.SUCCEEDED: wave.counts[S.SUCCEEDED] - 1}
    counts[state] = counts.get(state, 0) + 1
    for at in (WaveState.RUNNING, WaveState.SOAKING, WaveState.JUDGING):
        before = replace(wave, state=at)
        shared = {"gates": gates, "timers": TIMERS}
        better = Snapshot(RolloutState.RUNNING, waves=(before,), **shared)
        worse = Snapshot(RolloutState.RUNNING, waves=(replace(before, counts=counts),), **shared)
        assert at is not WaveState.JUDGING or verdict_of(worse) <= verdict_of(better)
        assert (
            at is WaveState.JUDGING
            or (not hopeless(before.ends, gates))
            or hopeless(worse.waves[0].ends, gates)
        )


@given(running)
def test_a_version_that_undid_itself_later_counts_as_if_it_never_succeeded(snapshot):
    for wave in snapshot.waves:
        late = wave.late[S.ROLLED_BACK]
        counts = {**wave.counts, S.SUCCEEDED: wave.counts.get(S.SUCCEEDED, 0) - late}
        counts[S.ROLLED_BACK] = counts.get(S.ROLLED_BACK, 0) + late
        same = replace(wave, counts=counts, late={})
        assert wave.ends.failed() == same.ends.failed()
        assert bool(hopeless(wave.ends, GATES)) == bool(hopeless(same.ends, GATES))


@given(running)
def test_pausing_in_between_changes_nothing_that_is_decided(snapshot):
    paused = replace(snapshot, state=RolloutState.PAUSED)
    assert decide(paused, NOW) == ()
    assert decide(replace(paused, state=RolloutState.RUNNING), NOW) == decide(snapshot, NOW)


def snapshot_of(
    state: WaveState, counts: dict[ExecState, int], since: float = 0, **more: object
) -> Snapshot:
    entered = NOW - timedelta(seconds=since)
    wave = replace(WaveFacts(0, state, entered, counts), **more)
    return Snapshot(RolloutState.RUNNING, GATES, TIMERS, (wave,))


def with_wave(snapshot: Snapshot, **more: object) -> Snapshot:
    (wave,) = snapshot.waves
    return replace(snapshot, waves=(replace(wave, **more),))


S = ExecState
GOOD = Served(devices=1, least=50, voters=1, labelling=1, correct=0.98, labels=10)
ONE_GOOD = {S.SUCCEEDED: 1}
PLAIN = {"failure_rate", "min_inferences", "error_rate", "accuracy"}


def took(*evidence: Evidence, look: int = 1, last: bool = False) -> Looked:
    return Looked(look, last, evidence)


def figure(*, ok: bool | None, binding: bool = True) -> Evidence:
    return Evidence(
        metric="latency_p95", value=1.31, threshold=1.2, n=12, ok=ok, device_class="cam",
        low=1.18, high=1.46, devices=12, controls=20, look=1, binding=binding,
    )  # fmt: skip


def test_a_wave_with_good_evidence_is_looked_at_and_passes():
    judged = snapshot_of(WaveState.JUDGING, ONE_GOOD, served=GOOD)
    assert decide(judged, NOW) == (TakeLook(0, 1, last=False),)
    looked = snapshot_of(WaveState.JUDGING, ONE_GOOD, served=GOOD, looked=took(figure(ok=True)))
    (action,) = decide(looked, NOW)
    assert (action.event, action.look) == (WaveEvent.PASS, 1)
    assert {e.metric for e in action.evidence} == PLAIN | {"latency_p95"}


def test_a_look_that_settles_nothing_is_kept_and_the_next_one_is_later():
    judged = snapshot_of(WaveState.JUDGING, ONE_GOOD, 10, served=GOOD)
    (kept,) = decide(with_wave(judged, looked=took(figure(ok=None))), NOW)
    assert (kept, len(kept.evidence)) == (KeepLook(0, 1, kept.evidence), 5)
    after = with_wave(judged, looks=1, looked_at=NOW)
    assert decide(after, NOW) == ()
    assert decide(after, NOW + timedelta(seconds=5)) == (TakeLook(0, 2, last=False),)
    assert decide(after, NOW + timedelta(seconds=50)) == (TakeLook(0, 2, last=True),)


def test_what_an_earlier_look_has_shown_is_not_taken_for_this_one():
    stale = took(figure(ok=True), look=1)
    judged = snapshot_of(WaveState.JUDGING, ONE_GOOD, 10, served=GOOD, looks=1, looked=stale)
    assert decide(judged, NOW) == (TakeLook(0, 2, last=False),)


@pytest.mark.parametrize(
    ("ok", "binding", "event"),
    [
        (True, True, WaveEvent.PASS),
        (None, False, WaveEvent.PASS),
        (None, True, WaveEvent.INCONCLUSIVE),
        (False, True, WaveEvent.FAIL),
    ],
)
def test_the_last_look_decides(ok, binding, event):
    looked = took(figure(ok=ok, binding=binding), look=4, last=True)
    judged = snapshot_of(WaveState.JUDGING, ONE_GOOD, 60, served=GOOD, looks=3, looked=looked)
    assert decide(judged, NOW)[0].event is event


def test_what_fails_may_be_taken_back_and_what_is_not_known_is_left_to_a_person():
    bad = snapshot_of(WaveState.JUDGING, ONE_GOOD, 60, served=GOOD)
    bad = replace(bad, on_failure=OnFailure.ROLL_BACK)
    failed = with_wave(bad, looked=took(figure(ok=False), last=True))
    assert decide(failed, NOW)[1] == MoveRollout(RolloutEvent.ROLL_BACK)
    open_end = with_wave(bad, looked=took(figure(ok=None), last=True))
    assert decide(open_end, NOW)[1] == MoveRollout(RolloutEvent.PAUSE, PauseReason.INCONCLUSIVE)
    running = snapshot_of(WaveState.RUNNING, {S.FAILED: 1, S.DOWNLOADING: 1})
    taken = decide(replace(running, on_failure=OnFailure.ROLL_BACK), NOW)
    assert taken[1] == MoveRollout(RolloutEvent.ROLL_BACK)


@pytest.mark.parametrize("since", [0, 61])
def test_nothing_is_concluded_from_silence_while_devices_are_not_heard(since):
    deaf = replace(snapshot_of(WaveState.JUDGING, ONE_GOOD, since, served=GOOD), deaf=True)
    assert decide(deaf, NOW) == ()
    bad = with_wave(deaf, served=replace(GOOD, errors=0.6))
    assert decide(bad, NOW)[0].event is WaveEvent.FAIL


def test_a_wave_that_needs_no_look_passes_without():
    nothing = snapshot_of(WaveState.JUDGING, {S.ALREADY_INSTALLED: 1}, served=GOOD)
    assert decide(nothing, NOW)[0].event is WaveEvent.PASS
    ungated = GATES.model_copy(update={"telemetry": ()})
    judged = replace(snapshot_of(WaveState.JUDGING, ONE_GOOD, served=GOOD), gates=ungated)
    assert decide(judged, NOW)[0].event is WaveEvent.PASS


@pytest.mark.parametrize(
    ("counts", "served"),
    [
        (ONE_GOOD, replace(GOOD, correct=0.4)),
        (ONE_GOOD, replace(GOOD, errors=0.6)),
        ({S.ROLLED_BACK: 1}, Served()),
    ],
    ids=["inaccurate", "failing", "rolled back"],
)
def test_bad_evidence_pauses_the_rollout(counts, served):
    actions = decide(snapshot_of(WaveState.JUDGING, counts, served=served), NOW)
    assert actions[0].event is WaveEvent.FAIL
    assert actions[1] == MoveRollout(RolloutEvent.PAUSE, PauseReason.VERDICT_FAILED)


def test_what_is_put_back_during_the_soak_counts():
    soaking = snapshot_of(WaveState.SOAKING, {S.SUCCEEDED: 4}, late={S.ROLLED_BACK: 2})
    move, stop = decide(soaking, NOW)
    assert (move.event, stop.event) == (WaveEvent.FAIL, RolloutEvent.PAUSE)
    assert step_wave(WaveState.SOAKING, move.event) is WaveState.FAILED
    assert move.evidence[0].value == 0.5


def test_a_silent_device_is_waited_for_and_then_left_to_the_gate_of_silence():
    served = Served(devices=10, least=0, voters=9, labelling=9, correct=8.9, labels=90)
    judged = snapshot_of(WaveState.JUDGING, {S.SUCCEEDED: 10}, served=served)
    assert decide(judged, NOW) == ()
    late = NOW + timedelta(seconds=60)
    assert decide(judged, late) == (TakeLook(0, 1, last=True),)
    (move,) = decide(with_wave(judged, looked=took(figure(ok=True), last=True)), late)
    assert move.event is WaveEvent.PASS
    (told,) = (e for e in move.evidence if e.metric == "min_inferences")
    assert told.note.startswith("1 of 10 devices told of fewer")
    strict = TelemetryGate(metric=Metric.SILENCE, max_worse=0.05)
    gates = GATES.model_copy(update={"telemetry": (strict,)})
    judged = with_wave(replace(judged, gates=gates), looked=took(figure(ok=True), last=True))
    assert decide(judged, late)[0].event is WaveEvent.INCONCLUSIVE


def test_whoever_fails_all_that_it_tries_does_not_drop_out_for_trying_little():
    """Nine devices without an error, and one that failed 9 of 9 where 10 are asked for."""
    served = Served(devices=10, least=9, voters=9, labelling=9, correct=9.0, labels=90)
    broken = replace(served, short_errors=0.9)
    judged = snapshot_of(WaveState.JUDGING, {S.SUCCEEDED: 10}, served=broken)
    assert decide(judged, NOW) == (), "it may be right hundreds of times yet"
    late = NOW + timedelta(seconds=60)
    move, _ = decide(judged, late)
    assert move.event is WaveEvent.FAIL
    (told,) = (e for e in move.evidence if e.metric == "error_rate")
    assert (told.value, told.n, told.ok) == (pytest.approx(0.09), 10, False)
    assert told.note == "1 of them told of too few inferences"
    few = with_wave(judged, served=replace(served, short_errors=0.1))
    assert decide(few, late) == (TakeLook(0, 1, last=True),), "1 % is tolerated"


@given(served(), st.floats(0, 1), st.integers(0, 9), st.booleans())
def test_a_device_that_fails_as_often_and_infers_less_improves_nothing(others, share, n, last):
    """It drops from the voters to those that told of too few."""
    errors = share * 10
    voter = replace(
        others,
        devices=others.devices + 1,
        voters=others.devices + 1,
        errors=others.errors + errors / max(n + 1, 10),
    )
    short = replace(voter, voters=others.devices, errors=others.errors, short_errors=errors / 10)
    ends = Ends({S.SUCCEEDED: voter.devices})
    before, after = (
        next(e for e in judge(ends, one, GATES, last=last) if e.metric == "error_rate")
        for one in (voter, short)
    )
    if before.ok is False and last:
        assert after.ok is False
    if before.ok is not True:
        assert after.ok is not True


def test_missing_evidence_is_waited_for_and_never_passes():
    silent = Served(devices=1, least=0)
    assert decide(snapshot_of(WaveState.JUDGING, ONE_GOOD, 59, served=silent), NOW) == ()
    late = snapshot_of(WaveState.JUDGING, ONE_GOOD, 61, served=silent)
    assert decide(late, NOW) == (TakeLook(0, 1, last=True),)
    actions = decide(with_wave(late, looked=took(last=True)), NOW)
    assert actions[0].event is WaveEvent.INCONCLUSIVE
    assert actions[1] == MoveRollout(RolloutEvent.PAUSE, PauseReason.INCONCLUSIVE)


def test_a_device_that_went_dark_fails_the_wave_though_nothing_else_is_known():
    late = snapshot_of(WaveState.JUDGING, ONE_GOOD, 61, served=Served(devices=1, least=0))
    dark = with_wave(late, looked=took(figure(ok=False), last=True))
    assert decide(dark, NOW)[0].event is WaveEvent.FAIL


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


def test_how_those_ended_is_said_where_nobody_is_left_to_judge_by():
    counts = {S.SUPERSEDED: 12, S.NO_VARIANT: 1, S.SUCCEEDED: 0}
    judged = snapshot_of(WaveState.JUDGING, counts)
    said = because_of(decide(judged, NOW))
    left = "nobody is left to judge by: 1 no variant, 12 superseded"
    assert said == f"wave 1 is inconclusive: {left}"


def test_why_a_rollout_is_paused_is_said_in_figures():
    judged = snapshot_of(WaveState.JUDGING, ONE_GOOD, served=replace(GOOD, errors=0.6))
    said = because_of(decide(judged, NOW))
    said_of = "failed inferences: 60 %, the mean of 1 device; at most 2 % are tolerated"
    assert said == f"wave 1 failed: {said_of}"
    late = snapshot_of(WaveState.JUDGING, ONE_GOOD, 61, served=Served(devices=1, least=None))
    silent = with_wave(late, looked=took(figure(ok=None, binding=False), last=True))
    assert "failed inferences: nothing is known yet; at most 2 %" in because_of(decide(silent, NOW))
    assert "latency" not in because_of(decide(silent, NOW))
    slow = with_wave(judged, served=GOOD, looked=took(figure(ok=False)))
    assert because_of(decide(slow, NOW)) == (
        "wave 1 failed: latency p95 of cam became 1.31 times as high on 12 devices as on 20 that"
        " kept their version; that is no luck (it is at least 1.18 times); you allowed 1.2 times,"
        " and half of it (1.1 times), shown for certain beside others, stops a wave"
    )
    assert because_of((Offer(0),)) is None


def test_failures_are_counted_by_kind_and_their_causes_are_named():
    kinds = (FailureGate(kind=FailureKind.REJECTED, max_rate=0.2, min_devices=4),)
    gates = GATES.model_copy(update={"failures": kinds, "max_failure_rate": 0.9})
    causes = {DeviceCause.GOLDEN_MISMATCH: 2}
    for succeeded, stops in ((1, False), (2, True)):
        counts = {S.REJECTED: 2, S.SUCCEEDED: succeeded, S.DOWNLOADING: 20}
        running = snapshot_of(WaveState.RUNNING, counts, causes=causes)
        actions = decide(replace(running, gates=gates), NOW)
        assert bool(actions) == stops
    (evidence,) = actions[0].evidence
    assert (evidence.metric, evidence.value, evidence.n) == ("rejected_rate", 0.5, 4)
    assert evidence.note.endswith("; golden_mismatch 2")
    certain = snapshot_of(WaveState.RUNNING, {S.REJECTED: 1, S.DOWNLOADING: 1})
    assert decide(replace(certain, gates=gates), NOW)[0].event is WaveEvent.FAIL
    ended = snapshot_of(WaveState.JUDGING, {S.REJECTED: 1, S.SUCCEEDED: 2}, served=GOOD)
    assert decide(replace(ended, gates=gates), NOW)[0].event is WaveEvent.FAIL


def test_failures_are_counted_by_what_caused_them():
    wrong = FailureGate(kind=FailureKind.GOLDEN_MISMATCH, max_rate=0.2, min_devices=4)
    gates = GATES.model_copy(update={"failures": (wrong,), "max_failure_rate": 0.9})
    counts = {S.REJECTED: 2, S.SUCCEEDED: 2, S.DOWNLOADING: 20}
    for cause, stops in ((DeviceCause.DISK_FULL, False), (DeviceCause.GOLDEN_MISMATCH, True)):
        running = snapshot_of(WaveState.RUNNING, counts, causes={cause: 2})
        actions = decide(replace(running, gates=gates), NOW)
        assert bool(actions) == stops
    (evidence,) = actions[0].evidence
    assert (evidence.metric, evidence.value, evidence.n) == ("golden_mismatch_rate", 0.5, 4)


def test_every_kind_of_failure_is_a_state_or_a_cause():
    counts = {S.REJECTED: 1, S.FAILED: 1, S.ROLLED_BACK: 1, S.TIMED_OUT: 1}
    every = Ends(counts, dict.fromkeys(DeviceCause, 1))
    assert {every.failed(kind) for kind in FailureKind if kind is not FailureKind.ANY} == {1}


def test_so_many_must_serve_the_version_at_the_end():
    gates = GATES.model_copy(update={"min_success_rate": 0.8, "max_failure_rate": 1.0})
    lost = {S.SUCCEEDED: 7, S.TIMED_OUT: 2, S.REMOVED: 5}
    served = Served(devices=7, least=50, voters=7, labelling=7, correct=7.0, labels=70)
    ended = replace(snapshot_of(WaveState.JUDGING, lost, served=served), gates=gates)
    (bad,) = (e for e in decide(ended, NOW)[0].evidence if e.ok is False)
    assert (bad.metric, bad.value, bad.n) == ("success_rate", 7 / 9, 9)
    enough = with_wave(ended, counts={**lost, S.SUCCEEDED: 8})
    assert decide(enough, NOW) == (TakeLook(0, 1, last=False),)
    running = snapshot_of(WaveState.RUNNING, {S.TIMED_OUT: 3, S.DOWNLOADING: 7})
    assert decide(replace(running, gates=gates), NOW)[0].event is WaveEvent.FAIL


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


@given(st.lists(evidences, max_size=12), st.integers(5, 300))
def test_looks_follow_one_another_and_end_with_the_last(shown, seconds):
    gates = GATES.model_copy(update={"evidence_seconds": float(seconds)})
    snapshot = replace(snapshot_of(WaveState.JUDGING, ONE_GOOD, served=GOOD), gates=gates)
    taken, now, move = [], NOW, None
    while move is None:
        (action, *_) = decide(snapshot, now) or (None,)
        if action is None:
            now += timedelta(seconds=1)
            continue
        assert isinstance(action, TakeLook)
        taken.append(action)
        looked = took(*shown[len(taken) - 1 :][:1], look=action.look, last=action.last)
        (answer, *_) = decide(with_wave(snapshot, looked=looked), now)
        if isinstance(answer, MoveWave):
            move = answer
        else:
            assert isinstance(answer, KeepLook)
            snapshot = with_wave(snapshot, looks=answer.look, looked_at=now)
            assert decide(snapshot, now) == ()
    assert [one.look for one in taken] == list(range(1, len(taken) + 1))
    assert all(not one.last for one in taken[:-1])
    assert (now - NOW).total_seconds() <= seconds
    assert move.look == taken[-1].look
