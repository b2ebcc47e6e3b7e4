"""The command as a process: how fast it starts, signals, terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from argosy_fake_platform import State, job_view

from schemas.errors import Exit
from schemas.job import JobState

ARGOSY = [sys.executable, "-m", "orchestrator.cli"]


def clean_env(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ARGOSY_", "FORCE_", "NO_C"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    seen, deadline = "", time.monotonic() + 20
    while words not in seen and time.monotonic() < deadline:
        if select.select([process.stderr], [], [], 0.1)[0]:
            seen += os.read(process.stderr.fileno(), 4096).decode()
    return seen


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from orchestrator.cli.main import run\n"
        "run(['--help']); run(['job', '--help'])\n"
        "heavy = {'pydantic', 'httpx', 'yaml', 'fastapi', 'sqlalchemy'} & set(sys.modules)\n"
        "ours = {one for one in sys.modules if one.startswith('schemas.')} - {'schemas.commands'}\n"
        "print('HEAVY', sorted(heavy | ours))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_env()
    )
    assert "HEAVY []" in done.stdout
    for command in ("demo", "up", "doctor", "job", "model", "token", "device", "rollout"):
        assert f"  {command} " in done.stdout
    assert "\x1b" not in done.stdout


def test_ctrl_c_detaches_and_says_how_to_come_back(
    platform_env: dict[str, str], fake: State
) -> None:
    job = job_view(JobState.RUNNING)
    fake.jobs[job.id] = [job]
    process = subprocess.Popen(
        [*ARGOSY, "job", "watch", job.id],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_env(**platform_env),
    )  # fmt: skip
    with process:
        assert "RUNNING" in until(process, "RUNNING")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert process.returncode == Exit.INTERRUPTED
    assert f"come back with `argosy job watch {job.id}`" in err
    assert out == ""


def on_a_terminal(argv: list[str], env: dict[str, str]) -> str:
    """What a command writes when all its streams are a terminal."""
    main, side = pty.openpty()
    process = subprocess.Popen(argv, stdin=side, stdout=side, stderr=side, env=env)
    os.close(side)
    seen = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    process.wait(10)
    os.close(main)
    return seen.decode()


@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_no_color_is_honoured_on_a_terminal(
    platform_env: dict[str, str], fake: State, no_color: str, *, colours: bool
) -> None:
    job = job_view(JobState.SUCCEEDED)
    fake.jobs[job.id] = [job]
    more = {"NO_COLOR": no_color} if no_color else {}
    env = clean_env(**platform_env, TERM="xterm-256color", **more)
    seen = on_a_terminal([*ARGOSY, "job", "ls"], env)
    assert job.id in seen
    assert ("\x1b[32m" in seen) is colours


def test_a_closed_pipe_is_not_an_error(platform_env: dict[str, str], fake: State) -> None:
    fake.jobs = {job.id: [job] for job in (job_view() for _ in range(20))}
    command = " ".join([*ARGOSY, "job", "ls", "-o", "json"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -c 1"],  # noqa: S607 - any bash
        capture_output=True, text=True, check=False, env=clean_env(**platform_env),
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[", "")


def test_demo_without_a_job_says_where_to_find_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [*ARGOSY, "demo", "--job", "nowhere.yaml"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=clean_env(),
    )  # fmt: skip
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("error: ")
    assert "nowhere.yaml cannot be read" in done.stderr
