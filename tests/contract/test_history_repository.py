"""What the repositories keep of a job's course, whatever the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.domain.logs import LogQuery, LogTotals
from orchestrator.services.records import JobRecord
from schemas.dataset import Baseline, DatasetProfile, SplitProfile
from schemas.ids import new_id
from schemas.job import JobState, LogLine, MetricPoint
from schemas.jobfile import JobSpec

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPEC = JobSpec.model_validate({"name": "digits", "task": "m:T", "stop": {"target": 0.9}})


@pytest.fixture
def job(uow):
    """The id of a job that is there."""
    made = JobRecord(
        id=new_id("job"),
        name="digits",
        state=JobState.RUNNING,
        spec=SPEC,
        max_attempts=3,
        created_at=NOW,
    )
    with uow() as tx:
        tx.jobs.add(made)
    return made.id


def point(epoch, value=0.0, trial=0):
    return MetricPoint(epoch=epoch, trial=trial, at=NOW, values={"loss": value})


def line(text, level="info"):
    return LogLine(at=NOW, level=level, text=text)


def texts(found):
    return [entry.text for _, entry in found]


def test_metrics_of_a_repeated_epoch_replace_the_old_ones(uow, job):
    with uow() as tx:
        tx.job_history.put_metrics(job, [point(0), point(1), point(1, 5, trial=2)])
    with uow() as tx:
        tx.job_history.put_metrics(job, [point(1, 9)])
    with uow.read() as tx:
        found = tx.job_history.metrics(job, -1, 10)
        assert found == [point(0), point(1, 9), point(1, 5, trial=2)]
        assert tx.job_history.metrics(job, 0, 10, trial=0) == [point(1, 9)]


def test_a_page_of_all_trials_never_ends_within_an_epoch(uow, job):
    with uow() as tx:
        points = [point(e, trial=t) for e in (1, 2, 3) for t in (1, 2, 3)]
        tx.job_history.put_metrics(job, points)
        first = tx.job_history.metrics(job, 0, 4)
        rest = tx.job_history.metrics(job, first[-1].epoch, 4)
    assert [*first, *rest] == points
    assert len(first) == 6


def test_points_of_one_trial_are_counted_and_dropped_without_the_others(uow, job):
    with uow() as tx:
        history = tx.job_history
        history.put_metrics(job, [point(e, trial=t) for t in (0, 1) for e in range(1200)])
        assert history.has_more_metrics(job, 1, 1199)
        assert not history.has_more_metrics(job, 1, 1200)
        history.drop_metrics(job, 1, list(range(1100)))
        assert [p.epoch for p in history.series(job, 1)] == list(range(1100, 1200))
        assert [p.epoch for p in history.series(job, 0)] == list(range(1200))
        assert [p.epoch for p in history.series(job, 0, after_epoch=1197)] == [1198, 1199]
        assert history.trials(job) == [0, 1]


def test_logs_go_on_after_the_last_line_seen(uow, job):
    with uow() as tx:
        history = tx.job_history
        history.add_logs(job, [line(f"line {i}") for i in range(5)])
        first = history.logs(job, LogQuery(limit=3))
        rest = history.logs(job, LogQuery(limit=3, after=first[-1][0]))
        last = history.logs(job, LogQuery(limit=2, tail=True))
        assert history.last_log(job) == rest[-1][0]
    assert texts([*first, *rest]) == [f"line {i}" for i in range(5)]
    assert texts(last) == ["line 3", "line 4"]


def test_a_search_takes_its_text_as_it_is_and_not_as_a_pattern(uow, job):
    lines = ["100% done", "100 done", "a_b", "axb", "C:\\tmp", "a/b", "CUDA Error", "it's; --"]
    with uow() as tx:
        tx.job_history.add_logs(job, [line(text) for text in lines])

    def search(text):
        with uow.read() as tx:
            return texts(tx.job_history.logs(job, LogQuery(search=text)))

    assert search("0%") == ["100% done"]
    assert search("A_B") == ["a_b"]
    assert search("\\") == ["C:\\tmp"]
    assert search("a/b") == ["a/b"]
    assert search("cuda error") == ["CUDA Error"]
    assert search("'s; --") == ["it's; --"]
    assert search("%' OR 1=1 --") == []


def test_a_level_asks_for_it_and_all_above(uow, job):
    levels = ["debug", "info", "warning", "error"]
    with uow() as tx:
        tx.job_history.add_logs(job, [line(level, level) for level in levels])
        for i, level in enumerate(levels):
            found = tx.job_history.logs(job, LogQuery(level=level, search="R" if i > 1 else None))
            assert texts(found) == levels[i:]


def test_cut_logs_leave_a_line_that_tells_of_it(uow, job):
    with uow() as tx:
        history = tx.job_history
        history.add_logs(job, [line(f"ü{i}") for i in range(5)])
        sizes = history.log_sizes(job, 0, 3)
        assert [size for _, size in sizes] == [3, 3, 3], "bytes, not characters"
        assert len(history.log_sizes(job, sizes[-1][0], 3)) == 2
        history.cut_logs(job, sizes[-1][0], "3 are gone")
    with uow.read() as tx:
        found = tx.job_history.logs(job, LogQuery())
    assert texts(found) == ["3 are gone", "ü3", "ü4"]
    assert (found[0][0], found[0][1].level) == (sizes[-1][0], "warning")


def test_the_totals_of_a_log_are_kept(uow, job):
    with uow() as tx:
        assert tx.job_history.log_totals(job) is None
        tx.job_history.save_log_totals(job, LogTotals(3, 40, 1))
    with uow() as tx:
        assert tx.job_history.log_totals(job) == LogTotals(3, 40, 1)
        tx.job_history.save_log_totals(job, LogTotals(2, 5 * 2**31, 1))
    with uow.read() as tx:
        assert tx.job_history.log_totals(job) == LogTotals(2, 5 * 2**31, 1)


def test_a_profile_replaces_the_one_before(uow, job):
    profile = DatasetProfile(
        sha256="a" * 64,
        splits=(SplitProfile(split="train", n=3, classes={0: 1, 7: 2}),),
        baseline=Baseline(n=3, classes={0: 1 / 3, 7: 2 / 3}),
        problems=("class 0 is rare",),
    )
    with uow() as tx:
        assert tx.job_history.profile(job) is None
        tx.job_history.put_profile(job, profile.model_copy(update={"problems": ()}))
        tx.job_history.put_profile(job, profile)
    with uow.read() as tx:
        assert tx.job_history.profile(job) == profile


def test_one_live_event_per_job_is_kept_and_readers_go_on(uow):
    with uow() as tx:
        for i in range(3):
            tx.events.replace_live("job_1", {"done": i}, NOW)
            tx.events.replace_live("job_2", {"done": i}, NOW)
        seen = tx.events.after(0, "job_1", 10)
    assert [(e.kind, e.data) for e in seen] == [("live", {"done": 2})]
    with uow() as tx:
        tx.events.replace_live("job_1", {"done": 3}, NOW)
        later = tx.events.after(seen[-1].id, "job_1", 10)
        assert [e.data for e in later] == [{"done": 3}]
        assert len(tx.events.after(0, None, 10)) == 2


def test_a_number_of_an_event_is_never_given_twice(uow):
    with uow() as tx:
        tx.events.add("job", "job_1", {}, NOW)
        tx.events.replace_live("job_1", {}, NOW)
        last = tx.events.last_id()
    with uow() as tx:
        tx.events.remove_live("job_1")
        tx.events.prune(NOW + timedelta(days=1), 0, 10)
    with uow() as tx:
        assert tx.events.last_id() == 0
        tx.events.add("job", "job_1", {"next": True}, NOW)
        assert [e.data for e in tx.events.after(last, None, 10)] == [{"next": True}]


def test_events_go_by_age_and_by_number_the_oldest_first(uow):
    with uow() as tx:
        for i in range(10):
            tx.events.add("job", "job_1", {"i": i}, NOW + timedelta(days=i))
        ids = [e.id for e in tx.events.after(0, None, 20)]
        assert tx.events.surplus(10) == 0
        assert tx.events.surplus(7) == ids[2]
        assert tx.events.prune(NOW + timedelta(days=1, hours=1), 0, 100) == 2
        assert tx.events.prune(NOW, ids[5], 3) == 3
        assert tx.events.prune(NOW, ids[5], 3) == 1
        assert tx.events.prune(NOW, ids[5], 3) == 0
        assert [e.data["i"] for e in tx.events.after(0, None, 20)] == [6, 7, 8, 9]
