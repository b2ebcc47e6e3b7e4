from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from orchestrator.home import Credentials, Home, Up, read_json, write_atomic

HOLD = """
import pathlib, sys
from orchestrator.home import Home, Up
home = Home(pathlib.Path(sys.argv[1]))
with home.lock():
    home.write_up(Up(1, "http://127.0.0.1:8420"))
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "a" / "home")
    made.prepare()
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_folder_is_its_owners_alone(home: Home) -> None:
    home.logs.chmod(0o755)
    home.prepare()
    folders = (home.path, home.artifacts, home.ca, home.trust, home.broker, home.jobs, home.logs)
    assert [mode(f) for f in folders] == [0o700] * len(folders)


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="as the home folder") as told:
        Home(tmp_path / "file" / "home").prepare()
    assert "--home" in (told.value.hint or "")


def test_credentials_are_read_back_and_private(home: Home) -> None:
    mine = Credentials("https://argosy.lan:8420", "arg_key_secret", "/ca.pem")
    home.write_credentials(mine)
    home.write_worker(Credentials("http://127.0.0.1:8420", "arg_other"))
    assert home.credentials() == mine
    assert home.worker() == Credentials("http://127.0.0.1:8420", "arg_other", None)
    assert mode(home.credentials_json) == mode(home.worker_json) == 0o600


def test_missing_credentials_say_how_to_get_some(home: Home) -> None:
    with pytest.raises(NotFound) as told:
        home.credentials()
    assert "argosy up" in (told.value.hint or "")


@pytest.mark.parametrize("text", ["", "[]", '{"url": 1, "token": "x"}', "{" * 100, "x" * 70_000])
def test_damaged_credentials_are_told(home: Home, text: str) -> None:
    home.credentials_json.write_text(text)
    with pytest.raises(Invalid, match="damaged"):
        home.credentials()


def test_a_write_replaces_whole_or_not_at_all(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.path / "record"
    write_atomic(path, b"old", 0o640)
    assert mode(path) == 0o640

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in home.path.iterdir() if p.name.endswith(".tmp")] == []


def test_a_record_that_is_too_large_is_not_read(home: Home) -> None:
    path = home.path / "record"
    path.write_text(json.dumps({"a": "x" * 70_000}))
    assert read_json(path) is None


def test_two_platforms_never_run_on_one_home(home: Home) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert home.up() == Up(1, "http://127.0.0.1:8420")
        with pytest.raises(Conflict, match=f"process {other.pid}"), home.lock():
            pass
    finally:
        other.kill()
        other.communicate(timeout=10)
    assert home.up_json.exists(), "a killed platform leaves its record"
    assert home.up() is None, "which is not taken for a running one"
    with home.lock():
        home.write_up(Up(os.getpid(), "http://x"))
        assert home.up() == Up(os.getpid(), "http://x")
    assert not home.up_json.exists()
    assert home.up() is None
