from __future__ import annotations

import math
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from schemas.jobfile import StopRules
from workers.agent.follow import STOP_GRACE, Do, DriverState, Followed, Seen, beaten, step
from workers.optimization.measuring.evaluate import wilson
from workers.training.stop import (
    History,
    Verdict,
    checkpoint_due,
    history_of,
    judge,
    observe,
    seconds_left,
    target_missed,
)

values = st.floats(0, 1)
rules = st.builds(
    StopRules,
    target=st.none() | st.floats(0.01, 1),
    patience=st.integers(1, 6),
    min_delta=st.floats(0, 0.2),
    max_epochs=st.integers(1, 30),
    require_target=st.booleans(),
)
rules_with_more = st.builds(
    StopRules,
    target=st.none() | st.floats(0.5, 1),
    patience=st.just(1000),
    overfit_gap=st.none() | st.floats(0.01, 0.9),
    overfit_epochs=st.integers(1, 4),
    max_hours=st.none() | st.floats(0.001, 3),
    max_epochs=st.integers(1, 30),
    require_target=st.just(value=False),
)
epochs = st.lists(
    st.fixed_dictionaries(
        {"accuracy": values, "train_accuracy": values, "epoch_seconds": st.floats(0, 2000)}
    ),
    max_size=30,
)


def epoch(value: float, loss: float = 0.1, validation_loss: float = 0.1) -> dict[str, float]:
    return {"accuracy": value, "loss": loss, "validation_loss": validation_loss}


def play(stop: StopRules, series: list[float]) -> tuple[History, Verdict, int]:
    history, verdict, used = History(), Verdict.CONTINUE, 0
    for value in series:
        verdict = judge(history, stop)
        if verdict is not Verdict.CONTINUE:
            break
        history, used = observe(history, stop, epoch(value)), used + 1
    return history, judge(history, stop), used


@given(rules, st.lists(values, max_size=40))
def test_best_and_epochs_are_those_of_what_was_seen(stop, series) -> None:
    history, _, used = play(stop, series)
    assert history.epochs == used <= stop.max_epochs
    assert history.best == max(series[:used], default=None)
    if used:
        assert series[history.best_epoch - 1] == history.best, "the first epoch that reached it"
        assert series[: history.best_epoch - 1].count(history.best) == 0


@given(rules, st.lists(values, min_size=31, max_size=40))
def test_training_always_ends(stop, series) -> None:
    history, verdict, _ = play(stop, series)
    assert verdict is not Verdict.CONTINUE
    if verdict is Verdict.PATIENCE:
        assert history.stale >= stop.patience
    if verdict is Verdict.MAX_EPOCHS:
        assert history.epochs == stop.max_epochs


@given(rules, st.lists(values, max_size=40))
def test_it_stops_at_the_first_epoch_that_reaches_the_target(stop, series) -> None:
    history, verdict, used = play(stop, series)
    reached = stop.target is not None and any(v >= stop.target for v in series[:used])
    assert (verdict is Verdict.TARGET) == reached
    if reached:
        assert all(v < stop.target for v in series[: used - 1])
        assert not target_missed(history, stop)


@given(rules, st.lists(values, max_size=40))
def test_patience_counts_epochs_without_a_real_improvement(stop, series) -> None:
    history, _, used = play(stop, series)
    reference, stale = None, 0
    for value in series[:used]:
        if reference is None or value > reference + stop.min_delta:
            reference, stale = value, 0
        else:
            stale += 1
    assert (history.reference, history.stale) == (reference, stale)
    assert stale <= stop.patience


@given(rules, st.lists(values, max_size=5), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_is_not_finite_outweighs_everything(stop, series, bad) -> None:
    history, _, _ = play(stop, series)
    for broken in (
        observe(history, stop, epoch(1.0, loss=bad)),
        observe(history, stop, epoch(1.0, validation_loss=bad)),
        observe(history, stop, epoch(bad)),
    ):
        assert judge(broken, stop) is Verdict.DIVERGED
        assert broken.best == history.best
        assert judge(observe(broken, stop, epoch(1.0)), stop) is Verdict.DIVERGED


def walk(stop: StopRules, series: list[dict[str, float]]) -> list[History]:
    """The histories, from the empty one to where the rules end it."""
    found = [History()]
    for metrics in series:
        if judge(found[-1], stop) is not Verdict.CONTINUE:
            break
        found.append(observe(found[-1], stop, metrics))
    return found


@given(rules_with_more, epochs)
def test_the_gap_counts_only_in_a_row_and_time_adds_up(stop, series) -> None:
    found = walk(stop, series)
    used = series[: len(found) - 1]
    wide = [
        stop.overfit_gap is not None and m["train_accuracy"] - m["accuracy"] > stop.overfit_gap
        for m in used
    ]
    run = len(wide) - 1 - max((i for i, w in enumerate(wide) if not w), default=-1)
    assert found[-1].gap_epochs == run
    assert math.isclose(found[-1].seconds, sum(m["epoch_seconds"] for m in used), abs_tol=1e-6)
    verdict = judge(found[-1], stop)
    if verdict is Verdict.OVERFIT:
        assert run == stop.overfit_epochs, "not an epoch later"
    if verdict is Verdict.TIME:
        assert found[-1].seconds >= stop.max_hours * 3600
        assert all(h.seconds < stop.max_hours * 3600 for h in found[:-1])
        assert seconds_left(found[-1], stop) <= 0
    if verdict is Verdict.CONTINUE:
        assert stop.overfit_gap is None or run < stop.overfit_epochs
        assert seconds_left(found[-1], stop) > 0


@given(rules_with_more, epochs, st.integers(1, 7))
def test_the_best_and_the_last_epoch_always_leave_a_checkpoint(stop, series, every) -> None:
    found = walk(stop, series)
    due = [checkpoint_due(h, stop, every) for h in found[1:]]
    for history, taken in zip(found[1:], due, strict=True):
        ended = judge(history, stop) is not Verdict.CONTINUE
        best = history.best_epoch == history.epochs
        assert taken == (best or ended or history.epochs % every == 0)
    if judge(found[-1], stop) is not Verdict.CONTINUE:
        assert due[-1]
        assert due[found[-1].best_epoch - 1]


@given(rules_with_more, epochs)
def test_a_stored_history_goes_on_as_if_unbroken(stop, series) -> None:
    found = walk(stop, series)
    for history in found:
        stored = {**asdict(history), "of_a_newer_version": 1}
        assert history_of(stored) == history
    old = {k: v for k, v in asdict(found[-1]).items() if k not in {"gap_epochs", "seconds"}}
    assert history_of(old).epochs == found[-1].epochs
    assert history_of(old).seconds == 0


@given(st.integers(1, 5000), st.data())
def test_wilson_holds_the_share_and_narrows_with_n(n, data) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    wider = wilson(correct, n)
    narrower = wilson(correct * 4, n * 4)
    assert narrower[1] - narrower[0] < wider[1] - wider[0]


def test_wilson_matches_published_figures() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for correct, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = wilson(correct, n)
        assert abs(found[0] - low) < 5e-5
        assert abs(found[1] - high) < 5e-5


looks = st.builds(
    Seen,
    state=st.sampled_from(DriverState),
    exit_code=st.none() | st.sampled_from([0, 1, 7, 130, -9]),
)


@given(st.lists(st.tuples(looks, st.floats(0.1, 4), st.booleans()), max_size=30))
def test_a_followed_job_is_killed_before_it_is_forgotten_and_spoken_for_once(events) -> None:
    job, now, spoken = Followed(lease_seconds=9.0), 0.0, 0
    for seen, passed, cancel in events:
        now += passed
        job, actions = step(job, seen, now)
        if Do.BEAT in actions:
            from schemas.job import HeartbeatReply

            job = beaten(job, HeartbeatReply(cancel=cancel, lease_seconds=9.0))
        spoken += actions.count(Do.SAY)
        if Do.FORGET in actions:
            assert actions.index(Do.KILL) < actions.index(Do.FORGET)
            assert seen.state is not DriverState.ACTIVE
            # Whatever its exit code says: the API ignores it where the driver was heard.
            assert spoken == 1
            return
    assert spoken == 0


def test_a_cancel_stops_then_kills_within_ten_seconds() -> None:
    from schemas.job import HeartbeatReply

    job, done = Followed(lease_seconds=30.0), []
    now = 0.0
    while now < 10:
        job, actions = step(job, Seen(DriverState.ACTIVE), now)
        if Do.BEAT in actions:
            job = beaten(job, HeartbeatReply(cancel=True, lease_seconds=30.0))
        done += [(action, now) for action in actions if action is not Do.BEAT]
        now += 0.5
    assert [action for action, _ in done][:2] == [Do.STOP, Do.KILL]
    assert done[1][1] - done[0][1] == STOP_GRACE
    assert done[1][1] <= 9
