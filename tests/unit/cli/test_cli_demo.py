from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from argosy_fake_platform import NOW, job_view, rollout_view

from orchestrator.cli.demo import crew as crew_module
from orchestrator.cli.demo.crew import Crew, interruptible, undisturbed
from orchestrator.cli.demo.fleet import export_options
from orchestrator.cli.demo.plan import Plan, environment, find_example, make_plan, root_of
from orchestrator.cli.demo.platform import preflight
from orchestrator.cli.demo.report import Result, say_report, write_json
from orchestrator.cli.demo.story import GATE_MARGIN, rollout_plan
from orchestrator.errors import ArgosyError, Conflict, Invalid, Unavailable
from schemas.api import PORT
from schemas.ids import new_id
from schemas.job import JobState
from schemas.measure import Accuracy
from schemas.model import ModelVersionView
from schemas.rollout import RolloutState
from schemas.telemetry import TelemetrySummary

JOB = "name: digits\ntask: a.b:C\nseed: 7\nconfig: {lr: 0.1, kind: a b}\nstop: {target: 0.9}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "examples" / "digits"
    folder.mkdir(parents=True)
    (folder / "job.yaml").write_text(JOB)
    return tmp_path / "checkout"


def plan_of(checkout: Path, **options: Any) -> Plan:
    defaults: dict[str, Any] = {
        "job": checkout / "examples/digits/job.yaml", "devices": 3, "home": checkout / "home",
        "port": "auto", "mqtt_port": "auto", "keep": False, "json_file": None,
    }  # fmt: skip
    return make_plan(**{**defaults, **options})


def test_the_example_is_found_from_anywhere_in_a_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout / "examples")
    assert find_example() == checkout / "examples/digits/job.yaml"
    assert root_of(find_example()) == checkout


def test_no_setting_of_another_platform_reaches_the_demo(tmp_path: Path) -> None:
    env = {"ARGOSY_DATABASE_URL": "x", "ARGOSY_TOKEN": "y", "PATH": "/bin", "PYTHONPATH": "/p"}
    made = environment(env, tmp_path, Path("/root"))
    assert made == {"PATH": "/bin", "ARGOSY_HOME": str(tmp_path), "PYTHONPATH": "/root:/p"}


def test_a_fresh_home_is_ours_and_takes_the_temporary_files(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plan = plan_of(checkout, home=None)
    assert plan.home_is_ours
    assert plan.home.parent == tmp_path
    assert Path(plan.env["TMPDIR"]).parent == plan.home
    assert plan.settings.home == plan.home


def test_a_fault_in_the_job_makes_no_home(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    (checkout / "bad.yaml").write_text("name: 1")
    with pytest.raises(ArgosyError):
        plan_of(checkout, home=None, job=checkout / "bad.yaml")
    with pytest.raises(Invalid, match="neither a port nor auto"):
        plan_of(checkout, home=None, port="http")
    with pytest.raises(Invalid, match="--json: there is no folder"):
        plan_of(checkout, home=None, json_file=Path("/nowhere/x.json"))
    assert set(tmp_path.iterdir()) == before


def test_auto_never_names_a_port_that_is_taken(checkout: Path) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("127.0.0.1", PORT))
            held.listen()
        except OSError:
            pass  # someone holds it already, which is as good
        plan = plan_of(checkout)
    assert plan.port != PORT
    assert plan.port != plan.mqtt_port


def test_a_port_that_is_taken_is_a_clear_error(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        plan = plan_of(checkout, port=str(port))
        with pytest.raises(Conflict, match=f"port {port} .* is taken") as caught:
            preflight(plan)
    assert "--port auto" in (caught.value.hint or "")


def test_the_stream_is_cut_as_the_job_cuts_its_data(checkout: Path) -> None:
    options = export_options(plan_of(checkout).spec)
    assert options == ["--seed", "7", "--config", "lr=0.1", "--config", 'kind="a b"']


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    made = Crew(tmp_path, {"PATH": os.environ["PATH"]}, tmp_path)
    yield made
    made.end()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def wait_for(text: str, log: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if log.exists() and text in log.read_text():
            return log.read_text()
        time.sleep(0.01)
    pytest.fail(f"{text!r} did not come: {log.read_text() if log.exists() else 'no log'}")


@pytest.mark.integration
def test_a_program_that_fails_is_an_error_with_its_last_words(crew: Crew) -> None:
    crew.start("enroll-1", python("import sys; print('no such token'); sys.exit(4)"))
    with pytest.raises(
        Unavailable, match="enroll-1 ended with exit code 4\nno such token"
    ) as caught:
        crew.finish("enroll-1", 20)
    assert str(crew.log("enroll-1")) in (caught.value.hint or "")


@pytest.mark.integration
def test_a_device_that_ends_early_is_noticed(crew: Crew) -> None:
    crew.start("enroll-1", python("pass"))
    crew.finish("enroll-1", 20)
    crew.check()
    crew.start("device-1", python("raise SystemExit(3)"))
    with pytest.raises(Unavailable, match="device-1 ended with exit code 3"):
        crew.finish("device-1", 20)
    with pytest.raises(Unavailable, match="device-1 ended"):
        crew.check()


@pytest.mark.integration
def test_the_end_takes_whole_trees_even_those_that_refuse(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "GRACE", 0.3)
    stubborn = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True)\n"
        "print('ready', os.getpid(), child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    crew.start("device-1", python(stubborn))
    pids = [int(p) for p in wait_for("ready", crew.log("device-1")).split()[1:]]
    start = time.monotonic()
    assert crew.end() == []
    assert time.monotonic() - start < 4
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    with pytest.raises(Unavailable, match="the demo is ending"):
        crew.start("late", python("pass"))


def test_every_ending_signal_interrupts_and_cleaning_up_is_undisturbed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert threading.current_thread() is threading.main_thread()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(number)
        with undisturbed():
            signal.raise_signal(number)
    assert signal.getsignal(signal.SIGTERM) is before


def version() -> ModelVersionView:
    digest = "0" * 64
    file = {"path": "m.onnx", "size": 1000, "sha256": digest, "leaves_sha256": digest}
    accuracy = {"value": 0.97, "n": 400, "low": 0.95, "high": 0.98, "set_sha256": digest}
    tensor = {"name": "x", "dtype": "float32", "shape": [-1, 64]}
    manifest = {
        "model": "digits",
        "signature": {"inputs": [tensor], "outputs": [tensor]},
        "variants": [
            {
                "id": "int8", "precision": "int8", "scheme": "u8s8", "opset": 20, "file": file,
                "accuracy": [{**accuracy, "split": "test"}],
                "golden": {"file": file, "samples": 1, "tolerance": 0.1},
            }
        ],
    }  # fmt: skip
    return ModelVersionView.model_validate(
        {"model": "digits", "version": 1, "manifest": manifest, "manifest_sha256": digest,
         "created_at": NOW}
    )  # fmt: skip


def registry() -> Accuracy:
    return version().manifest.variants[0].accuracy[0]


def test_the_gate_lies_a_bit_under_what_the_registry_is_sure_of() -> None:
    spec = rollout_plan(version(), registry())
    assert spec.gates.min_accuracy == pytest.approx(registry().low - GATE_MARGIN)
    assert [(w.count, w.percent) for w in spec.waves] == [(1, None), (None, 100)]


def result(checkout: Path, *rows: TelemetrySummary) -> Result:
    return Result(
        plan=plan_of(checkout),
        stages={"platform": 2.5, "version": 0.01},
        preparation_seconds=9.0,
        total_seconds=61.0,
        job=job_view(JobState.SUCCEEDED),
        version=version(),
        rollout=rollout_view(RolloutState.SUCCEEDED),
        devices=rows,
        registry=registry(),
    )


def row() -> TelemetrySummary:
    return TelemetrySummary(
        model="digits", version=1, variant="int8", device=new_id("dev"), windows=3, n=200, errors=0,
        labelled=200, correct=194, accuracy=0.97, p50_ms=0.2, p95_ms=0.4,
    )  # fmt: skip


def test_the_report_says_which_devices_are_missing(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say_report(result(checkout, row()))
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[1:6] == ["digits@1", "int8", "97.0", "%", "97.0"]
    assert "2 devices have not reported enough yet" in err
    assert "1m 01s in all: platform 2.5 s" in err
    assert "version 0.0 s" not in err


def test_the_figures_are_written_whole(checkout: Path) -> None:
    path = checkout / "figures.json"
    write_json(result(checkout, row(), row(), row()), path)
    written = json.loads(path.read_text())
    assert written["ok"] is True
    assert written["stages"] == {"platform": 2.5, "version": 0.01}
    assert [d["accuracy"] for d in written["devices"]] == [0.97] * 3
    assert written["variants"][0]["bytes"] == 1000


@pytest.mark.integration
def test_a_demo_whose_port_is_taken_leaves_nothing(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
    with socket.create_server(("127.0.0.1", 0)) as held:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "demo", "--port", str(held.getsockname()[1]),
             "--mqtt-port", "auto", "--job", str(checkout / "examples/digits/job.yaml")],
            capture_output=True, text=True, check=False, env={**env, "TMPDIR": str(tmp_path / "t")},
        )  # fmt: skip
    assert done.returncode == 6
    assert "is taken" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "t").iterdir()) == []
