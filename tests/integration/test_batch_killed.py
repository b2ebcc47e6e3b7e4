"""``argosy-edge batch`` as a process: killed and begun again, interrupted, within its memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.edge_installed import flat_onnx, install, release_of
from tests.fakes.edge_models import linear_onnx, release, samples

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROWS = 120_000
SLOW_PARTS = "import edge_client.batch_run as b; b.PART_ROWS = 4000"
"""Parts that are small enough for a kill between them."""

TELL_MEMORY = (
    "import atexit, sys;atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read()))"
)
"""The most memory that it had, as its last words."""


def begin(home: Path, source: Path, out: Path, *more: str, before: str = SLOW_PARTS):
    code = f"{before}; from edge_client.cli import main; main()"
    words = ["batch", "digits", str(source), str(out), "--home", str(home), *more]
    return subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)


def parts(out: Path) -> int:
    work = out.with_name(f"{out.name}.parts")
    return len(list(work.glob("part-*"))) if work.exists() else 0


def until(done, process, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_at_any_time_it_comes_to_the_same_results(tmp_path) -> None:
    home = install(tmp_path / "home", release(linear_onnx(3, log_input=True)))
    x = samples(ROWS)
    x[[5, 30_000, ROWS - 1]] *= -1
    np.save(tmp_path / "x.npy", x)
    whole = begin(home.root, tmp_path / "x.npy", tmp_path / "whole.csv")
    assert whole.wait(60) == 7, whole.stderr.read()
    out, kills = tmp_path / "out.csv", 0
    for lead in (2, 5, 1, 3):
        had = parts(out)
        process = begin(home.root, tmp_path / "x.npy", out)
        until(lambda had=had, lead=lead: parts(out) >= had + lead, process)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait(10)
        assert parts(out) >= had
    assert kills >= 3
    last = begin(home.root, tmp_path / "x.npy", out)
    assert last.wait(60) == 7
    assert "going on with row" in last.stderr.read()
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    errors = (tmp_path / "out.csv.errors.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in errors] == ["row", "5", "30000", str(ROWS - 1)]


def test_an_interrupt_says_how_to_go_on(tmp_path) -> None:
    home = install(tmp_path / "home", release(linear_onnx(3)))
    np.save(tmp_path / "x.npy", samples(ROWS))
    out = tmp_path / "out.jsonl"
    process = begin(home.root, tmp_path / "x.npy", out)
    until(lambda: parts(out) >= 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    said = process.stderr.read()
    assert "the same command goes on" in said
    assert "Traceback" not in said


def test_an_input_larger_than_its_memory(tmp_path) -> None:
    size = 65_536  # a row has 256 KiB
    golden = np.ones((2, size), np.float32)
    home = install(tmp_path / "home", release_of(flat_onnx((size,)), golden))
    source = tmp_path / "x.npy"
    rows = 2500
    with source.open("wb") as file:  # 640 MiB of zeros, which take no room on the disk
        head = {"descr": "<f4", "fortran_order": False, "shape": (rows, size)}
        np.lib.format.write_array_header_1_0(file, head)
        file.truncate(file.tell() + rows * size * 4)
    process = begin(home.root, source, tmp_path / "out.npz", "--no-telemetry", before=TELL_MEMORY)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    # Not ru_maxrss, which begins with what the process that started it had.
    assert int(told.rpartition("VmHWM:")[2].split()[0]) < 300 * 1024  # KiB
    assert len(np.load(tmp_path / "out.npz")["class"]) == rows
