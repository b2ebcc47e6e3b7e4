"""Whose making a failure is, and what its reader is told."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from schemas.job import JobCause
from workers import memory, missing
from workers.blame import blame, is_broken_link, is_collective_timeout, place, user_code
from workers.errors import JobFailed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The user's folder: where the process runs, and first on its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure_of_import(module: str) -> JobFailed:
    with pytest.raises(JobFailed) as caught, user_code():
        importlib.import_module(module)
    return caught.value


def test_a_wrong_import_names_file_line_and_what_to_do(folder: Path) -> None:
    (folder / "their_task.py").write_text("import os\n\nimport xgbost\n")
    found = failure_of_import("their_task")
    assert found.cause is JobCause.USER_CODE
    assert found.detail == (
        "their_task.py:3: No module named 'xgbost'; "
        "give the folder a requirements.txt that names xgbost"
    )
    (folder / "requirements.txt").write_text("xgboost>=2\n# xgbost\n")
    assert failure_of_import("their_task").detail.endswith(
        "requirements.txt does not name xgbost: add it"
    )
    (folder / "requirements.txt").write_text("Xgbost==1.0\n")
    assert "requirements.txt names xgbost, which does not bring it" in (
        failure_of_import("their_task").detail
    )


def test_a_module_goes_by_its_packages_name(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("torch\n")
    assert missing.advice("sklearn.svm", tmp_path) == (
        "requirements.txt does not name scikit-learn: add it"
    )
    (tmp_path / "nets").mkdir()
    assert missing.advice("nets.small", tmp_path) == (
        "nets is in the folder, nets.small is not in it"
    )


def test_an_error_is_told_by_the_innermost_line_of_the_users_own(folder: Path) -> None:
    (folder / "helper.py").write_text("import torch\n\n\ndef f(x):\n    return torch.ones(x, -1)\n")
    (folder / "own_task.py").write_text("import helper\n\nhelper.f(2)\n")
    found = failure_of_import("own_task")
    assert found.detail.startswith("helper.py:5: RuntimeError: Trying to create tensor")
    (folder / "broken_task.py").write_text("x = 1\ny = (\n")
    assert failure_of_import("broken_task").detail.startswith("broken_task.py:2: SyntaxError")


def test_a_file_elsewhere_keeps_its_whole_path(folder: Path) -> None:
    assert place(str(folder / "a" / "b.py")) == "a/b.py"
    assert place("/elsewhere/b.py") == "/elsewhere/b.py"


def test_an_error_in_a_loading_process_is_told_by_its_own_traceback(folder: Path) -> None:
    text = (
        "Caught ValueError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        f'  File "{torch.__file__}", line 9, in fetch\n'
        f'  File "{folder}/their.py", line 12, in __getitem__\n'
        "    raise ValueError\n"
        "ValueError: no such image\n"
    )
    found = blame(ValueError(text))
    assert (found.cause, found.detail) == (
        JobCause.USER_CODE,
        "their.py:12: ValueError: no such image",
    )


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError(), memory.HOST_ADVICE),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), memory.DEVICE_ADVICE),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate"),
            memory.HOST_ADVICE,
        ),
        (OSError(12, "Cannot allocate memory"), memory.HOST_ADVICE),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "loader_workers"),
    ],
)
def test_memory_that_ran_out_is_named_with_what_to_do(error: Exception, advice: str) -> None:
    found = blame(error)
    assert found.cause is JobCause.OUT_OF_MEMORY
    assert "out of memory" in found.detail
    assert advice in found.detail


def test_a_real_allocation_that_is_too_large_is_named_with_its_line(folder: Path) -> None:
    (folder / "large.py").write_text("import torch\nx = torch.empty(1 << 55)\n")
    found = failure_of_import("large")
    assert found.cause is JobCause.OUT_OF_MEMORY
    assert found.detail.startswith("large.py:2: out of memory: RuntimeError")


def test_other_errors_are_not_taken_for_memory() -> None:
    for error in (ValueError("unable to allocate a seat"), RuntimeError("shape"), OSError(2, "no")):
        assert memory.ran_out(error) is None


def test_a_lost_worker_is_not_blamed_on_the_code_in_which_it_was_noticed() -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    with pytest.raises(RuntimeError, match="Read error") as caught, user_code():
        raise lost
    assert caught.value is lost
    assert not is_collective_timeout(lost)
    with pytest.raises(JobFailed), user_code():
        raise ValueError
    assert not is_broken_link(ValueError("connection reset"))


def test_a_collective_that_timed_out_is_a_hang() -> None:
    error = RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 9000ms")
    assert is_collective_timeout(error)
    assert blame(error).cause is JobCause.HUNG


def test_a_limit_grants_what_the_process_has_mapped_before() -> None:
    gib = memory.GIB
    assert memory.data_limit(2 * gib, resident=gib // 2, data=3 * gib) == 3 * gib + 3 * gib // 2
    with pytest.raises(JobFailed, match=r"memory_gb is 0.25, and a worker takes 0.5 before"):
        memory.data_limit(gib // 4, resident=gib // 2, data=gib)


def test_the_kernels_kills_are_counted(tmp_path: Path) -> None:
    stat = tmp_path / "vmstat"
    assert memory.kernel_kills(stat) == 0
    stat.write_text("nr_free_pages 12\noom_kill 3\n")
    assert memory.kernel_kills(stat) == 3
