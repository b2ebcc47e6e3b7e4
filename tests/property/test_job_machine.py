"""The job's machine: total, terminal absorbs, repeats do nothing, attempts are bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.job import (
    ACTIVE,
    CancelRequested,
    Claimed,
    DriverEnded,
    Event,
    Job,
    LeaseChecked,
    Progressed,
    Refuse,
    Renewed,
    step,
)
from schemas.job import TERMINAL_JOB_STATES, JobCause, JobState

START = datetime(2026, 1, 1, tzinfo=UTC)
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
        cause=st.none() | st.sampled_from(JobCause),
    ),
    st.builds(
        DriverEnded, attempt=ATTEMPTS, cancelled=st.booleans(), cause=st.sampled_from(JobCause)
    ),
    st.just(LeaseChecked()),
    st.just(CancelRequested()),
)
timeline = st.lists(st.tuples(events, st.integers(0, 40)), max_size=40)


def run(history: list[tuple[Event, int]]) -> list[tuple[Job, Event, Job, datetime]]:
    job, now, seen = Job(), START, []
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
