"""The queue: a permutation, urgent first, fair between projects, and nobody starves."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.queue import (
    AGING,
    SEEN,
    Failure,
    Offer,
    Running,
    Waiting,
    effective_priority,
    fits,
    notice,
    order,
)
from schemas.job import Capacity, JobCause
from schemas.jobfile import Resources

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PROJECTS = st.sampled_from(["a", "b", "c"])

jobs = st.lists(
    st.tuples(PROJECTS, st.integers(-100, 100), st.integers(0, 300 * 60)), max_size=30
).map(
    lambda drawn: [
        Waiting(f"job_{i:02}", project, priority, NOW - timedelta(minutes=minutes))
        for i, (project, priority, minutes) in enumerate(drawn)
    ]
)
holders = st.lists(PROJECTS, max_size=6).map(
    lambda names: [Running(f"run_{i}", name) for i, name in enumerate(names)]
)
uses = st.dictionaries(PROJECTS, st.floats(0, 1e9))


@given(jobs, holders, uses, st.randoms())
def test_the_order_is_a_permutation_whatever_order_the_jobs_come_in(waiting, running, recent, rng):
    placed = order(waiting, running, recent, NOW)
    assert sorted(placed) == sorted(job.id for job in waiting)
    rng.shuffle(waiting)
    rng.shuffle(running)
    assert order(waiting, running, recent, NOW) == placed


@given(jobs, holders, uses)
def test_a_higher_priority_goes_first_counting_the_hours_waited(waiting, running, recent):
    by_id = {job.id: effective_priority(job, NOW) for job in waiting}
    levels = [by_id[name] for name in order(waiting, running, recent, NOW)]
    assert levels == sorted(levels, reverse=True)


@given(jobs, holders, uses)
def test_claiming_one_after_the_other_gives_the_order_that_was_shown(waiting, running, recent):
    shown = order(waiting, running, recent, NOW)
    left, held, claimed = {job.id: job for job in waiting}, list(running), []
    while left:
        first = order(list(left.values()), held, recent, NOW)[0]
        claimed.append(first)
        held.append(Running(first, left.pop(first).project))
    assert tuple(claimed) == shown


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1e6), st.floats(0, 1e6))
def test_two_projects_take_turns_however_much_either_has_queued(of_a, of_b, used_a, used_b):
    waiting = [
        Waiting(f"{project}{i}", project, 0, NOW - timedelta(seconds=i))
        for project, count in (("a", of_a), ("b", of_b))
        for i in range(count)
    ]
    placed = order(waiting, [], {"a": used_a, "b": used_b}, NOW)
    for end in range(1, 2 * min(of_a, of_b) + 1):
        counts = Counter(name[0] for name in placed[:end])
        assert abs(counts["a"] - counts["b"]) <= 1
    if used_a != used_b:
        assert placed[0][0] == ("a" if used_a < used_b else "b")


@given(st.integers(-100, 100), st.integers(-100, 100), holders, uses)
def test_no_job_starves_behind_a_stream_of_urgent_ones(low, high, running, recent):
    """At every hour a new job of a higher priority comes, and one job is taken."""
    patient = Waiting("patient", "a", low, NOW)
    for hour in range(max(0, high - low) + 2):
        now = NOW + AGING * hour
        rival = Waiting(f"rival_{hour}", "b", high, now)
        if order([patient, rival], running, recent, now)[0] == patient.id:
            break
    else:
        pytest.fail("it was never taken")
    assert hour <= max(0, high - low) + 1


def test_the_project_with_fewest_jobs_running_goes_first_then_the_one_that_used_least():
    waiting = [Waiting("a1", "a", 0, NOW - timedelta(minutes=9)), Waiting("b1", "b", 0, NOW)]
    assert order(waiting, [], {}, NOW) == ("a1", "b1")
    assert order(waiting, [Running("x", "a")], {"b": 99.0}, NOW) == ("b1", "a1")
    assert order(waiting, [], {"a": 1.0}, NOW) == ("b1", "a1")


# -- fitting, and saying why not


resources = st.builds(
    lambda low, more, cpus, gpus, memory: Resources.model_validate(
        {
            "workers": f"{low}..{low + more}",
            "cpus_per_worker": cpus,
            "gpus_per_worker": gpus,
            "memory_gb": memory,
        }
    ),
    st.integers(1, 16),
    st.integers(0, 4),
    st.integers(1, 16),
    st.integers(0, 4),
    st.none() | st.integers(1, 64),
)


@given(resources)
def test_what_has_exactly_what_the_fewest_workers_need_fits_and_any_less_does_not(asked):
    n = asked.workers.min
    memory = n * (asked.memory_gb or 1.0)
    exact = Capacity(
        cpus=n * asked.cpus_per_worker, gpus=n * asked.gpus_per_worker, memory_gb=memory
    )
    assert fits(asked, exact) is None
    assert fits(asked, exact.model_copy(update={"cpus": exact.cpus - 1}))
    if asked.gpus_per_worker:
        assert fits(asked, exact.model_copy(update={"gpus": exact.gpus - 1}))
    if asked.memory_gb is not None:
        assert fits(asked, exact.model_copy(update={"memory_gb": memory / 2}))
        assert fits(asked, exact.model_copy(update={"memory_gb": 0.0})) is None


@given(resources)
def test_a_cluster_that_grows_or_cannot_tell_holds_anything(asked):
    assert fits(asked, None) is None
    assert fits(asked, Capacity(cpus=0, grows=True)) is None


def asked(**more):
    return Resources.model_validate({"workers": 2, "gpus_per_worker": 1, **more})


def test_what_is_asked_for_and_what_there_is_are_said():
    small = Capacity(cpus=4, memory_gb=8)
    assert fits(asked(), small) == (
        "it asks for 2 workers of 1 CPU, 1 GPU each; the cluster has 4 CPUs, no GPU"
    )
    told = fits(asked(workers="4..8", gpus_per_worker=0, memory_gb=3), small)
    assert (
        told == "it asks for at least 4 workers of 1 CPU, 3 GiB each; the cluster has 4 CPUs, 8 GiB"
    )


def seen(name, seconds_ago, capacity=None):
    return Offer(name, capacity, NOW - timedelta(seconds=seconds_ago))


def test_a_queue_without_agents_says_how_to_start_one():
    none = notice(asked(), None, [], NOW)
    assert none == (
        "no agent has asked for work yet; that of `argosy up` takes some seconds to start, "
        "elsewhere start one with `argosy-worker agent`"
    )
    gone = notice(asked(), None, [seen("a", 7300), seen("b", 185)], NOW)
    assert gone.startswith("no agent has asked for work for 3 minutes (the last was b); ")
    assert notice(asked(), None, [seen("a", SEEN.total_seconds())], NOW) is None


def test_a_job_that_no_cluster_can_hold_names_the_largest():
    small, large = Capacity(cpus=2), Capacity(cpus=8)
    told = notice(asked(), None, [seen("a", 1, small), seen("b", 1, large)], NOW)
    assert told == (
        "no cluster can hold it: it asks for 2 workers of 1 CPU, 1 GPU each; "
        "the largest of 2 clusters, b, has 8 CPUs, no GPU"
    )
    with_gpus = Capacity(cpus=2, gpus=2)
    assert notice(asked(), None, [seen("a", 1, small), seen("c", 1, with_gpus)], NOW) is None
    late = [seen("a", 1, small), seen("c", 61, with_gpus)]
    assert "the only cluster, a, has 2 CPUs, no GPU" in notice(asked(), None, late, NOW)


def test_a_job_that_failed_says_why_and_when_it_starts_again():
    failure = Failure(
        2, JobCause.DRIVER_DIED, "the driver was killed\nTrace…", NOW + timedelta(seconds=8)
    )
    assert notice(asked(), failure, [], NOW) == (
        "attempt 2 failed (driver_died: the driver was killed); it starts again at 12:00:08 UTC"
    )
    assert "no agent" in notice(asked(), failure, [], NOW + timedelta(seconds=8))
