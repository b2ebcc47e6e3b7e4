from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from argosy_fake_platform import NOW, job_view
from rich.console import Console

from orchestrator.cli.job_lines import LIVE_SECONDS, Lines, say_end
from orchestrator.cli.job_screen import Training, shown_trials
from orchestrator.cli.job_search import Following
from orchestrator.cli.job_text import cost_text, live_parts, usage_text, waiting_text
from schemas.api import Page
from schemas.job import Cost, JobState, JobView, Live, LogLine, MetricPoint, Trial, Usage
from schemas.jobfile import JobSpec


def drawn(view: JobView, points: list[MetricPoint] | None = None) -> list[str]:
    training = Training(points=points or [])
    training.see(view)
    return drawn_of(training)


def drawn_of(training: Training) -> list[str]:
    screen = Console(width=120, record=True, force_terminal=False)
    with screen.capture() as capture:
        screen.print(training)
    return [line.rstrip() for line in capture.get().splitlines()]


def live(**fields: Any) -> Live:
    return Live(**{"at": NOW, **fields})


def spec(**fields: Any) -> JobSpec:
    base = {"name": "digits", "task": "a:B", "stop": {"target": 0.95, "max_epochs": 5}}
    return JobSpec.model_validate({**base, **fields})


FULL = live(
    epoch=2, done=30, total=40, loss=0.25, samples_per_s=1234.5, eta_seconds=130, workers=2,
    cpu_percent=187.6, rss_mb=512, gpu_percent=93.2, gpu_mem_mb=10240,
)  # fmt: skip


def test_live_figures_and_the_steps_of_the_epoch() -> None:
    lines = drawn(job_view(JobState.RUNNING, epoch=1, live=FULL))
    assert lines[2].endswith("epoch 1 of at most 5")
    assert lines[3].endswith("step 30 of 40")
    assert lines[3].count("━") == 30
    assert lines[4].split("   ") == [
        "  loss 0.25", "samples/s 1,234", "ETA 2m 10s", "workers 2", "CPU 188 %",
        "memory 536.9 MB", "GPU 93 %, 10.7 GB",
    ]  # fmt: skip


def test_what_is_not_known_is_left_out() -> None:
    assert live_parts(live(done=1, total=2, workers=1)) == [("workers", "1")]
    lines = drawn(job_view(JobState.EXPORTING, epoch=2, live=FULL))
    assert not any("step" in line for line in lines), "it trains no more"


def test_the_queue_says_the_place_and_what_it_waits_for() -> None:
    view = job_view(JobState.QUEUED, position=3, notice="asks for 4 GPUs, there are 2")
    assert drawn(view)[2] == "  number 3 in the queue; asks for 4 GPUs, there are 2"
    assert "waiting for an agent" in drawn(job_view(JobState.QUEUED))[2]
    later = view.model_copy(update={"not_before": NOW + timedelta(seconds=32), "notice": None})
    assert waiting_text(later, NOW) == "it failed, and is tried again in 32 s"
    assert waiting_text(later, NOW + timedelta(seconds=40)) == "number 3 in the queue"
    running = job_view(JobState.RUNNING, notice="the cluster grows")
    assert "  the cluster grows" in drawn(running)


def trial(number: int, state: str = "done", best: float | None = None, **fields: Any) -> Trial:
    return Trial(number=number, parameters={"config.lr": number / 10}, state=state, best=best,
                 **fields)  # fmt: skip


def test_a_sweep_is_a_table_with_the_best_marked() -> None:
    trials = (trial(1, best=0.8), trial(2, "stopped", 0.9, epochs=3), trial(3, "waiting"))
    sweep = spec(sweep={"config.lr": [0.1, 0.2, 0.3]})
    lines = drawn(job_view(JobState.RUNNING, spec=sweep, trials=trials, live=live(trial=2)))
    assert lines[2].endswith("2 of 3 trials")
    rows = [line.split() for line in lines]
    assert ["1", "done", "0", "80.0", "%", "lr=0.1"] in rows
    assert ["●", "2", "stopped", "3", "90.0", "%", "lr=0.2"] in rows
    assert ["3", "waiting", "0", "-", "lr=0.3"] in rows
    assert lines[-1].split("   ") == ["  best trial 2", "accuracy 90.0 %", "target 95.0 %"]


def test_of_many_trials_those_that_run_and_the_best_are_shown() -> None:
    trials = tuple(
        trial(n, "running" if n == 40 else "done", None if n == 40 else n / 100)
        for n in range(1, 101)
    )
    assert [t.number for t in shown_trials(trials, room=4)] == [40, 98, 99, 100]
    assert any("and 88 more" in line for line in drawn(job_view(JobState.RUNNING, trials=trials)))


def test_a_batch_is_a_bar_of_rows() -> None:
    batch = {"model": "digits@1", "input": "/in", "output": "/out"}
    asked = JobSpec.model_validate({"name": "a", "batch": batch})
    view = job_view(JobState.RUNNING, spec=asked, live=live(done=500, total=1000, samples_per_s=50))
    lines = drawn(view)
    assert lines[1].endswith("500 of 1,000 rows")
    assert lines[2] == "  rows/s 50"
    assert "starting the workers" in drawn(job_view(JobState.RUNNING, spec=asked))[1]


def test_problems_of_the_data_are_pointed_at() -> None:
    view = job_view(JobState.RUNNING, problems=("x",))
    assert drawn(view)[-1] == f"  1 problem in the data: `argosy job profile {view.id}`"


def lines_of(*views: JobView, step: float, capsys: pytest.CaptureFixture[str]) -> list[str]:
    time, training = [0.0], Training()
    lines = Lines(now=lambda: time[0])
    capsys.readouterr()
    for view in views:
        training.see(view)
        lines.update(training, [])
        time[0] += step
    return [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]


def test_live_lines_come_at_most_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    view = job_view(JobState.RUNNING)
    looks = [view.model_copy(update={"live": live(epoch=1, done=i, total=9)}) for i in range(9)]
    said = lines_of(*looks, step=LIVE_SECONDS / 3, capsys=capsys)
    assert [line for line in said if "steps" in line] == [
        f"epoch 1  {i} of 9 steps" for i in (0, 3, 6)
    ]


def test_what_it_waits_for_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    first = job_view(JobState.QUEUED, position=2)
    second = first.model_copy(update={"position": 1})
    third = second.model_copy(update={"notice": "no agent asks for work"})
    said = lines_of(first, first, second, third, third, step=1, capsys=capsys)
    assert [line for line in said if line.startswith("waits")] == [
        "waits: number 2 in the queue",
        "waits: number 1 in the queue",
        "waits: number 1 in the queue; no agent asks for work",
    ]


def test_trials_are_told_when_their_state_changes(capsys: pytest.CaptureFixture[str]) -> None:
    view = job_view(JobState.RUNNING, trials=(trial(1, "running"), trial(2, "waiting")))
    later = view.model_copy(
        update={"trials": (trial(1, "failed", 0.5, epochs=2, detail="nan"), trial(2, "waiting"))}
    )
    said = lines_of(view, view, later, step=1, capsys=capsys)
    assert [line for line in said if line.startswith("trial")] == [
        "trial 1 running  lr=0.1",
        "trial 1 failed  2 epochs  best 50.0 %  lr=0.1  nan",
    ]


def test_the_end_tells_the_best_trial_and_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    training = Training()
    training.see(job_view(
        JobState.SUCCEEDED, model="digits", version=2, trials=(trial(1, best=0.8), trial(2)),
        usage=Usage(cpu_seconds=1800), cost=Cost(amount=12.5, currency="EUR"),
    ))  # fmt: skip
    say_end(training)
    said = capsys.readouterr().err
    assert "trial 1 of 2 was the best: lr=0.1" in said
    assert "used 0.5 core-hours, 12.50 EUR" in said


def test_usage_and_cost_in_words() -> None:
    assert usage_text(Usage()) is None
    assert usage_text(Usage(gpu_seconds=36)) == "0.01 GPU-hours"
    assert cost_text(None) is None
    assert cost_text(Cost(amount=0.00123, currency="USD")) == "0.0012 USD"


def test_what_the_search_says_is_told_once_it_has_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = [
        LogLine(at=NOW, text="int8: good so far"),
        LogLine(at=NOW, level="warning", text="no variant fits"),
    ]
    training = Training(job_view(JobState.OPTIMIZING))
    training.hear(said)
    assert drawn_of(training)[-2:] == ["  int8: good so far", "  no variant fits"]
    Lines().update(training, [], said)
    err = [line.partition(" ")[2].strip() for line in capsys.readouterr().err.splitlines()]
    assert err[-2:] == ["int8: good so far", "no variant fits"]
    training.see(job_view(JobState.RUNNING, attempt=2))
    assert not [line for line in drawn_of(training) if "good so far" in line]


class Log:
    """A platform that has a log, in pages of two."""

    def __init__(self, *texts: str) -> None:
        self.lines = [
            LogLine(at=NOW + timedelta(seconds=i), text=text) for i, text in enumerate(texts)
        ]
        self.jobs = self

    def log_page(self, _job: str, cursor: str | None = None, tail: int | None = None) -> Page:
        start = len(self.lines) - min(tail, len(self.lines)) if tail else int(cursor or 0)
        items = tuple(self.lines[start:] if tail else self.lines[start : start + 2])
        return Page[LogLine](items=items, next=str(start + len(items)))


def test_the_log_is_followed_from_the_end_of_the_training() -> None:
    log = Log("epoch 1", "epoch 2", "exported")
    search = Following(log)
    points = [MetricPoint(epoch=2, at=NOW + timedelta(seconds=1), values={"accuracy": 0.9})]

    def told(state: JobState, **fields: Any) -> list[str]:
        return [line.text for line in search.fresh(job_view(state, **fields), points)]

    assert told(JobState.RUNNING) == []
    assert told(JobState.EXPORTING) == ["exported"]
    log.lines += [LogLine(at=NOW, text=text) for text in ("a", "b", "c")]
    assert told(JobState.OPTIMIZING) == ["a", "b", "c"]
    assert told(JobState.OPTIMIZING) == []
    log.lines.append(LogLine(at=NOW, text="registered"))
    assert told(JobState.SUCCEEDED) == ["registered"]
    assert Following(log).fresh(job_view(JobState.SUCCEEDED), points) == []
