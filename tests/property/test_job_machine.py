"""The job's machine: total, terminal absorbs, repeats do nothing, attempts are bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.job import (
    ACTIVE,
    Announce,
    CancelRequested,
    Claimed,
    DriverEnded,
    Event,
    Job,
    LeaseChecked,
    Progressed,
    Refuse,
    Renewed,
    backoff,
    step,
)
from schemas.job import TERMINAL_JOB_STATES, JobCause, JobState

START = datetime(2026, 1, 1, tzinfo=UTC)
FRESH = Job()
ATTEMPTS = st.integers(1, 4)

events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Claimed, seconds=st.just(30.0)),
    st.builds(Renewed, attempt=ATTEMPTS, seconds=st.just(30.0)),
    st.builds(
        Progressed,
        attempt=ATTEMPTS,
        seq=st.integers(0, 20),
        seconds=st.just(30.0),
        state=st.none() | st.sampled_from(JobState),
        epoch=st.none() | st.integers(0, 5),
        notice=st.none() | st.sampled_from(["", "waits for a GPU"]),
        cause=st.none() | st.sampled_from(JobCause),
    ),
    st.builds(
        DriverEnded, attempt=ATTEMPTS, cancelled=st.booleans(), cause=st.sampled_from(JobCause)
    ),
    st.just(LeaseChecked()),
    st.just(CancelRequested()),
)
timeline = st.lists(st.tuples(events, st.integers(0, 40)), max_size=40)


def run(
    history: list[tuple[Event, int]], job: Job = FRESH
) -> list[tuple[Job, Event, Job, datetime]]:
    now, seen = START, []
    for event, seconds in history:
        now += timedelta(seconds=seconds)
        after, _ = step(job, event, now)
        seen.append((job, event, after, now))
        job = after
    return seen


@given(timeline)
def test_every_event_in_every_state_gives_a_consistent_job(history):
    for _, _, after, _ in run(history):
        assert (after.lease_until is not None) == (after.state in ACTIVE)
        assert after.attempt <= after.max_attempts
        assert after.not_before is None or after.state is JobState.QUEUED
        assert after.notice is None or after.state in ACTIVE


@given(timeline, events)
def test_a_terminal_job_never_changes(history, event):
    for _, _, after, now in run(history):
        if after.state in TERMINAL_JOB_STATES:
            assert step(after, event, now)[0] == after


@given(timeline)
def test_the_same_progress_twice_changes_nothing_the_second_time(history):
    for _, event, after, now in run(history):
        if isinstance(event, Progressed):
            again, actions = step(after, event, now)
            assert again == after
            assert not actions or isinstance(actions[0], Refuse)


@given(timeline)
def test_a_refused_event_changes_nothing(history):
    for before, event, _, now in run(history):
        after, actions = step(before, event, now)
        if any(isinstance(action, Refuse) for action in actions):
            assert after == before


@given(timeline)
def test_only_the_holder_of_the_lease_moves_a_job(history):
    for before, event, after, _ in run(history):
        if (
            isinstance(event, Renewed | Progressed | DriverEnded)
            and event.attempt != before.attempt
        ):
            assert after == before


def test_a_lost_driver_is_retried_until_the_attempts_are_spent():
    job, now = Job(max_attempts=2), START
    for attempt in (1, 2):
        now = job.not_before or now
        job, _ = step(job, Claimed(30), now)
        job, _ = step(job, DriverEnded(attempt, cancelled=False), now)
    assert job.state is JobState.FAILED
    assert job.cause is JobCause.DRIVER_DIED


def test_a_users_mistake_is_not_retried():
    job, _ = step(Job(), Claimed(30), START)
    ended = DriverEnded(1, cancelled=False, cause=JobCause.USER_CODE)
    assert step(job, ended, START)[0].state is JobState.FAILED


def test_an_expired_lease_queues_the_job_again_and_its_late_driver_is_refused():
    job, _ = step(Job(), Claimed(30), START)
    late = START + timedelta(seconds=31)
    job, _ = step(job, LeaseChecked(), late)
    assert job.state is JobState.QUEUED
    same, actions = step(job, Progressed(1, 5, 30, epoch=3), late)
    assert same == job
    assert isinstance(actions[0], Refuse)


def test_cancelling_waits_for_the_driver_and_then_never_retries():
    job, _ = step(Job(), Claimed(30), START)
    job, _ = step(job, CancelRequested(), START)
    assert job.state is JobState.RUNNING
    assert job.cancel_requested
    job, _ = step(job, DriverEnded(1, cancelled=False), START)
    assert job.state is JobState.CANCELLED


@given(timeline)
def test_a_job_that_rests_is_not_claimed_before_its_time(history):
    for before, event, after, now in run(history):
        if isinstance(event, Claimed) and before.not_before is not None and now < before.not_before:
            assert after == before


@given(timeline)
def test_a_failed_attempt_rests_longer_each_time_and_never_beyond_five_minutes(history):
    for before, _, after, now in run(history, Job(max_attempts=20)):
        if after.not_before is not None and after != before:
            rest = (after.not_before - now).total_seconds()
            assert rest == min(300.0, 2.0 * 4.0 ** (before.attempt - 1))


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 2), (2, 8), (3, 32), (4, 128), (5, 300), (20, 300)]
)
def test_the_rest_between_attempts(attempt, seconds):
    assert backoff(attempt) == seconds


@given(timeline)
def test_only_batch_inference_goes_from_running_to_its_end_and_it_makes_no_model(history):
    for batch in (False, True):
        for before, _, after, _ in run(history, Job(batch=batch)):
            if after.state is JobState.SUCCEEDED and before.state is not JobState.SUCCEEDED:
                expected = JobState.RUNNING if batch else JobState.REGISTERING
                assert before.state is expected
            if batch:
                assert after.state not in {
                    JobState.EXPORTING,
                    JobState.OPTIMIZING,
                    JobState.REGISTERING,
                }


def test_batch_inference_ends_straight_from_running():
    done = Progressed(1, 0, 30, state=JobState.SUCCEEDED)
    running, _ = step(Job(batch=True), Claimed(30), START)
    assert step(running, done, START)[0].state is JobState.SUCCEEDED
    training, _ = step(Job(), Claimed(30), START)
    same, actions = step(training, done, START)
    assert same == training
    assert isinstance(actions[0], Refuse)


def test_a_job_whose_resources_never_came_is_not_retried():
    job, _ = step(Job(), Claimed(30), START)
    ended = DriverEnded(1, cancelled=False, cause=JobCause.RESOURCES, detail="asked for 8 GPUs")
    assert step(job, ended, START)[0].state is JobState.FAILED


def test_a_notice_stays_until_it_is_taken_back_and_is_told_when_it_changes():
    job, _ = step(Job(), Claimed(30), START)
    job, told = step(job, Progressed(1, 0, 30, notice="waits for a GPU"), START)
    assert (job.notice, told) == ("waits for a GPU", (Announce(),))
    job, told = step(job, Progressed(1, 1, 30), START)
    assert (job.notice, told) == ("waits for a GPU", ())
    job, told = step(job, Progressed(1, 2, 30, notice=""), START)
    assert (job.notice, told) == (None, (Announce(),))
