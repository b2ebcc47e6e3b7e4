from __future__ import annotations

from collections.abc import Iterator

import pytest

from schemas.job import JobCause
from workers.errors import JobFailed, UsageError
from workers.optimization.executor import LocalExecutor, TrialFailed, beat, beating


def double(value: int) -> int:
    if value == 2:
        msg = "not two"
        raise ValueError(msg)
    if value == 3:
        raise JobFailed(JobCause.DIVERGED, "it\ndiverged")
    if value == 4:
        raise SystemExit(1)
    if value == 5:
        msg = "no"
        raise UsageError(msg, "do something else")
    return 2 * value


def test_each_index_comes_once_and_failures_are_results() -> None:
    found = dict(LocalExecutor().map(double, [1, 2, 3, 4, 5, 6]))

    assert found[0] == 2
    assert found[5] == 12
    assert isinstance(found[1], TrialFailed)
    assert found[1].cause is JobCause.USER_CODE
    assert "not two" in found[1].detail
    assert found[2] == TrialFailed(JobCause.DIVERGED, "it\ndiverged")
    assert found[2].reason == "it diverged"
    assert isinstance(found[3], TrialFailed)
    assert found[4] == TrialFailed(JobCause.USER_CODE, "no; do something else")


def test_nothing_runs_before_it_is_asked_for() -> None:
    ran: list[int] = []
    calls: Iterator[tuple[int, object]] = LocalExecutor().map(ran.append, [1, 2, 3])

    next(calls)

    assert ran == [1]


def test_an_interrupt_passes() -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(LocalExecutor().map(stop, [1]))


def test_what_the_machinery_did_is_not_to_be_remembered() -> None:
    assert TrialFailed(JobCause.DRIVER_DIED, "x").transient
    assert not TrialFailed(JobCause.DIVERGED, "x").transient


def test_beats_reach_those_who_watch_and_no_longer() -> None:
    beats: list[int] = []
    with beating(lambda: beats.append(1)):
        beat()
    beat()

    assert beats == [1]
