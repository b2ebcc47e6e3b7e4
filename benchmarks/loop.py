"""From ``job submit`` until the last device serves, against the same work without Argosy.

Ours is ``argosy demo`` on a fresh platform: a job on Ray, registration, a rollout in two
waves to real device agents. The baseline is one process that calls the same functions for
training, export, quantization and evaluation, then loads the model and infers. Both run
the same job for the same number of epochs on one worker, so the ratio is what the
platform costs: its start, Ray, transfers, and the waits that the rollout's gates ask for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks._harness import ROOT, Options, Report, alternate, main

WHAT = "submit to serving: the platform against one process that does the same work"
UNITS = {"submit_to_serving": "s", "submit_to_registered": "s", "start_to_registered": "s"}
LIMIT_SECONDS = 900


def job_file(folder: Path, epochs: int) -> Path:
    """The digits' job, for a fixed number of epochs on one worker."""
    spec = yaml.safe_load((ROOT / "examples/digits/job.yaml").read_text())
    spec["resources"] = {"workers": 1}
    spec["stop"] = {"max_epochs": epochs, "patience": epochs, "require_target": False}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def platform_round(job: Path, devices: int) -> tuple[dict[str, float], dict[str, Any]]:
    """One demo: seconds per figure, and its own report."""
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        out = Path(folder) / "demo.json"
        _run(
            [
                str(Path(sys.executable).with_name("argosy")), "demo", "--job", str(job),
                "--devices", str(devices), "--port", "auto", "--mqtt-port", "auto",
                "--json", str(out),
            ]
        )  # fmt: skip
        report: dict[str, Any] = json.loads(out.read_text())
    return seconds_of(report), report


def seconds_of(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures in a demo's report.

    A device serves when its execution succeeded: it has then inferred through its
    probation with the new version.

    Raises:
        ValueError: the demo did not get every device to serve.
    """
    executions = [e for wave in report["rollout"]["waves"] for e in wave["executions"]]
    if not report["ok"] or not executions or any(e["state"] != "SUCCEEDED" for e in executions):
        msg = f"the rollout ended {report['rollout']['state']}: there is nothing to measure"
        raise ValueError(msg)
    job = report["job"]
    submitted, started, registered = (
        _time(job[key]) for key in ("created_at", "started_at", "ended_at")
    )
    serving = max(_time(e["updated_at"]) for e in executions)
    return {
        "submit_to_serving": serving - submitted,
        "submit_to_registered": registered - submitted,
        "start_to_registered": registered - started,
    }


def stages_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Where a demo's time went, in seconds."""
    seconds = seconds_of(report)
    return {
        **report["stages"],
        "queued": seconds["submit_to_registered"] - seconds["start_to_registered"],
        "rollout_to_last_serving": seconds["submit_to_serving"] - seconds["submit_to_registered"],
    }


def plain_round(job: Path) -> dict[str, float]:
    """One run of the baseline: the same figures."""
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        begun = time.time()
        command = [sys.executable, "-m", "benchmarks._sequential", str(job), f"{folder}/package"]
        said = json.loads(_run(command).splitlines()[-1])
    registered = said["packaged_at"] - begun
    return {
        "submit_to_serving": said["serving_at"] - begun,
        "submit_to_registered": registered,
        "start_to_registered": registered,
    }


def _run(command: list[str]) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        msg = f"{' '.join(command)} ended with {done.returncode}:\n{tail}"
        raise RuntimeError(msg)
    return done.stdout


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def run(options: Options) -> Report:
    """Measure."""
    epochs, devices = (3, 1) if options.quick else (15, 3)
    stages: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="argosy-bench-") as folder:
        job = job_file(Path(folder), epochs)

        def ours() -> dict[str, float]:
            seconds, report = platform_round(job, devices)
            stages.append(stages_of(report))
            return seconds

        figures = alternate(ours, lambda: plain_round(job), rounds=options.rounds, units=UNITS)
    details = {"epochs": epochs, "devices": devices, "stages_seconds": stages}
    return Report(figures, details)


if __name__ == "__main__":
    main(run, what=WHAT, rounds=3)
