from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import doctor, health
from orchestrator.adapters import broker
from orchestrator.home import Home, Up
from orchestrator.settings import Settings, load


def settings(home: Path, **changes: object) -> Settings:
    return load({}, home=home, port=free_port(), mqtt_port=free_port(), **changes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def found(given: Settings) -> dict[str, doctor.Check]:
    return {c.name: c for c in doctor.checks(given)}


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    checks = found(settings(tmp_path / "not" / "there" / "yet"))
    assert checks["python"].ok
    assert checks["home"].ok
    assert checks["api port"].ok
    assert checks["cores"].detail == str(len(os.sched_getaffinity(0)))
    assert all(c.hint for c in checks.values() if not c.ok)


def test_a_missing_extra_is_told_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in {"ray", "tuf"} else real(name)
    )
    checks = found(settings(tmp_path))
    assert not checks["argosy[server]"].ok
    assert checks["argosy[server]"].detail == "not installed: tuf"
    assert "pip install 'argosy[server]'" in (checks["argosy[server]"].hint or "")
    assert checks["argosy[train]"].required
    without = found(settings(tmp_path, embedded_agent=False))
    assert not without["argosy[train]"].required
    assert "ray" not in without


def test_a_missing_broker_is_told_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, **_: "/x" if name == "apk" else None)
    check = found(settings(tmp_path))["mosquitto"]
    assert not check.ok
    assert check.hint == "install it with: sudo apk add mosquitto"
    elsewhere = settings(tmp_path, broker_url="mqtts://broker.example:8883")
    assert "mosquitto" not in found(elsewhere)


def test_an_old_broker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho mosquitto version 1.6.12\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert broker.find_mosquitto() == program
    check = found(settings(tmp_path))["mosquitto"]
    assert not check.ok
    assert check.detail.startswith("1.6.12 at ")


def test_a_port_of_ours_is_no_fault_and_anothers_is(tmp_path: Path) -> None:
    given = settings(tmp_path)
    home = Home(tmp_path)
    home.prepare()
    with socket.create_server((given.host, given.port)):
        check = found(given)["api port"]
        assert not check.ok
        assert "ARGOSY_PORT" in (check.hint or "")
        with home.lock():
            home.write_up(Up(os.getpid(), given.url))
            check = found(given)["api port"]
            assert check.ok
            assert str(os.getpid()) in check.detail


def test_too_little_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 2**62)
    check = found(settings(tmp_path))["disk"]
    assert not check.ok
    assert not check.required


def test_it_runs_without_the_extras(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from orchestrator import doctor, settings\n"
        f"doctor.checks(settings.load({{}}, home={str(tmp_path)!r}))\n"
        "heavy = {'psutil', 'cryptography', 'tuf', 'ray', 'torch', 'sqlalchemy', 'fastapi'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_platform_that_runs_tells_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, home = settings(tmp_path), Home(tmp_path)
    assert "platform" not in found(given)
    home.prepare()
    with home.lock():
        home.write_up(Up(os.getpid(), given.url))
        silent = found(given)["platform"]
        assert (silent.ok, silent.detail) == (False, "its server does not answer")
        failing = "failing: desired state since 2026-03-01 12:00:00 UTC (OSError)"
        answers: dict[str, object] = {"parts": {"api": "ok", "control loop": failing}}
        monkeypatch.setattr(health, "ask", lambda *_: answers)
        check = found(given)["platform"]
        assert (check.ok, check.detail) == (False, f"control loop: {failing}")
        assert "server.log" in (check.hint or "")
        answers["parts"] = {"api": "ok", "control loop": "ok"}
        assert found(given)["platform"].ok
