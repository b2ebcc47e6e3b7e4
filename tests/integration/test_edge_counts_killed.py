"""SIGKILL at any statement: the windows of a device sum exactly to what its processes served."""

from __future__ import annotations

import secrets
import signal
import struct
import subprocess
import sys

import pytest

from edge_client.live_counts import live_counts
from edge_client.recorder import Recorder
from edge_client.settings import Home
from edge_client.telemetry import Windows
from edge_client.telemetry_buffer import Buffer
from tests.fakes.edge_windows import counted, serve

pytestmark = pytest.mark.integration

PROCESSES = 24


def started(home, tally, seed, stop) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.fakes.edge_counter", str(home.root), str(tally)]
    return subprocess.Popen([*command, str(seed), str(stop)], stderr=subprocess.PIPE)


def last(tally) -> tuple[int, int]:
    """What a process said last that it had counted."""
    raw = tally.read_bytes() if tally.exists() else b""
    raw = raw[: len(raw) // 16 * 16]
    return struct.unpack("<QQ", raw[-16:]) if raw else (0, 0)


def sums(home) -> tuple[int, int, list]:
    buffer = Buffer(home.telemetry)
    keeper = Recorder(home, boot=secrets.token_hex(16), windows=Windows(), buffer=buffer)
    keeper.recover()
    assert keeper.recover() == 0, "a repeat finds nothing"
    keeper.close()
    rows = buffer.waiting(100_000)
    buffer.close()
    keys = [(row.about, row.window.seq) for row in rows]
    assert len(keys) == len(set(keys))
    assert all(row.window.dropped == 0 for row in rows)
    return sum(r.window.n for r in rows), sum(r.window.errors for r in rows), rows


def test_kills_at_any_statement_lose_and_double_nothing(tmp_path):
    """Several processes side by side, each killed before some statement, and begun anew.

    A kill does not come between an inference and its line in the tally: they stop at statements.
    """
    home = Home(tmp_path / "home")
    home.root.mkdir()
    n = errors = 0
    for first in range(0, PROCESSES, 4):
        running = []
        for seed in range(first, first + 4):
            # From the first statement that opens the file to many cuts later.
            stop = 5 + seed * 3 if seed % 2 else 40 + seed * 17
            tally = tmp_path / f"tally{seed}"
            running.append((started(home, tally, seed, stop), tally))
        for process, tally in running:
            _, error = process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL, error.decode()
            counts = last(tally)
            n, errors = n + counts[0], errors + counts[1]
    found_n, found_errors, rows = sums(home)
    assert n > 500
    assert (found_n, found_errors) == (n, errors)
    assert any(row.window.lost for row in rows), "some were killed with something not in windows"
    assert list(home.live_counts.iterdir()) == []


def test_others_counts_are_seen_while_they_live_and_recovered_when_they_do_not(tmp_path):
    home = Home(tmp_path)
    mine = Windows()
    buffer = Buffer(home.telemetry)
    keeper = Recorder(home, boot="a" * 32, windows=mine, buffer=buffer)
    serve(mine, counted(1), n=7)
    script = (
        "import sys, pathlib\n"
        "from edge_client.recorder import Recorder\n"
        "from edge_client.settings import Home\n"
        "from edge_client.telemetry import Windows\n"
        "from tests.fakes.edge_windows import counted, serve\n"
        "windows = Windows()\n"
        "keeper = Recorder(Home(pathlib.Path(sys.argv[1])), boot='b' * 32, windows=windows)\n"
        "serve(windows, counted(1), n=3)\n"
        "windows.failed(counted(1), 2)\n"
        "windows.shed(counted(1), 4)\n"
        "print('served', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"served\n"
        sha256 = counted(1).slot.sha256
        assert live_counts(home.live_counts) == {sha256: (5, 2)}, "others', not one's own"
        assert keeper.recover() == 0, "it lives"
        other.kill()
        other.wait(10)
        assert live_counts(home.live_counts) == {}
        assert keeper.recover() == 1
    (row,) = buffer.waiting(10)
    window = row.window
    assert (window.n, window.errors, window.lost, window.shed) == (5, 2, 3, 4)
    keeper.cut()
    assert sum(r.window.n for r in buffer.waiting(10)) == 12
