from __future__ import annotations

import faulthandler
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from edge_client import notify
from edge_client.busy import Busy, Doing
from edge_client.hang import Hang, forget_hang, read_hang, write_hang
from edge_client.settings import Home
from edge_client.watchdog import LOOP, Patience, Watchdog
from schemas.errors import Exit

SHA = "a" * 64


def looks(patience: Patience, times: int, *, beats=None, doing=()) -> Hang | None:
    found = None
    for turn in range(times):
        found = patience.look(turn if beats is None else beats, doing) or found
    return found


def test_a_loop_that_does_not_go_round_is_found_after_the_limit():
    patience = Patience(limit=4.0, every=0.5)
    assert looks(patience, 8, beats=7) is None
    assert looks(patience, 1, beats=7) == Hang(what=LOOP, seconds=4.0)
    assert looks(patience, 8) is None


def test_an_inference_is_counted_from_when_it_was_first_seen():
    patience = Patience(limit=4.0, every=0.5)
    one = Doing(1, "an inference", SHA)
    assert looks(patience, 8, doing=[one]) is None
    hang = looks(patience, 1, doing=[one])
    assert hang == Hang(what="an inference", sha256=SHA, seconds=4.0)
    many = Patience(limit=4.0, every=0.5)
    for number in range(100):  # each of them ends, and another begins
        assert many.look(number, [Doing(number, "an inference", SHA)]) is None


def test_a_load_stops_the_loop_for_its_own_limit_only():
    patience = Patience(limit=4.0, every=0.5, long=6.0)
    assert looks(patience, 6, beats=1) is None
    load = [Doing(2, "a load", SHA)]
    assert looks(patience, 12, beats=1, doing=load) is None
    assert looks(patience, 1, beats=1, doing=load).what == "a load"


def test_what_is_under_way_is_known_until_it_ends_or_fails():
    busy = Busy()

    def fail() -> None:
        with busy.doing("a load", SHA):
            (one,) = busy.now()
            assert (one.what, one.sha256) == ("a load", SHA)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert busy.now() == []


def test_a_hang_ends_the_process_with_its_code_its_stacks_and_a_note(tmp_path):
    code = f"""
import threading
from pathlib import Path
from edge_client.busy import Busy
from edge_client.settings import Home
from edge_client.watchdog import Watchdog
busy = Busy()
dog = Watchdog(Home(Path({str(tmp_path)!r})), busy, limit=0.4)
dog.start()
def never_ends():
    with busy.doing("an inference", "{SHA}"):
        threading.Event().wait()
threading.Thread(target=never_ends, daemon=True).start()
while True:
    dog.beat()
    threading.Event().wait(0.05)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == Exit.HUNG
    assert "never_ends" in done.stderr
    hang = read_hang(Home(tmp_path))
    assert (hang.what, hang.sha256) == ("an inference", SHA)
    assert hang.seconds >= 0.4
    forget_hang(Home(tmp_path))
    assert read_hang(Home(tmp_path)) is None


def test_a_hang_that_keeps_python_from_running_at_all_is_ended_too(tmp_path):
    code = f"""
import ctypes, threading
from pathlib import Path
from edge_client.busy import Busy
from edge_client.settings import Home
from edge_client.watchdog import Watchdog
dog = Watchdog(Home(Path({str(tmp_path)!r})), Busy(), limit=0.3)
dog.look()
print("held", flush=True)
ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_a_note_that_cannot_be_read_is_none(tmp_path):
    home = Home(tmp_path)
    for text in ("", "{", json.dumps({"what": "x", "seconds": -1}), "x" * 10_000):
        home.hung.write_text(text)
        assert read_hang(home) is None
    write_hang(home, Hang(what=LOOP, seconds=1))
    assert read_hang(home).sha256 is None


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    """A service manager's socket."""
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        name = f"@argosy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def test_the_service_manager_is_told(manager):
    assert notify.notify(notify.READY, notify.status("serving\ndigits v1"))
    assert manager.recv(4096) == b"READY=1\nSTATUS=serving digits v1"


def test_the_watchdog_tells_the_service_manager_only_while_all_is_well(manager, tmp_path):
    ended = threading.Event()
    busy = Busy()
    dog = Watchdog(Home(tmp_path), busy, limit=0.5, end=lambda _code: ended.set())
    try:
        dog.beat()
        dog.look()
        assert manager.recv(4096) == b"WATCHDOG=1"
        with busy.doing("an inference", SHA):
            for _ in range(9):
                dog.beat()
                dog.look()
        assert ended.is_set()
        for _ in range(8):
            assert manager.recv(4096) == b"WATCHDOG=1"
        manager.settimeout(0)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
    finally:
        faulthandler.cancel_dump_traceback_later()


def test_without_a_service_manager_nothing_is_sent_and_nothing_fails(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.notify(notify.READY)
    for name in ("relative", str(tmp_path / "nobody")):
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert not notify.notify(notify.READY)
