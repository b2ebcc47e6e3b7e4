"""What a user's folder does to the processes it runs in, and what a crash leaves behind."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pyarrow.fs import LocalFileSystem

from schemas.job import JobCause
from tests.unit.workers.blobs import Quitting, spec_of
from workers.blame import user_code
from workers.distributed.durable import write_record
from workers.distributed.logs import Capture
from workers.distributed.reservations import NOBODYS
from workers.errors import JobFailed
from workers.files import STALE_SECONDS, drop_stale
from workers.order import JOB_TOKEN, MARK
from workers.training import loop
from workers.training.feed import fetch
from workers.training.local import LocalEngine


def test_a_task_that_ends_its_process_fails_with_its_line() -> None:
    spec = spec_of(task="tests.unit.workers.blobs:Quitting")
    with pytest.raises(JobFailed, match=r"blobs.py:\d+: SystemExit: done after") as failed:
        loop.run(Quitting({}, 0), spec, LocalEngine("accuracy"))
    assert failed.value.cause is JobCause.USER_CODE


def test_an_operators_interrupt_passes_through_user_code() -> None:
    with pytest.raises(KeyboardInterrupt), user_code():
        raise KeyboardInterrupt


def test_samples_with_gradients_are_only_data() -> None:
    weight = torch.ones(2, requires_grad=True)
    x, y = fetch([(weight * 2, 1), (weight * 3, 0)], torch.arange(2).numpy())
    assert not x.requires_grad
    assert (x.tolist(), y.tolist()) == ([[2, 2], [3, 3]], [1, 0])


def test_streams_of_a_task_are_those_of_any_process(monkeypatch) -> None:
    said: list[str] = []
    out = io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    capture = Capture(lambda _, text: said.append(text))
    capture.start()
    sys.stdout.reconfigure(line_buffering=True)
    sys.stdout.buffer.write(b"bytes\n")
    sys.stdout.close()
    sys.stdout.write("still here\n")
    capture.stop()
    assert said == ["still here"]
    assert out.buffer.getvalue() == b"bytes\nstill here\n"


def manager_of(folder: Path, record: str) -> SimpleNamespace:
    checkpoint = folder / "checkpoint_1"
    checkpoint.mkdir(exist_ok=True)
    (checkpoint / "checkpoint.pt").write_bytes(b"weights")
    context = SimpleNamespace(
        storage_filesystem=LocalFileSystem(),
        checkpoint_manager_snapshot_path=str(folder / "record.json"),
    )
    return SimpleNamespace(
        _storage_context=context,
        _save_state=lambda: record,
        latest_checkpoint_result=SimpleNamespace(checkpoint=SimpleNamespace(path=str(checkpoint))),
    )


def test_a_record_of_checkpoints_is_the_old_or_the_new(tmp_path, monkeypatch) -> None:
    path = tmp_path / "record.json"
    write_record(manager_of(tmp_path, "old"))
    assert path.read_text() == "old"

    def full(handle: int) -> None:
        if not Path(f"/proc/self/fd/{handle}").readlink().name.startswith("checkpoint"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_record(manager_of(tmp_path, "new"))
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_1", "record.json"]


def test_what_killed_processes_left_goes_and_what_is_being_made_stays(tmp_path) -> None:
    for name in (".new-old", ".gone-old", ".new-now", "whole"):
        (tmp_path / name / "deep").mkdir(parents=True)
    long_ago = time.time() - STALE_SECONDS - 60
    for name in (".new-old", ".gone-old", "whole"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    drop_stale(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".new-now", "whole"]


def test_what_all_jobs_share_has_no_jobs_mark_and_token() -> None:
    assert NOBODYS[MARK] == NOBODYS[JOB_TOKEN] == ""
