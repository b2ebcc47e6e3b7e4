from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from argosy_fake_platform import NOW, State, job_view
from rich.console import Console

from orchestrator.cli import job_local
from orchestrator.cli.job_compare import flat
from orchestrator.cli.job_local import run_child
from orchestrator.cli.job_screen import Training
from schemas.dataset import Baseline, DatasetProfile, Overlap, SplitProfile
from schemas.job import (
    AgentView,
    Capacity,
    Cost,
    JobState,
    JobView,
    Live,
    LogLine,
    MetricPoint,
    Trial,
    Usage,
)
from schemas.jobfile import JobSpec
from schemas.model import ModelView


def spec(**fields: Any) -> JobSpec:
    base = {"name": "digits", "task": "task:T", "stop": {"target": 0.95, "max_epochs": 5}}
    return JobSpec.model_validate({**base, **fields})


def add(fake: State, state: JobState = JobState.RUNNING, **fields: Any) -> JobView:
    view = job_view(state, **fields)
    fake.jobs[view.id] = [view]
    return view


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text("class T: ...\n")
    path = tmp_path / "job.yaml"
    path.write_text("name: digits\ntask: task:T\nstop: {target: 0.9}\n")
    return path


def test_submit_sends_the_code_along(argosy: Any, fake: State, job_file: Path) -> None:
    options = ["--set", "seed=7", "--name", "other", "--priority", "5", "--project", "vision"]
    answer = argosy("job", "submit", str(job_file), *options, "-o", "json")
    assert answer.code == 0
    sent = JobView.model_validate_json(answer.out).spec
    assert (sent.seed, sent.name, sent.priority, sent.project) == (7, "other", 5, "vision")
    assert sent.code is not None
    assert sent.code.sha256 in fake.artifacts
    assert sent.code.files == 2
    assert f"code: {sent.code.sha256[:12]}, 2 files" in answer.err


def test_submit_refuses_a_secret_and_sends_nothing(
    argosy: Any, fake: State, job_file: Path
) -> None:
    (job_file.parent / ".env").touch()
    answer = argosy("job", "submit", str(job_file))
    assert (answer.code, answer.out, fake.artifacts, fake.jobs) == (2, "", {}, {})
    assert answer.err.startswith("error: .env: ")


def test_a_wrong_name_names_its_option(argosy: Any, job_file: Path) -> None:
    answer = argosy("job", "submit", str(job_file), "--name", "A_b")
    assert answer.code == 2
    assert answer.err.startswith("error: --name: name cannot be 'A_b'")


def test_clone_changes_and_keeps(argosy: Any, fake: State) -> None:
    old = add(fake, JobState.SUCCEEDED, spec=spec(config={"lr": 1}, project="vision"))
    args = ["--set", "config.lr=2", "--name", "again", "-o", "json"]
    answer = argosy("job", "clone", old.id, *args)
    made = JobView.model_validate_json(answer.out).spec
    assert made == old.spec.model_copy(
        update={"config": {"lr": 2}, "name": "again", "cloned_from": old.id}
    )
    assert argosy("job", "clone", "job_x").code == 5
    assert argosy("job", "clone", old.id, "--set", "stop.patience=x").code == 2


def test_ls_filters(argosy: Any, fake: State) -> None:
    one = add(fake, JobState.RUNNING, spec=spec(project="vision"))
    two = add(fake, JobState.QUEUED, spec=spec(name="other"))
    assert argosy("job", "ls", "--state", "running", "-o", "name").out == f"{one.id}\n"
    both = argosy("job", "ls", "--state", "running", "--state", "QUEUED", "-o", "name").out
    assert both == f"{one.id}\n{two.id}\n"
    assert argosy("job", "ls", "--project", "vision", "-o", "name").out == f"{one.id}\n"
    assert argosy("job", "ls", "--name", "other", "-o", "name").out == f"{two.id}\n"
    nothing = argosy("job", "ls", "--name", "zzz")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no such jobs\n")
    answer = argosy("job", "ls", "--state", "gone")
    assert answer.code == 2
    assert "QUEUED, RUNNING" in answer.err


def test_get_shows_what_a_job_is_of_and_what_it_took(argosy: Any, fake: State) -> None:
    code = {"sha256": "ab" * 32, "size": 10, "files": 3, "git_commit": "c" * 40, "git_dirty": True}
    view = add(
        fake, JobState.RUNNING, spec=spec(code=code, project="vision", priority=3),
        usage=Usage(cpu_seconds=7200, gpu_seconds=1800, cpu_used_seconds=3600),
        cost=Cost(amount=0.5, currency="EUR"), problems=("a", "b"), notice="asks for 3 GPUs",
        trials=(Trial(number=1, parameters={"config.lr": 0.1}, state="done", best=0.9),
                Trial(number=2, parameters={"config.lr": 0.2}, state="running", best=0.8)),
    )  # fmt: skip
    out = argosy("job", "get", view.id).out
    facts = {line.partition("  ")[0]: line.partition("  ")[2].strip() for line in out.splitlines()}
    assert facts["project"] == "vision"
    assert facts["priority"] == "3"
    assert facts["waits"] == "asks for 3 GPUs"
    assert facts["code"] == f"{'ab' * 6}, 3 files, 10 B, commit {'c' * 12}, with changes"
    assert facts["used"] == "2 core-hours (50 % used), 0.5 GPU-hours"
    assert facts["cost"] == "0.5000 EUR"
    assert facts["problems"] == f"2 problems in the data: `argosy job profile {view.id}`"
    trials = out.splitlines()[-2:]
    assert trials[0].split() == ["●", "1", "done", "0", "90.0", "%", "lr=0.1"]
    assert trials[1].split() == ["2", "running", "0", "80.0", "%", "lr=0.2"]


def test_compare_shows_only_what_differs(argosy: Any, fake: State) -> None:
    one = add(
        fake, JobState.SUCCEEDED, spec=spec(config={"lr": 0.1, "w": 1}), epoch=4,
        best={"accuracy": 0.9}, cost=Cost(amount=1, currency="EUR"),
    )  # fmt: skip
    two = add(
        fake, JobState.FAILED, spec=spec(config={"lr": 0.2, "w": 1}, cloned_from=one.id), epoch=4,
        best={"accuracy": 0.8}, cause="diverged",
    )  # fmt: skip
    found = json.loads(argosy("job", "compare", one.id, two.id, "-o", "json").out)
    assert found["jobs"] == [one.id, two.id]
    assert found["spec"] == {"config.lr": [0.1, 0.2]}
    assert found["results"] == {
        "state": ["SUCCEEDED", "FAILED"], "cause": [None, "diverged"],
        "best.accuracy": [0.9, 0.8], "cost": [1.0, None], "cost.currency": ["EUR", None],
    }  # fmt: skip
    rows = [line.split() for line in argosy("job", "compare", one.id, two.id).out.splitlines()]
    assert rows[0] == [one.id, two.id]
    assert ["config.lr", "0.1", "0.2"] in rows
    assert ["best.accuracy", "90.0", "%", "80.0", "%"] in rows
    same = argosy("job", "compare", one.id, add(fake, spec=one.spec).id)
    assert "asked for the same" in same.err
    assert argosy("job", "compare", one.id).code == 2
    assert argosy("job", "compare", one.id, one.id).code == 2
    assert argosy("job", "compare", one.id, "job_x").code == 5


def test_leaves_have_keys_with_dots() -> None:
    value = {"a": {"b": 1, "c": {}, "d": None}, "e": [1, {"f": 2}]}
    assert dict(flat(value)) == {"a.b": 1, "e": [1, {"f": 2}]}


def test_the_profile_for_people_and_programs(argosy: Any, fake: State) -> None:
    view = add(fake)
    missing = argosy("job", "profile", view.id)
    assert (missing.code, missing.out) == (5, "")
    classes = {0: 100, 1: 50, 2: 0}
    fake.profiles[view.id] = DatasetProfile(
        sha256="ab" * 32,
        splits=(SplitProfile(split="train", n=150, classes=classes, duplicates=4),
                SplitProfile(split="validation", n=10, classes={0: 10})),
        overlaps=(Overlap(split="validation", other="train", n=2, share=0.2),),
        baseline=Baseline(n=150), problems=("class 2 has \x1b[31mno samples",),
    )  # fmt: skip
    answer = argosy("job", "profile", view.id)
    rows = [line.split() for line in answer.out.splitlines() if line]
    assert ["train", "150", "3", "4", "0", "0", "0"] in rows
    bars = {row[0]: row[-1].count("█") for row in rows if row[0] in {"0", "1", "2"}}
    assert bars == {"0": 24, "1": 12, "2": 0}
    assert ["validation", "train", "2", "20.0", "%"] in rows
    assert "! class 2 has no samples" in answer.out
    parsed = DatasetProfile.model_validate_json(argosy("job", "profile", view.id, "-o", "json").out)
    assert parsed == fake.profiles[view.id]


def test_logs_are_searched_filtered_and_cut(argosy: Any, fake: State) -> None:
    view = add(fake, JobState.SUCCEEDED)
    levels = ("info", "warning", "error")
    fake.logs[view.id] = [LogLine(at=NOW, text=f"n{i} x", level=levels[i % 3]) for i in range(9)]

    def texts(*options: str) -> list[str]:
        out = argosy("job", "logs", view.id, *options).out
        return [line.split()[1] for line in out.splitlines()]

    assert texts() == [f"n{i}" for i in range(9)]
    assert texts("--level", "warning") == ["n1", "n2", "n4", "n5", "n7", "n8"]
    assert texts("--search", "n3") == ["n3"]
    assert texts("--tail", "2") == ["n7", "n8"]
    assert texts("--tail", "2", "-f") == ["n7", "n8"]
    assert texts("-f") == [f"n{i}" for i in range(9)]
    assert argosy("job", "logs", view.id, "--tail", "0").code == 2
    assert argosy("job", "logs", view.id, "--level", "loud").code == 2


def curve(trial: int = 0, top: float = 0.9) -> list[MetricPoint]:
    return [
        MetricPoint(epoch=e, trial=trial, at=NOW, values={
            "accuracy": top - 0.5 / e if e < 6 else top - 0.3, "train_accuracy": 0.9 - 0.5 / e,
            "loss": 2 / e, "validation_loss": 2.2 / e})
        for e in range(1, 8)
    ]  # fmt: skip


def svg_texts(path: Path) -> list[str]:
    root = ET.parse(path).getroot()  # noqa: S314 - we wrote it
    return ["".join(one.itertext()).strip() for one in root.iter() if one.tag.endswith("}text")]


def test_plot_draws_losses_and_accuracy(argosy: Any, fake: State, tmp_path: Path) -> None:
    view = add(fake, JobState.SUCCEEDED, spec=spec())
    fake.metrics[view.id] = curve()
    out = tmp_path / "a.svg"
    answer = argosy("job", "plot", view.id, "--out", str(out))
    assert (answer.code, answer.out) == (0, f"{out}\n")
    texts = svg_texts(out)
    for text in ("validation loss", "train accuracy", "target", "80.0 % at epoch 5"):
        assert text in texts
    first = out.read_bytes()
    argosy("job", "plot", view.id, "--out", str(out))
    assert out.read_bytes() == first, "the same curves give the same file"
    png = tmp_path / "a.png"
    argosy("job", "plot", view.id, "--out", str(png))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "a.svg"]
    argosy("job", "plot", view.id, "--metric", "loss", "--out", str(out))
    assert "accuracy" not in svg_texts(out)


def test_plot_compares_jobs_and_lets_the_best_trial_stand_out(
    argosy: Any, fake: State, tmp_path: Path
) -> None:
    one, two = add(fake, spec=spec()), add(fake, spec=spec(name="other"))
    trials = tuple(
        Trial(number=n, parameters={"config.lr": n / 10}, best=best)
        for n, best in ((1, 0.5), (2, 0.8), (3, 0.6))
    )
    sweep = add(fake, spec=spec(sweep={"config.lr": [0.1, 0.2, 0.3]}), trials=trials)
    fake.metrics = {
        one.id: curve(), two.id: curve(),
        sweep.id: [p for t in (1, 2, 3) for p in curve(t, trials[t - 1].best or 0)],
    }  # fmt: skip
    out = tmp_path / "a.svg"
    assert argosy("job", "plot", one.id, two.id, "--out", str(out)).code == 0
    texts = svg_texts(out)
    assert f"digits …{one.id[-6:]}" in texts
    assert f"other …{two.id[-6:]}" in texts
    assert argosy("job", "plot", sweep.id, "--out", str(out)).code == 0
    assert "accuracy, trial 2: lr=0.2" in svg_texts(out)


def test_plot_says_what_it_cannot_draw(
    argosy: Any, fake: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = add(fake)
    batch = {"model": "m@1", "input": "i", "output": "o"}
    scored = add(fake, spec=JobSpec.model_validate({"name": "a", "batch": batch}))
    for argv, words in (
        ([view.id], "no epoch of"),
        ([scored.id], "has no curves"),
        ([view.id, "--out", "a.pdf"], "neither a .png nor an .svg"),
        ([view.id, "--out", str(tmp_path / "no/a.png")], "there is no folder"),
        ([view.id, view.id], "different jobs"),
    ):
        answer = argosy("job", "plot", *argv)
        assert answer.code == 2
        assert words in answer.err
    fake.metrics[view.id] = curve()
    answer = argosy("job", "plot", view.id, "--metric", "acuracy")
    assert "measured were accuracy, loss" in answer.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    answer = argosy("job", "plot", view.id)
    assert answer.code == 1
    assert "pip install 'argosy[plot]'" in answer.err


def test_agents(argosy: Any, fake: State) -> None:
    empty = argosy("agent", "ls")
    assert (empty.code, empty.out) == (0, "")
    capacity = Capacity(nodes=2, cpus=16, gpus=1, memory_gb=64, grows=True)
    fake.agents = [
        AgentView(name="a", capacity=capacity, seen_at=NOW), AgentView(name="b", seen_at=NOW),
    ]  # fmt: skip
    rows = [line.split() for line in argosy("agent", "ls").out.splitlines()]
    assert rows[1][:7] == ["a", "2", "16", "1", "64.0", "GiB", "yes"]
    assert rows[2][:6] == ["b", "-", "-", "-", "-", "-"]


def test_batch_queues_with_absolute_paths(
    argosy: Any, fake: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    fake.models = [ModelView(name="digits", versions=(2, 1), aliases={"champion": 1})]
    options = ["--workers", "2..4", "--cpus", "2", "--columns", "a, b", "--variant", "int8"]
    argv = ["batch", "digits@champion", "in", "s3://b/out", *options, "--no-watch", "-o", "json"]
    answer = argosy(*argv)
    sent = JobView.model_validate_json(answer.out).spec
    assert sent.batch is not None
    assert sent.batch.model == "digits@1"
    assert (sent.batch.input, sent.batch.output) == (str(tmp_path / "in"), "s3://b/out")
    assert (sent.batch.columns, sent.batch.variant) == (("a", "b"), "int8")
    assert (str(sent.resources.workers), sent.resources.cpus_per_worker) == ("2..4", 2)
    assert sent.name == "batch-digits"
    assert answer.err == ""
    assert "is not on this machine" in argosy("batch", "digits", "gone", "out", "--no-watch").err
    for wrong, words in (
        (["--workers", "0"], "--workers: must be greater"),
        (["--workers", "x"], "--workers: must be a number, or a range"),
        (["--cpus", "0"], "--cpus: must be greater"),
        (["--batch-size", "0"], "--batch-size: must be greater"),
        (["--variant", "A"], "--variant: this form is not allowed"),
        (["--name", "A"], "--name: this form is not allowed"),
    ):
        answer = argosy("batch", "digits", "in", "out", *wrong)
        assert answer.code == 2
        assert words in answer.err


def test_batch_is_watched_to_its_end(argosy: Any, fake: State) -> None:
    batch = {"model": "digits@1", "input": "/in", "output": "/out"}
    asked = JobSpec.model_validate({"name": "a", "batch": batch})
    running = job_view(
        JobState.RUNNING, spec=asked, started_at=NOW,
        live=Live(at=NOW, done=500, total=2000, samples_per_s=100.0, workers=2),
    )  # fmt: skip
    ended = running.model_copy(
        update={"state": JobState.SUCCEEDED, "live": None, "ended_at": NOW,
                "detail": "1,990 rows of 2 files; 10 rows refused (column error)",
                "usage": Usage(cpu_seconds=3600)}
    )  # fmt: skip
    fake.jobs[running.id] = [running, ended]
    answer = argosy("job", "watch", running.id)
    assert answer.code == 0
    assert "500 of 2,000 rows  rows/s 100  workers 2" in answer.err
    assert "✓ succeeded in 0.0 s: 1,990 rows of 2 files; 10 rows refused" in answer.err
    assert "; in /out" in answer.err
    assert "used 1 core-hours" in answer.err


def test_run_local_without_pytorch_says_how_to_get_it(
    argosy: Any, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_local, "NEEDED", ("torch_that_is_not_there",))
    answer = argosy("job", "run-local", str(job_file), "--out", "x")
    assert answer.code == 1
    assert "needs torch_that_is_not_there" in answer.err
    assert "pip install 'argosy[train]'" in answer.err
    assert argosy("job", "run-local", "nowhere.yaml", "--out", "x").code == 2


def test_run_local_runs_the_training_program(
    argosy: Any, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(job_local, "run_child", lambda command: seen.append(command) or 7)
    assert argosy("job", "run-local", str(job_file), "--out", "x").code == 7
    assert seen == [[sys.executable, "-m", "workers.cli", "run-local", str(job_file), "--out", "x"]]


@pytest.mark.parametrize(
    ("code", "expected"),
    [("raise SystemExit(7)", 7), ("pass", 0), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_a_childs_exit_code_is_passed_on(code: str, expected: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert run_child([sys.executable, "-c", code]) == expected
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_child_ends_with_the_signal_its_parent_gets(number: int, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(41))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    code = (
        "import sys; from orchestrator.cli.job_local import run_child\n"
        f"sys.exit(run_child([sys.executable, '-c', {child!r}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if number == signal.SIGINT:  # as a terminal does: to all of the foreground
        import os

        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(20) == (41 if number == signal.SIGINT else 42)


@pytest.mark.parametrize("outage_after", range(7, 12))
def test_following_a_log_survives_an_outage(argosy: Any, fake: State, outage_after: int) -> None:
    view = add(fake)
    ended = view.model_copy(update={"state": JobState.SUCCEEDED})
    fake.jobs[view.id] = [view, view, view, ended]
    fake.logs[view.id] = [LogLine(at=NOW, text=f"line {n}") for n in range(5)]
    fake.outage_after = outage_after
    answer = argosy("job", "logs", "-f", view.id)
    assert answer.code == 0
    assert [line.split()[-1] for line in answer.out.splitlines()] == list("01234")


def test_what_was_searched_is_not_searched_again(argosy: Any, fake: State) -> None:
    view = add(fake)
    ended = view.model_copy(update={"state": JobState.SUCCEEDED})
    fake.jobs[view.id] = [view, view, ended]
    fake.logs[view.id] = [LogLine(at=NOW, text=f"line {n}") for n in range(5)]
    answer = argosy("job", "logs", "-f", "--search", "nothing", view.id)
    assert (answer.code, answer.out) == (0, "")
    cursors = [q.get("cursor") for _, path, q in fake.seen if path.endswith("/logs")]
    assert (cursors[0], set(cursors[1:])) == (None, {"5"})


@pytest.mark.parametrize(
    "argv", [("get", "X"), ("ls", "--name", "X"), ("logs", "X", "--search", "X")]
)
def test_what_is_no_text_is_said_to_be_none(argosy: Any, argv: tuple[str, ...]) -> None:
    answer = argosy("job", *(word.replace("X", "\udcff") for word in argv))
    assert answer.code in {2, 5}
    assert answer.err.startswith("error: ")
    assert "fault of argosy" not in answer.err


def test_a_batch_that_is_done_shows_all_of_its_rows() -> None:
    batch = {"model": "digits@3", "input": "/in", "output": "/out"}
    asked = JobSpec.model_validate({"name": "b", "batch": batch})
    live = Live(at=NOW, done=2000, total=10_000, samples_per_s=5, eta_seconds=8)
    training = Training()
    training.see(job_view(JobState.RUNNING, spec=asked, live=live))
    console = Console(width=100, file=io.StringIO())
    console.print(training)
    training.see(job_view(JobState.SUCCEEDED, spec=asked))
    console.print(training)
    before, after = console.file.getvalue().split("SUCCEEDED")  # type: ignore[attr-defined]
    assert "2,000 of 10,000" in before
    assert "ETA" in before
    assert "10,000 of 10,000" in after
    assert "ETA" not in after


def test_watch_shows_the_epochs_that_are_done_again(argosy: Any, fake: State) -> None:
    def point(epoch: int, value: float) -> MetricPoint:
        return MetricPoint(epoch=epoch, at=NOW, values={"accuracy": value})

    view = add(fake, epoch=3)
    points = [point(1, 0.1), point(2, 0.2), point(3, 0.3)]
    fake.metrics[view.id] = points
    training = Training()
    training.see(view)
    training.rewind(view)
    training.points = list(points)
    again = view.model_copy(update={"attempt": 2})
    training.rewind(again)
    assert training.points == points, "nothing is done again yet"
    training.rewind(again.model_copy(update={"epoch": 2}))
    assert [p.epoch for p in training.points] == [1]
    training.points += [point(2, 0.25), point(3, 0.35)]
    training.rewind(again.model_copy(update={"epoch": 2}))
    assert len(training.points) == 3, "once an attempt"
