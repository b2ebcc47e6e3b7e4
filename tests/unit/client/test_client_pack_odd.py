"""Folders that hold what no folder of code should, and disks that have no room."""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from orchestrator.client import pack
from orchestrator.client.pack import packed
from orchestrator.errors import Invalid, TooLarge, Unavailable
from workers.agent import code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text("class T: ...\n")
    return tmp_path


def test_what_is_no_file_is_named_and_nobody_waits_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(Invalid, match="pipe is neither a file nor a folder"), packed(folder):
        pass
    (folder / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as its:
        its.bind(str(folder / "socket"))
        with pytest.raises(Invalid, match="socket is neither"), packed(folder):
            pass
    (folder / "socket").unlink()
    (folder / "zero").symlink_to("/dev/zero")
    with pytest.raises(Invalid, match="leads out of"), packed(folder):
        pass
    (folder / "zero").unlink()
    os.mkfifo(folder / ".gitignore")
    with packed(folder) as found:
        assert found.names == ("task.py",)


def test_names_of_every_script_and_case_travel(folder: Path) -> None:
    odd = ["A.py", "a.py", "\u00e9.py", "e\u0301.py", "\u65e5\u672c.py", "two words.py"]
    for name in odd:
        (folder / name).write_text(name)
    digests = set()
    for _ in range(2):
        with packed(folder) as found:
            digests.add(found.code.sha256)
            assert set(found.names) == {*odd, "task.py"}
    assert len(digests) == 1


def test_a_full_disk_is_not_blamed_on_the_code(folder: Path) -> None:
    (folder / "data.bin").write_bytes(os.urandom(300_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(Unavailable, match="the archive cannot be written in"), packed(folder):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_no_agent_would_unpack_is_not_sent(folder: Path) -> None:
    assert (pack.MAX_RATIO, pack.FREE_BYTES) == (code.MAX_RATIO, code._FREE)
    with (folder / "zeros").open("wb") as file:
        file.truncate(120 * 1024**2)
    with pytest.raises(TooLarge, match="120 MiB are nearly all the same byte"), packed(folder):
        pass
