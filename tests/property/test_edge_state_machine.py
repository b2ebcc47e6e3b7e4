"""The device's transition table, over every state, event and order of events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edge_client.actions import Begin, Collect, PutBack, Repeat, Report
from edge_client.events import (
    Booted,
    Broke,
    CancelRequested,
    Compared,
    Dated,
    Fetched,
    Held,
    ManifestAccepted,
    Observed,
    Offered,
    Proceeded,
    ProceedWanted,
    Progressed,
    PutOffWanted,
    Refused,
    Released,
    Restored,
    RollbackWanted,
    ShadowDue,
    Stranded,
    Swapped,
    TrialPassed,
)
from edge_client.probation import Figures, GoldenRun, Times
from edge_client.shadow import Seen
from edge_client.shadowing import Beside
from edge_client.slots import Slot
from edge_client.state_machine import EVENTS, STATES, TABLE, step
from edge_client.states import (
    Accepted,
    Activating,
    Deferred,
    Downloading,
    Ended,
    Idle,
    Offer,
    OnProbation,
    Reverting,
    Shadowing,
    Staged,
    Verified,
    hold_of,
    key_of,
)
from edge_client.waiting import Hold, Timing, Why
from schemas.errors import DeviceCause
from schemas.rollout import (
    DEVICE_REPORTED,
    DEVICE_TERMINAL,
    Assignment,
    ExecState,
    Probation,
    Shadow,
)

DEVICE = "dev_0000000000000001"
EARLY = (Accepted, Deferred, Downloading, Verified, Staged, Shadowing)
LATE = (Activating, OnProbation, Reverting)


def execution(number: int) -> str:
    return f"exe_{number:016d}"


def offer_of(number: int, attempt: int = 1, rules: Probation | None = None) -> Offer:
    """The offer of version ``number``, at that sequence."""
    assignment = Assignment(
        device=DEVICE,
        device_class="default",
        execution=execution(number),
        attempt=attempt,
        rollout="rol_0000000000000001",
        model="digits",
        version=number,
        variant="int8",
        manifest_sha256=f"{number:064x}",
        probation=rules or Probation(min_inferences=10, max_error_rate=0.1, max_boots=2),
        shadow=Shadow(min_compared=10),
    )
    return Offer(assignment=assignment, sequence=number, length=10)


def slot_of(number: int) -> Slot:
    return Slot(
        model="digits",
        version=number,
        variant="int8",
        sha256=f"{number + 1000:064x}",
        manifest_sha256=f"{number:064x}",
    )


numbers = st.integers(1, 4)
offers = st.builds(offer_of, numbers, st.integers(1, 2))
slots = st.one_of(st.none(), st.builds(slot_of, numbers))
causes = st.sampled_from(DeviceCause)
counts = st.integers(0, 30)
keys = st.tuples(numbers.map(execution), st.integers(1, 2))
pendings = st.one_of(st.none(), offers)
moments = st.integers(0, 3).map(lambda n: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n))
holds = st.builds(Hold, why=st.sampled_from(Why), until=st.none() | moments)
timings = st.builds(
    Timing,
    accepted_at=st.none() | moments,
    put_off_until=st.none() | moments,
    proceed=st.booleans(),
)

states = st.one_of(
    st.builds(Idle),
    st.builds(Accepted, offer=offers, timing=timings),
    st.builds(Deferred, offer=offers, hold=holds, timing=timings),
    st.builds(
        Downloading,
        offer=offers,
        slot=st.builds(slot_of, numbers),
        total=counts,
        timing=timings,
    ),
    st.builds(Verified, offer=offers, slot=st.builds(slot_of, numbers), timing=timings),
    st.builds(
        Staged,
        offer=offers,
        slot=st.builds(slot_of, numbers),
        timing=timings,
        hold=st.none() | holds,
        shadowed=st.booleans(),
    ),
    st.builds(
        Shadowing,
        offer=offers,
        slot=st.builds(slot_of, numbers),
        boots=st.integers(0, 3),
        elapsed=st.floats(0, 1e6),
        timing=timings,
    ),
    st.builds(
        Activating,
        offer=offers,
        slot=st.builds(slot_of, numbers),
        fallback=slots,
        boots=st.integers(0, 3),
        pending=pendings,
    ),
    st.builds(
        OnProbation,
        offer=offers,
        slot=st.builds(slot_of, numbers),
        fallback=slots,
        boots=st.integers(0, 3),
        n=counts,
        errors=counts,
        elapsed=st.floats(0, 1e6),
        golden_due=st.booleans(),
        pending=pendings,
    ),
    st.builds(
        Reverting,
        offer=offers,
        slot=st.builds(slot_of, numbers),
        fallback=slots,
        cause=causes,
        detail=st.just("why"),
        pending=pendings,
        after_success=st.booleans(),
    ),
    st.builds(Ended, offer=offers, outcome=st.sampled_from(sorted(DEVICE_TERMINAL))),
)
some_slot = st.builds(slot_of, numbers)
figures = st.builds(
    Figures,
    n=counts,
    errors=counts,
    elapsed=st.floats(0, 1e6),
    times=st.none()
    | st.builds(
        Times,
        n=counts,
        median=st.floats(0, 100),
        before=st.none() | st.floats(0, 100),
    ),
    grown_mb=st.none() | st.floats(-1e4, 1e4),
    golden=st.none() | st.builds(GoldenRun, cause=causes, detail=st.none() | st.just("off")),
)
besides = st.builds(
    Beside,
    asked=st.floats(0, 120),
    elapsed=st.floats(0, 7200),
    seen=st.builds(Seen, compared=counts, agreed=counts, errors=counts),
)
good_figures = st.builds(Figures, n=st.integers(0, 30), errors=st.integers(0, 3))
events = st.one_of(
    st.builds(Offered, offer=offers, active=slots),
    st.builds(CancelRequested, key=keys),
    st.builds(ManifestAccepted, key=keys, slot=st.builds(slot_of, numbers), total=counts),
    st.builds(Refused, key=keys, cause=causes, detail=st.just("no")),
    st.builds(Progressed, key=keys, done=counts, fetched=counts),
    st.builds(Fetched, key=keys, fetched=counts),
    st.builds(TrialPassed, key=keys),
    st.builds(Broke, key=keys, cause=causes, detail=st.just("broke")),
    st.builds(Held, key=keys, hold=holds),
    st.builds(Released, key=keys),
    st.builds(Dated, key=keys, at=moments),
    st.builds(PutOffWanted, key=keys, until=moments),
    st.builds(ProceedWanted, key=keys),
    st.builds(Proceeded, key=keys, fallback=slots),
    st.builds(ShadowDue, key=keys),
    st.builds(Compared, key=keys, beside=besides, fallback=slots, hold=st.none() | holds),
    st.builds(Swapped, key=keys),
    st.builds(Observed, key=keys, figures=figures),
    st.builds(Booted, hung=st.none() | st.just("it hung")),
    st.builds(Restored, key=keys, serving=slots),
    st.builds(Stranded, key=keys, detail=st.just("damaged")),
    st.builds(RollbackWanted, slot=some_slot, fallback=some_slot, give_up=st.booleans()),
)
times = st.floats(0, 1e10)
BY_TYPE = {
    Offered: st.builds(Offered, offer=offers, active=slots),
    ManifestAccepted: st.builds(
        ManifestAccepted, key=keys, slot=st.builds(slot_of, numbers), total=counts
    ),
    Released: st.builds(Released, key=keys),
    Fetched: st.builds(Fetched, key=keys, fetched=counts),
    TrialPassed: st.builds(TrialPassed, key=keys),
    Proceeded: st.builds(Proceeded, key=keys, fallback=slots),
    ShadowDue: st.builds(ShadowDue, key=keys),
    Compared: st.builds(Compared, key=keys, beside=besides, fallback=slots),
    Swapped: st.builds(Swapped, key=keys),
    Observed: st.builds(Observed, key=keys, figures=good_figures),
    Restored: st.builds(Restored, key=keys, serving=slots),
}
"""The events that lead onward, drawn more often where a run has to get somewhere."""


@given(states, events, times)
def test_every_pair_is_defined_and_speaks_of_reportable_states(state, event, now):
    new, actions = step(state, event, now)
    assert isinstance(new, STATES)
    for action in actions:
        assert isinstance(action, Report | Repeat | Begin | Collect | PutBack)
        if isinstance(action, Report):
            assert action.state in DEVICE_REPORTED


def test_the_table_holds_known_pairs_only_and_every_event_matters():
    assert {state for state, _ in TABLE} == set(STATES)
    assert {event for _, event in TABLE} == set(EVENTS)


@given(states, events, times)
def test_what_the_same_event_says_twice_changes_nothing_more(state, event, now):
    if isinstance(event, Booted):
        return  # each start is counted
    once, _ = step(state, event, now)
    twice, actions = step(once, event, now)
    assert twice == once
    assert Begin() not in actions


@given(offers, st.sampled_from(sorted(DEVICE_TERMINAL)), events, times)
def test_the_end_of_an_execution_is_final(offer, outcome, event, now):
    ended = Ended(offer=offer, outcome=outcome)
    new, actions = step(ended, event, now)
    if isinstance(event, Offered) and event.offer.key != offer.key:
        assert key_of(new) == event.offer.key
        return
    if isinstance(event, RollbackWanted) and outcome is ExecState.SUCCEEDED:
        taken_back = isinstance(new, Reverting) and new.after_success
        assert taken_back == offer.names(event.slot)
        return
    assert new == ended
    said = [a for a in actions if isinstance(a, Report)]
    assert all(report.key != offer.key for report in said)


@given(states.filter(lambda s: isinstance(s, EARLY)), times)
def test_cancel_is_honoured_before_the_pointer_is_touched(state, now):
    new, actions = step(state, CancelRequested(key=state.offer.key), now)
    assert isinstance(new, Ended)
    report = next(a for a in actions if isinstance(a, Report))
    assert (report.state, report.cause) == (ExecState.FAILED, DeviceCause.CANCELLED)


@given(states.filter(lambda s: isinstance(s, LATE)), times)
def test_cancel_comes_too_late_afterwards(state, now):
    new, actions = step(state, CancelRequested(key=state.offer.key), now)
    assert new == state
    if getattr(state, "after_success", False):
        assert actions == (Repeat(key=state.offer.key),)
        return
    (report,) = actions
    assert report.cause is DeviceCause.CANCEL_TOO_LATE
    assert report.state not in DEVICE_TERMINAL


@given(states.filter(lambda s: not isinstance(s, Idle)), events, times)
def test_work_done_for_another_execution_does_nothing(state, event, now):
    key = getattr(event, "key", None)
    if key is None or key == state.offer.key or isinstance(event, CancelRequested):
        return
    assert step(state, event, now) == (state, ())


def answering(state, event, proven, serving, older):
    """An event as the updater would fill it in for the present state."""
    if isinstance(event, Offered):
        return replace(event, active=serving)
    if isinstance(event, Proceeded | Compared):
        event = replace(event, fallback=proven)
    if isinstance(event, RollbackWanted):
        on_trial = isinstance(state, OnProbation)
        fallback = state.fallback if on_trial else older
        if serving is None or fallback is None:
            return Booted()  # it is refused: there is nothing to go back to
        event = replace(event, slot=serving, fallback=fallback)
    if isinstance(event, ManifestAccepted) and not isinstance(state, Idle):
        event = replace(event, slot=slot_of(state.offer.assignment.version))
    if hasattr(event, "key") and not isinstance(state, Idle):
        event = replace(event, key=state.offer.key)
    return event


FORWARD = {
    Idle: Offered,
    Accepted: ManifestAccepted,
    Deferred: Released,
    Downloading: Fetched,
    Verified: TrialPassed,
    Staged: ShadowDue,
    Shadowing: Compared,
    Activating: Swapped,
    OnProbation: Observed,
    Reverting: Restored,
    Ended: Offered,
}


@given(st.data(), times)
def test_no_order_of_events_loses_the_proven_model(data, now):
    """What serves is always a model that was proven, or one that is on probation."""
    state, proven, serving, older, sequence = Idle(), None, None, None, 0
    for _ in range(data.draw(st.integers(1, 40))):
        onward = data.draw(st.integers(0, 3)) > 0
        wanted = FORWARD[type(state)] if onward else None
        event = data.draw(events if wanted is None else BY_TYPE[wanted])
        if isinstance(event, Offered):
            sequence += 1
            numbered = replace(event.offer, sequence=sequence)
            event = replace(event, offer=numbered)
        event = answering(state, event, proven, serving, older)
        if isinstance(event, Stranded):
            continue  # what serves is then known from the runtime alone
        before = state
        state, actions = step(state, event, now)
        if isinstance(before, Activating) and isinstance(event, Swapped):
            serving = before.slot
        if isinstance(before, Reverting) and isinstance(event, Restored):
            serving, older = before.fallback, None
            if before.after_success:
                proven = serving
            assert serving == proven
        for action in actions:
            if isinstance(action, PutBack):
                serving = proven = action.fallback
                older = None
        said = {a.state for a in actions if isinstance(a, Report)}
        if isinstance(before, OnProbation) and ExecState.SUCCEEDED in said:
            proven, older = before.slot, before.fallback
        keeps_the_proven(state, proven, serving, older)


def keeps_the_proven(state, proven, serving, older):
    if isinstance(state, Reverting) and state.after_success:
        assert (state.slot, state.fallback) == (proven, older)
    elif isinstance(state, Activating | OnProbation | Reverting):
        assert state.fallback == proven
    else:
        assert serving == proven


@given(st.integers(0, 50), st.integers(0, 50), times)
def test_probation_is_judged_by_its_rules(n, errors, now):
    errors = min(n, errors)
    state = OnProbation(offer=offer_of(1), slot=slot_of(1), fallback=slot_of(2))
    seen = Figures(n=n, errors=errors)
    new, _ = step(state, Observed(key=state.offer.key, figures=seen), now)
    if errors > 0.1 * max(n, 10):
        assert isinstance(new, Reverting)
        assert new.cause is DeviceCause.PROBATION_FAILED
    elif n >= 10:
        assert isinstance(new, Ended)
        assert new.outcome is ExecState.SUCCEEDED
    else:
        assert isinstance(new, OnProbation)


@given(times)
def test_a_boot_loop_ends_after_the_allowed_starts(now):
    state = OnProbation(offer=offer_of(1), slot=slot_of(1), fallback=slot_of(2))
    for _ in range(2):
        state, _ = step(state, Booted(), now)
        assert isinstance(state, OnProbation)
    state, actions = step(state, Booted(), now)
    assert isinstance(state, Reverting)
    assert state.cause is DeviceCause.BOOT_LOOP
    assert actions == (Begin(),)


@given(states.filter(lambda s: isinstance(s, EARLY)), times)
def test_a_newer_offer_supersedes_an_early_one(state, now):
    newer = offer_of(9)
    new, actions = step(state, Offered(offer=newer, active=None), now)
    assert new == Accepted(offer=newer)
    first, second = (a for a in actions if isinstance(a, Report))
    assert (first.key, first.cause) == (state.offer.key, DeviceCause.SUPERSEDED)
    assert (second.key, second.state) == (newer.key, ExecState.ACCEPTED)


@given(times)
def test_a_newer_offer_on_probation_goes_back_first_and_then_on(now):
    state = OnProbation(offer=offer_of(2), slot=slot_of(2), fallback=slot_of(1))
    state, _ = step(state, Offered(offer=offer_of(3), active=slot_of(2)), now)
    assert isinstance(state, Reverting)
    state, actions = step(state, Restored(key=state.offer.key, serving=state.fallback), now)
    assert state == Accepted(offer=offer_of(3))
    said = [(a.key, a.state) for a in actions if isinstance(a, Report)]
    assert said == [
        (offer_of(2).key, ExecState.ROLLED_BACK),
        (offer_of(3).key, ExecState.ACCEPTED),
    ]


@given(times)
def test_being_sent_back_to_the_proven_model_on_probation_succeeds_at_once(now):
    state = OnProbation(offer=offer_of(2), slot=slot_of(2), fallback=slot_of(1))
    assignment = offer_of(1).assignment.model_copy(update={"execution": execution(7)})
    back = Offer(assignment=assignment, sequence=7, length=10)
    state, _ = step(state, Offered(offer=back, active=slot_of(2)), now)
    state, _ = step(state, Restored(key=state.offer.key, serving=state.fallback), now)
    assert state == Ended(offer=back, outcome=ExecState.SUCCEEDED)


WAITING = states.filter(lambda s: isinstance(s, EARLY))


@given(WAITING, st.lists(st.one_of(events, st.builds(Booted)), max_size=8), times)
def test_what_was_said_of_its_time_is_kept_until_the_swap(state, happened, now):
    """By restarts too: nothing but an operator's own word changes it."""
    for event in happened:
        if isinstance(event, PutOffWanted | ProceedWanted):
            continue
        old, (state, _) = state, step(state, event, now)
        if not isinstance(state, EARLY) or key_of(state) != key_of(old):
            return
        kept = old.timing.accepted_at or (event.at if isinstance(event, Dated) else None)
        if isinstance(event, Dated) and event.key != key_of(old):
            kept = old.timing.accepted_at
        assert state.timing == replace(old.timing, accepted_at=kept)


@given(WAITING, holds, times)
def test_a_wait_is_told_with_its_end_and_again_after_a_start(state, hold, now):
    held, actions = step(state, Held(key=state.offer.key, hold=hold), now)
    if isinstance(state, Verified):
        assert (held, actions) == (state, ())  # it is looked at once it is staged
        return
    before_download = isinstance(state, Accepted | Deferred | Downloading)
    assert isinstance(held, Deferred if before_download else Staged)
    assert hold_of(held) == hold
    said = ExecState.DEFERRED if before_download else ExecState.STAGED
    if hold_of(state) != hold:
        (report,) = actions
        assert (report.state, report.waits_until) == (said, hold.until)
        assert report.detail
    again, actions = step(held, Booted(), now)
    assert again == held
    report, begin = actions
    assert begin == Begin()
    assert (report.state, report.waits_until) == (said, hold.until)


@given(WAITING, times)
def test_a_word_to_proceed_ends_every_wait_and_is_remembered(state, now):
    told, actions = step(state, ProceedWanted(key=state.offer.key), now)
    assert told.timing.proceed
    if state.timing.proceed:
        assert (told, actions) == (state, ())
        return
    assert told.timing.put_off_until is None
    assert hold_of(told) is None
    assert isinstance(told, Accepted if isinstance(state, Deferred) else type(state))
    if hold_of(state) is not None:
        assert Begin() in actions


@given(states, keys, times)
def test_a_word_to_proceed_with_something_else_does_nothing(state, key, now):
    if key == key_of(state):
        return
    assert step(state, ProceedWanted(key=key), now) == (state, ())


@given(states.filter(lambda s: isinstance(s, LATE)), holds, moments, times)
def test_from_the_swap_on_nothing_waits(state, hold, until, now):
    key = state.offer.key
    waits = (Held(key=key, hold=hold), Released(key=key), PutOffWanted(key=key, until=until))
    for event in (*waits, ProceedWanted(key=key)):
        assert step(state, event, now) == (state, ())
