"""What only its newest value counts of: sent calmly, and never in the way of what matters."""

from __future__ import annotations

import queue
from datetime import UTC, datetime

import pytest

from schemas.job import (
    HeartbeatReply,
    JobCause,
    JobProgress,
    JobState,
    Live,
    MetricPoint,
    Trial,
    Usage,
)
from schemas.jobfile import JobSpec
from workers.distributed import mailbox
from workers.driver.profiling import Beating, Profiling
from workers.driver.pump import Pump
from workers.driver.reporter import CALM, Final, Reporter
from workers.driver.waiting import Offer
from workers.errors import JobFailed
from workers.memory import GIB

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = JobSpec(
    name="x",
    task="a:B",
    stop={"target": 0.9},
    resources={"workers": 4, "gpus_per_worker": 1, "wait_minutes": 1},
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Sender:
    def __init__(self) -> None:
        self.messages: list[JobProgress] = []

    def progress(self, job: str, progress: JobProgress) -> HeartbeatReply:
        assert job == "job"
        self.messages.append(progress)
        return HeartbeatReply(cancel=False, lease_seconds=1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(clock: Clock) -> Reporter:
    """One whose messages are taken by hand."""
    found = Reporter(Sender(), "job", 1, 1e9, lambda _: None, clock=clock)
    found._calm_at = clock.now  # a message has just been sent
    return found


def live(done: int) -> Live:
    return Live(at=NOW, done=done)


def test_live_figures_alone_are_sent_once_a_second_and_only_the_newest(reporter, clock) -> None:
    reporter.live(live(1))
    assert not reporter._worth_sending()
    reporter.live(live(2))
    clock.now += CALM
    assert reporter._worth_sending()
    assert reporter._take().live == live(2)
    assert not reporter._worth_sending()


def test_live_figures_do_not_delay_epochs_nor_go_along_too_often(reporter, clock) -> None:
    reporter.live(live(1))
    reporter.metrics([MetricPoint(epoch=1, at=NOW, values={})])
    message = reporter._take()
    assert [p.epoch for p in message.metrics] == [1]
    assert message.live is None
    clock.now += CALM
    assert reporter._take().live == live(1)


def test_a_notice_is_sent_at_once_and_cleared_by_an_empty_one(reporter) -> None:
    reporter.notice("waits " * 200)
    assert reporter._worth_sending()
    assert len(reporter._take().notice) == 500
    reporter.notice("")
    assert reporter._take().notice == ""
    assert reporter._take().notice is None


def test_the_last_word_carries_usage_and_trials() -> None:
    sender = Sender()
    found = Reporter(sender, "job", 1, 1e9, lambda _: None)
    found.start()
    found.usage(Usage(wall_seconds=5))
    found.trials([Trial(number=1, parameters={})])
    assert found.finish(Final(JobState.FAILED), seconds=10)
    assert any(m.usage == Usage(wall_seconds=5) for m in sender.messages)
    assert any(m.trials for m in sender.messages)
    assert sender.messages[-1].state is JobState.FAILED


class Cluster:
    def __init__(self) -> None:
        self.waits = True

    def offer(self) -> Offer:
        return Offer({"CPU": 4.0, "memory": 8 * GIB}, {"CPU": 2.0})

    def stuck(self) -> bool:
        return self.waits


class Nothing:
    def take(self, seconds: float) -> list[mailbox.Message]:
        assert seconds >= 0
        return []


def group(event: str, workers: int) -> dict:
    return {
        "event": event,
        "trial": 0,
        "workers": workers,
        "cpus": float(workers),
        "gpus": float(workers),
        "detail": "",
    }


def test_a_job_that_waits_says_for_what_and_fails_in_the_end(reporter, clock) -> None:
    failed: list[JobFailed] = []
    pump = Pump(SPEC, Nothing(), Cluster(), reporter, failed.append, clock)
    pump.tick()
    clock.now += 5
    pump.tick()
    said = "asks for 4 workers of 1 CPU and 1 GPU; the cluster has 4 CPUs and 0 GPUs"
    assert reporter._take().notice.startswith(said)
    clock.now += 55
    pump.tick()
    (failure,) = failed
    assert failure.cause is JobCause.RESOURCES
    assert failure.detail.startswith(f"it waited for 1 min: {said}")


def test_a_notice_ends_when_workers_start_and_usage_runs(reporter, clock) -> None:
    cluster = Cluster()
    pump = Pump(SPEC, Nothing(), cluster, reporter, lambda _: None, clock)
    pump.tick()
    clock.now += 5
    pump.tick()
    reporter._take()
    pump.receive("group", group("up", 4))
    clock.now += 10
    pump.tick()
    message = reporter._take()
    assert message.notice == ""
    assert (message.usage.wall_seconds, message.usage.gpu_seconds) == (10, 40)
    pump.receive("group", group("down", 4))
    clock.now += 10
    pump.settle()
    assert reporter._take().usage.wall_seconds == 10


def test_messages_become_live_figures_epochs_and_lines(reporter, clock) -> None:
    pump = Pump(SPEC, Nothing(), Cluster(), reporter, lambda _: None, clock)
    pump.receive("group", group("up", 2))
    step = {"epoch": 2, "done": 3, "total": 9, "loss": 0.5}
    pump.receive("live", {"trial": 0, "step": step})
    vitals = {"cpu_percent": 50.0, "rss_mb": 300.0, "cpu_seconds": 7.0}
    pump.receive("usage", {"worker": "0", "vitals": vitals})
    pump.receive("log", {"level": "info", "text": "[rank 1] hello"})
    pump.receive("epoch", {"epoch": 1, "trial": 0, "at": NOW.isoformat(), "values": {"loss": 1.0}})
    pump.receive("epoch", {"epoch": 2, "values": {"loss": float("nan")}})
    pump.receive("unheard", {})
    clock.now += CALM
    pump.tick()
    message = reporter._take()
    assert (message.live.epoch, message.live.done, message.live.workers) == (2, 3, 2)
    assert message.live.cpu_percent == 50
    assert message.usage.cpu_used_seconds == 7
    assert [line.text for line in message.logs] == ["[rank 1] hello"]
    assert [point.epoch for point in message.metrics] == [1], "a bad message costs itself alone"


def test_reading_a_split_is_progress() -> None:
    beats: list[int] = []
    split = Beating([(1, 2), (3, 4)], lambda: beats.append(1))
    assert len(split) == 2
    assert split[1] == (3, 4)
    assert list(split) == [(1, 2), (3, 4)]
    assert len(beats) >= 3
    assert split.count((1, 2)) == 1, "what else the split can do, it still can"


DIGITS = JobSpec(
    name="x",
    task="workers.recipes.digits:Digits",
    stop={"target": 0.9},
)


def test_the_data_is_looked_at_once_per_job(tmp_path) -> None:
    told: list[object] = []
    first = Profiling(DIGITS, tmp_path, told.append, told.append)
    first.start()
    found = first.result()
    assert told == [found]
    assert (tmp_path / "profile.json").is_file()
    again = Profiling(DIGITS, tmp_path, told.append, told.append)
    again.start()
    assert again.result() == found
    assert again._thread.ident is None, "nothing was read again"
    (tmp_path / "profile.json").write_text("{")
    third = Profiling(DIGITS, tmp_path, told.append, told.append)
    third.start()
    assert third.result().sha256 == found.sha256


def test_bad_data_ends_the_job_and_explains_what_came_of_it(tmp_path) -> None:
    failed: list[JobFailed] = []
    spec = DIGITS.model_copy(update={"task": "nowhere_at_all:Task"})
    looked = Profiling(spec, tmp_path, lambda _: None, failed.append)
    looked.start()
    with pytest.raises(JobFailed, match="nowhere_at_all"):
        looked.result()
    assert failed[0].cause is JobCause.USER_CODE


def test_batch_inference_counts_its_actors_once_there_is_room(reporter, clock) -> None:
    cluster = Cluster()
    pump = Pump(SPEC, Nothing(), cluster, reporter, lambda _: None, clock)
    pump.receive("batch", {"done": 0, "total": 10})
    assert reporter._latest["live"].workers == 0
    cluster.waits = False
    pump.receive("batch", {"done": 5, "total": 10})
    clock.now += 10
    pump.settle()
    message = reporter._take()
    assert (message.live.done, message.live.total, message.live.workers) == (5, 10, 4)
    assert message.usage.gpu_seconds == 40


LOOP = """
import threading
from workers.recipes.digits import Digits

class Endless(Digits):
    def splits(self):
        threading.Event().wait(60)
"""


def test_a_task_that_hangs_in_the_driver_is_told_with_its_line(tmp_path, monkeypatch) -> None:
    (tmp_path / "endless_splits.py").write_text(LOOP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    failed: queue.SimpleQueue[JobFailed] = queue.SimpleQueue()
    spec = DIGITS.model_copy(
        update={
            "task": "endless_splits:Endless",
            "training": DIGITS.training.model_copy(update={"hang_minutes": 0.01}),
        }
    )
    Profiling(spec, None, lambda _: None, failed.put).start()
    failure = failed.get(timeout=30)
    assert failure.cause is JobCause.HUNG
    assert failure.detail.startswith("no step for ")
    assert "endless_splits.py:7 in splits" in failure.detail
