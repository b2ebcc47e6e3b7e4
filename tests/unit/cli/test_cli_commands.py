from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from argosy_fake_platform import NOW, State, job_view

from schemas.device import DeviceView
from schemas.enroll import JoinToken
from schemas.ids import new_id
from schemas.job import JobCause, JobState, JobView, LogLine, MetricPoint
from schemas.model import ModelView
from schemas.telemetry import TelemetrySummary

JOB = "name: digits\ntask: workers.recipes.digits:Digits\nstop: {target: 0.9}\n"


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


def device(**fields: Any) -> DeviceView:
    base: dict[str, Any] = {
        "id": new_id("dev"), "device_class": "cam", "tags": ("a",), "state": "ACTIVE",
        "presence": "ONLINE", "certificate_expires_at": NOW, "enrolled_at": NOW,
    }  # fmt: skip
    return DeviceView(**{**base, **fields})


def running(fake: State, *script: JobView) -> str:
    fake.jobs[script[0].id] = list(script)
    return script[0].id


def test_submit_prints_the_id_alone_on_stdout(argosy: Any, fake: State, job_file: str) -> None:
    answer = argosy("job", "submit", job_file)
    assert answer.code == 0
    assert answer.out.strip() in fake.jobs
    assert f"argosy job watch {answer.out.strip()}" in answer.err


def test_json_is_alone_on_stdout_and_is_the_schema(argosy: Any, job_file: str) -> None:
    answer = argosy("job", "submit", job_file, "-o", "json")
    assert JobView.model_validate_json(answer.out).name == "digits"
    assert answer.err == ""


def test_listings_in_every_form(argosy: Any, fake: State) -> None:
    fake.models = [ModelView(name=n, versions=(1, 2), aliases={}) for n in ("a", "b", "c")]
    assert argosy("model", "ls", "-o", "name").out == "a\nb\nc\n"
    assert [m["name"] for m in json.loads(argosy("model", "ls", "-o", "json").out)] == [*"abc"]
    assert [m["name"] for m in yaml.safe_load(argosy("model", "ls", "-o", "yaml").out)] == [*"abc"]
    table = argosy("model", "ls").out.splitlines()
    assert table[0].split() == ["NAME", "VERSIONS", "LATEST", "ALIASES"]
    assert table[1].split() == ["a", "2", "2", "-"]


def test_an_empty_listing_says_what_to_do_and_prints_nothing(argosy: Any, fake: State) -> None:
    answer = argosy("job", "ls")
    assert (answer.code, answer.out) == (0, "")
    assert "argosy job submit" in answer.err
    assert argosy("job", "ls", "-o", "json").out == "[]\n"


def test_devices_are_filtered_by_class_and_tags(argosy: Any, fake: State) -> None:
    one, two = device(), device(device_class="robot", tags=("a", "b"))
    fake.devices = [one, two]
    assert argosy("device", "ls", "--class", "cam", "-o", "name").out == f"{one.id}\n"
    assert argosy("device", "ls", "--tag", "b", "-o", "name").out == f"{two.id}\n"
    assert two.id in argosy("device", "get", two.id).out


def test_a_token_is_on_stdout_alone_and_can_be_parsed(argosy: Any, fake: State) -> None:
    answer = argosy("token", "create", "--uses", "3", "--ttl", "2h", "--class", "cam")
    assert JoinToken.parse(answer.out).id == fake.tokens[0].id
    assert (fake.tokens[0].max_uses, fake.tokens[0].device_class) == (3, "cam")
    assert "argosy-edge enroll" in answer.err
    assert fake.tokens[0].id in argosy("token", "ls").out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["token", "create", "--uses", "0"], "--uses: must be greater"),
        (["token", "create", "--ttl", "5s"], "--ttl: must be greater"),
        (["token", "create", "--ttl", "soon"], "is not a duration"),
        (["token", "create", "--class", "A_b"], "--class: this form is not allowed"),
        (["rollout", "start", "m@1", "--waves", "1,200%"], "--waves: '200%'"),
        (["rollout", "start", "m@1", "--waves", ""], "--waves: ''"),
        (["rollout", "start", "m@1", "--waves", "1," * 60 + "1"], "61 waves"),
        (["rollout", "start", "m@1", "--min-accuracy", "2"], "--min-accuracy: must be less"),
        (["rollout", "start", "m@1", "--min-accuracy", "nan"], "'nan' is not a share"),
        (["rollout", "start", "m@1@2"], "not of the form MODEL@VERSION"),
        (["job", "submit", "/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        (["job", "submti"], "submit"),
        (["job", "get"], "Missing argument"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(argosy: Any, argv: list[str], words: str) -> None:
    answer = argosy(*argv)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert words in answer.err
    assert "Traceback" not in answer.err


def test_not_found_auth_and_conflict_have_their_codes(
    argosy: Any, fake: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert argosy("job", "get", "job_x").code == 5
    done = running(fake, job_view(JobState.SUCCEEDED))
    assert argosy("job", "cancel", done).code == 6
    monkeypatch.setenv("ARGOSY_TOKEN", "wrong")
    assert argosy("job", "ls").code == 4


def test_no_platform_is_one_line_and_a_hint(argosy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGOSY_URL", "http://127.0.0.1:1")
    answer = argosy("job", "ls")
    assert answer.code == 1
    assert answer.err.splitlines() == [
        "error: no platform answers at http://127.0.0.1:1",
        "hint: start one with `argosy up`",
    ]


def test_logs_lose_what_a_terminal_would_obey(argosy: Any, fake: State) -> None:
    job = running(fake, job_view(JobState.SUCCEEDED))
    fake.logs[job] = [
        LogLine(at=NOW, text="\x1b[31mred\x1b[0m \x1b]0;title\x07 [bold]x[/bold]\x07")
    ]
    assert argosy("job", "logs", job).out.rstrip().endswith("red  [bold]x[/bold]")


def test_watching_a_job_that_succeeds(argosy: Any, fake: State) -> None:
    first = job_view(JobState.RUNNING, epoch=1)
    ended = first.model_copy(
        update={"state": JobState.SUCCEEDED, "epoch": 3, "model": "digits", "version": 7,
                "best": {"accuracy": 0.97}, "started_at": NOW, "ended_at": NOW}
    )  # fmt: skip
    job = running(fake, first, ended)
    fake.metrics[job] = [
        MetricPoint(epoch=i, at=NOW, values={"accuracy": 0.9 + i / 100, "loss": 1 / (i + 1)})
        for i in range(4)
    ]
    answer = argosy("job", "watch", job)
    assert answer.code == 0
    assert answer.out == ""
    epochs = [line for line in answer.err.splitlines() if " epoch " in line]
    assert [line.split("epoch ")[1][0] for line in epochs] == ["0", "1", "2", "3"]
    assert "accuracy 93.0 %  loss 0.25  target 95.0 %" in epochs[3]
    assert "succeeded in 0.0 s: digits@7, accuracy 97.0 %" in answer.err
    assert "\x1b" not in answer.err


def test_watching_a_job_that_fails_says_why(argosy: Any, fake: State) -> None:
    failed = job_view(JobState.FAILED, cause=JobCause.DIVERGED, detail="loss is \x1b[5mnan")
    job = running(fake, failed)
    answer = argosy("job", "watch", job, "-o", "json")
    assert answer.code == 1
    assert JobView.model_validate_json(answer.out).cause is JobCause.DIVERGED
    assert "failed: diverged: loss is nan" in answer.err
    assert f"argosy job logs {job}" in answer.err


def test_a_watch_that_times_out(argosy: Any, fake: State) -> None:
    job = running(fake, job_view(JobState.RUNNING))
    answer = argosy("job", "watch", job, "--timeout", "100ms")
    assert answer.code == 124
    assert f"argosy job watch {job}" in answer.err


def test_telemetry_of_the_fleet(argosy: Any, fake: State) -> None:
    fake.summaries = [
        TelemetrySummary(
            model="digits", version=1, windows=1, n=10, errors=1, labelled=8, correct=6,
            accuracy=0.75, p50_ms=0.1234, p95_ms=12.34, p99_ms=None,
        )
    ]  # fmt: skip
    row = argosy("telemetry", "summary", "digits@1").out.splitlines()[1]
    assert row.split()[-5:] == ["0.123", "ms", "12.3", "ms", "-"]
    assert "75.0 %" in row


def test_what_is_said_of_several_devices_names_them(argosy: Any, fake: State) -> None:
    ids = [f"dev_000000000000000{i}" for i in (1, 2)]
    fake.summaries = [
        TelemetrySummary(
            model="digits", version=1, device=one, windows=1, n=1, errors=0, labelled=0, correct=0,
            raw_bytes=9,
        )
        for one in ids
    ]  # fmt: skip
    said = argosy("telemetry", "summary", "digits@1", "--by", "device").err.splitlines()
    assert [line.split(",")[0] for line in said] == ids


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--device", "nope"), "'nope' is no device's id: `argosy device ls`"),
        (("--since", "soon"), "'soon' is no time such as 90m, 7d or 2026-06-01T12:00"),
    ],
)
def test_what_telemetry_is_asked_for_is_checked(argosy: Any, option: Any, words: str) -> None:
    answer = argosy("telemetry", "summary", "digits@1", *option)
    assert answer.code == 2
    assert words in answer.err


def test_telemetry_that_is_not_there_says_the_next_step(argosy: Any, fake: State) -> None:
    fake.summaries = []
    said = argosy("telemetry", "summary", "digits@1").err
    assert "no device has told anything of digits@1 yet" in said
    assert "`argosy rollout start digits@1` ships it" in said
    said = argosy("telemetry", "summary", "digits@1", "--role", "shadow").err
    assert said.startswith("nothing of digits@1 matches")  # its active figures may be there


def test_an_unexpected_error_is_one_line_and_a_file(
    argosy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("orchestrator.client.Argosy.from_profile", lambda *_: 1 / 0)
    answer = argosy("job", "ls")
    assert answer.code == 1
    assert answer.err.startswith("error: ZeroDivisionError: division by zero\nhint: ")
    saved = next(tmp_path.iterdir())
    assert str(saved) in answer.err
    assert "Traceback" in saved.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(argosy: Any, shell: str) -> None:
    assert "_ARGOSY_COMPLETE" in argosy("completion", shell).out
